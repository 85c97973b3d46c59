"""Requests to an engine's HTTP API, on ``httpx``: the common part of the clients of all engines.

Bodies go out as they were translated and come back as they arrived, cut into lines or events. The
translation interprets them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, Unpack

import httpx
import pydantic_core

from .._translation.error_context import ErrorContext
from ..exceptions import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from ._deadline import Deadline
from ._idle_timeout import IdleTimeout

__all__ = [
    "AsyncHTTPClient",
    "ErrorTranslator",
    "HTTPClient",
    "RequestFactory",
    "StreamReader",
    "StreamTimeouts",
    "UpstreamStatusError",
    "connection_error",
    "encode_json",
]

#: The headers of every request. A compressed response could unpack to more than the memory holds
#: before any of it is counted.
HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

MAX_ERROR_BYTES = 64 * 2**10
MAX_ANSWER_BYTES = 64 * 2**20

#: Maximum time that a connection may take to end a response that is complete. Then it can serve the
#: next request.
DRAIN_SECONDS: Final = 1.0


@dataclass(slots=True, frozen=True)
class StreamTimeouts:
    """The maximum silence of an engine during a stream, in seconds: before the first token, and
    before each further one."""

    first_token: float
    token: float


class StreamReader(Protocol):
    """Cuts the body of a stream into the engine's lines or events."""

    @property
    def is_over(self) -> bool:
        """Whether the engine has declared the end of the stream."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces that ``data`` completes."""
        ...

    def finish(self) -> list[bytes]:
        """Return the last piece, if the body ended without a separator."""
        ...


class UpstreamStatusError(Exception):
    """The engine's status was not 200. It is the cause of the client's error, for the log."""

    def __init__(self, response: httpx.Response) -> None:
        request = response.request
        super().__init__(f"{response.status_code} to {request.method} {request.url.path}")


class ErrorTranslator(Protocol):
    """Return the client's error for a response of the engine that has another status than 200."""

    def __call__(
        self, status: int, body: bytes | bytearray, **context: Unpack[ErrorContext]
    ) -> GatewayError: ...


class _Client:
    """The attributes that the clients of an engine define."""

    reader: ClassVar[type[StreamReader]]
    failure: ClassVar[ErrorTranslator]


class HTTPClient(_Client):
    """The synchronous client. A read that waits for the engine can be cancelled."""

    _client: httpx.Client
    _requests: RequestFactory

    @property
    def base_url(self) -> httpx.URL:
        """The base URL of all requests."""
        return self._client.base_url

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(
        self, method: str, path: str, content: bytes | None = None, **context: Unpack[ErrorContext]
    ) -> bytes:
        """Send ``content`` and return the body of the response, which must be complete within the
        client's read timeout.

        Raises:
            GatewayError: The request failed. ``context`` holds the names that the message may use.
        """
        limit = self._client.timeout.read
        deadline = None if limit is None else Deadline(limit)
        try:
            request = self._requests.make(method, path, content, deadline)
            with _Exchange(self._client, request) as response:
                arriving = _until(deadline, response.iter_raw())
                if response.status_code != 200:
                    error = self.failure(response.status_code, _read(arriving), **context)
                    raise error from UpstreamStatusError(response)
                answer = _read(arriving, MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_error(error) from error
        return _check_size(answer)

    def stream(
        self, path: str, content: bytes, timeouts: StreamTimeouts, **context: Unpack[ErrorContext]
    ) -> Generator[list[bytes]]:
        """Send ``content`` and yield the lines or events of the response, those that arrive
        together in one list. ``content`` is the encoded body, which stays in memory until the end
        of the response.

        Raises:
            GatewayError: The request failed, as in :meth:`fetch`.
        """
        reader = self.reader()
        deadline = Deadline(timeouts.first_token)
        try:
            request = self._requests.make("POST", path, content, deadline)
            with _Exchange(self._client, request) as response:
                arriving = _until(deadline, response.iter_raw())
                if response.status_code != 200:
                    error = self.failure(response.status_code, _read(arriving), **context)
                    raise error from UpstreamStatusError(response)
                is_over = False
                for data in arriving:
                    if is_over:
                        break
                    arrived = reader.feed(data)
                    is_over = reader.is_over
                    # Comments and incomplete pieces are no activity.
                    if arrived:
                        yield arrived
                        deadline.restart(DRAIN_SECONDS if is_over else timeouts.token)
                    elif is_over:
                        deadline.restart(DRAIN_SECONDS)
                yield reader.finish()
        except FAILURES as error:
            if not reader.is_over:
                raise connection_error(error) from error


class AsyncHTTPClient(_Client):
    """The asynchronous client, with the methods of :class:`HTTPClient`."""

    _client: httpx.AsyncClient
    _requests: RequestFactory

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(
        self, method: str, path: str, content: bytes | None = None, **context: Unpack[ErrorContext]
    ) -> bytes:
        """Async version of :meth:`HTTPClient.fetch`."""
        limit = self._client.timeout.read
        try:
            request = self._requests.make(method, path, content, None)
            with nullcontext() if limit is None else IdleTimeout(limit):
                async with _Exchange(self._client, request) as response:
                    if response.status_code != 200:
                        error = self.failure(
                            response.status_code, await _aread(response), **context
                        )
                        raise error from UpstreamStatusError(response)
                    answer = await _aread(response, MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_error(error) from error
        return _check_size(answer)

    async def stream(
        self, path: str, content: bytes, timeouts: StreamTimeouts, **context: Unpack[ErrorContext]
    ) -> AsyncGenerator[list[bytes]]:
        """Async version of :meth:`HTTPClient.stream`."""
        reader = self.reader()
        try:
            request = self._requests.make("POST", path, content, None)
            with IdleTimeout(timeouts.first_token) as timeout:
                async with _Exchange(self._client, request) as response:
                    if response.status_code != 200:
                        error = self.failure(
                            response.status_code, await _aread(response), **context
                        )
                        raise error from UpstreamStatusError(response)
                    is_over = False
                    async for data in _arriving(response):
                        if is_over:
                            break
                        arrived = reader.feed(data)
                        is_over = reader.is_over
                        # Comments and incomplete pieces are no activity.
                        if arrived:
                            timeout.disarm()
                            yield arrived
                            timeout.arm(DRAIN_SECONDS if is_over else timeouts.token)
                        elif is_over:
                            timeout.arm(DRAIN_SECONDS)
                    timeout.disarm()
                    yield reader.finish()
        except UpstreamTimeout:
            if not reader.is_over:
                raise
        except FAILURES as error:
            if not reader.is_over:
                raise connection_error(error) from error


class _Exchange:
    """A request and its response, which is closed after the block: ``with`` or ``async with``."""

    __slots__ = ("_client", "_request", "_response")

    def __init__(self, client: Any, request: httpx.Request) -> None:
        self._client = client
        self._request = request

    def __enter__(self) -> httpx.Response:
        response: httpx.Response = self._client.send(self._request, stream=True)
        self._response = response
        return response

    def __exit__(self, *error: object) -> None:
        try:
            self._response.close()
        finally:
            self._response.stream = _NOTHING

    async def __aenter__(self) -> httpx.Response:
        response: httpx.Response = await self._client.send(self._request, stream=True)
        self._response = response
        return response

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._response.aclose()
        finally:
            self._response.stream = _NOTHING


#: In the place of a closed stream, which refers to its response: what refers to itself is left to
#: the garbage collector.
_NOTHING: Final = httpx.ByteStream(b"")


def _ignore_cookies(response: httpx.Response) -> None:
    """Leave the cookies of ``response`` unread."""


class RequestFactory:
    """Makes the requests of a client from one template for each path.

    ``httpx`` would build address, headers and timeouts anew each time, a good part of the cost of a
    short answer.
    """

    def __init__(self, client: httpx.Client | httpx.AsyncClient) -> None:
        self._client = client
        # Those that the engine sets for one caller must not be sent for the next. To parse them, if
        # only for a jar that takes none, costs as much as all else that httpx does for a response.
        client.cookies.extract_cookies = _ignore_cookies  # type: ignore[method-assign]
        self._templates: dict[tuple[str, str], httpx.Request] = {}

    def make(
        self, method: str, path: str, content: bytes | None, deadline: Deadline | None
    ) -> httpx.Request:
        """Return a request. Without a ``deadline`` the caller limits the time itself, and the
        transport need not set a timer for each read."""
        key = method, path
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(method, path)
        timeout = {**template.extensions["timeout"]}
        extensions: dict[str, Any] = {"timeout": timeout}
        if deadline is None:
            timeout["read"] = None
        else:
            # Transports that ignore the deadline apply the timeout to each read.
            timeout["read"] = deadline.seconds
            extensions["deadline"] = deadline
        headers = template.headers.copy()
        if content is not None:
            headers["Content-Length"] = str(len(content))
        request = httpx.Request(
            method,
            template.url,
            headers=headers,
            # As content it would be looked at again for the headers, a tenth of a short answer.
            stream=httpx.ByteStream(content or b""),
            extensions=extensions,
        )
        # So that transports and hooks may use ``request.content``.
        request.read()
        return request

    def _template(self, method: str, path: str) -> httpx.Request:
        template = self._client.build_request(method, path, headers=HEADERS)
        # The length of the template's body, which has none.
        template.headers.pop("Content-Length", None)
        return template


def _arriving(response: httpx.Response) -> AsyncIterable[bytes]:
    """Return the body as it arrives. ``httpx``'s own iterators take longer than all the rest."""
    stream = response.extensions.get("arriving", response.stream)
    return stream if isinstance(stream, httpx.AsyncByteStream) else response.aiter_raw()


def _until(deadline: Deadline | None, body: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``body`` as it arrives; apply ``deadline`` also to transports that ignore it."""
    for data in body:
        yield data
        if deadline is not None and deadline.left() <= 0:
            raise httpx.ReadTimeout("The deadline has passed.")


def encode_json(body: Any) -> bytes:
    """Return ``body`` as JSON."""
    return pydantic_core.to_json(body)


def _read(data: Iterable[bytes], limit: int = MAX_ERROR_BYTES) -> bytearray:
    """Return the body, or its beginning up to a little more than ``limit`` bytes."""
    body = bytearray()
    for piece in data:
        body += piece
        if len(body) > limit:
            break
    return body


async def _aread(response: httpx.Response, limit: int = MAX_ERROR_BYTES) -> bytearray:
    """Async version of :func:`_read`."""
    body = bytearray()
    async for piece in _arriving(response):
        body += piece
        if len(body) > limit:
            break
    return body


def _check_size(body: bytearray) -> bytes:
    if len(body) > MAX_ANSWER_BYTES:
        raise UpstreamError("The engine sent an answer that is too long.")
    return bytes(body)


FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)


def connection_error(error: Exception) -> GatewayError:
    """Return the client's error for an exception of ``httpx``. It names neither host nor port."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return UpstreamUnavailable()
    if isinstance(error, httpx.TimeoutException):
        return UpstreamTimeout("The engine did not answer in time.")
    return UpstreamError("The connection to the engine was lost.")
