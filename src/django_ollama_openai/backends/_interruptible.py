"""A synchronous transport whose reads and writes can be cancelled, and limited in all."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httpcore
import httpx

from .. import _cancellation
from ._deadline import Deadline

__all__ = ["InterruptibleTransport"]


WRITTEN_AT_ONCE: Final = 64 * 2**10
"""Bytes. ``httpcore`` sends what it is given in as many steps as the engine makes of it, and limits
each."""


class InterruptibleTransport(httpx.HTTPTransport):
    """A transport whose blocking reads end when the current work is cancelled, and when a
    :class:`~.deadline.Deadline` that is the limit of a request's reads or writes has passed.

    ``httpcore`` has a hook for the network it runs on; ``httpx`` does not pass it through.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        pool: Any = self._pool
        pool._network_backend = _InterruptibleNetwork(pool._network_backend)


class _InterruptibleNetwork(httpcore.NetworkBackend):
    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return self._connect(self._network.connect_tcp, *args, **options)

    def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return self._connect(self._network.connect_unix_socket, *args, **options)

    def _connect(
        self, connect: Callable[..., httpcore.NetworkStream], *args: Any, **options: Any
    ) -> httpcore.NetworkStream:
        stream: httpcore.NetworkStream | None = None
        try:
            # An attempt is not interrupted: its time limit is short.
            with _cancellation.interruptible(lambda: None):
                stream = connect(*args, **options)
        except _cancellation.Cancelled:
            if stream is not None:
                stream.close()
            raise
        return _InterruptibleStream(stream)

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _InterruptibleStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _cancellation.interruptible(self._shut_down):
            return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _cancellation.interruptible(self._shut_down):
            for at in range(0, len(buffer), WRITTEN_AT_ONCE):
                piece = buffer[at : at + WRITTEN_AT_ONCE]
                self._stream.write(piece, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _shut_down(self) -> None:
        """Wake a thread that blocks in this socket; closing it would not."""
        sock = self._stream.get_extra_info("socket")
        # If the engine has closed it already, the reader is awake too. The plain socket's method:
        # an SSLSocket's own would unwrap it under the reader.
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """The limit of the next step of those that ``timeout`` is for."""
    if not isinstance(timeout, Deadline):
        return timeout
    left = timeout.left()
    if left <= 0:
        raise error("The deadline has passed.")
    return left
