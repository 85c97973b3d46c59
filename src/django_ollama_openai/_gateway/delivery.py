"""Brings an answer to the client as it is produced: one driver for WSGI, one for ASGI.

Both let the backend run beside the reader (in a thread, in a task), so that the reader never
blocks in it: that is what keep-alives, the bounded wait for the first delta and the detection of
a client that has hung up rest on. Both end the backend's work at once when the reader goes.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias

from .._cancellation import Cancelled
from .._pump import End, Pump, aclosed, closed
from .._shutdown import LOOK_SECONDS, deadline, ended_by_shutdown
from .._tasks import start_task
from .._wire.sse import PING
from ..exceptions import ClientTimeout, GatewayError, Overloaded, ShuttingDown
from .channel import Channel
from .work import Attempt, Source, Work

__all__ = ["AsyncDelivery", "ClientGone", "Delivery", "Timing"]


class ClientGone(Exception):
    """The client has hung up before there was anything to send."""


@dataclass(slots=True, frozen=True)
class Timing:
    """In seconds: how often a silent stream is kept alive, and for how long a client may take
    nothing."""

    keepalive: float
    client_timeout: float


class Delivery:
    """An answer for a synchronous server: an iterator of bytes."""

    def __init__(self, work: Work[Any], timing: Timing, hung_up: Callable[[], bool]) -> None:
        self._work = work
        self._timing = timing
        self._hung_up = hung_up
        self._events = self._produce()
        self._first: list[bytes] = []
        self._due = 0.0

    def start(self) -> Self:
        """Wait for the first delta, or for the first keep-alive if that is due before.

        Raises:
            GatewayError: the backend has failed before its first delta.
            ClientGone: nobody waits any more.
        """
        self._first = [self._next_or_gone()]
        return self

    def read(self) -> bytes:
        """Wait for the whole answer; raises as :meth:`start` does."""
        content = self._next_or_gone()
        # The events go on to their end, where the account is settled.
        return content + b"".join(self._events)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._first.pop() if self._first else next(self._events)

    def close(self) -> None:
        """The server wants no more: it calls this at the end of every response."""
        self._events.close()

    def _next_or_gone(self) -> bytes:
        try:
            return next(self._events)
        except StopIteration:
            raise ClientGone from None

    def _produce(self) -> Generator[bytes]:
        work = self._work
        begun = False
        arrivals: _Arrivals = queue.SimpleQueue()
        pumps: list[Pump[Any]] = []
        pumps += [
            Pump(
                partial(_items, source, work),
                partial(_deliver, arrivals, pumps, number),
                reader_timeout=self._timing.client_timeout,
            )
            for number, source in enumerate(work.sources)
        ]
        work.account.send_started()
        try:
            for pump in pumps:
                pump.start()
            self._sent()
            for arrival in self._arrivals(arrivals, len(pumps)):
                if arrival is None:
                    begun = True
                    yield PING
                    self._sent()
                    continue
                number, item = arrival
                if not isinstance(item, End):
                    pumps[number].taken()
                    if data := work.feed(item):
                        begun = True
                        yield data
                        self._sent()
                elif item.error is not None:
                    raise item.error
            rest = work.finish()
            work.save()
            yield rest
        except (GeneratorExit, Cancelled):
            if (given_up := _given_up(arrivals)) is None:
                work.account.cancelled()
            else:
                work.fail(given_up)
        except Exception as error:
            told = work.fail(error)
            if not begun:
                raise told from error
            yield work.failure_frame(told)
        finally:
            for pump in pumps:
                pump.cancel()
            work.account.send_ending()

    def _sent(self) -> None:
        # What arrives and is held back is nothing to the client.
        self._due = time.monotonic() + self._timing.keepalive

    def _arrivals(
        self, arrivals: _Arrivals, sources: int
    ) -> Iterator[tuple[int, Any | End] | None]:
        """What the sources give up to the end of the last, each with the number of its source, and
        ``None`` whenever a keep-alive is due."""
        look = time.monotonic() + LOOK_SECONDS
        arrival: tuple[int, Any | End] | None
        while sources:
            until = min(look, self._due) if self._work.is_stream else look
            try:
                arrival = arrivals.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                arrival = None
            is_end = arrival is not None and isinstance(arrival[1], End)
            if time.monotonic() >= look and not is_end:
                look = self._look()
            if arrival is not None:
                yield arrival
                sources -= is_end
            if sources and self._work.is_stream and time.monotonic() >= self._due:
                yield None

    def _look(self) -> float:
        """Whether to go on; returns when to look again."""
        if self._hung_up():
            raise Cancelled
        now, end = time.monotonic(), deadline()
        if end is None:
            return now + LOOK_SECONDS
        if now >= end:
            raise ShuttingDown
        return min(now + LOOK_SECONDS, end)


_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[int, Any | End]]"


def _items(source: Source[Any], work: Work[Any]) -> Iterator[Any]:
    attempt: Attempt | None = work.attempt
    while attempt is not None:
        with ExitStack() as slot:
            try:
                slot.enter_context(attempt.slot())
            except Overloaded as error:
                attempt = work.next_attempt(attempt, error)
            else:
                # The slot is given back when it is known whether others are to use it.
                attempt = yield from _attempted(source, work, attempt)


def _attempted(
    source: Source[Any], work: Work[Any], attempt: Attempt
) -> Generator[Any, None, Attempt | None]:
    """What ``source`` gives; returns the next attempt if that is nothing."""
    if attempt is not work.attempt:
        # Meanwhile another choice has found that there is no use in it.
        return work.attempt
    begun = False
    try:
        items = source.items(attempt.route)
        with closed(items):
            for item in items:
                if not begun:
                    if not work.begins(attempt):
                        return work.attempt
                    begun = True
                yield item
    except Exception as error:
        if begun:
            raise
        return work.next_attempt(attempt, error)
    return None


def _deliver(arrivals: _Arrivals, pumps: list[Pump[Any]], number: int, item: Any | End) -> None:
    arrivals.put((number, item))
    if isinstance(item, End) and item.error is not None:
        # The reader does the same, but may be held up by a client that does not read.
        for pump in pumps:
            pump.cancel()


def _given_up(arrivals: _Arrivals) -> ClientTimeout | None:
    """Why a client that has hung up had been given up before."""
    while not arrivals.empty():
        _, item = arrivals.get()
        if isinstance(item, End) and isinstance(item.error, ClientTimeout):
            return item.error
    return None


_running: set[asyncio.Task[None]] = set()
"""The event loop itself holds its tasks weakly."""


class AsyncDelivery:
    """An answer for an asynchronous server: an asynchronous iterator of bytes.

    Whatever has arrived since the last step leaves together. The backend's task holds no
    reference to this object: Django does not close an iterator whose client has gone while it
    was sending, and then this object's end is the only sign of that.
    """

    def __init__(self, work: Work[Any], timing: Timing) -> None:
        self._work = work
        keepalive = timing.keepalive if work.is_stream else None
        self._channel = Channel(keepalive, timing.client_timeout)
        self._task: asyncio.Task[None] | None = None
        self._first: list[bytes] = []

    async def start(self) -> Self:
        """Wait for the first delta, or for the first keep-alive if that is due before.

        Raises:
            GatewayError: the backend has failed before its first delta.
        """
        self._run()
        self._first = [await anext(self, b"")]
        return self

    async def read(self) -> bytes:
        """Wait for the whole answer; raises as :meth:`start` does."""
        self._run()
        return b"".join([data async for data in self])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            return self._first.pop()
        try:
            data = await self._channel.get()
        except TimeoutError:
            return PING
        except asyncio.CancelledError:
            self.close()
            raise
        if data is None:
            raise StopAsyncIteration
        return data

    def close(self) -> None:
        """Nobody wants more. May be called from any thread, any number of times."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._channel.abandon, task)

    def __del__(self) -> None:
        self.close()

    def _run(self) -> None:
        # It sends the request to the engine before anything else gets its turn.
        self._task = start_task(_produce(self._work, self._channel))
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)


async def _produce(work: Work[Any], channel: Channel) -> None:
    account = work.account
    failure: GatewayError | None = None
    shut_down = partial(channel.abandon, asyncio.current_task(), ShuttingDown)
    try:
        with ended_by_shutdown(shut_down):
            await account.asend_started()
            first, *others = (_forward(source, work, channel) for source in work.sources)
            await (_together([first, *others]) if others else first)
        rest = work.finish()
        await work.asave()
        channel.put(rest)
    except asyncio.CancelledError:
        if channel.reason is None:
            account.cancelled()
            raise
        failure = work.fail(channel.reason())
    except Exception as error:
        failure = work.fail(error)
    finally:
        if failure is not None and channel.begun:
            channel.put(work.failure_frame(failure))
            failure = None
        # The events are out; only then are receivers waited for, and the response closed.
        if failure is not None:
            channel.end(failure)
        try:
            await account.asend_ending()
        finally:
            channel.end()


async def _forward(source: Source[Any], work: Work[Any], channel: Channel) -> None:
    attempt, begun = work.attempt, False
    while True:
        try:
            async with attempt.slot():
                # It may come from another choice, which has just given it back.
                channel.check()
                if attempt is not work.attempt:
                    attempt = work.attempt
                    continue
                items = source.aitems(attempt.route)
                async with aclosed(items):
                    async for item in items:
                        if not begun and not work.begins(attempt):
                            break
                        begun = True
                        data = work.feed(item)
                        if data and channel.put(data):
                            await channel.drained()
                    else:
                        return
            attempt = work.attempt
        except Exception as error:
            if begun:
                raise
            attempt = work.next_attempt(attempt, error)


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """Run all to their ends, or none any longer once one has failed."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
