"""The common part of the backends of engines with an HTTP API: clients, transports, timeouts."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Generic, Protocol, TypeVar, Unpack
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, validate_call

from .._closing import aclosed
from .._translation.error_context import ErrorContext
from .._wire.delta import Delta, has_output
from ._base import BaseBackend
from ._http_client import AsyncHTTPClient, HTTPClient, StreamTimeouts
from ._interruptible import InterruptibleTransport

__all__ = ["HIDE_INPUT", "DeltaParser", "HTTPBackend", "parse_http_url"]

#: The configuration of constructors: errors must not quote options, which may be credentials.
HIDE_INPUT: Final = ConfigDict(hide_input_in_errors=True)

#: The first version of ``aiohttp`` that the extra ``fast`` allows, and the first that it does not.
AIOHTTP_VERSIONS: Final = ((3, 12, 9), (4,))

C = TypeVar("C", bound=HTTPClient)
A = TypeVar("A", bound=AsyncHTTPClient)


def parse_http_url(value: str, example: str) -> SplitResult:
    """Return the parts of ``value``.

    Raises:
        ValueError: It is not an HTTP URL such as ``example``.
    """
    try:
        parts = urlsplit(value)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if not has_port or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"Not an http(s) address such as {example!r}")
    return parts


class DeltaParser(Protocol):
    """The translation of one stream of an engine to deltas, with its state."""

    def feed(self, data: bytes) -> Delta:
        """Return the delta for a line or event of the stream."""
        ...

    def finish(self) -> None:
        """Check the end of the stream.

        Raises:
            GatewayError: The stream is incomplete.
        """
        ...


class HTTPBackend(BaseBackend, Generic[C, A]):
    """An engine with an HTTP API.

    Args:
        headers: Headers of every request, such as those that a proxy requires.
        connect_timeout: Seconds to connect to the server.
        timeout: Seconds that the server may be silent. A response that is not streamed is silent
            until it is complete.
        first_token_timeout: Seconds until the first token of a stream, before which the server may
            have to load the model; ``timeout`` if absent.
        token_timeout: Seconds between the tokens of a stream; ``timeout`` if absent. Ollama is
            silent while a model writes a tool call.
        max_idle_connections: Number of connections kept open for later requests. Under ASGI
            with the extra ``fast`` all are kept, for five seconds.
        fast: Whether requests under ASGI use ``aiohttp``, which the extra ``fast`` installs. A
            stream then takes about a third less CPU time. ``None`` uses it if it is installed.
        verify: Whether to check the server's certificate.

    For another transport, override :meth:`get_client` and :meth:`get_async_client`.
    """

    @validate_call(config=HIDE_INPUT)
    def __init__(
        self,
        *,
        headers: dict[str, str] | None = None,
        connect_timeout: PositiveFloat = 5,
        timeout: PositiveFloat = 600,
        first_token_timeout: PositiveFloat | None = None,
        token_timeout: PositiveFloat | None = None,
        max_idle_connections: NonNegativeInt = 20,
        fast: bool | None = None,
        verify: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._headers = headers or {}
        self._timeout = httpx.Timeout(timeout, connect=connect_timeout)
        self._stream_timeouts = StreamTimeouts(
            first_token_timeout or timeout, token_timeout or timeout
        )
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=max_idle_connections
        )
        self._verify = verify
        is_installed = _is_fast_installed()
        if fast and not is_installed:
            raise ValueError("fast=True needs the extra: pip install 'django-ollama-openai[fast]'")
        self._is_fast = is_installed if fast is None else fast
        self._lock = threading.Lock()
        self._client: C | None = None
        self._async_clients: dict[asyncio.AbstractEventLoop, tuple[A, AsyncGenerator[A]]] = {}

    # Transport

    def get_client(self) -> C:
        """Return a new client for synchronous requests. Called once; the client is shared."""
        raise NotImplementedError(f"{type(self).__name__} must define get_client()")

    def get_async_client(self) -> A:
        """Return a new client for asynchronous requests. Called once per event loop."""
        raise NotImplementedError(f"{type(self).__name__} must define get_async_client()")

    def client_options(self) -> dict[str, Any]:
        """Return the keywords of both clients, beside the address and the transport."""
        # Requests go to the configured address only: no redirects, no proxies of the environment.
        return {
            "headers": self._headers,
            "timeout": self._timeout,
            "follow_redirects": False,
            "trust_env": False,
        }

    def _make_transport(self) -> httpx.BaseTransport:
        return InterruptibleTransport(verify=self._verify, limits=self._limits)

    def _make_async_transport(self) -> httpx.AsyncBaseTransport:
        if not self._is_fast:
            return httpx.AsyncHTTPTransport(verify=self._verify, limits=self._limits)
        # Optional, and not needed under WSGI.
        from ._fast_transport import FastTransport

        return FastTransport(verify=self._verify)

    def _shared_client(self) -> C:
        with self._lock:
            if self._client is None:
                self._client = self.get_client()
            return self._client

    async def _shared_async_client(self) -> A:
        loop = asyncio.get_running_loop()
        held = self._async_clients.get(loop)
        if held is None:
            for other in list(self._async_clients):
                if other.is_closed():
                    self._async_clients.pop(other, None)
            keeper = _closed_with_its_loop(self.get_async_client())
            held = self._async_clients[loop] = (await anext(keeper), keeper)
        return held[0]

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def address(self) -> str:
        # The URL may contain a user and a password.
        url = httpx.URL(self._shared_client().base_url)
        return str(url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")

    # Requests

    def _fetch(
        self, path: str, content: bytes, parser: DeltaParser, **context: Unpack[ErrorContext]
    ) -> Delta:
        """Return the delta of a whole response."""
        return _parse(parser, self._shared_client().fetch("POST", path, content, **context))

    async def _afetch(
        self, path: str, content: bytes, parser: DeltaParser, **context: Unpack[ErrorContext]
    ) -> Delta:
        client = await self._shared_async_client()
        return _parse(parser, await client.fetch("POST", path, content, **context))

    def _stream(
        self, path: str, content: bytes, parser: DeltaParser, **context: Unpack[ErrorContext]
    ) -> Iterator[Delta]:
        begun = False
        for pieces in self._shared_client().stream(path, content, self._stream_timeouts, **context):
            for piece in pieces:
                delta = parser.feed(piece)
                # Some engines open a stream with a delta without content. A retry is possible until
                # there is content.
                if begun or has_output(delta):
                    begun = True
                    yield delta
        parser.finish()

    async def _astream(
        self, path: str, content: bytes, parser: DeltaParser, **context: Unpack[ErrorContext]
    ) -> AsyncIterator[Delta]:
        begun = False
        client = await self._shared_async_client()
        # The engine generates until the stream is closed, so that is not left to the garbage
        # collector.
        arriving = client.stream(path, content, self._stream_timeouts, **context)
        async with aclosed(arriving):
            async for pieces in arriving:
                for piece in pieces:
                    delta = parser.feed(piece)
                    if begun or has_output(delta):
                        begun = True
                        yield delta
        parser.finish()


def _is_fast_installed() -> bool:
    """Return whether there is an ``aiohttp`` in a version that the extra ``fast`` takes."""
    try:
        numbers = re.findall(r"\d+", version("aiohttp"))
    except PackageNotFoundError:
        return False
    first, end = AIOHTTP_VERSIONS
    return first <= tuple(map(int, numbers)) < end


def _parse(parser: DeltaParser, answer: bytes) -> Delta:
    delta = parser.feed(answer)
    parser.finish()
    return delta


async def _closed_with_its_loop(client: A) -> AsyncGenerator[A]:
    """Yield ``client`` once and close it when the event loop shuts down, which closes the
    asynchronous generators that are still open."""
    try:
        yield client
    finally:
        await client.aclose()
