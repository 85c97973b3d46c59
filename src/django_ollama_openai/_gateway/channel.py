"""The channel from the task that reads from the backend to the one that sends to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, cast

from .._lazy_timer import LazyTimer
from .._tasks import Suspended, resume, start_as
from ..exceptions import ClientTimeout, GatewayError

__all__ = ["Channel"]

#: The bytes that may wait for a client that reads slowly.
BUFFER_BYTES: Final = 64 * 2**10


class Channel:
    """Bytes on their way from the backend's task to the reader's, joined while they wait.

    A reader waits for at most ``reader_timeout`` seconds (``None``: without a limit), a writer for
    at most ``writer_timeout`` seconds.

    A reader that waits need not be woken for each token: after :meth:`attach` the channel calls the
    reader's function to send, as the reader's task would. Only if the client is slow, so that the
    function has to wait, is the reader woken to go on with it.
    """

    __slots__ = (
        "_data",
        "_ended",
        "_error",
        "_flowing",
        "_given_up",
        "_reader",
        "_reader_timeout",
        "_send",
        "_size",
        "_taken",
        "_timer",
        "_writer_timeout",
        "_writers",
    )

    def __init__(self, reader_timeout: float | None, writer_timeout: float) -> None:
        self._reader_timeout = reader_timeout
        self._writer_timeout = writer_timeout
        self._timer = LazyTimer(self._wake_reader)
        self._data: list[bytes] = []
        self._size = 0
        self._taken = False
        self._flowing = False
        self._given_up = False
        self._ended = False
        self._error: GatewayError | None = None
        self._reader: asyncio.Future[Suspended[object] | None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._send: Callable[[], object] | None = None

    @property
    def begun(self) -> bool:
        """Whether the reader has received data, or is about to."""
        return self._taken or bool(self._data)

    def put(self, data: bytes) -> bool:
        """Add ``data``. Return whether the writer should wait until it is :meth:`drained`."""
        if not self._data:
            if self._send is None:
                self._wake_reader()
            elif self._reader is not None:
                self._send()
        self._data.append(data)
        self._size += len(data)
        # The tokens right after the first must not delay it on its way to the client.
        return self._size > BUFFER_BYTES or (self._taken and not self._flowing)

    async def drained(self) -> None:
        """Wait until the reader has taken all data.

        Raises:
            ClientTimeout: It has not done so within ``writer_timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._writers.append(waiting)
        timer = loop.call_later(self._writer_timeout, self._give_up, waiting)
        try:
            await waiting
        finally:
            timer.cancel()

    def attach(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Call ``send`` for data that arrives while the current task, the reader, waits."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._send = partial(loop.call_soon, self._flush, send, loop, task, context=copy_context())

    def check(self) -> None:
        """Check that the reader still reads.

        Raises:
            ClientTimeout: Another writer has waited for too long.
        """
        if self._given_up:
            raise ClientTimeout

    def end(self, error: GatewayError | None = None) -> None:
        """End the data, with ``error`` if there is one. Only the first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._timer.close()
            self._wake_reader()

    async def get(self) -> bytes | None:
        """Return all data as soon as there is any; ``None`` at the end.

        Raises:
            GatewayError: The error that the channel was ended with.
            TimeoutError: Nothing has arrived for ``reader_timeout`` seconds.
        """
        # A reader that returns has sent the data that it took before.
        self._flowing = self._taken
        while not self._data:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            suspended = await self._wait()
            if suspended is not None:
                await resume(*suspended)
                self._flowing = True
            elif not self._data and not self._ended:
                self._taken = True
                raise TimeoutError
        return self._take()

    async def _wait(self) -> Suspended[object] | None:
        """Wait for data, the end, the timeout, or a call to send that has to wait."""
        reader: asyncio.Future[Suspended[object] | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._reader = reader
        if self._reader_timeout is not None:
            self._timer.set(self._reader_timeout)
        try:
            return await reader
        except asyncio.CancelledError:
            if not reader.cancelled() and reader.exception() is None:
                steps, _ = reader.result() or (None, None)
                if steps is not None:
                    steps.close()
            raise
        finally:
            self._reader = None
            self._timer.clear()

    def _flush(
        self,
        send: Callable[[bytes], Awaitable[None]],
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
    ) -> None:
        """Send the data as the task of the reader does, if that waits."""
        reader = self._reader
        if reader is None or reader.done() or not self._data:
            return
        try:
            suspended = start_as(task, loop, partial(send, self._take()))
        except BaseException as error:
            reader.set_exception(error)
            return
        if suspended is not None:
            reader.set_result(suspended)
            return
        self._flowing = True
        if self._reader_timeout is not None:
            self._timer.set(self._reader_timeout)

    def _take(self) -> bytes:
        data = b"".join(self._data)
        self._data.clear()
        self._size = 0
        self._taken = True
        for writer in self._writers:
            _wake(writer)
        self._writers.clear()
        return data

    def _give_up(self, writer: asyncio.Future[None]) -> None:
        self._given_up = True
        if not writer.done():
            writer.set_exception(ClientTimeout())

    def _wake_reader(self) -> None:
        _wake(self._reader)


def _wake(waiting: asyncio.Future[Any] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
