"""Write the results as reStructuredText tables for the documentation."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from .scenarios import METRICS, Metric
from .targets import TARGETS

__all__ = ["Samples", "report", "table"]

#: For each contender and metric, the figures of all rounds.
Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]

_REFERENCES = ("handwritten", "pass-through")
_PACKAGES = (
    "django-ollama-openai",
    "django",
    "ollama",
    "httpx",
    "aiohttp",
    "orjson",
    "pydantic",
    "uvicorn",
    "h11",
    "httptools",
    "uvloop",
    "redis",
    "hiredis",
    "psycopg",
)


def report(samples: Samples, rounds: int, versions: Sequence[str]) -> str:
    """Return all tables, and a description of the machine and the versions. ``versions`` are those
    of programs outside this environment."""
    medians = {
        contender: {metric: statistics.median(figures) for metric, figures in of.items()}
        for contender, of in samples.items()
    }
    metrics = [metric for metric in METRICS if any(metric.key in of for of in medians.values())]
    sections = [
        _environment(versions),
        f"Medians of {rounds} rounds; the CPU time of ``direct`` is the engine's own",
        table(
            ["Figure", *medians],
            (
                [metric.title, *(_figure(of.get(metric.key)) for of in medians.values())]
                for metric in metrics
            ),
        ),
    ]
    for reference in _REFERENCES:
        if reference in medians:
            title = f"As a multiple of {reference}; medians of the rounds' ratios"
            sections += [title, table(["Figure", *medians], _ratios(samples, metrics, reference))]
    if reached := _targets(samples):
        head = ["Figure", "Contender", "Target", "Measured", "In the rounds", "Result"]
        sections += ["Targets", table(head, reached)]
    return "\n\n".join(sections)


def _environment(versions: Sequence[str]) -> str:
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    installed = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    packages = ", ".join([*installed, *versions])
    return f"{machine}; Python {platform.python_version()}; {packages}."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _in_each_round(
    samples: Samples, metric: str, contender: str, reference: str
) -> Sequence[float]:
    """Return a figure as a multiple of the reference's, from figures of the same round, since other
    load on the machine affects both.
    """
    figures = samples.get(contender, {}).get(metric, ())
    bases = samples.get(reference, {}).get(metric, ())
    if not figures or not bases or 0 in bases:
        return ()
    return [figure / base for figure, base in zip(figures, bases, strict=True)]


def _ratios(samples: Samples, metrics: Iterable[Metric], reference: str) -> Iterator[Sequence[str]]:
    for metric in metrics:
        of_all = [_in_each_round(samples, metric.key, name, reference) for name in samples]
        # The reference has no store.
        if any(of_all):
            yield [metric.title, *(f"{statistics.median(of):.2f}" if of else "" for of in of_all)]


def _targets(samples: Samples) -> list[Sequence[str]]:
    titles = {metric.key: metric.title for metric in METRICS}
    rows: list[Sequence[str]] = []
    for target in TARGETS:
        ratios = _in_each_round(samples, target.metric, target.contender, target.reference)
        if ratios:
            ratio = statistics.median(ratios)
            row = [
                titles[target.metric],
                target.contender,
                f"{target.bound} {target.factor:g} × {target.reference}",
                f"{ratio:.2f}",
                f"{min(ratios):.2f} – {max(ratios):.2f}",
                "reached" if target.is_reached(ratio) else "not reached",
            ]
            rows.append(row)
    return rows


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in reStructuredText."""
    # An empty first column would continue the row above; other columns may be empty.
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) or 1 for column in zip(*cells, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
