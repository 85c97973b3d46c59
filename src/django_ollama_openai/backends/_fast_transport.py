"""An asynchronous transport for ``httpx`` on ``aiohttp``, which the extra ``fast`` installs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import aiohttp
import httpx

__all__ = ["FastTransport"]

#: The time that an idle connection is kept, as by ``httpx``.
KEEP_IDLE_SECONDS: Final = 5.0


class FastTransport(httpx.AsyncBaseTransport):
    """A transport for one event loop, which raises errors of ``httpx`` only."""

    def __init__(self, *, verify: ssl.SSLContext | bool = True) -> None:
        self._ssl_context = httpx.create_ssl_context(verify=verify, trust_env=False)
        self._session: aiohttp.ClientSession | None = None

    def _get_session(self) -> aiohttp.ClientSession:
        """Return the session, which can only be made in a running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Unlimited: aiohttp would queue requests beyond 100 connections.
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=KEEP_IDLE_SECONDS, ssl=self._ssl_context
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeout = request.extensions.get("timeout", {})
        # httpx would find the encoding out again for each header.
        encoding = request.headers.encoding
        try:
            response = await self._get_session().request(
                request.method,
                str(request.url),
                headers=[
                    (name.decode(encoding), value.decode(encoding))
                    for name, value in request.headers.raw
                ],
                data=await request.aread() or None,
                allow_redirects=False,
                server_hostname=request.extensions.get("sni_hostname"),
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
            )
        except ERRORS as error:
            raise _httpx_error(error) from error
        except ValueError as error:
            # A header that cannot be sent.
            raise httpx.LocalProtocolError(str(error)) from error
        body = _Body(response)
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=body,
            request=request,
            extensions={
                "arriving": body,
                "reason_phrase": (response.reason or "").encode(),
                "http_version": b"HTTP/1.1",
            },
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response. All data that has arrived is yielded in one piece."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        protocol = None if response.connection is None else response.connection.protocol
        self._closed = None if protocol is None else protocol.closed
        self._end = partial(_end, response.content)
        if self._closed is not None:
            # Once, however many requests the connection has served.
            self._closed.remove_done_callback(_retrieve_error)
            self._closed.add_done_callback(_retrieve_error)
            self._closed.add_done_callback(self._end)

    async def aclose(self) -> None:
        if self._closed is not None:
            # The connection may serve more requests.
            self._closed.remove_done_callback(self._end)
        self._response.release()
        await self._response.wait_for_close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._response.content.readany()
        except ERRORS as error:
            raise _httpx_error(error) from error
        if not data:
            raise StopAsyncIteration
        return data


def _end(content: aiohttp.StreamReader, closed: asyncio.Future[None]) -> None:
    """Wake the reader of a body whose connection is closed. aiohttp's parser in C does not do that
    when it finds garbage in the body, and the reader would wait forever."""
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("The body broke off."))


def _retrieve_error(closed: asyncio.Future[None]) -> None:
    """Retrieve the error of a closed connection, which asyncio would log otherwise: readers get
    theirs, and an idle connection has none."""
    if not closed.cancelled():
        closed.exception()


ERRORS: Final = (aiohttp.ClientError, TimeoutError)


def _httpx_error(error: Exception) -> httpx.TransportError:
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return httpx.ConnectError(str(error))
        case TimeoutError():
            return httpx.ReadTimeout(str(error))
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(str(error))
    return httpx.ReadError(str(error))
