"""``httpx``'s asynchronous transport on ``aiohttp``: what the extra ``fast`` installs.

Importing this module takes that extra. ``httpx-aiohttp`` tells of most failures as ``httpx`` does,
but takes every connection that breaks off for one that was never made, and some errors for none of
``httpx``'s; here they are told apart.

``AiohttpResponseStream._aiohttp_response`` is private: ``pyproject.toml`` pins the range of
versions, and ``tests/site/test_fast_transport.py`` fails when it changes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import aiohttp
import httpx
from httpx_aiohttp.transport import AiohttpResponseStream, AiohttpTransport

__all__ = ["FastTransport"]

KEEP_IDLE_SECONDS: Final = 5.0
"""How long a connection waits for the next request, as with ``httpx``."""


class FastTransport(AiohttpTransport):
    """The transport for one event loop. It raises ``httpx``'s errors only."""

    def __init__(self, *, verify: bool = True) -> None:
        super().__init__(verify=verify, trust_env=False, client=self._session)

    def _session(self) -> aiohttp.ClientSession:
        context: ssl.SSLContext = self.ssl_context
        return aiohttp.ClientSession(
            # Without a limit on connections: aiohttp's own of 100 would make a queue of its own.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_IDLE_SECONDS, ssl=context
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await super().handle_async_request(request)
        except ERRORS as error:
            raise _told_apart(error) from error
        except ValueError as error:
            # A header that cannot be sent.
            raise httpx.LocalProtocolError(str(error)) from error
        if isinstance(response.stream, AiohttpResponseStream):
            response.stream = _Body(response.stream._aiohttp_response)
        return response


class _Body(AiohttpResponseStream):
    """The body of a response; what has arrived together is given together."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(response)
        protocol = None if response.connection is None else response.connection.protocol
        self._closed = None if protocol is None else protocol.closed
        self._end = partial(_end, response.content)
        if self._closed is not None:
            # Once, however many requests the connection has served.
            self._closed.remove_done_callback(_noticed)
            self._closed.add_done_callback(_noticed)
            self._closed.add_done_callback(self._end)

    async def aclose(self) -> None:
        if self._closed is not None:
            # The connection may serve many more.
            self._closed.remove_done_callback(self._end)
        await super().aclose()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._aiohttp_response.content.readany()
        except ERRORS as error:
            raise _told_apart(error) from error
        if not data:
            raise StopAsyncIteration
        return data


def _end(content: aiohttp.StreamReader, closed: asyncio.Future[None]) -> None:
    """The connection is closed. aiohttp's parser in C does not tell whoever waits for the rest of a
    body that it has found garbage in it, and they would wait for ever."""
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("The body broke off."))


def _noticed(closed: asyncio.Future[None]) -> None:
    """The connection is closed, and asyncio need not log why: whoever waits for it is told, and
    nobody does for one that is idle."""
    if not closed.cancelled():
        closed.exception()


ERRORS: Final = (aiohttp.ClientError, httpx.TransportError)


def _told_apart(error: Exception) -> httpx.TransportError:
    cause = error if isinstance(error, aiohttp.ClientError) else error.__cause__
    match cause:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return httpx.ConnectError(str(cause))
        case TimeoutError():
            return httpx.ReadTimeout(str(cause))
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(str(cause))
    return httpx.ReadError(str(cause))
