"""Ask several backends the same, all at once, and wait for none of them longer than a while."""

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
    """What one backend has said: ``values`` has it, unless there was an ``error``."""

    values: tuple[T, ...]
    error: Exception | None
    latency_ms: float


def survey(
    ask: Callable[[BaseBackend], T], aliases: Iterable[str], within: float
) -> dict[str, Answer[T]]:
    """What ``ask`` gives for each backend, in the order of ``aliases``. One that takes longer than
    ``within`` seconds is given up, in the middle of a blocking read too, with an
    :class:`~django_ollama_openai.exceptions.UpstreamTimeout`."""
    started = time.perf_counter()
    late = UpstreamTimeout(f"There was no answer within {within:g} seconds.")
    report: dict[str, Answer[T]] = dict.fromkeys(aliases, Answer((), late, within * 1000))
    asks = {alias: partial(ask, backends[alias]) for alias in report}
    for alias, found in fan_out(asks, within):
        error, values = (found, ()) if isinstance(found, Exception) else (None, (found,))
        report[alias] = Answer(values, error, elapsed_ms(started))
    return report
