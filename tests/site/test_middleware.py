"""With each middleware that Django ships, and with those that read the body late, every answer
stays as it is.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import django
import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.test import AsyncClient, Client
from django.utils.decorators import sync_and_async_middleware

from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.exceptions import UpstreamUnavailable
from tests.fast_lane import sender

if TYPE_CHECKING:
    from pytest_django import Settings

HERE = __name__
KEY = "sk-middleware"
CHAT = "v1/chat/completions"
HI = {"model": "m", "messages": [{"role": "user", "content": "Hi " * 200}]}
LARGE = {"model": "m", "messages": [{"role": "user", "content": "x" * 3_000_000}]}

SHIPPED = [
    "django.contrib.admindocs.middleware.XViewMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.auth.middleware.PersistentRemoteUserMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
    "django.contrib.redirects.middleware.RedirectFallbackMiddleware",
    "django.contrib.sites.middleware.CurrentSiteMiddleware",
    "django.middleware.cache.CacheMiddleware",
    "django.middleware.common.BrokenLinkEmailsMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.locale.LocaleMiddleware",
]
if django.VERSION >= (6, 0):
    SHIPPED.append("django.middleware.csp.ContentSecurityPolicyMiddleware")

LAST = SHIPPED[:7]
"""Those that need the session, the user or the site; the others stand before all."""

seen: list[bytes] = []
"""The bodies that the middleware below has read."""


def _reader(reads: Callable[[HttpRequest, Any], Any]) -> Any:
    """A middleware that does ``reads`` after the view, in both of Django's ways."""

    @sync_and_async_middleware
    def factory(get_response: Any) -> Any:
        if iscoroutinefunction(get_response):

            async def amiddleware(request: HttpRequest) -> Any:
                return reads(request, await get_response(request))

            return amiddleware

        def middleware(request: HttpRequest) -> Any:
            return reads(request, get_response(request))

        return middleware

    return factory


def _always(request: HttpRequest, response: Any) -> Any:
    seen.append(request.body)
    return response


def _on_errors(request: HttpRequest, response: Any) -> Any:
    return _always(request, response) if response.status_code >= 400 else response


def _in_streams(request: HttpRequest, response: Any) -> Any:
    def events(content: Iterator[bytes]) -> Iterator[bytes]:
        for event in content:
            seen.append(request.body)
            yield event

    async def aevents(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for event in content:
            seen.append(request.body)
            yield event

    if response.streaming:
        wrap: Any = aevents if response.is_async else events
        response.streaming_content = wrap(response.streaming_content)
    return response


body_reader = _reader(_always)
error_body_reader = _reader(_on_errors)
stream_body_reader = _reader(_in_streams)

READERS = [f"{HERE}.{name}" for name in ("body_reader", "error_body_reader", "stream_body_reader")]


@dataclass(frozen=True)
class Request:
    """What is sent, with a key unless it says otherwise, and the status that answers it."""

    status: int
    method: str = "POST"
    path: str = CHAT
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


STREAM = {**HI, "stream": True}
NO_KEY = {"Authorization": ""}
FROM_A_PAGE = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
REQUESTS = {
    "chat": Request(200, body=HI),
    "large chat": Request(200, body=LARGE),
    "encoded chat": Request(
        200, body=gzip.compress(json.dumps(HI).encode()), headers={"Content-Encoding": "gzip"}
    ),
    "stream": Request(200, body=STREAM),
    "large stream": Request(200, body={**LARGE, "stream": True}),
    "failing stream": Request(200, body={**STREAM, "model": "fails"}),
    "responses": Request(200, path="v1/responses", body={"model": "m", "input": "Hi"}),
    "bad field": Request(400, body={**HI, "n": "x"}),
    "no JSON": Request(400, body=b"{"),
    "no key": Request(401, body=HI, headers=NO_KEY),
    "no key, large": Request(401, body=LARGE, headers=NO_KEY),
    "no model": Request(404, body={**HI, "model": "gone"}),
    "no path": Request(404, path="nothing", body=LARGE),
    "no path, from a page": Request(
        404, "GET", "nothing", headers={"Referer": "http://testserver/page"}
    ),
    "no method": Request(405, "PUT", body=HI),
    "too large": Request(413, body=b" " * 4_000_001),
    "models": Request(200, "GET", "v1/models"),
    "models, again": Request(200, "GET", "v1/models"),
    "models, without a key": Request(401, "GET", "v1/models", headers=NO_KEY),
    "head": Request(200, "HEAD", "v1/models/m"),
    "health": Request(200, "GET", "health"),
    "health, without a key": Request(200, "GET", "health", headers=NO_KEY),
    "document": Request(200, "GET", "openapi.json", headers=NO_KEY),
    "preflight": Request(200, "OPTIONS", headers={**FROM_A_PAGE, **NO_KEY}),
}
UNREAD = {"no key, large", "no path", "too large"}
"""Larger than what Django reads of itself, and refused before that."""

Send: TypeAlias = Callable[[Request], Any]
Answer: TypeAlias = tuple[int, str, bytes, str | None]


class Fails(DummyBackend):
    """Breaks off after the first words."""

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        yield Delta(content="one ")
        raise UpstreamUnavailable

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_chat(request):
            yield delta


@pytest.fixture(params=[Client, AsyncClient], ids=["wsgi", "asgi"])
def send(request: pytest.FixtureRequest) -> Send:
    """A request by either client; a stream is read to its end."""

    def send(given: Request) -> Answer:
        # A client of its own: cookies of one request must not let another in.
        send = sender(request.param)
        headers = {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "gzip", **given.headers}
        response = send(given.method, f"/ai/{given.path}", given.content, headers=headers)
        return answer(response, response.getvalue())

    return send


def answer(response: Any, content: bytes) -> Answer:
    """What a client sees, but for what differs from one answer to the next."""
    encoding = response.headers.get("Content-Encoding")
    if encoding == "gzip":
        content = gzip.decompress(content)
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        assert encoding == "identity"
    assert response.headers["x-request-id"]
    content = re.sub(rb'"(latency_ms|created|created_at|completed_at)":[0-9.]+', b"", content)
    content = re.sub(rb"(chatcmpl|resp|msg)[-_][0-9a-f]+", b"", content)
    origin = response.headers.get("Access-Control-Allow-Origin")
    return response.status_code, response.headers.get("Content-Type", ""), content, origin


@pytest.fixture(autouse=True)
def site(settings: Settings) -> None:
    dummy = "django_ollama_openai.backends.DummyBackend"
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {
            "default": {"BACKEND": dummy, "OPTIONS": {"models": ["m"]}},
            "fails": {"BACKEND": f"{HERE}.Fails"},
        },
        "MODELS": {"fails": {"BACKEND": "fails"}},
        "ALLOWED_MODELS": ["m", "fails"],
        "API_KEYS": [KEY],
        "CORS_ORIGINS": ["https://app.example"],
        "MAX_BODY_BYTES": 4_000_000,
    }


@pytest.mark.django_db
@pytest.mark.parametrize("name", [*SHIPPED, *READERS], ids=lambda name: name.rpartition(".")[2])
def test_answers_stay_as_they_are(send: Send, settings: Settings, name: str) -> None:
    before = {what: send(request) for what, request in REQUESTS.items()}
    assert {what: status for what, (status, *_) in before.items()} == {
        what: request.status for what, request in REQUESTS.items()
    }
    seen.clear()
    first = settings.MIDDLEWARE if name in LAST else []
    rest = [] if name in LAST else settings.MIDDLEWARE
    settings.MIDDLEWARE = [*first, name, *rest]
    assert {what: send(request) for what, request in REQUESTS.items()} == before
    bodies = [b"" if what in UNREAD else each.content for what, each in REQUESTS.items()]
    assert seen == bodies if name == READERS[0] else set(seen) <= {*bodies}
    assert bool(seen) == (name in READERS)
