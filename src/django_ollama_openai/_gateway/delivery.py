"""Deliver an answer to the client as it is produced: one driver for WSGI, one for ASGI.

Both run the backend beside the reader (in a thread, in a task), so that the reader never blocks in
it. That makes keep-alives, the bounded wait for the first delta and the detection of a disconnect
possible. Both cancel the backend's work at once when the client disconnects.

An answer ends in this order: the recorder, the settlement of what policies hold, the last bytes,
the signals. A detached answer has no client: it goes on when the request has been answered, and
ends as soon as the server stops.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias, TypeVar

from .. import _conf
from .._cancellation import Cancelled
from .._connections import close_connections
from .._pump import EndOfStream, Pump
from .._server_detection import keep_running_for
from .._tasks import start_task
from .._wire.sse import PING
from ..exceptions import ClientTimeout, GatewayError, ShuttingDown
from ..shutdown import POLL_SECONDS, deadline, ended_by_shutdown, is_stopping
from .admission import Admission
from .attempts import forward, items
from .channel import Channel
from .flow import Flow, call
from .work import Work

__all__ = [
    "AsyncDelivery",
    "ClientDisconnected",
    "Delivery",
    "Reply",
    "Stopper",
    "Timing",
    "deliver",
]

T = TypeVar("T")

logger = logging.getLogger("django_ollama_openai")


class ClientDisconnected(Exception):
    """The client has disconnected before there was anything to send."""


@dataclass(slots=True, frozen=True)
class Reply:
    """An answer for the client: its body, or the events of a stream that has begun."""

    content: bytes | Delivery | AsyncDelivery
    ignored_parameters: tuple[str, ...] = ()


class Stopper:
    """Stops one answer at the client's wish: it ends as if the model had finished, with the output
    so far and the finish reason ``"stop"``. Any thread may stop it, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_stop: Callable[[], object] | None = None
        self.is_stopped = False

    def stop(self) -> None:
        """Stop the answer, unless it has ended. It ends within half a second."""
        with self._lock:
            self.is_stopped, on_stop = True, self._on_stop
        if on_stop is not None:
            on_stop()

    def attach(self, on_stop: Callable[[], object]) -> None:
        """Call ``on_stop`` when the answer is to stop, or now if it is already."""
        with self._lock:
            self._on_stop = on_stop
        if self.is_stopped:
            on_stop()


def deliver(
    admission: Admission[Any],
    work: Work[Any],
    *,
    stopper: Stopper | None = None,
    is_detached: bool = False,
) -> Flow[Reply]:
    """Run ``work`` to its end, or until its stream has begun, and return the reply.

    ``stopper`` may stop the answer. If it is detached, the work is only started, the reply is
    empty, and nobody gets the error of a failure but the recorder, the policies and the signals.

    Raises:
        GatewayError: The work has failed before anything was sent; later errors are frames of the
            stream.
        ClientDisconnected: The client has disconnected.
    """
    if admission.holds:
        work.account.holds = admission.holds.hand_over()
    timing = Timing.of(admission.settings)
    if is_detached:
        yield from call(_detach, _adetach, work, timing, stopper)
        return Reply(b"", admission.ignored_parameters)
    content = yield from call(
        _run, _arun, work, timing, stopper, admission.incoming.is_disconnected
    )
    return Reply(content, admission.ignored_parameters)


def _run(
    work: Work[Any],
    timing: Timing,
    stopper: Stopper | None,
    is_disconnected: Callable[[], bool],
) -> bytes | Delivery:
    delivery = Delivery(work, timing, is_disconnected, stopper)
    return delivery.start() if work.is_stream else delivery.read()


async def _arun(
    work: Work[Any],
    timing: Timing,
    stopper: Stopper | None,
    is_disconnected: Callable[[], bool],
) -> bytes | AsyncDelivery:
    delivery = AsyncDelivery(work, timing, stopper)
    return await (delivery.start() if work.is_stream else delivery.read())


def _detach(work: Work[Any], timing: Timing, stopper: Stopper | None) -> None:
    delivery = Delivery(work, timing, lambda: False, stopper, is_detached=True)

    def drain() -> None:
        try:
            for _ in delivery:
                pass
        except GatewayError:
            # The recorder, the policies and the signals have it.
            pass
        except Exception:
            logger.exception("Request %s crashed", work.account.request_id)
        finally:
            close_connections()

    threading.Thread(
        target=copy_context().run, args=(drain,), name="ollama-openai-answer", daemon=True
    ).start()


async def _adetach(work: Work[Any], timing: Timing, stopper: Stopper | None) -> None:
    async def drain() -> None:
        try:
            async for _ in AsyncDelivery(work, timing, stopper, is_detached=True).run():
                pass
        except GatewayError:
            # As in _detach().
            pass

    task = asyncio.create_task(drain())
    keep_running_for(task)
    _running.add(task)
    task.add_done_callback(_running.discard)


@dataclass(slots=True, frozen=True)
class Timing:
    """The times of a delivery, in seconds: the silence after which a stream gets a keep-alive, and
    the time that a client may read nothing."""

    keepalive: float
    client_timeout: float

    @classmethod
    def of(cls, settings: _conf.Settings) -> Timing:
        """Return the times in ``settings``."""
        return cls(settings.STREAM_KEEPALIVE_SECONDS, settings.CLIENT_TIMEOUT)


class Delivery:
    """An answer for a synchronous server: an iterator of bytes."""

    def __init__(
        self,
        work: Work[Any],
        timing: Timing,
        is_disconnected: Callable[[], bool],
        stopper: Stopper | None = None,
        *,
        is_detached: bool = False,
    ) -> None:
        self._work = work
        self._is_detached = is_detached
        self._timing = timing
        self._is_disconnected = is_disconnected
        self._stopper = stopper
        self._events = self._produce()
        self._first: list[bytes] = []
        self._due = 0.0

    def start(self) -> Self:
        """Wait for the first delta, or for the first keep-alive if that is due before.

        Raises:
            GatewayError: The backend has failed before its first delta.
            ClientDisconnected: The client has disconnected.
        """
        self._first = [self._next_or_raise()]
        return self

    def read(self) -> bytes:
        """Wait for the whole answer; raises as :meth:`start` does."""
        content = self._next_or_raise()
        # The events go on to their end, where the account is settled.
        return content + b"".join(self._events)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._first.pop() if self._first else next(self._events)

    def close(self) -> None:
        """Cancel the work, unless it has ended. Servers call this at the end of every response."""
        self._events.close()

    def _next_or_raise(self) -> bytes:
        try:
            return next(self._events)
        except StopIteration:
            raise ClientDisconnected from None

    def _produce(self) -> Generator[bytes]:
        work = self._work
        begun = False
        arrivals: _Arrivals = queue.SimpleQueue()
        pumps: list[Pump[Any]] = []
        pumps += [
            Pump(
                partial(items, source, work),
                partial(_deliver, arrivals, pumps, number),
                reader_timeout=self._timing.client_timeout,
            )
            for number, source in enumerate(work.sources)
        ]
        rest = b""
        failure: GatewayError | None = None
        cause: Exception | None = None
        interruption: BaseException | None = None
        try:
            work.account.send_started()
            try:
                for pump in pumps:
                    pump.start()
                self._sent()
                if data := work.begin():
                    begun = True
                    yield data
                    self._sent()
                for arrival in self._arrivals(arrivals, len(pumps)):
                    if arrival is None:
                        begun = True
                        yield PING
                        self._sent()
                        continue
                    number, item = arrival
                    if not isinstance(item, EndOfStream):
                        pumps[number].ack()
                        if data := work.feed(item):
                            begun = True
                            yield data
                            self._sent()
                    elif item.error is not None:
                        raise item.error
            except _Stopped:
                pass
            finally:
                for pump in pumps:
                    pump.cancel()
            rest = work.finish()
        except Exception as error:
            cause, failure = error, work.fail(error)
        except BaseException as error:
            interruption = error
            if (timeout := _client_timeout(arrivals)) is None:
                work.account.cancelled()
            else:
                work.fail(timeout)
        try:
            failure = work.account.settle() or failure
            if interruption is not None:
                if not isinstance(interruption, (GeneratorExit, Cancelled)):
                    raise interruption
            elif failure is None:
                yield rest
            elif begun:
                yield work.failure_frame(failure)
            else:
                raise failure from cause
        finally:
            work.account.send_ending()

    def _sent(self) -> None:
        # Items that send nothing do not postpone the keep-alive.
        self._due = time.monotonic() + self._timing.keepalive

    def _arrivals(
        self, arrivals: _Arrivals, sources: int
    ) -> Iterator[tuple[int, Any | EndOfStream] | None]:
        """Yield the items of all sources, each with the number of its source, and ``None`` whenever
        a keep-alive is due."""
        check_at = time.monotonic() + POLL_SECONDS
        arrival: tuple[int, Any | EndOfStream] | None
        while sources:
            until = min(check_at, self._due) if self._work.is_stream else check_at
            try:
                arrival = arrivals.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                arrival = None
            is_end = arrival is not None and isinstance(arrival[1], EndOfStream)
            if time.monotonic() >= check_at and not is_end:
                check_at = self._check()
            if arrival is not None:
                yield arrival
                sources -= is_end
            if sources and self._work.is_stream and time.monotonic() >= self._due:
                yield None

    def _check(self) -> float:
        """Check whether to go on, and return the time of the next check.

        Raises:
            Cancelled: The client has disconnected.
            ShuttingDown: The server is stopping, and the time is up or the answer detached.
            _Stopped: The answer is to stop.
        """
        if self._is_disconnected():
            raise Cancelled
        if self._stopper is not None and self._stopper.is_stopped:
            raise _Stopped
        now, end = time.monotonic(), deadline()
        if self._is_detached and is_stopping():
            raise ShuttingDown
        if end is None:
            return now + POLL_SECONDS
        if now >= end:
            raise ShuttingDown
        return min(now + POLL_SECONDS, end)


class _Stopped(Exception):
    """A :class:`Stopper` has stopped the answer."""


_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[int, Any | EndOfStream]]"


def _deliver(
    arrivals: _Arrivals, pumps: list[Pump[Any]], number: int, item: Any | EndOfStream
) -> None:
    arrivals.put((number, item))
    if isinstance(item, EndOfStream) and item.error is not None:
        # The reader cancels them, too, but a client that does not read may block it.
        for pump in pumps:
            pump.cancel()


def _client_timeout(arrivals: _Arrivals) -> ClientTimeout | None:
    """Return the error that has ended the work already, if the client has read too slowly."""
    while not arrivals.empty():
        _, item = arrivals.get()
        if isinstance(item, EndOfStream) and isinstance(item.error, ClientTimeout):
            return item.error
    return None


#: The event loop itself holds its tasks weakly.
_running: set[asyncio.Task[None]] = set()


class AsyncDelivery:
    """An answer for an asynchronous server: an asynchronous iterator of bytes.

    All data that has arrived since the last step is sent together. The backend's task holds no
    reference to this object: if the client disconnects while Django sends, Django does not close
    the iterator, and its deletion is the only sign of that.
    """

    def __init__(
        self,
        work: Work[Any],
        timing: Timing,
        stopper: Stopper | None = None,
        *,
        is_detached: bool = False,
    ) -> None:
        self._work = work
        self._stopper = stopper
        self._is_detached = is_detached
        keepalive = timing.keepalive if work.is_stream else None
        self._channel = Channel(keepalive, timing.client_timeout)
        self._production: _Production | None = None
        self._first: list[bytes] = []

    async def start(self) -> Self:
        """Wait for the first delta, or for the first keep-alive if that is due before.

        Raises:
            GatewayError: The backend has failed before its first delta.
        """
        self.run()
        self._first = [await anext(self, b"")]
        return self

    async def read(self) -> bytes:
        """Wait for the whole answer; raises as :meth:`start` does."""
        self.run()
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

    def attach(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Call ``send`` for data that arrives while the current task waits for this iterator."""
        self._channel.attach(send)

    def close(self) -> None:
        """Cancel the work, unless it has ended. Any thread may call this, any number of times."""
        production, self._production = self._production, None
        if production is not None and not production.task.done():
            _call_in(production.task.get_loop(), production.cancel)

    def __del__(self) -> None:
        self.close()

    def run(self) -> Self:
        """Begin the work."""
        # The task sends the request to the engine before any other task runs.
        production = self._production = _Production(self._work, self._channel, self._is_detached)
        if self._stopper is not None:
            self._stopper.attach(partial(_call_in, asyncio.get_running_loop(), production.stop))
        return self


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    # Another thread may close it after this check.
    if not loop.is_closed():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function)


class _Production:
    """The task that produces an answer.

    It is cancelled once: a second cancellation would interrupt what the first has started, the
    closing of the connection to the engine. The client gets the error that ``reason`` makes, if
    there is one. Of an answer ``is_stopped`` the client gets the output so far.
    """

    __slots__ = (
        "_account",
        "_is_cancelled",
        "_is_pending",
        "_is_shielded",
        "is_detached",
        "is_stopped",
        "reason",
        "task",
    )

    def __init__(self, work: Work[Any], channel: Channel, is_detached: bool) -> None:
        self._account = work.account
        self.is_detached = is_detached
        self._is_cancelled = self._is_pending = self._is_shielded = self.is_stopped = False
        self.reason: Callable[[], GatewayError] | None = None
        self.task = start_task(_produce(work, channel, self))
        _running.add(self.task)
        self.task.add_done_callback(_running.discard)

    def cancel(self, reason: Callable[[], GatewayError] | None = None) -> None:
        if not self._is_cancelled:
            self._is_cancelled, self.reason = True, reason
            if self._is_shielded:
                self._is_pending = True
            else:
                self.task.cancel()

    def stop(self) -> None:
        if not self._is_cancelled and not self._account.has_ended:
            self.is_stopped = True
            self.cancel()

    async def shield(self, part: Awaitable[T]) -> T:
        """Await ``part`` to its end; a cancellation takes effect after that."""
        self._is_shielded = True
        try:
            return await part
        finally:
            self._is_shielded = False
            if self._is_pending:
                self._is_pending = False
                self.task.cancel()


async def _produce(work: Work[Any], channel: Channel, production: _Production) -> None:
    account = work.account
    failure: GatewayError | None = None
    shut_down = partial(production.cancel, ShuttingDown)
    try:
        try:
            with ended_by_shutdown(shut_down, at_once=production.is_detached):
                await production.shield(account.asend_started())
                if data := work.begin():
                    channel.put(data)
                await forward(work, channel)
            rest = work.finish()
        except asyncio.CancelledError:
            if production.is_stopped:
                rest = work.finish()
            elif production.reason is not None:
                failure = work.fail(production.reason())
            else:
                account.cancelled()
                raise
        except Exception as error:
            failure = work.fail(error)
        finally:
            failure = await production.shield(account.asettle()) or failure
        if failure is None:
            channel.put(rest)
    finally:
        if failure is not None and channel.begun:
            channel.put(work.failure_frame(failure))
            failure = None
        # All events are sent before the receivers are awaited and the response is closed.
        if failure is not None:
            channel.end(failure)
        try:
            await production.shield(account.asend_ending())
        finally:
            channel.end()
