"""How much work a token of a stream is: counted, not timed, so that no noise can fail it.

The whole way is run, from Django's ASGI handler to the client of the engine; only the two sockets
are not there. What a token costs is the difference between a longer stream and a shorter one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings

import django_ollama_openai
from django_ollama_openai.asgi import fast_lane
from django_ollama_openai.backends import OllamaBackend
from django_ollama_openai.backends._ollama_client import AsyncOllamaClient
from django_ollama_openai.signals import completion_finished

TOKEN = b'{"model":"m","message":{"role":"assistant","content":" token"},"done":false}\n'
TURNS = 4
"""How many callbacks the engine takes for each of its reads."""

PACKAGE = str(Path(django_ollama_openai.__file__).parent)
SET_TIMER = asyncio.BaseEventLoop.call_at.__code__

DONE = b'{"model":"m","message":{"content":""},"done":true,"done_reason":"stop"}\n'


class Engine(httpx.AsyncBaseTransport):
    """Answers in the reads that the name of the model asks for: ``100x1`` is a hundred reads of one
    line each."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reads, lines = json.loads(request.content)["model"].split("x")
        return httpx.Response(200, stream=Reads(int(reads), TOKEN * int(lines)))


class Reads(httpx.AsyncByteStream):
    def __init__(self, count: int, data: bytes) -> None:
        self._count = count
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            # As a socket, it has nothing before the event loop has gone round: time enough for the
            # reader to be waiting again.
            turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(_turn, turned, TURNS - 1)
            await turned
            yield self._data
        yield DONE


def _turn(turned: asyncio.Future[None], more: int) -> None:
    if more:
        asyncio.get_running_loop().call_soon(_turn, turned, more - 1)
    else:
        turned.set_result(None)


class ScriptedBackend(OllamaBackend):
    def get_async_client(self) -> AsyncOllamaClient:
        return AsyncOllamaClient(transport=Engine())


class PerToken(NamedTuple):
    sends: float
    timers: float
    calls: float


@dataclass
class Work:
    """The work of an answer: pieces sent, timers set, and calls of the package's own functions,
    where resuming a generator is one."""

    sends: int = 0
    timers: int = 0
    calls: int = 0
    tokens: int = 0

    def per_token(self, shorter: Work) -> PerToken:
        tokens = self.tokens - shorter.tokens
        return PerToken(
            *((getattr(self, name) - getattr(shorter, name)) / tokens for name in PerToken._fields)
        )


SITE = override_settings(
    OLLAMA_OPENAI={
        "BACKENDS": {"default": {"BACKEND": f"{__name__}.ScriptedBackend"}},
        "API_KEYS": ["a-key"],
    },
    MIDDLEWARE=[],
)


async def stream(model: str, lane: Callable[[Any], Any]) -> Work:
    """Ask the site for a stream, and count."""
    work = Work()
    content = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    arriving.put_nowait({"type": "http.request", "body": json.dumps(content).encode()})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            return
        body = message.get("body", b"")
        work.sends += bool(body)
        work.tokens += body.count(b'" token"')

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/ai/v1/chat/completions",
        "query_string": b"",
        "headers": [
            (b"host", b"testserver"),
            (b"authorization", b"Bearer a-key"),
            (b"content-type", b"application/json"),
        ],
    }

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            work.calls += code.co_filename.startswith(PACKAGE)
            work.timers += code is SET_TIMER

    handler: Any = lane(ASGIHandler())
    sys.setprofile(count)
    try:
        await handler(scope, arriving.get, send)
    finally:
        sys.setprofile(None)
    return work


@pytest.fixture
def is_observed() -> Any:
    """Somebody wants to be told of the whole answer, as usage records do."""

    async def receive(**facts: Any) -> None:
        assert facts["finish_reason"] == "stop"

    completion_finished.connect(receive)
    yield
    completion_finished.disconnect(receive)


@pytest.fixture(params=[lambda site: site, fast_lane], ids=["normal", "fast"])
def lane(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    wrap: Callable[[Any], Any] = request.param
    return wrap


async def cost(lane: Callable[[Any], Any], shorter: str, longer: str) -> PerToken:
    with SITE:
        await stream(shorter, lane)  # what is imported and cached at first does not count
        first = await stream(shorter, lane)
        second = await stream(longer, lane)
    return second.per_token(first)


@pytest.mark.usefixtures("is_observed")
async def test_a_token_that_comes_alone(lane: Callable[[Any], Any]) -> None:
    token = await cost(lane, "50x1", "150x1")
    assert token.sends == 1
    assert token.timers < 0.1
    assert token.calls <= 60


@pytest.mark.usefixtures("is_observed")
async def test_tokens_that_come_together_leave_together(lane: Callable[[Any], Any]) -> None:
    token = await cost(lane, "5x20", "15x20")
    assert token.sends == 1 / 20
    assert token.timers < 0.1
    assert token.calls <= 30
