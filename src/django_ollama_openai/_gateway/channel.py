"""What is between the task that a backend works in and the one that sends to the client."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .._lazy_timer import LazyTimer
from ..exceptions import ClientTimeout, GatewayError

__all__ = ["Channel"]

BUFFER_BYTES: Final = 64 * 2**10
"""How far the backend may run ahead of a client that reads slowly."""


class Channel:
    """Bytes on their way from the backend's task to the reader's, joined while they wait.

    A reader waits for ``reader_timeout`` seconds, or for ever; a writer for ``writer_timeout``.
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
        """Whether the reader has got anything, or is about to."""
        return self._taken or bool(self._data)

    def put(self, data: bytes) -> bool:
        """Add ``data``; true if the writer should wait until it is :meth:`drained`."""
        if not self._data:
            # For what comes after it the reader is awake.
            self._wake_reader()
        self._data.append(data)
        self._size += len(data)
        # What comes right after the first token is not to delay it on its way to the client.
        return self._size > BUFFER_BYTES or (self._taken and not self._flowing)

    async def drained(self) -> None:
        """Wait until the reader has taken what is there.

        Raises:
            ClientTimeout: it does not.
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
        """Make sure that there is still somebody to write for.

        Raises:
            ClientTimeout: another writer has waited in vain.
        """
        if self._given_up:
            raise ClientTimeout

    def end(self, error: GatewayError | None = None) -> None:
        """There is no more, or ``error`` instead of it."""
        if not self._ended:
            self._ended, self._error = True, error
            self._timer.close()
            self._wake_reader()

    async def get(self) -> bytes | None:
        """All that is there, as soon as there is something; ``None`` at the end.

        Raises:
            GatewayError: the one that the channel was ended with.
            TimeoutError: nothing has come for ``reader_timeout``.
        """
        # Who comes back has sent what it took before.
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
