"""A stage that does I/O between two requests to the engine, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from django.test import AsyncClient, Client
from pytest_django.fixtures import Settings

from django_ollama_openai._gateway import chat
from django_ollama_openai._gateway.completion import chat_sources
from django_ollama_openai._gateway.flow import call
from django_ollama_openai._gateway.stages import BaseStage, Steps
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.exceptions import Overloaded, UpstreamUnavailable
from django_ollama_openai.signals import completion_finished
from tests.fast_lane import sender

HERE = __name__
URL = "/ai/v1/chat/completions"
BODY: dict[str, Any] = {"model": "dummy", "messages": [{"role": "user", "content": "a b c"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WITHIN = 30.0


class Plain(DummyBackend):
    """Does not know ``tool_choice``."""

    supported_parameters = frozenset({"tools", "response_format"})


class Failing(DummyBackend):
    """Answers its first request only."""

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        if self.requests:
            raise UpstreamUnavailable
        yield from super().stream_chat(request)


class Lookup(BaseStage):
    """Asks the engine, looks something up, and asks it again."""

    look: ClassVar[Callable[[], str]]
    alook: ClassVar[Callable[[], Any]]

    def __init__(self, request: ChatCompletionRequest) -> None:
        super().__init__(request)
        self.is_last = False

    def steps(self) -> Steps[Delta]:
        yield self.request
        found = yield from call(type(self).look, type(self).alook)
        if found:
            yield Delta(f" <{found}> ")
        self.is_last = True
        yield self.request

    def feed(self, delta: Delta) -> Delta:
        if not self.is_last:
            delta.finish_reason = None
        return delta


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the chats of the site use the stage, with this I/O."""

    def lookup(look: Callable[[], str], alook: Callable[[], Any]) -> None:
        stage = type("Stage", (Lookup,), {"look": staticmethod(look), "alook": staticmethod(alook)})
        monkeypatch.setattr(chat, "chat_sources", lambda body, _: chat_sources(body, [stage]))

    return lookup


@pytest.fixture
def engine(settings: Settings) -> Iterator[Callable[..., DummyBackend]]:
    def engine(kind: str = "Plain", **options: Any) -> DummyBackend:
        backend = {"BACKEND": f"{HERE}.{kind}", "OPTIONS": options}
        limits = {"MAX_CONCURRENCY": 1, "MAX_QUEUE": 0}
        settings.OLLAMA_OPENAI = {
            "ALLOW_ANONYMOUS": True,
            "BACKENDS": {"default": {**backend, **limits}, "other": backend},
            "MODELS": {"dummy": {"FALLBACKS": ["spare"]}, "spare": {"BACKEND": "other"}},
        }
        made = backends["default"]
        assert isinstance(made, DummyBackend)
        return made

    yield engine
    backends.close()


Post = Callable[..., tuple[int, bytes]]


@pytest.fixture(params=[Client, AsyncClient], ids=["wsgi", "asgi"])
def post(request: pytest.FixtureRequest) -> Post:
    send = sender(request.param)

    def post(**changes: Any) -> tuple[int, bytes]:
        response = send("POST", URL, {**BODY, **changes})
        return response.status_code, response.getvalue()

    return post


def content(answer: bytes) -> str:
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith(b"data: {")]
    return "".join(
        choice["delta"].get("content") or "" for e in events for choice in e.get("choices", ())
    )


@pytest.mark.parametrize("streams", [True, False])
def test_the_slot_is_free_during_the_io(
    engine: Callable[..., DummyBackend],
    lookup: Callable[..., None],
    post: Post,
    streams: bool,
) -> None:
    backend = engine(replies=["one two", "three"])
    running = []

    def look() -> str:
        with backend.slots.acquire(QueueTicket()):
            running.append(backend.slots.running)
        return "found"

    async def alook() -> str:
        async with backend.slots.acquire(QueueTicket()):
            running.append(backend.slots.running)
        return "found"

    lookup(look, alook)
    status, answer = (
        post(stream=streams, stream_options={"include_usage": True}) if streams else (post())
    )
    assert status == 200
    assert (running, backend.slots.running) == ([1], 0)
    if streams:
        assert content(answer) == "one two <found> three"
        assert answer.count(b'"finish_reason":"stop"') == 1
        return
    body = json.loads(answer)
    assert body["choices"][0]["message"]["content"] == "one two <found> three"
    # The sum of both requests.
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (6, 3)


def test_each_choice_has_a_stage_and_tool_choice_is_the_innermost(
    engine: Callable[..., DummyBackend], lookup: Callable[..., None], post: Post
) -> None:
    backend = engine(replies=["No.", '{"name": "f", "arguments": {}}'])
    looked = []

    async def alook() -> str:
        looked.append(1)
        return "found"

    lookup(lambda: asyncio.run(alook()), alook)
    status, answer = post(tools=[TOOL], tool_choice="required")
    assert status == 200
    body = json.loads(answer)
    (choice,) = body["choices"]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
    assert [bool(each.tools) for each in backend.requests] == [True, False, True, False]
    figures = [each.usage for r in backend.requests for each in DummyBackend().stream_chat(r)]
    spent = sum(usage.prompt_tokens for usage in figures if usage is not None)
    assert body["usage"]["prompt_tokens"] == spent
    assert body["usage"]["completion_tokens"] == 2 * (1 + 4)
    status, _ = post(n=1)
    assert (status, len(looked)) == (200, 2)


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [(Overloaded(), 503, ""), (RuntimeError("secret"), 500, "crashed")],
)
def test_the_failure_of_the_io_is_that_of_the_request(
    engine: Callable[..., DummyBackend],
    lookup: Callable[..., None],
    post: Post,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    logged: str,
) -> None:
    backend = engine()

    def look() -> str:
        raise error

    async def alook() -> str:
        raise error

    lookup(look, alook)
    with caplog.at_level(logging.ERROR, "django_ollama_openai"):
        told, answer = post()
    assert told == status
    assert b"secret" not in answer
    assert logged in caplog.text
    # No other model is tried for it.
    other = backends["other"]
    assert isinstance(other, DummyBackend)
    assert (len(backend.requests), len(other.requests)) == (1, 0)
    told, answer = post(stream=True)
    assert (told, b'"error"' in answer) == (200, True)
    assert backend.slots.running == 0


def test_no_other_model_goes_on_with_an_answer(
    engine: Callable[..., DummyBackend], lookup: Callable[..., None], post: Post
) -> None:
    engine("Failing", replies=["half"])

    async def alook() -> str:
        return "found"

    lookup(lambda: "found", alook)
    _, answer = post(stream=True)
    assert content(answer) == "half <found> "
    assert b"upstream_unavailable" in answer
    other = backends["other"]
    assert isinstance(other, DummyBackend)
    assert other.requests == []


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def endings() -> Iterator[list[str]]:
    reasons: list[str] = []

    def receiver(finish_reason: str, **facts: Any) -> None:
        reasons.append(finish_reason)

    completion_finished.connect(receiver)
    yield reasons
    completion_finished.disconnect(receiver)


@pytest.mark.django_db  # Django closes its connections with the response
def test_a_client_that_goes_during_the_io_under_wsgi(
    engine: Callable[..., DummyBackend], lookup: Callable[..., None], endings: list[str]
) -> None:
    backend = engine()
    inside, may_go, over = threading.Event(), threading.Event(), threading.Event()

    def look() -> str:
        inside.set()
        assert may_go.wait(WITHIN)
        over.set()
        return ""

    async def alook() -> str:
        raise AssertionError("This is WSGI.")

    lookup(look, alook)
    response: Any = Client().post(
        URL, json.dumps({**BODY, "stream": True}), content_type="application/json"
    )
    next(response.streaming_content)
    assert inside.wait(WITHIN)
    response.close()
    assert (endings, backend.slots.running) == (["cancelled"], 0)
    may_go.set()
    assert over.wait(WITHIN)
    wait_until(lambda: "ollama-openai-pump" not in [t.name for t in threading.enumerate()])
    assert len(backend.requests) == 1


async def test_a_client_that_goes_during_the_io_under_asgi(
    engine: Callable[..., DummyBackend], lookup: Callable[..., None], endings: list[str]
) -> None:
    backend = engine()
    inside, cancelled = asyncio.Event(), asyncio.Event()

    async def alook() -> str:
        inside.set()
        try:
            await asyncio.sleep(WITHIN)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "found"

    lookup(lambda: "This is ASGI.", alook)
    response: Any = await AsyncClient().post(
        URL, json.dumps({**BODY, "stream": True}), content_type="application/json"
    )
    await anext(aiter(response.streaming_content))
    await asyncio.wait_for(inside.wait(), WITHIN)
    response.close()
    await asyncio.wait_for(cancelled.wait(), WITHIN)
    await asyncio.to_thread(wait_until, lambda: endings)
    assert (endings, backend.slots.running) == (["cancelled"], 0)
    assert len(backend.requests) == 1


class Chatters(BaseStage):
    """Yields for some seconds, and never waits."""

    until = 0.0
    has_begun = False

    def steps(self) -> Steps[Delta]:
        Chatters.until = time.monotonic() + 5
        while time.monotonic() < self.until:
            yield Delta("on ")
            Chatters.has_begun = True


async def test_a_stage_that_never_waits_leaves_the_event_loop_to_others(
    engine: Callable[..., DummyBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()
    monkeypatch.setattr(Chatters, "has_begun", False)
    monkeypatch.setattr(chat, "chat_sources", lambda body, _: chat_sources(body, [Chatters]))
    asking = asyncio.ensure_future(
        AsyncClient().post(URL, json.dumps(BODY), content_type="application/json")
    )
    while not Chatters.has_begun:  # noqa: ASYNC110  (another task's step)
        await asyncio.sleep(0.001)
    assert time.monotonic() < Chatters.until
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
