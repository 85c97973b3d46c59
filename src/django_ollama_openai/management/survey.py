"""Query several backends concurrently, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from ..backends import BaseBackend, backends
from ..backends._fan_out import elapsed_ms, fan_out
from ..exceptions import UpstreamTimeout

__all__ = ["Answer", "survey"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Answer(Generic[T]):
    """The result of one backend: one value in ``values``, or an ``error``."""

    values: tuple[T, ...]
    error: Exception | None
    latency_ms: float


def survey(
    ask: Callable[[BaseBackend], T], aliases: Iterable[str], within: float
) -> dict[str, Answer[T]]:
    """Return the result of ``ask`` for each backend, by alias, in the order of ``aliases``. After
    ``within`` seconds it is an :class:`~django_ollama_openai.exceptions.UpstreamTimeout`, even if
    a read still blocks."""
    started = time.perf_counter()
    late = UpstreamTimeout(f"There was no answer within {within:g} seconds.")
    report: dict[str, Answer[T]] = dict.fromkeys(aliases, Answer((), late, within * 1000))
    asks = {alias: partial(ask, backends[alias]) for alias in report}
    for alias, found in fan_out(asks, within):
        error, values = (found, ()) if isinstance(found, Exception) else (None, (found,))
        report[alias] = Answer(values, error, elapsed_ms(started))
    return report
