"""Tables in reStructuredText, as the documentation has them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from .scenarios import METRICS, Metric
from .targets import TARGETS

__all__ = ["Samples", "report"]

Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]
"""Contender → metric → a figure for each round."""

Medians: TypeAlias = dict[str, dict[str, float]]

_REFERENCES = ("handwritten", "pass-through")
_PACKAGES = (
    "django-ollama-openai",
    "django",
    "ollama",
    "httpx",
    "httpx-aiohttp",
    "aiohttp",
    "orjson",
    "pydantic",
    "uvicorn",
    "h11",
    "httptools",
    "uvloop",
)


def report(samples: Samples, rounds: int, versions: Sequence[str]) -> str:
    """All tables, and what they were measured on; ``versions`` are those installed elsewhere."""
    medians = {
        contender: {metric: statistics.median(figures) for metric, figures in of.items()}
        for contender, of in samples.items()
    }
    metrics = [metric for metric in METRICS if any(metric.key in of for of in medians.values())]
    sections = [
        _environment(versions),
        f"Medians of {rounds} rounds; the CPU time of ``direct`` is the engine's own",
        _table(
            ["Figure", *medians],
            (
                [metric.title, *(_figure(of.get(metric.key)) for of in medians.values())]
                for metric in metrics
            ),
        ),
    ]
    if rounds > 1:
        sections += [
            "From the smallest to the largest of the rounds, in percent of the median",
            _table(
                ["Figure", *medians],
                (
                    [metric.title, *(_spread(of.get(metric.key)) for of in samples.values())]
                    for metric in metrics
                ),
            ),
        ]
    for reference in _REFERENCES:
        if reference in medians:
            sections += [f"As a multiple of {reference}", _ratios(medians, metrics, reference)]
    if reached := _targets(medians):
        table = _table(["Figure", "Contender", "Target", "Measured", "Result"], reached)
        sections += ["Targets", table]
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


def _ratios(medians: Medians, metrics: Iterable[Metric], reference: str) -> str:
    rows = []
    for metric in metrics:
        base = medians[reference].get(metric.key)
        figures = [of.get(metric.key) for of in medians.values()]
        rows.append(
            [metric.title, *("" if f is None or not base else f"{f / base:.2f}" for f in figures)]
        )
    return _table(["Figure", *medians], rows)


def _targets(medians: Medians) -> list[list[str]]:
    titles = {metric.key: metric.title for metric in METRICS}
    rows = []
    for target in TARGETS:
        figure = medians.get(target.contender, {}).get(target.metric)
        base = medians.get(target.reference, {}).get(target.metric)
        if figure is None or not base:
            continue
        ratio = figure / base
        rows.append(
            [
                titles[target.metric],
                target.contender,
                f"{target.bound} {target.factor:g} × {target.reference}",
                f"{ratio:.2f}",
                "reached" if target.is_reached(ratio) else "not reached",
            ]
        )
    return rows


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _spread(figures: Sequence[float] | None) -> str:
    if not figures or not (median := statistics.median(figures)):
        return ""
    return f"{100 * (max(figures) - min(figures)) / median:.0f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # An empty first column would continue the row above; the others may be empty.
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) or 1 for column in zip(*cells, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
