"""A synchronous transport whose reads can be cancelled and limited while a response arrives."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpcore
import httpx

from .. import cancellation

__all__ = ["InterruptibleTransport", "read_timeout"]


@contextmanager
def read_timeout(response: httpx.Response) -> Iterator[Callable[[float], None]]:
    """A function that limits the following reads of ``response`` to so many seconds. ``httpcore``
    looks at the request's own limit only once, before the first."""
    stream = response.extensions.get("network_stream")
    if not isinstance(stream, _InterruptibleStream):
        yield lambda seconds: None
        return
    try:
        yield stream.limit
    finally:
        stream.limit(None)


class InterruptibleTransport(httpx.HTTPTransport):
    """A transport whose blocking reads end when the current work is cancelled.

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
            with cancellation.interruptible(lambda: None):
                stream = connect(*args, **options)
        except cancellation.Cancelled:
            if stream is not None:
                stream.close()
            raise
        return _InterruptibleStream(stream)

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _InterruptibleStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._read_timeout: float | None = None

    def limit(self, seconds: float | None) -> None:
        """Let reads take so many seconds, or as many as whoever reads says."""
        self._read_timeout = seconds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with cancellation.interruptible(self._shut_down):
            return self._stream.read(max_bytes, self._read_timeout or timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with cancellation.interruptible(self._shut_down):
            self._stream.write(buffer, timeout)

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
