"""Answer requests that carry a bearer token past the site's middleware: :func:`fast_lane`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import closing
from functools import lru_cache
from io import BytesIO
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeAlias, cast

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.cache import close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.base import reset_urlconf
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, URLResolver, get_resolver, set_script_prefix
from django.utils.log import log_response

from ._gateway.delivery import AsyncDelivery
from ._gateway.flow import arun
from ._tasks import start_task
from ._threads import request_has_thread
from ._views.endpoint import Endpoint, endpoint_of
from ._views.http_responses import EventStream

__all__ = ["fast_lane"]

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

#: Maximum number of paths whose endpoints are remembered.
MATCHES: Final = 256

#: The receivers of ``request_started`` and ``request_finished`` that Django itself connects.
DJANGOS_OWN: Final = frozenset(
    map(id, (reset_queries, close_old_connections, close_caches, reset_urlconf))
)


def fast_lane(application: Application) -> Application:
    """Return an ASGI application that puts a fast lane in front of ``application``.

    It answers requests that carry a bearer token and whose path is that of an endpoint of this app,
    without the site's middleware. ``application`` gets all others as they are.
    """
    lane = _FastLane()

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        found = _find(scope) if _has_bearer_token(scope) else None
        if found is None:
            await application(scope, receive, send)
        else:
            async with ThreadSensitiveContext():
                await lane.answer(*found, receive, send)

    return choose


def _has_bearer_token(scope: Scope) -> bool:
    if scope["type"] == "http":
        for name, value in scope.get("headers", ()):
            if name == b"authorization":
                return value[:7].lower() == b"bearer " and bool(value[7:].strip())
    return False


def _find(scope: Scope) -> tuple[ASGIRequest, Endpoint] | None:
    """Return the request and its endpoint, or ``None`` if the site is to answer it."""
    try:
        request = ASGIRequest(scope, BytesIO())
        request.resolver_match, endpoint = _match(get_resolver(), request.path_info)
    except (UnicodeDecodeError, Resolver404):
        return None
    return request, endpoint


def _match(resolver: URLResolver, path: str) -> tuple[ResolverMatch, Endpoint]:
    """Return the match of a path, and its endpoint.

    Raises:
        Resolver404: The path leads to no view, or to a view of the site.
    """
    try:
        return _remembered_match(resolver, path)
    except _CapturesArguments as error:
        return error.found


class _CapturesArguments(Exception):
    """The match ``found`` holds for one request only: a converter may look arguments up, and a
    handler may change them."""

    def __init__(self, found: tuple[ResolverMatch, Endpoint]) -> None:
        self.found = found


# Django makes a new resolver when its caches are cleared or the setting changes. Paths that are
# not found are not kept, since a mount may be added to the patterns at any time.
@lru_cache(maxsize=MATCHES)
def _remembered_match(resolver: URLResolver, path: str) -> tuple[ResolverMatch, Endpoint]:
    match = resolver.resolve(path)
    endpoint = endpoint_of(match.func)
    if endpoint is None:
        raise Resolver404({"path": path})
    if "<" in match.route or "(" in match.route:
        raise _CapturesArguments((match, endpoint))
    return match, endpoint


class _FastLane(ASGIHandler):
    """Django's handler, with an endpoint in the place of the middleware and the view."""

    def __init__(self) -> None:
        # Django's constructor loads the middleware.
        pass

    async def answer(
        self, request: ASGIRequest, endpoint: Endpoint, receive: Receive, send: Send
    ) -> None:
        """Read the body of ``request``, and send what ``endpoint`` responds."""
        try:
            request._stream = await self._body(receive)
        except RequestAborted:
            return
        with closing(request):
            set_script_prefix(request.script_name or "")
            # Django's own receivers serve the thread of a request, which does not exist yet.
            if _has_receivers_of_the_site(request_started):
                await request_started.asend(sender=ASGIHandler, scope=request.scope)
            response: HttpResponseBase | None = None
            with _EndedByHangUp(receive):
                response = await arun(endpoint.respond(request))
                if response.status_code >= 400:
                    log: Any = log_response  # django-stubs narrows its response
                    await sync_to_async(log, thread_sensitive=False)(
                        "%s: %s",
                        response.reason_phrase,
                        request.path,
                        response=response,
                        request=request,
                    )
                await self.send_response(response, send)
            await _finish(response)

    async def _body(self, receive: Receive) -> BinaryIO:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            return BytesIO(message.get("body", b""))
        first = [message]

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        # Django's method keeps a large body in a file.
        return cast("BinaryIO", await self.read_body(receive_again))

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        if isinstance(response, EventStream) and isinstance(response.events, AsyncDelivery):

            def send_data(data: bytes) -> Awaitable[None]:
                return send({"type": "http.response.body", "body": data, "more_body": True})

            with closing(response.events):
                await send(_start(response))
                response.events.attach(send_data)
                async for data in response.events:
                    await send_data(data)
                await send({"type": "http.response.body"})
            return
        if isinstance(response, HttpResponse):
            # As CommonMiddleware does.
            response.headers.setdefault("Content-Length", str(len(response.content)))
            if not response.cookies:
                await send(_start(response))
                await send({"type": "http.response.body", "body": response.content})
                return
        await super().send_response(response, send)


def _start(response: HttpResponseBase) -> Message:
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def _finish(response: Any) -> None:
    """Send ``request_finished`` as Django does, which closes the connections to the database."""
    if response is None:
        await request_finished.asend(sender=ASGIHandler)
        return
    is_closed = isinstance(response, (HttpResponse, EventStream))
    if request_has_thread() or not is_closed or _has_receivers_of_the_site(request_finished):
        # The sender of the signal.
        response._handler_class = ASGIHandler
        await sync_to_async(response.close)()


def _has_receivers_of_the_site(signal: Signal) -> bool:
    return any(key[0] not in DJANGOS_OWN for key, *_ in signal.receivers)


async def _listen(receive: Receive) -> None:
    # After the body the server only sends a disconnect.
    await receive()


class _EndedByHangUp:
    """Cancel the block, and go on after it, when the client has closed the connection."""

    __slots__ = ("_has_hung_up", "_is_over", "_listening", "_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_hung_up = self._is_over = False

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._listening = start_task(_listen(self._receive))
        self._listening.add_done_callback(self._hang_up)

    def _hang_up(self, listening: asyncio.Task[None]) -> None:
        if not listening.cancelled():
            # If the server cannot listen, the client is no longer connected, either.
            listening.exception()
        # It may have been scheduled before the block ended.
        if not self._is_over:
            self._has_hung_up = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._is_over = True
        self._listening.cancel()
        if not self._has_hung_up:
            return False
        # The server may have cancelled the task, too.
        return not self._task.uncancel() and kind is asyncio.CancelledError
