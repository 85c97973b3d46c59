"""Django's test clients, and one with the fast lane in front of the site."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from io import BytesIO
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.test.client import AsyncClientHandler

from django_ollama_openai.asgi import fast_lane

__all__ = ["CLIENTS", "IDS", "FastLaneClient", "sender"]


class FastLaneClient(AsyncClient):
    """Sends what has a bearer token through the fast lane, and a site that lets everybody in gets
    one with each request."""

    def __init__(self, enforce_csrf_checks: bool = False, **options: Any) -> None:
        super().__init__(enforce_csrf_checks=enforce_csrf_checks, **options)
        self.handler = _Handler(enforce_csrf_checks)


CLIENTS = (Client, AsyncClient, FastLaneClient)
IDS = ("wsgi", "asgi", "fast-lane")
JSON = "application/json"


def sender(kind: type[Client | AsyncClient]) -> Callable[..., Any]:
    """Return a function that sends a request with a client of ``kind``, and returns its response
    when all of it has been received; a body that is no text or bytes is sent as JSON."""
    client: Any = kind(raise_request_exception=False)

    def send(method: str, path: str, body: Any = "", **more: Any) -> Any:
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return client.generic(method, path, content, **{"content_type": JSON, **more})

    async def asend(*arguments: Any, **options: Any) -> Any:
        before = asyncio.all_tasks()
        response = await send(*arguments, **options)
        if response.streaming:
            response.streaming_content = [part async for part in response.streaming_content]
        # The end of an answer does not wait for the receivers.
        if rest := asyncio.all_tasks() - before:
            await asyncio.wait(rest, timeout=60)
        return response

    return async_to_sync(asend) if issubclass(kind, AsyncClient) else send


class _Handler(AsyncClientHandler):
    async def __call__(self, scope: Any) -> Any:
        names = [name for name, _ in scope["headers"]]
        if b"authorization" not in names and settings.OLLAMA_OPENAI.get("ALLOW_ANONYMOUS"):
            scope["headers"].append((b"authorization", b"Bearer of-anybody"))
        answers: list[Any] = []

        async def the_site(*arguments: Any) -> None:
            answers.append(await super(_Handler, self).__call__(scope))

        exchange = _Exchange(scope)
        # As Django's own client does: the connections are the test's.
        for signal in (request_started, request_finished):
            signal.disconnect(close_old_connections)
        running = asyncio.create_task(fast_lane(the_site)(scope, exchange.receive, exchange.send))
        running.add_done_callback(_connect_again)
        if (response := await exchange.response(running)) is None:
            (response,) = answers
        else:
            response.asgi_request = ASGIRequest(scope, BytesIO())
        return response


def _connect_again(running: asyncio.Task[None]) -> None:
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


class _Exchange:
    """What a server does with one request."""

    def __init__(self, scope: Any) -> None:
        self._body = scope.get("_body_file")
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._is_over = asyncio.Event()

    async def receive(self) -> Any:
        if self._body is not False:
            body, self._body = self._body, False
            return {"type": "http.request", "body": body.read() if body else b""}
        await self._is_over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self._sent.put(message)

    async def response(self, running: asyncio.Task[None]) -> Any:
        """Return the response of the application, or ``None`` if it sends none."""
        running.add_done_callback(lambda _: self._sent.put_nowait(None))
        start = await self._sent.get()
        if start is None:
            running.result()
            return None
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        response: Any  # The stubs know no closers.
        if "Content-Length" in headers:
            content = b"".join([part async for part in self._parts(running)])
            response = HttpResponse(content, status=start["status"], headers=headers)
        else:
            parts = self._parts(running)
            response = StreamingHttpResponse(parts, status=start["status"], headers=headers)
            # Closing it is a disconnect. A test may do that in another thread.
            disconnect = partial(asyncio.get_running_loop().call_soon_threadsafe, self._is_over.set)
            response._resource_closers.append(disconnect)
        if "Content-Type" not in headers:
            del response.headers["Content-Type"]
        return response

    async def _parts(self, running: asyncio.Task[None]) -> AsyncIterator[bytes]:
        try:
            while (message := await self._sent.get()) is not None:
                if body := message.get("body"):
                    yield body
        finally:
            self._is_over.set()
            await running
