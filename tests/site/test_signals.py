"""The signals around completions, and the dummy backend that makes them easy to test.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.dispatch import Signal
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import AsyncClient

from django_ollama_openai._gateway.flow import uninterrupted
from django_ollama_openai._gateway.outcome import Timings
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta, Usage
from django_ollama_openai.auth import Caller
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.exceptions import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamTimeout,
)
from django_ollama_openai.signals import (
    completion_failed,
    completion_finished,
    completion_recorded,
    completion_started,
)
from tests.fast_lane import CLIENTS, IDS
from tests.ollama_server import Answer, Close, OllamaServer, Reply, error, line

if TYPE_CHECKING:
    from pytest_django import Settings

Ask: TypeAlias = Callable[..., Any]
Configure: TypeAlias = Callable[..., None]
Event: TypeAlias = tuple[str, dict[str, Any]]

SIGNALS = {
    "started": completion_started,
    "finished": completion_finished,
    "failed": completion_failed,
}
ALWAYS = {
    "signal",
    "sender",
    "request",
    "request_id",
    "caller",
    "endpoint",
    "body",
    "model",
    "backend",
}
ENDING = {"answered_by", "failures", "usage", "timings", "messages"}
DUMMY = "django_ollama_openai.backends.DummyBackend"
HERE = __name__
KEY = "sk-test-key"
URL = "/ai/v1/chat/completions"
HI = {"role": "user", "content": "Say something nice"}
OLLAMA_MODEL = "smollm2:135m"


class Endless(DummyBackend):
    """Goes on until nobody listens."""

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        while True:
            yield Delta(content="on ")
            time.sleep(0.01)

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        while True:
            yield Delta(content="on ")
            await asyncio.sleep(0.01)


class Fails(DummyBackend):
    """Fails with ``error``, after ``words`` words."""

    def __init__(self, *, words: int, error: type[Exception], **options: Any) -> None:
        super().__init__(**options)
        self._words, self._error = words, error

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        for _ in range(self._words):
            yield Delta(content="well ", tokens=2)
        raise self._error("m" if self._error is ModelNotFound else "secret detail")

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_chat(request):
            yield delta


@pytest.fixture(params=CLIENTS, ids=IDS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """A request by either client; of a stream all is read, or as much as has ``until`` in it."""
    client = request.param(raise_request_exception=False)

    def post(request_id: str = "", **changes: Any) -> Any:
        headers = {"Authorization": f"Bearer {KEY}", "x-request-id": request_id}
        body = json.dumps({"model": "m", "messages": [HI], **changes})
        return client.post(URL, body, content_type="application/json", headers=headers)

    def ask_sync(until: bytes | None = None, **changes: Any) -> Any:
        response = post(**changes)
        response.received = b"" if response.streaming else response.content
        if response.streaming:
            for part in response.streaming_content:
                response.received += part
                if until and until in response.received:
                    response.close()
                    break
        return response

    async def ask_async(until: bytes | None = None, **changes: Any) -> Any:
        before = asyncio.all_tasks()
        response = await post(**changes)
        response.received = b"" if response.streaming else response.content
        if response.streaming:
            async with aclosing(aiter(response.streaming_content)) as parts:
                async for part in parts:
                    response.received += part
                    if until and until in response.received:
                        await sync_to_async(response.close)()
                        break
        # The end of an answer does not wait for the receivers, nor does a client that hangs up.
        if rest := asyncio.all_tasks() - before:
            await asyncio.wait(rest, timeout=60)
        return response

    return async_to_sync(ask_async) if issubclass(request.param, AsyncClient) else ask_sync


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Configure:
    """Sets ``OLLAMA_OPENAI``, in front of a backend with canned replies."""

    def configure(**default: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
            "MODELS": {"alias": {"MODEL": "m"}},
            "BACKENDS": {"default": {"BACKEND": DUMMY, **default}},
        }

    configure()
    return configure


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """The signals in the order in which they were sent, with their arguments."""
    seen: list[Event] = []

    def receiver(name: str) -> Callable[..., None]:
        return lambda **facts: seen.append((name, facts))

    receivers = {name: receiver(name) for name in SIGNALS}
    for name, signal in SIGNALS.items():
        signal.connect(receivers[name])
    yield seen
    for name, signal in SIGNALS.items():
        signal.disconnect(receivers[name])


def ending(events: list[Event], name: str) -> dict[str, Any]:
    """The arguments of the second of two signals, which is ``name``."""
    assert [event for event, _ in events] == ["started", name]
    (_, started), (_, facts) = events
    assert {key: value for key, value in facts.items() if key in ALWAYS - {"signal"}} == {
        key: value for key, value in started.items() if key not in {"signal", "queued"}
    }
    return facts


# What is sent


@pytest.mark.compat("chat.request.user")
@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_started_and_finished(ask: Ask, events: list[Event], stream: bool) -> None:
    response = ask(model="alias", stream=stream, request_id="req-7", user="ada")
    facts = ending(events, "finished")
    assert set(facts) == ALWAYS | ENDING | {"finish_reason"}
    assert set(events[0][1]) == ALWAYS | {"queued"}
    assert events[0][1]["queued"] == 0
    assert facts["signal"] is completion_finished
    assert facts["sender"] is DummyBackend
    assert isinstance(facts["request"], HttpRequest)
    assert facts["request"].path == URL
    assert facts["request_id"] == response.headers["x-request-id"] == "req-7"
    assert facts["caller"] == Caller(key_id="tester", key_name="tester")
    assert facts["endpoint"] == "chat.completions"
    assert isinstance(facts["body"], ChatCompletionRequest)
    assert (facts["body"].model, facts["body"].model_extra) == ("alias", {"user": "ada"})
    assert (facts["model"], facts["backend"]) == ("alias", "default")
    assert facts["finish_reason"] == "stop"
    assert facts["usage"] == Usage(prompt_tokens=3, completion_tokens=5)
    assert facts["messages"][0]["role"] == "assistant"
    assert facts["messages"][0]["content"] == "This is a canned reply."
    timings = facts["timings"]
    assert isinstance(timings, Timings)
    assert timings.time_to_first_token is not None
    assert 0 < timings.time_to_first_token <= timings.total < 5
    assert timings.queued == 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_is_what_ollama_says(
    ask: Ask, events: list[Event], configure: Configure, ollama: OllamaServer, stream: bool
) -> None:
    configure(BACKEND="django_ollama_openai.backends.OllamaBackend", HOST=ollama.url)
    ollama.reply(Answer(["a", "b", "c"], prompt_tokens=77, done_reason="length"))
    ask(model=OLLAMA_MODEL, stream=stream)
    facts = ending(events, "finished")
    assert facts["usage"] == Usage(prompt_tokens=77, completion_tokens=3)
    assert facts["usage"].total_tokens == 80
    assert facts["finish_reason"] == "length"
    assert facts["messages"][0]["content"] == "abc"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", [UpstreamTimeout, InvalidRequest, ModelNotFound, RuntimeError])
def test_a_failure_before_the_first_token(
    ask: Ask,
    events: list[Event],
    configure: Configure,
    stream: bool,
    failure: type[Exception],
) -> None:
    configure(BACKEND=f"{HERE}.Fails", OPTIONS={"words": 0, "error": failure})
    response = ask(model="alias", stream=stream)
    facts = ending(events, "failed")
    assert set(facts) == ALWAYS | ENDING | {"error"}
    assert facts["sender"] is Fails
    assert response.json() == facts["error"].envelope()
    assert response.status_code == facts["error"].status
    assert type(facts["error"]) is (GatewayError if failure is RuntimeError else failure)
    assert facts["usage"] == Usage(estimated=True)
    assert facts["timings"].time_to_first_token is None
    assert facts["timings"].total >= 0
    assert facts["messages"][0]["content"] == ""
    if failure is ModelNotFound:
        assert "'alias'" in str(facts["error"])
    if failure is RuntimeError:
        assert "secret" not in response.content.decode()


@pytest.mark.parametrize("failure", [UpstreamError, RuntimeError])
def test_a_failure_within_a_stream(
    ask: Ask, events: list[Event], configure: Configure, failure: type[Exception]
) -> None:
    configure(BACKEND=f"{HERE}.Fails", OPTIONS={"words": 3, "error": failure})
    response = ask(stream=True)
    facts = ending(events, "failed")
    assert response.status_code == 200
    *_, frame, done, end = response.received.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    assert json.loads(frame.removeprefix(b"data: ")) == facts["error"].envelope()
    assert facts["usage"] == Usage(completion_tokens=6, estimated=True)
    assert facts["messages"][0]["content"] == "well well well "
    assert facts["timings"].time_to_first_token is not None
    assert (b"secret" in response.received) is (failure is UpstreamError)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_of_ollamas_that_breaks_off_has_failed(
    ask: Ask, events: list[Event], configure: Configure, ollama: OllamaServer, stream: bool
) -> None:
    configure(BACKEND="django_ollama_openai.backends.OllamaBackend", HOST=ollama.url)
    part = {"model": OLLAMA_MODEL, "message": {"content": "half"}, "done": False}
    ollama.reply(Reply([line(part), Close()]), error(503, "busy"))
    ask(model=OLLAMA_MODEL, stream=stream)
    facts = ending(events, "failed")
    assert facts["error"].code == "bad_upstream"
    events.clear()
    assert ask(model=OLLAMA_MODEL, stream=stream).status_code == 503
    assert ending(events, "failed")["error"].code == "upstream_unavailable"


@pytest.mark.django_db  # Django closes its connections with the response
@pytest.mark.parametrize("until", [b"assistant", b'"on "'])
def test_a_client_that_hangs_up_has_cancelled(
    ask: Ask, events: list[Event], configure: Configure, until: bytes
) -> None:
    configure(BACKEND=f"{HERE}.Endless")
    before = set(threading.enumerate())
    response = ask(stream=True, until=until)
    facts = ending(events, "finished")
    assert set(facts) == ALWAYS | ENDING | {"finish_reason"}
    assert facts["finish_reason"] == "cancelled"
    produced = facts["messages"][0]["content"]
    assert set(produced.split()) == {"on"}
    assert facts["usage"] == Usage(completion_tokens=len(produced.split()), estimated=True)
    assert response.received.count(b'"on "') <= facts["usage"].completion_tokens
    assert facts["timings"].time_to_first_token is not None
    # The backend's work has ended too.
    for thread in set(threading.enumerate()) - before:
        if thread.name == "ollama-openai-pump":
            thread.join(60)
            assert not thread.is_alive()
    assert len(events) == 2


@pytest.mark.django_db
def test_a_client_that_hangs_up_after_the_last_frame_has_all(ask: Ask, events: list[Event]) -> None:
    ask(stream=True, until=b"data: [DONE]")
    facts = ending(events, "finished")
    assert facts["finish_reason"] == "stop"
    assert facts["usage"] == Usage(prompt_tokens=3, completion_tokens=5)


@pytest.mark.parametrize("stream", [False, True])
def test_what_passes_no_gate_is_not_started(
    ask: Ask, events: list[Event], settings: Settings, stream: bool
) -> None:
    assert ask(messages=[], stream=stream).status_code == 400
    assert ask(model=None, stream=stream).status_code == 400
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ALLOWED_MODELS": []}
    assert ask(stream=stream).status_code == 404
    settings.OLLAMA_OPENAI = {}
    assert ask(stream=stream).status_code == 401
    assert events == []


# Receivers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["started", "finished"])
def test_a_receiver_that_raises_disturbs_nothing_and_is_logged(
    ask: Ask,
    events: list[Event],
    caplog: pytest.LogCaptureFixture,
    name: str,
    stream: bool,
) -> None:
    def raises(**facts: Any) -> None:
        raise RuntimeError("a receiver's own fault")

    SIGNALS[name].connect(raises)
    try:
        response = ask(stream=stream)
    finally:
        SIGNALS[name].disconnect(raises)
    assert response.status_code == 200
    assert b"reply." in response.received
    assert ending(events, "finished")["finish_reason"] == "stop"
    logged = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [entry.name for entry in logged] == ["django.dispatch"]
    assert "a receiver's own fault" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_receivers_may_be_asynchronous(ask: Ask, stream: bool) -> None:
    seen = []

    async def receiver(**facts: Any) -> None:
        await asyncio.sleep(0)
        seen.append(facts["usage"].total_tokens)

    completion_finished.connect(receiver)
    try:
        ask(stream=stream)
    finally:
        completion_finished.disconnect(receiver)
    assert seen == [8]


@pytest.mark.parametrize("stream", [False, True])
def test_a_receiver_may_be_for_one_kind_of_backend(ask: Ask, stream: bool) -> None:
    seen: list[str] = []

    def mine(**facts: Any) -> None:
        seen.append("mine")

    def other(**facts: Any) -> None:
        seen.append("other")

    completion_finished.connect(mine, sender=DummyBackend)
    completion_finished.connect(other, sender=Endless)
    try:
        ask(stream=stream)
    finally:
        completion_finished.disconnect(mine, sender=DummyBackend)
        completion_finished.disconnect(other, sender=Endless)
    assert seen == ["mine"]


@pytest.mark.django_db
@pytest.mark.parametrize("stream", [False, True])
def test_receivers_may_use_the_database(ask: Ask, stream: bool) -> None:
    from django.contrib.auth.models import User

    def receiver(model: str, **facts: Any) -> None:
        User.objects.create_user(f"{model} was used")

    completion_finished.connect(receiver)
    try:
        ask(stream=stream)
    finally:
        completion_finished.disconnect(receiver)
    assert User.objects.get().username == "m was used"


# What is to be measured


@pytest.fixture
def ends() -> Iterator[list[dict[str, Any]]]:
    """The arguments of ``completion_recorded``, as often as it was sent."""
    seen: list[dict[str, Any]] = []

    def receiver(**facts: Any) -> None:
        seen.append(facts)

    completion_recorded.connect(receiver)
    yield seen
    completion_recorded.disconnect(receiver)


@pytest.mark.parametrize("stream", [False, True])
def test_every_end_is_signalled_without_its_text(
    ask: Ask, events: list[Event], ends: list[dict[str, Any]], stream: bool
) -> None:
    ask(stream=stream, n=2)
    (facts,), finished = ends, ending(events, "finished")
    more = {"answered_by", "failures", "usage", "timings", "finish_reason", "error", "choices"}
    assert set(facts) == ALWAYS | more
    told = {"finish_reason", "usage", "timings", *ALWAYS} - {"signal"}
    assert {name: facts[name] for name in told} == {name: finished[name] for name in told}
    assert (facts["error"], facts["choices"]) == (None, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_an_end(
    ask: Ask,
    events: list[Event],
    ends: list[dict[str, Any]],
    configure: Configure,
    stream: bool,
) -> None:
    configure(BACKEND=f"{HERE}.Fails", OPTIONS={"words": 2, "error": UpstreamError})
    ask(stream=stream)
    (facts,) = ends
    assert facts["error"] is ending(events, "failed")["error"]
    assert facts["finish_reason"] is None


@pytest.mark.django_db
def test_a_hang_up_is_an_end(ask: Ask, ends: list[dict[str, Any]], configure: Configure) -> None:
    configure(BACKEND=f"{HERE}.Endless")
    ask(stream=True, until=b'"on "')
    assert [(facts["finish_reason"], facts["error"]) for facts in ends] == [("cancelled", None)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_measurement_that_fails_disturbs_nothing(
    ask: Ask, events: list[Event], caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    def raises(**facts: Any) -> None:
        raise RuntimeError("a receiver's own fault")

    completion_recorded.connect(raises)
    try:
        response = ask(stream=stream)
    finally:
        completion_recorded.disconnect(raises)
    assert b"reply." in response.received
    assert ending(events, "finished")["finish_reason"] == "stop"
    assert "a receiver's own fault" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_is_signalled_at_once(ask: Ask, events: list[Event], stream: bool) -> None:
    """Before the others, and where the completion has run: not in a thread under ASGI."""
    seen: list[tuple[int, bool]] = []

    def measure(**facts: Any) -> None:
        try:
            in_loop = asyncio.get_running_loop().is_running()
        except RuntimeError:
            in_loop = False
        seen.append((len(events), in_loop))

    completion_recorded.connect(measure)
    try:
        response = ask(stream=stream)
    finally:
        completion_recorded.disconnect(measure)
    assert seen == [(1, hasattr(response, "asgi_request"))]


async def test_what_would_be_awaited_cannot_measure() -> None:
    async def receiver(**facts: Any) -> None: ...

    with pytest.raises(TypeError, match="completion_finished and completion_failed take both"):
        completion_recorded.connect(receiver)
    assert not completion_recorded.has_listeners(DummyBackend)


@pytest.mark.parametrize("signal", [completion_finished, completion_recorded])
def test_no_text_is_kept_for_what_is_measured(ask: Ask, signal: Signal) -> None:
    kept: list[Any] = []

    def deltas() -> list[Any]:
        return [held for held in gc.get_objects() if type(held) is Delta]

    gc.collect()
    # Other tests have some, too.
    others = {id(held) for held in deltas()}

    def receiver(**facts: Any) -> None:
        kept.extend(held for held in deltas() if id(held) not in others)

    signal.connect(receiver)
    try:
        ask(stream=True)
    finally:
        signal.disconnect(receiver)
    # Some that have been sent are still in somebody's hand.
    assert (len(kept) >= 6) is (signal is completion_finished)


marked: ContextVar[str] = ContextVar("marked", default="outside")


def marking(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """A middleware that has a context for as long as it waits for the response."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        token = marked.set("inside")
        try:
            return get_response(request)
        finally:
            marked.reset(token)

    return middleware


@pytest.mark.parametrize("ask", CLIENTS[:2], ids=IDS[:2], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("signal", [completion_finished, completion_recorded])
def test_the_end_is_signalled_in_the_context_of_the_request(
    ask: Ask, settings: Settings, signal: Signal, stream: bool
) -> None:
    settings.MIDDLEWARE = [f"{HERE}.marking"]
    seen: list[str] = []

    def receiver(**facts: Any) -> None:
        seen.append(marked.get())

    signal.connect(receiver)
    try:
        ask(stream=stream)
    finally:
        signal.disconnect(receiver)
    assert seen == ["inside"]


# The dummy backend


def dummy() -> DummyBackend:
    backend = backends["default"]
    assert isinstance(backend, DummyBackend)
    return backend


@pytest.mark.parametrize("stream", [False, True])
def test_the_dummy_keeps_the_requests_it_got(ask: Ask, stream: bool) -> None:
    ask(model="alias", temperature=0.5, stream=stream)
    ask(messages=[{"role": "user", "content": "Again"}], stream=stream)
    first, second = dummy().requests
    assert (first.model, first.temperature, first.messages[0].content) == ("m", 0.5, HI["content"])
    assert second.messages[0].content == "Again"


def test_the_dummy_gives_its_replies_in_turn(ask: Ask, configure: Configure) -> None:
    configure(OPTIONS={"replies": ["one", {"content": " two\n", "finish_reason": "length"}, ""]})
    choices = [ask().json()["choices"][0] for _ in range(4)]
    assert [choice["message"]["content"] for choice in choices] == ["one", " two\n", "", "one"]
    assert [choice["finish_reason"] for choice in choices] == ["stop", "length", "stop", "stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_dummy_reasons_and_calls_tools(
    ask: Ask, events: list[Event], configure: Configure, stream: bool
) -> None:
    calls = [{"name": "f", "arguments": {"a_b": [1]}}, {"name": "g", "id": "call_7"}]
    configure(OPTIONS={"replies": [{"reasoning": "Let me see.", "tool_calls": calls}]})
    ask(stream=stream)
    facts = ending(events, "finished")
    first, second = facts["messages"][0]["tool_calls"]
    assert first["function"] == {"name": "f", "arguments": '{"a_b":[1]}'}
    assert first["id"].startswith("call_")
    assert second == {
        "id": "call_7",
        "type": "function",
        "function": {"name": "g", "arguments": "{}"},
    }
    assert facts["finish_reason"] == "tool_calls"
    assert facts["messages"][0]["content"] is None
    assert facts["messages"][0]["reasoning_content"] == "Let me see."
    assert facts["usage"] == Usage(prompt_tokens=3, completion_tokens=5, reasoning_tokens=3)


@pytest.mark.parametrize(
    "text", ["one two three", "  one\n two\tthree ", "\u00e9in \u2003zwei drei\n\n"]
)
def test_a_token_of_the_dummy_is_a_word(
    ask: Ask, events: list[Event], configure: Configure, text: str
) -> None:
    configure(OPTIONS={"replies": [text]})
    ask(messages=[HI, {"role": "assistant", "content": text}])
    facts = ending(events, "finished")
    assert facts["messages"][0]["content"] == text
    assert facts["usage"] == Usage(prompt_tokens=6, completion_tokens=3)


def test_the_words_of_content_parts_count_too(ask: Ask, events: list[Event]) -> None:
    parts = [{"type": "text", "text": "a b"}, {"type": "text", "text": "c d"}]
    ask(messages=[{"role": "user", "content": parts}])
    assert ending(events, "finished")["usage"].prompt_tokens == 4


async def test_a_hang_up_does_not_cut_a_receiver_off() -> None:
    steps: list[str] = []

    async def receiver() -> None:
        steps.append("begun")
        await asyncio.sleep(0.05)
        steps.append("ended")

    task = asyncio.create_task(uninterrupted(receiver()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["begun", "ended"]
