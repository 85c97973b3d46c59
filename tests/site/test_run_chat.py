"""Chats that an endpoint of an optional app answers, and the recorders of their answers.

Every flow is run in a thread, as under WSGI, and in an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, HttpRequest
from django.test import RequestFactory

from django_ollama_openai import _conf, shutdown
from django_ollama_openai._gateway.admission import (
    Admission,
    Incoming,
    admit,
    admit_chat,
    carry_out,
)
from django_ollama_openai._gateway.chat import run_chat
from django_ollama_openai._gateway.delivery import AsyncDelivery, Delivery, Reply, Stopper
from django_ollama_openai._gateway.flow import Flow, arun, run
from django_ollama_openai._gateway.outcome import Record
from django_ollama_openai._gateway.recorder import BaseRecorder
from django_ollama_openai._translation.chat_completion import (
    ChatCompletionStream,
    WholeChatCompletion,
)
from django_ollama_openai._wire.base import WireModel
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.auth import BaseAuthenticator, Caller, Workspace
from django_ollama_openai.exceptions import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    ShuttingDown,
    UpstreamError,
)
from django_ollama_openai.policies import BasePolicy, Hold, Outcome
from django_ollama_openai.signals import completion_failed, completion_finished

if TYPE_CHECKING:
    from pytest_django import Settings

Drive: TypeAlias = Callable[[Flow[Any]], Any]

HERE = __name__
SITE = "tests.site.test_policies"
HI = [{"role": "user", "content": "Say something nice"}]

events: list[tuple[str, Any]] = []


class NewMessage(WireModel):
    text: str


class FromHeaders(BaseAuthenticator):
    def authenticate(self, request: HttpRequest) -> Caller | None:
        return Caller(key_id=request.headers.get("x-key"))


class Notes(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        events.append(("admitted", admission))
        return Settlement()


class Settlement(Hold):
    def settle(self, outcome: Outcome) -> None:
        events.append(("settled", outcome))


class Recorder(BaseRecorder):
    """Notes what it gets; fails with ``error`` in the end."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.text = ""

    def feed(self, delta: Delta) -> None:
        self.text += delta.content

    def record(self, record: Record) -> None:
        events.append(("recorded", record))
        if self._error is not None:
            raise self._error


@pytest.fixture(params=["wsgi", "asgi"])
def drive(request: pytest.FixtureRequest) -> Drive:
    """Drive a flow. Of a stream all is read, piece by piece, which stand among the events."""

    def seen(piece: bytes) -> bytes:
        events.append(("seen", piece))
        return piece

    def sync(flow: Flow[Any]) -> Any:
        result = run(flow)
        if isinstance(result, Reply) and isinstance(result.content, Delivery):
            return b"".join(map(seen, result.content))
        return result.content if isinstance(result, Reply) else result

    async def in_loop(flow: Flow[Any]) -> Any:
        try:
            result = await arun(flow)
            if isinstance(result, Reply) and isinstance(result.content, AsyncDelivery):
                return b"".join([seen(piece) async for piece in result.content])
            return result.content if isinstance(result, Reply) else result
        finally:
            # Signals are sent when the client has its answer, and a detached one begins tasks.
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:
                    await task

    return sync if request.param == "wsgi" else lambda flow: asyncio.run(in_loop(flow))


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> Iterator[Callable[..., None]]:
    def configure(backend: str = "django_ollama_openai.backends.DummyBackend", **more: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "AUTHENTICATION": [f"{HERE}.FromHeaders"],
            "BACKENDS": {"default": {"BACKEND": backend, "OPTIONS": more.pop("OPTIONS", {})}},
            "POLICIES": [f"{HERE}.Notes"],
            **more,
        }

    events.clear()
    configure()
    yield configure


def incoming(content: bytes = b"", **headers: str) -> Incoming:
    request = RequestFactory().post("/notes/", headers={"x-key": "wiki", **headers})
    return Incoming(
        request,
        "req_1",
        _conf.get(),
        read_body=lambda limit: content,
        is_disconnected=lambda: False,
    )


def chat(**changes: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict({"model": "m", "messages": HI, **changes})


def answer(body: ChatCompletionRequest, recorder: BaseRecorder | None = None) -> Flow[Reply]:
    admission = yield from admit(incoming(), endpoint="notes", scope="chat", body=body)
    return (yield from carry_out(admission, run_chat(admission, recorder=recorder)))


def names() -> list[str]:
    return [name for name, _ in events]


def only(name: str) -> Any:
    (found,) = [value for event, value in events if event == name]
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_recorder_keeps_a_finished_answer(drive: Drive, *, stream: bool) -> None:
    recorder = Recorder()
    content = drive(answer(chat(stream=stream, n=2), recorder))
    record: Record = only("recorded")
    assert record.finish_reason == "stop"
    assert record.error is None
    assert record.answered_by == "m"
    assert len(record.messages) == 2
    assert all(message["role"] == "assistant" for message in record.messages)
    assert len(recorder.text) == sum(len(message["content"]) for message in record.messages)
    assert record.usage == only("settled").usage
    order = [name for name in names() if name != "seen"]
    assert order == ["admitted", "recorded", "settled"]
    if stream:
        assert names()[-1] == "seen"
        assert content.endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("secret detail"), "The answer could not be stored."),
        (InvalidRequest("This session is archived."), "This session is archived."),
    ],
)
def test_a_finished_answer_that_cannot_be_recorded(
    drive: Drive,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    message: str,
    *,
    stream: bool,
) -> None:
    failed: list[dict[str, Any]] = []

    def note(**facts: Any) -> None:
        # A test before this one may have left a request that ends now.
        if facts["request_id"] == "req_1":
            failed.append(facts)

    completion_failed.connect(note)
    completion_finished.connect(note)
    try:
        if stream:
            content = drive(answer(chat(stream=True), Recorder(error)))
            assert message.encode() in content
            assert b"secret" not in content
        else:
            with pytest.raises(GatewayError, match=message):
                drive(answer(chat(), Recorder(error)))
    finally:
        completion_failed.disconnect(note)
        completion_finished.disconnect(note)
    assert only("recorded").error is None
    outcome: Outcome = only("settled")
    assert outcome.error is not None
    assert outcome.error.message == message
    (facts,) = failed
    assert facts["error"] is outcome.error
    assert "req_1" in caplog.text


@pytest.mark.parametrize("error", [None, ValueError("the database is gone")])
def test_a_recorder_of_a_failed_answer(
    drive: Drive,
    configured: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    error: Exception | None,
) -> None:
    configured(f"{SITE}.Words", OPTIONS={"fail_after": 2})
    content = drive(answer(chat(stream=True), Recorder(error)))
    assert b"The engine failed." in content
    record: Record = only("recorded")
    assert isinstance(record.error, UpstreamError)
    assert record.messages[0]["content"] == "well well "
    assert only("settled").error is record.error
    assert ("the database is gone" in caplog.text) == (error is not None)


def test_a_recorder_of_an_answer_that_never_began(
    drive: Drive, configured: Callable[..., None]
) -> None:
    configured(f"{SITE}.Words", OPTIONS={"fail_after": 0})
    with pytest.raises(UpstreamError):
        drive(answer(chat(stream=True), Recorder()))
    assert isinstance(only("recorded").error, UpstreamError)


def test_a_recorder_of_a_cancelled_answer(configured: Callable[..., None]) -> None:
    configured("tests.site.test_signals.Endless")
    delivery = run(answer(chat(stream=True), Recorder())).content
    assert isinstance(delivery, Delivery)
    while b"on " not in next(delivery):
        pass
    delivery.close()
    record: Record = only("recorded")
    assert record.finish_reason == "cancelled"
    assert record.messages[0]["content"].startswith("on ")
    assert only("settled").finish_reason == "cancelled"


async def test_a_recorder_of_an_answer_cancelled_in_an_event_loop(
    configured: Callable[..., None],
) -> None:
    configured("tests.site.test_signals.Endless")
    delivery = (await arun(answer(chat(stream=True), Recorder()))).content
    assert isinstance(delivery, AsyncDelivery)
    async for piece in delivery:
        if b"on " in piece:
            break
    delivery.close()
    async with asyncio.timeout(60):
        while "settled" not in names():  # noqa: ASYNC110  (a thread notes it)
            await asyncio.sleep(0.01)
    assert only("recorded").finish_reason == "cancelled"


async def test_a_disconnect_while_a_finished_answer_is_recorded() -> None:
    recording, disconnected = asyncio.Event(), asyncio.Event()

    class Slow(Recorder):
        async def arecord(self, record: Record) -> None:
            recording.set()
            await disconnected.wait()
            await super().arecord(record)

    delivery = (await arun(answer(chat(stream=True), Slow()))).content
    assert isinstance(delivery, AsyncDelivery)
    async with asyncio.timeout(60):
        await recording.wait()
        delivery.close()
        # The cancellation arrives before the recorder goes on.
        await asyncio.sleep(0.1)
        disconnected.set()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)
    assert only("recorded").finish_reason == only("settled").finish_reason == "stop"


# Answers that begin early, are stopped, or have no client


def answer_with(
    recorder: BaseRecorder,
    stopper: Stopper | None = None,
    *,
    stream: bool = True,
    is_early: bool = False,
    is_detached: bool = False,
) -> Flow[Reply]:
    admission = yield from admit(incoming(), endpoint="notes", scope="chat", body=chat(stream=True))
    writer = (
        ChatCompletionStream("m", "snake", include_usage=False, is_early=is_early)
        if stream
        else WholeChatCompletion("m", "snake")
    )
    chatting = run_chat(
        admission,
        recorder=recorder,
        writer=writer,
        is_stream=stream,
        stopper=stopper,
        is_detached=is_detached,
    )
    return (yield from carry_out(admission, chatting))


def test_after_an_early_beginning_a_failure_is_a_part_of_the_stream(
    drive: Drive, configured: Callable[..., None]
) -> None:
    configured(f"{SITE}.Words", OPTIONS={"fail_after": 0})
    content = drive(answer_with(Recorder(), is_early=True))
    first, failure, done, _ = content.split(b"\n\n")
    assert b'"role":"assistant"' in first
    assert b"The engine failed." in failure
    assert done == b"data: [DONE]"
    assert isinstance(only("settled").error, UpstreamError)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("delay", [0.3, None])
def test_a_stopped_answer_is_finished(
    drive: Drive, configured: Callable[..., None], delay: float | None, *, stream: bool
) -> None:
    configured("tests.site.test_signals.Endless")
    stopper = Stopper()
    if delay is None:
        # Before it has begun.
        stopper.stop()
    else:
        threading.Timer(delay, stopper.stop).start()
    content = drive(answer_with(Recorder(), stopper, stream=stream))
    assert b'"finish_reason":"stop"' in content
    record: Record = only("recorded")
    assert (record.finish_reason, record.error) == ("stop", None)
    assert only("settled").finish_reason == "stop"
    if delay is not None:
        assert record.messages[0]["content"].startswith("on ")


@pytest.mark.parametrize("fail_after", [None, 0, 2])
def test_a_detached_answer(
    drive: Drive, configured: Callable[..., None], fail_after: int | None
) -> None:
    ended: list[dict[str, Any]] = []

    def note(**facts: Any) -> None:
        ended.append(facts)

    completion_failed.connect(note)
    completion_finished.connect(note)
    try:
        configured(f"{SITE}.Words", OPTIONS={"fail_after": fail_after})
        assert drive(answer_with(Recorder(), is_detached=True)) == b""
        wait_for(lambda: bool(ended))
    finally:
        completion_failed.disconnect(note)
        completion_finished.disconnect(note)
    record: Record = only("recorded")
    assert (record.error is None) == (fail_after is None)
    assert only("settled").error is record.error
    assert names() == ["admitted", "recorded", "settled"]
    assert len(ended) == 1


def test_a_detached_answer_ends_as_soon_as_the_server_stops(
    drive: Drive, configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured("tests.site.test_signals.Endless")
    timer = threading.Timer(0.3, lambda: shutdown.begin(3600))
    monkeypatch.setattr(shutdown, "_begun", None)
    timer.start()
    assert drive(answer_with(Recorder(), is_detached=True)) == b""
    wait_for(lambda: "settled" in names())
    record: Record = only("recorded")
    assert isinstance(record.error, ShuttingDown)
    assert record.messages[0]["content"].startswith("on ")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# An endpoint that makes the chat itself


def post_message(
    arrived: Incoming, build: Callable[[NewMessage], ChatCompletionRequest]
) -> Flow[Reply]:
    admission: Admission[NewMessage] = yield from admit(
        arrived,
        endpoint="notes.messages",
        scope="chat",
        body=NewMessage,
        needs_owner=True,
        makes_chat=True,
    )
    assert names() == []

    def rename(error: GatewayError) -> None:
        error.param = "text"

    admitted = yield from admit_chat(admission, build(admission.body), name_fields=rename)
    return (yield from carry_out(admitted, run_chat(admitted)))


def test_a_chat_made_by_an_endpoint(drive: Drive) -> None:
    def build(message: NewMessage) -> ChatCompletionRequest:
        return chat(messages=[{"role": "user", "content": message.text}], max_tokens=3)

    content = drive(post_message(incoming(b'{"text": "Hello you"}'), build))
    assert b'"object":"chat.completion"' in content
    admission: Admission[NewMessage] = only("admitted")
    assert admission.endpoint == "notes.messages"
    assert admission.body.text == "Hello you"
    assert (admission.prompt_tokens, admission.max_completion_tokens) == (3, 3)
    assert only("settled").finish_reason == "stop"


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"n": 33}, InvalidRequest, "text"),
        ({"model": "other"}, ModelNotFound, "text"),
    ],
)
def test_a_chat_that_is_refused(
    drive: Drive,
    configured: Callable[..., None],
    changes: dict[str, Any],
    error: type[GatewayError],
    param: str,
) -> None:
    configured(ALLOWED_MODELS=["m"])
    with pytest.raises(error) as raised:
        drive(post_message(incoming(b'{"text": "Hi"}'), lambda message: chat(**changes)))
    assert raised.value.param == param
    assert events == []


def test_an_endpoint_that_needs_an_owner(drive: Drive) -> None:
    arrived = incoming(b"not even JSON")
    del arrived.request.META["HTTP_X_KEY"]
    with pytest.raises(PermissionDenied):
        drive(post_message(arrived, lambda message: chat()))
    assert events == []


def test_an_endpoint_cannot_go_past_the_policies(drive: Drive) -> None:
    def respond() -> Flow[str]:
        admission = yield from admit(incoming(), endpoint="notes", scope="notes", makes_chat=True)
        return (yield from carry_out(admission, nothing()))

    def nothing() -> Flow[str]:
        yield from ()
        return "done"

    with pytest.raises(RuntimeError, match="admit_chat"):
        drive(respond())
    assert events == []


def test_policies_are_not_passed_twice(drive: Drive) -> None:
    def respond() -> Flow[Reply]:
        admission = yield from admit(incoming(), endpoint="notes", scope="notes")
        return (yield from carry_out(admission, again(admission)))

    def again(admission: Admission[Any]) -> Flow[Reply]:
        return (yield from run_chat((yield from admit_chat(admission, chat()))))

    with pytest.raises(RuntimeError, match="makes_chat"):
        drive(respond())
    assert only("settled").error.status == 500


@pytest.mark.parametrize(
    ("error", "status"), [(Http404("x"), 404), (DjangoPermissionDenied(), 403)]
)
def test_an_outcome_has_the_error_that_the_client_gets(
    drive: Drive, error: Exception, status: int
) -> None:
    def respond() -> Flow[str]:
        admission = yield from admit(incoming(), endpoint="notes", scope="notes")
        return (yield from carry_out(admission, fail()))

    def fail() -> Flow[str]:
        yield from ()
        raise error

    with pytest.raises(type(error)):
        drive(respond())
    assert only("settled").error.status == status


def test_a_chat_needs_a_chat(drive: Drive) -> None:
    def respond() -> Flow[Reply]:
        admission = yield from admit(incoming(), endpoint="notes", scope="notes")
        return (yield from carry_out(admission, run_chat(admission)))

    with pytest.raises(TypeError):
        drive(respond())
    assert only("settled").error.status == 500


@pytest.mark.parametrize(
    ("caller", "owner"),
    [
        (Caller(), None),
        (Caller(key_id="wiki", key_name="Wiki"), "key:wiki"),
        (Caller(key_id="wiki", workspace=Workspace("ws_1", "Team")), "workspace:ws_1"),
    ],
)
def test_the_owner_of_a_callers_things(caller: Caller, owner: str | None) -> None:
    assert caller.owner == owner


def test_a_user_owns_their_things(django_user_model: Any) -> None:
    user = django_user_model(pk=7)
    caller = Caller(user=user, key_id="wiki", workspace=Workspace("ws_1", "Team"))
    assert caller.owner == "user:7"
