"""Requests to an engine's HTTP API, on ``httpx``: what is the same for Ollama and for others.

Bodies go out as they were translated, and what comes back is given as it arrived, line by line or
event by event; what it means is the translation's affair.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, ClassVar, Final, Protocol, Unpack

import httpx
import pydantic_core

from .._closing import aclosed, closed
from .._translation.blame import Blame
from ..exceptions import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from ._deadline import Deadline
from ._silence import Silence

__all__ = [
    "AsyncHTTPClient",
    "Failure",
    "HTTPClient",
    "HTTPStatus",
    "NoCookies",
    "Patience",
    "Reader",
    "Requests",
    "adds_nothing",
    "connection_failure",
    "encoded",
]

HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
"""Of every request. A compressed answer could unpack to more than there is memory, before any of it
is counted."""

MAX_ERROR_BYTES = 64 * 2**10
MAX_ANSWER_BYTES = 64 * 2**20

REST_SECONDS: Final = 1.0
"""How long the rest of a response may take that has said all it has to: read to its end, its
connection serves the next request."""


@dataclass(slots=True, frozen=True)
class Patience:
    """How long the engine may stay silent in a stream, in seconds."""

    first_token: float
    token: float


class Reader(Protocol):
    """Cuts the body of a stream into what the engine says, piece by piece."""

    @property
    def is_over(self) -> bool:
        """Whether the engine has said that there is no more."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """What ``data`` completes."""
        ...

    def finish(self) -> list[bytes]:
        """What is left at the end."""
        ...


class HTTPStatus(Exception):
    """What the engine has answered instead, for the log of whoever has to mend it."""

    def __init__(self, response: httpx.Response) -> None:
        request = response.request
        super().__init__(f"{response.status_code} to {request.method} {request.url.path}")


class Failure(Protocol):
    """What a response with ``status`` that is no answer means to a client."""

    def __call__(
        self, status: int, body: bytes | bytearray, **blame: Unpack[Blame]
    ) -> GatewayError: ...


class _Client:
    """What both clients share, and what those of an engine define."""

    reader: ClassVar[type[Reader]]
    failure: ClassVar[Failure]


class HTTPClient(_Client):
    """The synchronous client. A read that waits for the engine can be cancelled."""

    _client: httpx.Client
    _requests: Requests

    @property
    def base_url(self) -> httpx.URL:
        """The base URL of all requests."""
        return self._client.base_url

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(
        self, method: str, path: str, content: bytes | None = None, **blame: Unpack[Blame]
    ) -> bytes:
        """The body of the response to ``content``, which has to be there within the time limit of
        the client's reads.

        Raises:
            GatewayError: what a failure means to a client; ``blame`` is what it may name.
        """
        limit = self._client.timeout.read
        deadline = None if limit is None else Deadline(limit)
        try:
            request = self._requests.make(method, path, content, deadline)
            response = self._client.send(request, stream=True)
            with closed(response):
                arriving = _in_time(response.iter_raw(), deadline)
                if response.status_code != 200:
                    error = self.failure(response.status_code, _first(arriving), **blame)
                    raise error from HTTPStatus(response)
                answer = _first(arriving, MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_failure(error) from error
        return _whole(answer)

    def stream(
        self, path: str, content: bytes, patience: Patience, **blame: Unpack[Blame]
    ) -> Generator[list[bytes]]:
        """What the engine says, piece by piece, those that arrive together in one list; raises as
        :meth:`fetch` does. ``content`` is the body, encoded: it is held as long as the response
        lasts, and there should be nothing else of it."""
        reader = self.reader()
        deadline = Deadline(patience.first_token)
        try:
            request = self._requests.make("POST", path, content, deadline)
            response = self._client.send(request, stream=True)
            with closed(response):
                arriving = _in_time(response.iter_raw(), deadline)
                if response.status_code != 200:
                    error = self.failure(response.status_code, _first(arriving), **blame)
                    raise error from HTTPStatus(response)
                is_over = False
                for data in arriving:
                    if is_over:
                        break
                    arrived = reader.feed(data)
                    is_over = reader.is_over
                    # What is no piece yet, or a comment, does not count.
                    if arrived:
                        yield arrived
                        deadline.begins(REST_SECONDS if is_over else patience.token)
                    elif is_over:
                        deadline.begins(REST_SECONDS)
                yield reader.finish()
        except FAILURES as error:
            if not reader.is_over:
                raise connection_failure(error) from error


class AsyncHTTPClient(_Client):
    """The asynchronous client: the same methods."""

    _client: httpx.AsyncClient
    _requests: Requests
    _direct: httpx.AsyncBaseTransport | None = None
    """The client's transport, if the client adds nothing to it."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(
        self, method: str, path: str, content: bytes | None = None, **blame: Unpack[Blame]
    ) -> bytes:
        limit = self._client.timeout.read
        try:
            request = self._requests.make(method, path, content, None)
            with nullcontext() if limit is None else Silence(limit):
                response = await self._send(request)
                async with aclosed(response):
                    if response.status_code != 200:
                        error = self.failure(response.status_code, await _afirst(response), **blame)
                        raise error from HTTPStatus(response)
                    answer = await _afirst(response, MAX_ANSWER_BYTES)
        except FAILURES as error:
            raise connection_failure(error) from error
        return _whole(answer)

    async def stream(
        self, path: str, content: bytes, patience: Patience, **blame: Unpack[Blame]
    ) -> AsyncGenerator[list[bytes]]:
        reader = self.reader()
        try:
            request = self._requests.make("POST", path, content, None)
            with Silence(patience.first_token) as silence:
                response = await self._send(request)
                async with aclosed(response):
                    if response.status_code != 200:
                        error = self.failure(response.status_code, await _afirst(response), **blame)
                        raise error from HTTPStatus(response)
                    is_over = False
                    async for data in _arriving(response):
                        if is_over:
                            break
                        arrived = reader.feed(data)
                        is_over = reader.is_over
                        # What is no piece yet, or a comment, does not count.
                        if arrived:
                            silence.ends()
                            yield arrived
                            silence.begins(REST_SECONDS if is_over else patience.token)
                        elif is_over:
                            silence.begins(REST_SECONDS)
                    silence.ends()
                    yield reader.finish()
        except UpstreamTimeout:
            if not reader.is_over:
                raise
        except FAILURES as error:
            if not reader.is_over:
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


def adds_nothing(options: dict[str, Any]) -> bool:
    """Whether a client made with ``options`` gives its requests to the transport as they are, and
    the responses back. It takes a good part of the transport's time for that."""
    others = {name: value for name, value in options.items() if name not in PUT_INTO_REQUESTS}
    keeps_no_cookies = isinstance(others.pop("cookies", None), NoCookies)
    return keeps_no_cookies and others == {"follow_redirects": False, "trust_env": False}


class Requests:
    """Requests of one client. What ``httpx`` puts together for each anew, its address, headers and
    time limits, is the same for all to one path, and a good part of what a short answer costs. What
    a client's ``auth`` does is not affected."""

    def __init__(self, client: httpx.Client | httpx.AsyncClient) -> None:
        self._client = client
        self._templates: dict[tuple[str, str], httpx.Request] = {}

    def make(
        self, method: str, path: str, content: bytes | None, deadline: Deadline | None
    ) -> httpx.Request:
        """A request that is to be sent and answered within ``deadline``; ``None``: whoever sends it
        sees to that, and a transport need not set a timer for each read."""
        key = method, path
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(method, path)
        limits = {**template.extensions["timeout"], "read": deadline}
        if deadline is not None and (limits["write"] is None or deadline <= limits["write"]):
            limits["write"] = deadline
        return httpx.Request(
            method,
            template.url,
            headers=template.headers,
            content=content,
            extensions={"timeout": limits},
        )

    def _template(self, method: str, path: str) -> httpx.Request:
        template = self._client.build_request(method, path, headers=HEADERS)
        # That of the body, which the template has not.
        template.headers.pop("Content-Length", None)
        return template


def _arriving(response: httpx.Response) -> AsyncIterable[bytes]:
    """The body as it arrives; past httpx's own iterators, which take longer than all the rest."""
    stream = response.stream
    return stream if isinstance(stream, httpx.AsyncByteStream) else response.aiter_raw()


def _in_time(body: Iterable[bytes], deadline: Deadline | None) -> Iterator[bytes]:
    """``body`` as it arrives. A transport of the site's own may not know what a deadline is."""
    for data in body:
        yield data
        if deadline is not None and deadline.left() <= 0:
            raise httpx.ReadTimeout("The deadline has passed.")


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
