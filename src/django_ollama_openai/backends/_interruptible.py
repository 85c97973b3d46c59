"""A synchronous transport whose reads and writes can be cancelled and have a deadline.

``httpcore`` takes a network backend, but ``httpx.HTTPTransport`` has no option to pass one on. So
its private attribute ``_pool`` is set here, and nowhere else is a private name of ``httpx`` used:
``pyproject.toml`` caps the version. A transport that is not an ``HTTPTransport`` would do without,
but OpenTelemetry's instrumentation patches ``HTTPTransport.handle_request`` and would not see it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpcore
import httpx

from .. import _cancellation
from . import _deadline
from ._deadline import Deadline

__all__ = ["InterruptibleTransport"]

#: The bytes of one write. ``httpcore`` applies its timeout to each of the steps in which a socket
#: accepts a large body, however many they are.
MAX_WRITE_BYTES: Final = 64 * 2**10

DEFAULT_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20)


class InterruptibleTransport(httpx.HTTPTransport):
    """An :class:`httpx.HTTPTransport`, with its options, whose blocking reads and writes end when
    the current work is cancelled, and when the deadline of the request has passed
    (``request.extensions["deadline"]``)."""

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
        trust_env: bool = True,
        limits: httpx.Limits = DEFAULT_LIMITS,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        **options: Any,
    ) -> None:
        # Not HTTPTransport's constructor: it would only make another pool.
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            proxy=None if proxy is None else _core_proxy(proxy),
            network_backend=_InterruptibleNetwork(httpcore.SyncBackend()),
            **options,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline: Deadline | None = request.extensions.get("deadline")
        if deadline is None:
            return super().handle_request(request)
        token = _deadline.current.set(deadline)
        try:
            response = super().handle_request(request)
        finally:
            _deadline.current.reset(token)
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _LimitedStream(response.stream, deadline)
        return response


class _LimitedStream(httpx.SyncByteStream):
    """The body of a response, read within a deadline."""

    def __init__(self, stream: httpx.SyncByteStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        read = iter(self._stream).__next__
        while True:
            token = _deadline.current.set(self._deadline)
            try:
                data = read()
            except StopIteration:
                return
            finally:
                _deadline.current.reset(token)
            yield data

    def close(self) -> None:
        self._stream.close()


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
            # Connecting is not interrupted: its timeout is short.
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
        self._sock = stream.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _cancellation.interruptible_io(self._sock):
            # The deadline comes in place of the timeout of a read, which other transports apply.
            left = _time_left(httpcore.ReadTimeout)
            return self._stream.read(max_bytes, timeout if left is None else left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _cancellation.interruptible_io(self._sock):
            for start in range(0, len(buffer), MAX_WRITE_BYTES):
                left = _time_left(httpcore.WriteTimeout)
                limits = [limit for limit in (timeout, left) if limit is not None]
                piece = buffer[start : start + MAX_WRITE_BYTES]
                self._stream.write(piece, min(limits, default=None))

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _time_left(error: type[httpcore.TimeoutException]) -> float | None:
    """Return the seconds until the deadline, more than zero; ``None`` without a deadline.

    Raises:
        httpcore.TimeoutException: The deadline has passed; an ``error``.
    """
    deadline = _deadline.current.get()
    if deadline is None:
        return None
    left = deadline.left()
    if left <= 0:
        raise error("The deadline has passed.")
    return left


def _core_proxy(proxy: httpx.Proxy | httpx.URL | str) -> httpcore.Proxy:
    if not isinstance(proxy, httpx.Proxy):
        proxy = httpx.Proxy(proxy)
    return httpcore.Proxy(
        url=httpcore.URL(
            scheme=proxy.url.raw_scheme,
            host=proxy.url.raw_host,
            port=proxy.url.port,
            target=proxy.url.raw_path,
        ),
        auth=proxy.raw_auth,
        headers=proxy.headers.raw,
        ssl_context=proxy.ssl_context,
    )
