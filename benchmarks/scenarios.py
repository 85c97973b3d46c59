"""The scenarios and their metrics."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from .contenders import KEY, Contender
from .load import Job, Result
from .processes import ROOT, BenchmarkError, Served, module
from .upstream import PACE_SECONDS

__all__ = ["METRICS", "SCENARIOS", "Metric", "Scenario", "measure", "measure_memory", "warm_up"]


@dataclass(frozen=True)
class Metric:
    """A metric; ``key`` begins with the name of its scenario."""

    key: str
    title: str

    @property
    def scenario(self) -> str:
        return self.key.partition(" ")[0]


@dataclass(frozen=True)
class Scenario:
    """A load, and what its result says; the second argument is CPU time in seconds."""

    mode: str
    tokens: int
    stream: bool
    requests: int
    at_a_time: int
    figures: Callable[[Result, float], dict[str, float]]

    def job(self, contender: Contender, served: Served, requests: int | None = None) -> Job:
        requests = requests or self.requests
        first = next(_first_numbers)
        return Job(
            port=served.port,
            path=contender.path,
            key=KEY,
            dialect=contender.dialect,
            mode=self.mode,
            tokens=self.tokens,
            stream=self.stream,
            requests=requests,
            at_a_time=min(self.at_a_time, requests),
            fields=dict(contender.fields),
            first=first,
        )


def _flood(result: Result, cpu: float) -> dict[str, float]:
    streams = len(result.durations)
    return {
        "flood chunks/s": streams * SCENARIOS["flood"].tokens / result.elapsed,
        "flood CPU": 1000 * cpu / streams,
    }


def _paced(result: Result, cpu: float) -> dict[str, float]:
    durations = sorted(result.durations)
    p99 = durations[-1 - len(durations) // 100]
    return {
        "paced CPU": 1000 * cpu / len(durations),
        "paced p99": p99,
        "paced late": 1000 * (p99 - SCENARIOS["paced"].tokens * PACE_SECONDS),
    }


def _plain(result: Result, cpu: float) -> dict[str, float]:
    requests = len(result.durations)
    return {"plain requests/s": requests / result.elapsed, "plain CPU": 1000 * cpu / requests}


def _first_token(result: Result, cpu: float) -> dict[str, float]:
    return {"ttft median": 1000 * statistics.median(result.first_tokens)}


SCENARIOS = {
    "flood": Scenario("flood", 100, True, 192, 16, _flood),
    "paced": Scenario("paced", 100, True, 100, 100, _paced),
    "plain": Scenario("flood", 100, False, 600, 8, _plain),
    "ttft": Scenario("flood", 10, True, 150, 1, _first_token),
}
#: The first number of each job, so that no two of them send a request with the same number.
_first_numbers = itertools.count(0, 1_000)
_LOAD_FAILED = "The load generator failed; the reason stands above."
_HELD = Scenario("hold", 1, True, 500, 500, lambda result, cpu: {})

METRICS = (
    Metric("flood chunks/s", "Flood: chunks/s"),
    Metric("flood CPU", "Flood: CPU ms per stream"),
    Metric("flood CPU of store", "Flood: CPU ms of the store"),
    Metric("paced CPU", "Paced: CPU ms per stream"),
    Metric("paced CPU of store", "Paced: CPU ms of the store"),
    Metric("paced p99", "Paced: p99 of a stream, s"),
    Metric("paced late", "Paced: p99 beyond the engine's own time, ms"),
    Metric("plain requests/s", "Plain: requests/s"),
    Metric("plain CPU", "Plain: CPU ms per request"),
    Metric("plain CPU of store", "Plain: CPU ms of the store"),
    Metric("ttft median", "TTFT, ms"),
    Metric("memory", "KiB per open stream"),
)


def measure(
    scenario: Scenario, contender: Contender, served: Served, share: float = 1
) -> dict[str, float]:
    """Return the figures of one run of ``scenario``, with the fraction ``share`` of its
    requests."""
    job = scenario.job(contender, served, max(1, round(scenario.requests * share)))
    before, store_before = served.cpu_seconds(), served.store_cpu_seconds()
    result = _do(job)
    figures = scenario.figures(result, served.cpu_seconds() - before)
    if store_before is not None and (store_after := served.store_cpu_seconds()) is not None:
        of_store = scenario.figures(result, store_after - store_before)
        figures |= {f"{key} of store": of_store[key] for key in figures if key.endswith(" CPU")}
    return figures


def warm_up(contender: Contender, served: Served) -> None:
    """Send requests until all lazy imports and connections are done."""
    for name in ("flood", "plain"):
        _do(SCENARIOS[name].job(contender, served, 32))


def measure_memory(contender: Contender, served: Served) -> dict[str, float]:
    """Return the memory of each open stream, in a process that was started and warmed up for
    it."""
    warm_up(contender, served)
    job = _HELD.job(contender, served)
    before = served.private_kilobytes()
    process = subprocess.Popen(
        _command(job), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        try:
            if process.stdout.readline() != "open\n":
                raise BenchmarkError(_LOAD_FAILED)
            held = served.private_kilobytes() - before
        finally:
            process.stdin.close()
            process.stdout.read()
    if process.returncode:
        raise BenchmarkError(_LOAD_FAILED)
    return {"memory": held / job.requests}


def _do(job: Job) -> Result:
    completed = subprocess.run(
        _command(job), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    if completed.returncode:
        raise BenchmarkError(_LOAD_FAILED)
    return Result(**json.loads(completed.stdout))


def _command(job: Job) -> list[str]:
    return module("benchmarks.load", json.dumps(dataclasses.asdict(job)))
