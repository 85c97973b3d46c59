"""Ask several backends something at once, for no longer than so many seconds."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable, Mapping
from typing import Any, TypeAlias, TypeVar

from .._pump import EndOfStream, Pump

__all__ = ["aanswers", "answers", "elapsed_ms"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[K, T | Exception]]"


def answers(
    asks: Mapping[K, Callable[[], T]], seconds: float
) -> Generator[tuple[K, T | Exception]]:
    """What each of ``asks`` returns or raises, as it comes. One that takes longer than ``seconds``
    is left alone, and not among them; so are those left when the reader goes."""
    arrivals: _Arrivals[K, T] = queue.SimpleQueue()
    end = time.monotonic() + seconds
    pumps = {key: _asked(key, ask, arrivals) for key, ask in asks.items()}
    try:
        while pumps:
            try:
                key, answer = arrivals.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return
            del pumps[key]
            yield key, answer
    finally:
        for pump in pumps.values():
            pump.cancel()


def _asked(key: K, ask: Callable[[], T], arrivals: _Arrivals[K, T]) -> Pump[Any]:
    """Ask one, in a thread that can be left alone when it takes too long."""

    def ask_it() -> Any:
        arrivals.put((key, ask()))
        return iter(())

    def ended(item: Any | EndOfStream) -> None:
        if isinstance(item, EndOfStream) and isinstance(item.error, Exception):
            arrivals.put((key, item.error))

    pump: Pump[Any] = Pump(ask_it, ended)
    pump.start()
    return pump


async def aanswers(
    asks: Mapping[K, Callable[[], Awaitable[T]]], seconds: float
) -> AsyncGenerator[tuple[K, T | Exception]]:
    """The same in tasks; its reader closes it."""

    async def asked(key: K, ask: Callable[[], Awaitable[T]]) -> tuple[K, T | Exception]:
        try:
            return key, await ask()
        except Exception as error:
            return key, error

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    tasks = [asyncio.create_task(asked(key, ask)) for key, ask in asks.items()]
    try:
        waiting = set(tasks)
        while waiting:
            arrived, waiting = await asyncio.wait(
                waiting,
                timeout=max(0, end - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not arrived:
                return
            for task in arrived:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def elapsed_ms(started: float) -> float:
    """Milliseconds since ``started``, which :func:`time.perf_counter` gave."""
    return round((time.perf_counter() - started) * 1000, 1)
