"""The channel from the task that reads from the backend to the one that sends to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from .._lazy_timer import LazyTimer
from .._tasks import start_task
from ..exceptions import ClientTimeout, GatewayError

__all__ = ["Channel"]

#: The bytes that may wait for a client that reads slowly.
BUFFER_BYTES: Final = 64 * 2**10


class Channel:
    """Bytes on their way from the backend's task to the reader's, joined while they wait.

    A reader waits for at most ``reader_timeout`` seconds (``None``: without a limit), a writer for
    at most ``writer_timeout`` seconds.

    A reader that has given its way to :meth:`attach` need not be woken for each token, which takes
    a round of the event loop: a writer that calls :meth:`flush` sends for it while it waits.
    """

    __slots__ = (
        "_data",
        "_ended",
        "_error",
        "_flowing",
        "_given_up",
        "_is_flushed",
        "_reader",
        "_reader_timeout",
        "_send",
        "_sending",
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
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._send: Callable[[bytes], Coroutine[Any, Any, None]] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._is_flushed = False

    @property
    def begun(self) -> bool:
        """Whether the reader has received data, or is about to."""
        return self._taken or bool(self._data)

    def put(self, data: bytes) -> bool:
        """Add ``data``. Return whether the writer should wait until it is :meth:`drained`."""
        if self._send is None or not self._is_flushed:
            self._wake_reader()
        self._data.append(data)
        self._size += len(data)
        # The tokens right after the first must not delay it on its way to the client.
        return self._size > BUFFER_BYTES or (self._taken and not self._flowing)

    async def drained(self) -> None:
        """Wait until the reader has taken all data.

        Raises:
            ClientTimeout: It has not done so within ``writer_timeout`` seconds.
        """
        self.flush()
        if not self._data:
            return
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._writers.append(waiting)
        timer = loop.call_later(self._writer_timeout, self._give_up, waiting)
        try:
            await waiting
        finally:
            timer.cancel()

    def attach(self, send: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        """Let the only writer use ``send`` while the reader waits."""
        self._send = send

    def begin_flushing(self) -> None:
        """Note that there is one writer, which calls :meth:`flush` before each of its waits."""
        self._is_flushed = True

    def end_flushing(self) -> None:
        """Leave to the reader what is there and what comes."""
        self._is_flushed = False
        if self._data:
            self._wake_reader()

    def flush(self) -> None:
        """Send what is there, if the reader is attached and waits.

        The task of the writer goes on even if the client is slow: then the buffer fills.
        """
        if not self._data or self._send is None or self._sending is not None:
            return
        if self._reader is not None and not self._reader.done():
            self._timer.clear()
            self._sending = start_task(self._send(self._take()))
            if self._sending.done():
                self._sent(self._sending)
            else:
                self._sending.add_done_callback(self._sent)

    def close(self) -> None:
        """Stop sending: nobody reads any more."""
        if self._sending is not None:
            self._sending.cancel()

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
        if not self._data and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            if self._reader_timeout is not None:
                self._timer.set(self._reader_timeout)
            try:
                await self._reader
            finally:
                self._reader = None
                self._timer.clear()
        if self._data:
            return self._take()
        if not self._ended:
            self._taken = True
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return None

    def _take(self) -> bytes:
        data = b"".join(self._data)
        self._data.clear()
        self._size = 0
        self._taken = True
        for writer in self._writers:
            _wake(writer)
        self._writers.clear()
        return data

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending = None
        error = None if sending.cancelled() else sending.exception()
        if self._reader is None or self._reader.done():
            return
        if error is not None:
            self._reader.set_exception(error)
        elif self._data or self._ended:
            self._wake_reader()
        elif self._reader_timeout is not None:
            self._timer.set(self._reader_timeout)

    def _give_up(self, writer: asyncio.Future[None]) -> None:
        self._given_up = True
        if not writer.done():
            writer.set_exception(ClientTimeout())

    def _wake_reader(self) -> None:
        if self._sending is None:
            _wake(self._reader)


def _wake(waiting: asyncio.Future[Any] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
