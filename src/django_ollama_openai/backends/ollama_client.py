"""Ollama's official Python client, without its losses.

The client's typed ``chat()`` drops the ids of tool calls, nested JSON schemas and the bytes of
log probabilities, and takes a string image for the path of a file to send. Its line reader breaks
at U+0085 within a text. So the body goes out as it was translated and the lines come back as
Ollama sent them, through the client's own ``httpx`` client: its host, headers and credentials.

``Client._client`` is private: ``pyproject.toml`` pins the range of versions, and
``tests/test_ollama_client.py`` fails when the client changes.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Unpack

import httpcore
import httpx
import ollama
import pydantic_core

from .. import cancellation
from ..exceptions import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from ..pump import aclosed, closed
from ..translation.ollama_errors import Blame, ollama_error
from ..wire.ndjson import Lines
from .silence import Silence

__all__ = [
    "AsyncOllamaClient",
    "InterruptibleTransport",
    "NoCookies",
    "OllamaClient",
    "Patience",
    "connection_failure",
    "encoded",
]

HEADERS: Final = {"Accept-Encoding": "identity"}
"""A compressed answer could unpack to more than there is memory, before any of it is counted."""

MAX_ERROR_BYTES = 64 * 2**10
MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(slots=True, frozen=True)
class Patience:
    """How long the engine may stay silent in a stream, in seconds."""

    first_token: float
    token: float


class OllamaClient(ollama.Client):
    """The synchronous client. A read that waits for the engine can be cancelled."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._requests = _Requests(self._client)

    def fetch(
        self, method: str, path: str, content: bytes | None = None, **blame: Unpack[Blame]
    ) -> bytes:
        """The body of the response to ``content``.

        Raises:
            GatewayError: what a failure means to a client; ``blame`` is what it may name.
        """
        try:
            request = self._requests.make(method, path, content, self._client.timeout.read)
            response = self._client.send(request, stream=True)
            with closed(response):
                if response.status_code != 200:
                    raise ollama_error(response.status_code, _first(response.iter_raw()), **blame)
                answer = _first(response.iter_raw(), MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_failure(error) from error
        return _whole(answer)

    def stream_lines(
        self, path: str, content: bytes, patience: Patience, **blame: Unpack[Blame]
    ) -> Generator[list[bytes]]:
        """The lines of the response, those that arrive together in one list; raises as
        :meth:`fetch` does. ``content`` is the body, encoded: it is held as long as the response
        lasts, and there should be nothing else of it."""
        lines = Lines()
        try:
            request = self._requests.make("POST", path, content, patience.first_token)
            response = self._client.send(request, stream=True)
            with closed(response):
                if response.status_code != 200:
                    raise ollama_error(response.status_code, _first(response.iter_raw()), **blame)
                with _read_timeout(response) as limit:
                    for data in response.iter_raw():
                        if arrived := lines.feed(data):
                            limit(patience.token)
                            yield arrived
                yield lines.finish()
        except FAILURES as error:
            raise connection_failure(error) from error


class AsyncOllamaClient(ollama.AsyncClient):
    """The asynchronous client: the same methods."""

    def __init__(
        self,
        host: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Any,
    ) -> None:
        super().__init__(host, transport=transport, **options)
        self._requests = _Requests(self._client)
        self._direct = transport if _adds_nothing(options) else None

    async def fetch(
        self, method: str, path: str, content: bytes | None = None, **blame: Unpack[Blame]
    ) -> bytes:
        try:
            request = self._requests.make(method, path, content, self._client.timeout.read)
            response = await self._send(request)
            async with aclosed(response):
                if response.status_code != 200:
                    raise ollama_error(response.status_code, await _afirst(response), **blame)
                answer = await _afirst(response, MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_failure(error) from error
        return _whole(answer)

    async def stream_lines(
        self, path: str, content: bytes, patience: Patience, **blame: Unpack[Blame]
    ) -> AsyncGenerator[list[bytes]]:
        lines = Lines()
        limit = patience.first_token
        try:
            # The transport's own limit would set a timer for each read.
            request = self._requests.make("POST", path, content, None)
            with Silence(limit) as silence:
                response = await self._send(request)
                async with aclosed(response):
                    if response.status_code != 200:
                        raise ollama_error(response.status_code, await _afirst(response), **blame)
                    async for data in _arriving(response):
                        if arrived := lines.feed(data):
                            silence.ends()
                            yield arrived
                            limit = patience.token
                        silence.begins(limit)
                    silence.ends()
                    yield lines.finish()
        except FAILURES as error:
            raise connection_failure(error) from error

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """The response to ``request``, with its body still to come."""
        if self._direct is None:
            sent: httpx.Response = await self._client.send(request, stream=True)
            return sent
        response = await self._direct.handle_async_request(request)
        response.request = request
        return response


class NoCookies(CookieJar):
    """Keeps none: what the engine sets for one caller is not sent for the next."""

    def __init__(self) -> None:
        super().__init__(DefaultCookiePolicy(allowed_domains=[]))


PUT_INTO_REQUESTS: Final = frozenset({"headers", "timeout"})
"""What a client is made with that its requests already have when they are sent."""


def _adds_nothing(options: dict[str, Any]) -> bool:
    """Whether a client made with ``options`` gives its requests to the transport as they are, and
    the responses back. It takes a good part of the transport's time for that."""
    others = {name: value for name, value in options.items() if name not in PUT_INTO_REQUESTS}
    keeps_no_cookies = isinstance(others.pop("cookies", None), NoCookies)
    return keeps_no_cookies and others == {"follow_redirects": False, "trust_env": False}


class _Requests:
    """Requests of one client. What ``httpx`` puts together for each anew, its address, headers and
    time limits, is the same for all to one path, and a good part of what a short answer costs. What
    a client's ``auth`` does is not affected."""

    def __init__(self, client: httpx.Client | httpx.AsyncClient) -> None:
        self._client = client
        self._templates: dict[tuple[str, str, float | None], httpx.Request] = {}

    def make(
        self, method: str, path: str, content: bytes | None, read_timeout: float | None
    ) -> httpx.Request:
        key = method, path, read_timeout
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(method, path, read_timeout)
        return httpx.Request(
            method,
            template.url,
            headers=template.headers,
            content=content,
            extensions=template.extensions,
        )

    def _template(self, method: str, path: str, read_timeout: float | None) -> httpx.Request:
        limits = self._client.timeout.as_dict()
        timeout = httpx.Timeout(**{**limits, "read": read_timeout})
        template = self._client.build_request(method, path, headers=HEADERS, timeout=timeout)
        # That of the body, which the template has not.
        template.headers.pop("Content-Length", None)
        return template


def _arriving(response: httpx.Response) -> AsyncIterable[bytes]:
    """The body as it arrives; past httpx's own iterators, which take longer than all the rest."""
    stream = response.stream
    return stream if isinstance(stream, httpx.AsyncByteStream) else response.aiter_raw()


def encoded(body: Any) -> bytes:
    """``body`` as JSON."""
    return pydantic_core.to_json(body)


def _first(data: Iterable[bytes], limit: int = MAX_ERROR_BYTES) -> bytearray:
    """The body, or as much of it as goes a little over ``limit``."""
    body = bytearray()
    for piece in data:
        body += piece
        if len(body) > limit:
            break
    return body


async def _afirst(response: httpx.Response, limit: int = MAX_ERROR_BYTES) -> bytearray:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            break
    return body


def _whole(body: bytearray) -> bytes:
    if len(body) > MAX_ANSWER_BYTES:
        raise UpstreamError("The engine sent an answer that is too long.")
    return bytes(body)


FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)


def connection_failure(error: Exception) -> GatewayError:
    """What ``httpx`` raises, as a client is told. Neither host nor port is named."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return UpstreamUnavailable()
    if isinstance(error, httpx.TimeoutException):
        return UpstreamTimeout("The engine did not answer in time.")
    return UpstreamError("The connection to the engine broke off.")


@contextmanager
def _read_timeout(response: httpx.Response) -> Iterator[Callable[[float], None]]:
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
