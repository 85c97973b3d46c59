"""The targets: bounds on a metric relative to another contender's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["TARGETS", "Target"]

Bound: TypeAlias = Literal["at least", "at most"]


@dataclass(frozen=True)
class Target:
    """``metric`` of ``contender`` is ``bound`` ``factor`` times that of ``reference``."""

    metric: str
    contender: str
    bound: Bound
    factor: float
    reference: str

    def is_reached(self, ratio: float) -> bool:
        return ratio >= self.factor if self.bound == "at least" else ratio <= self.factor


TARGETS = (
    Target("flood chunks/s", "fast-lane", "at least", 2.5, "pass-through"),
    Target("flood CPU", "fast-lane", "at most", 0.4, "pass-through"),
    Target("paced CPU", "fast-lane", "at most", 0.35, "pass-through"),
    Target("paced p99", "fast-lane", "at most", 1.0, "pass-through"),
    Target("plain CPU", "fast-lane", "at most", 0.65, "pass-through"),
    Target("plain requests/s", "fast-lane", "at least", 1.5, "pass-through"),
    Target("ttft median", "fast-lane", "at most", 1.2, "pass-through"),
    Target("memory", "fast-lane", "at most", 1.3, "pass-through"),
    Target("plain CPU", "fast-lane-redis", "at most", 1.0, "pass-through"),
    Target("flood CPU", "fast-lane-redis", "at most", 0.5, "pass-through"),
    Target("plain CPU", "fast-lane-usage", "at most", 1.0, "pass-through"),
    Target("paced CPU", "completions-stored", "at most", 1.3, "ours"),
    Target("flood CPU", "completions-stored", "at most", 1.3, "ours"),
    Target("paced CPU", "responses-stored", "at most", 1.3, "responses"),
    Target("flood CPU", "responses-stored", "at most", 1.3, "responses"),
    Target("paced CPU", "session", "at most", 1.3, "ours"),
    Target("flood CPU", "session", "at most", 1.3, "ours"),
    Target("flood CPU", "litellm", "at least", 35.0, "fast-lane"),
    Target("plain CPU", "litellm", "at least", 15.0, "fast-lane"),
    Target("flood chunks/s", "ours", "at least", 2.0, "handwritten"),
    Target("flood chunks/s", "ours", "at least", 0.9, "pass-through"),
    Target("flood CPU", "ours", "at most", 0.6, "handwritten"),
    Target("paced CPU", "ours", "at most", 0.75, "handwritten"),
    Target("paced p99", "ours", "at most", 1.0, "handwritten"),
    Target("plain CPU", "ours", "at most", 1.0, "handwritten"),
    Target("ttft median", "ours", "at most", 1.0, "handwritten"),
    Target("memory", "ours", "at most", 1.0, "handwritten"),
    Target("flood CPU", "litellm", "at least", 12.0, "ours"),
    Target("plain CPU", "litellm", "at least", 5.0, "ours"),
    Target("flood CPU", "ours-plain", "at most", 0.9, "handwritten"),
    Target("paced CPU", "ours-plain", "at most", 1.0, "handwritten"),
    Target("plain CPU", "ours-plain", "at most", 1.1, "handwritten"),
)
