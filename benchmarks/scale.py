"""Compare a site that has ten keys with a large one: ``python -m benchmarks.scale``.

It measures what a request needs, and pages of the admin and of the APIs, in SQLite and PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from tests.database_servers import running_server

from .contenders import KEY, WithAccess, contenders
from .processes import ROOT, BenchmarkError, module
from .report import table

__all__ = ["main"]

DATABASES = ("sqlite", "postgresql")
SMALL = (10, 10)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--workspaces", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=200, help="of each operation")
    parser.add_argument("--only", choices=DATABASES, help="the database; both if absent")
    arguments = parser.parse_args()
    large = (arguments.keys, arguments.workspaces)
    known = contenders(litellm=None)
    for kind in DATABASES if arguments.only is None else (arguments.only,):
        contender = known[f"fast-lane-{kind}"]
        assert isinstance(contender, WithAccess)
        missing = [*contender.missing(), *known["fast-lane-redis"].missing()]
        if missing:
            print(f"{kind} is left out without {', '.join(missing)}.", file=sys.stderr)
            continue
        try:
            results = [_measured(contender, size, arguments.samples) for size in (SMALL, large)]
        except BenchmarkError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
        print(f"{kind}: milliseconds with {SMALL[0]} keys and with {large[0]:,}\n")
        print(_report(*results), end="\n\n")
    return 0


def _measured(contender: WithAccess, size: tuple[int, int], samples: int) -> dict[str, Any]:
    command = module("benchmarks.site.large", *map(str, (*size, samples)))
    with contender.settings() as (settings, _), running_server("redis") as redis:
        environment = {
            **os.environ,
            **settings,
            "BENCHMARK_UPSTREAM": "",
            "BENCHMARK_KEY": KEY,
            "BENCHMARK_REDIS": redis.url,
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BenchmarkError(f"{command!r} failed; the reason stands above.")
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def _report(small: dict[str, Any], large: dict[str, Any]) -> str:
    head = ["Operation", "Median", "Large", "p99", "Large", "Reads all of"]
    rows = []
    for title, result in large.items():
        before, after = small[title]["durations"], result["durations"]
        figures = [
            f"{of(each):.2f}" for of in (statistics.median, _p99) for each in (before, after)
        ]
        rows.append([title, *figures, ", ".join(result["scans"])])
    return table(head, rows)


def _p99(durations: list[float]) -> float:
    return sorted(durations)[-1 - len(durations) // 100]


if __name__ == "__main__":
    sys.exit(main())
