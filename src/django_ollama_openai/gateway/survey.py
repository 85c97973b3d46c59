"""Ask several backends the same, all at once, and wait for none of them longer than a while."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..backends import BaseBackend, backends
from ..exceptions import UpstreamTimeout
from ..pump import End, Pump

__all__ = ["Answer", "elapsed_ms", "survey"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Answer(Generic[T]):
    """What one backend has said: ``values`` has it, unless there was an ``error``."""

    values: tuple[T, ...]
    error: BaseException | None
    latency_ms: float


def survey(
    ask: Callable[[BaseBackend], T], aliases: Iterable[str], within: float
) -> dict[str, Answer[T]]:
    """What ``ask`` gives for each backend, in the order of ``aliases``. One that takes longer than
    ``within`` seconds is given up, in the middle of a blocking read too, with an
    :class:`~django_ollama_openai.exceptions.UpstreamTimeout`."""
    answers: queue.SimpleQueue[tuple[str, Answer[T]]] = queue.SimpleQueue()
    started = time.perf_counter()
    pumps = {alias: _asked(alias, ask, started, answers) for alias in aliases}
    late = UpstreamTimeout(f"There was no answer within {within:g} seconds.")
    report: dict[str, Answer[T]] = dict.fromkeys(pumps, Answer((), late, within * 1000))
    waiting = set(pumps)
    try:
        while waiting:
            left = within - (time.perf_counter() - started)
            alias, answer = answers.get(timeout=max(0, left))
            report[alias] = answer
            waiting.discard(alias)
    except queue.Empty:
        pass
    finally:
        for alias in waiting:
            pumps[alias].cancel()
    return report


def _asked(
    alias: str,
    ask: Callable[[BaseBackend], T],
    started: float,
    answers: queue.SimpleQueue[tuple[str, Answer[T]]],
) -> Pump[T]:
    """Ask one backend, in a thread that can be left alone when it takes too long."""
    backend = backends[alias]
    values: list[T] = []

    def answered(item: T | End) -> None:
        if isinstance(item, End):
            answers.put((alias, Answer(tuple(values), item.error, elapsed_ms(started))))
        else:
            values.append(item)

    pump: Pump[T] = Pump(lambda: iter([ask(backend)]), answered)
    pump.start()
    return pump


def elapsed_ms(started: float) -> float:
    """Milliseconds since ``started``, which :func:`time.perf_counter` gave."""
    return round((time.perf_counter() - started) * 1000, 1)
