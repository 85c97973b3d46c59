"""The channel from the task that reads from the backend to the one that sends to the client."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .._lazy_timer import LazyTimer
from ..exceptions import ClientTimeout, GatewayError

__all__ = ["Channel"]

#: The bytes that may wait for a client that reads slowly.
BUFFER_BYTES: Final = 64 * 2**10


class Channel:
    """Bytes on their way from the backend's task to the reader's, joined while they wait.

    A reader waits for at most ``reader_timeout`` seconds (``None``: without a limit), a writer for
    at most ``writer_timeout`` seconds.
    """

    __slots__ = (
        "_data",
        "_ended",
        "_error",
        "_flowing",
        "_given_up",
        "_reader",
        "_reader_timeout",
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

    @property
    def begun(self) -> bool:
        """Whether the reader has received data, or is about to."""
        return self._taken or bool(self._data)

    def put(self, data: bytes) -> bool:
        """Add ``data``. Return whether the writer should wait until it is :meth:`drained`."""
        if not self._data:
            # Further data finds the reader awake.
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
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._writers.append(waiting)
        timer = loop.call_later(self._writer_timeout, self._give_up, waiting)
        try:
            await waiting
        finally:
            timer.cancel()

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
            data = b"".join(self._data)
            self._data.clear()
            self._size = 0
            self._taken = True
            for writer in self._writers:
                _wake(writer)
            self._writers.clear()
            return data
        if not self._ended:
            self._taken = True
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return None

    def _give_up(self, writer: asyncio.Future[None]) -> None:
        self._given_up = True
        if not writer.done():
            writer.set_exception(ClientTimeout())

    def _wake_reader(self) -> None:
        _wake(self._reader)


def _wake(waiting: asyncio.Future[Any] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
