"""Make several calls at once, within a time limit."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable, Mapping
from typing import Any, TypeAlias, TypeVar

from .._cancellation import interruptible
from .._pump import EndOfStream, Pump

__all__ = ["afan_out", "elapsed_ms", "fan_out"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[K, T | Exception] | None]"


def fan_out(
    calls: Mapping[K, Callable[[], T]], seconds: float
) -> Generator[tuple[K, T | Exception]]:
    """Yield the key of each of ``calls`` and its result or exception, as they arrive. A call that
    takes longer than ``seconds`` is abandoned and left out; closing the generator abandons all."""
    arrivals: _Arrivals[K, T] = queue.SimpleQueue()
    end = time.monotonic() + seconds
    pumps = {key: _start(key, call, arrivals) for key, call in calls.items()}
    try:
        while pumps:
            try:
                with interruptible(lambda: arrivals.put(None)):
                    arrival = arrivals.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return
            if arrival is not None:
                key, result = arrival
                del pumps[key]
                yield key, result
    finally:
        for pump in pumps.values():
            pump.cancel()


def _start(key: K, call: Callable[[], T], arrivals: _Arrivals[K, T]) -> Pump[Any]:
    """Start ``call`` in a thread that can be abandoned."""

    def items() -> Any:
        arrivals.put((key, call()))
        return iter(())

    def deliver(item: Any | EndOfStream) -> None:
        if isinstance(item, EndOfStream) and isinstance(item.error, Exception):
            arrivals.put((key, item.error))

    pump: Pump[Any] = Pump(items, deliver)
    pump.start()
    return pump


async def afan_out(
    calls: Mapping[K, Callable[[], Awaitable[T]]], seconds: float
) -> AsyncGenerator[tuple[K, T | Exception]]:
    """Async version of :func:`fan_out`, with tasks. The caller must close the generator."""

    async def result_of(key: K, call: Callable[[], Awaitable[T]]) -> tuple[K, T | Exception]:
        try:
            return key, await call()
        except Exception as error:
            return key, error

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    tasks = [asyncio.create_task(result_of(key, call)) for key, call in calls.items()]
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
    """Return the milliseconds since ``started``, a value of :func:`time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 1)
