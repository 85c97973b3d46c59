"""What backends of engines with an HTTP API have in common: the way to the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any, Final, Generic, Protocol, TypeVar, Unpack
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, validate_call

from .._closing import aclosed
from .._translation.blame import Blame
from .._wire.delta import Delta, says_something
from ._base import BaseBackend
from ._http_client import AsyncHTTPClient, HTTPClient, NoCookies, Patience
from ._interruptible import InterruptibleTransport

__all__ = ["SECRETIVE", "HTTPBackend", "Parts", "http_address"]

SECRETIVE: Final = ConfigDict(hide_input_in_errors=True)
"""For constructors: an error that quotes an option would show keys and credentials."""

C = TypeVar("C", bound=HTTPClient)
A = TypeVar("A", bound=AsyncHTTPClient)


def http_address(value: str, example: str) -> SplitResult:
    """``value``, taken apart.

    Raises:
        ValueError: it is no address such as ``example``.
    """
    try:
        parts = urlsplit(value)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if not has_port or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"Not an http(s) address such as {example!r}")
    return parts


class Parts(Protocol):
    """The state of one stream, of what the engine says to deltas."""

    def feed(self, data: bytes) -> Delta:
        """The delta that a piece of the stream stands for."""
        ...

    def finish(self) -> None:
        """The stream has ended; an error if it has not ended well."""
        ...


class HTTPBackend(BaseBackend, Generic[C, A]):
    """An engine with an HTTP API.

    Args:
        headers: Headers of every request, such as those that a proxy requires.
        connect_timeout: Seconds to connect to the server.
        timeout: Seconds that the server may be silent. An answer that is not streamed is silent
            until it is complete.
        first_token_timeout: The same up to the first token of a stream, before which the server may
            have to load the model; ``timeout`` if absent.
        token_timeout: The same between the tokens of a stream; ``timeout`` if absent. Ollama is
            silent while a model writes a tool call.
        max_idle_connections: Number of connections kept open for later requests. Under ASGI
            with the extra ``fast`` all are kept, for five seconds.
        fast: Whether requests under ASGI use ``aiohttp``, which the extra ``fast`` installs. A
            stream then takes about a third less CPU time. ``None`` uses it if it is installed.
        verify: Whether to check the server's certificate.

    For another transport, override :meth:`get_client` and :meth:`get_async_client`.
    """

    @validate_call(config=SECRETIVE)
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
        self._patience = Patience(first_token_timeout or timeout, token_timeout or timeout)
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=max_idle_connections
        )
        self._verify = verify
        is_installed = find_spec("httpx_aiohttp") is not None
        if fast and not is_installed:
            raise ValueError("fast=True needs the extra: pip install 'django-ollama-openai[fast]'")
        self._is_fast = is_installed if fast is None else fast
        self._lock = threading.Lock()
        self._client: C | None = None
        self._async_clients: dict[asyncio.AbstractEventLoop, tuple[A, AsyncGenerator[A]]] = {}

    # Transport

    def get_client(self) -> C:
        """A hook: make the client for synchronous requests. It is made once and shared."""
        raise NotImplementedError(f"{type(self).__name__} must define get_client()")

    def get_async_client(self) -> A:
        """A hook: make the client for asynchronous requests. There is one per event loop."""
        raise NotImplementedError(f"{type(self).__name__} must define get_async_client()")

    def client_options(self) -> dict[str, Any]:
        """What both clients are made with, beside the address and the transport."""
        # What the site configured is what is asked: no redirects, no proxies from the environment.
        return {
            "headers": self._headers,
            "timeout": self._timeout,
            "follow_redirects": False,
            "trust_env": False,
            "cookies": NoCookies(),
        }

    def _transport(self) -> httpx.BaseTransport:
        return InterruptibleTransport(verify=self._verify, limits=self._limits)

    def _async_transport(self) -> httpx.AsyncBaseTransport:
        if not self._is_fast:
            return httpx.AsyncHTTPTransport(verify=self._verify, limits=self._limits)
        # It may not be there, and WSGI does without.
        from ._fast_transport import FastTransport

        return FastTransport(verify=self._verify)

    def _sync(self) -> C:
        with self._lock:
            if self._client is None:
                self._client = self.get_client()
            return self._client

    async def _async(self) -> A:
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
        url = httpx.URL(self._sync().base_url)
        return str(url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")

    # Answers

    def _ask(self, path: str, content: bytes, parts: Parts, **blame: Unpack[Blame]) -> Delta:
        """An answer in one piece, which is the only one that ``parts`` get."""
        return _whole(parts, self._sync().fetch("POST", path, content, **blame))

    async def _aask(self, path: str, content: bytes, parts: Parts, **blame: Unpack[Blame]) -> Delta:
        client = await self._async()
        return _whole(parts, await client.fetch("POST", path, content, **blame))

    def _stream(
        self, path: str, content: bytes, parts: Parts, **blame: Unpack[Blame]
    ) -> Iterator[Delta]:
        begun = False
        for pieces in self._sync().stream(path, content, self._patience, **blame):
            for piece in pieces:
                delta = parts.feed(piece)
                # Some engines say first that they are about to: until there is more, another one
                # may be asked.
                if begun or says_something(delta):
                    begun = True
                    yield delta
        parts.finish()

    async def _astream(
        self, path: str, content: bytes, parts: Parts, **blame: Unpack[Blame]
    ) -> AsyncIterator[Delta]:
        begun = False
        client = await self._async()
        # Closed here and not by the garbage collector: the engine generates until it is.
        arriving = client.stream(path, content, self._patience, **blame)
        async with aclosed(arriving):
            async for pieces in arriving:
                for piece in pieces:
                    delta = parts.feed(piece)
                    if begun or says_something(delta):
                        begun = True
                        yield delta
        parts.finish()


def _whole(parts: Parts, answer: bytes) -> Delta:
    delta = parts.feed(answer)
    parts.finish()
    return delta


async def _closed_with_its_loop(client: A) -> AsyncGenerator[A]:
    """Yields ``client`` once and stays suspended: an event loop that shuts down closes the
    asynchronous generators that are still open, and so the client's connections."""
    try:
        yield client
    finally:
        await client.aclose()
