"""Policies: the last gate, and the settlement of what they hold.

Every request is made through Django's test client and through its asynchronous one; disconnects
and the end of a server are tested with real servers, at the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.test import AsyncClient, Client

from django_ollama_openai._gateway import policy as policy_module
from django_ollama_openai._gateway.flow import run
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta, Usage
from django_ollama_openai.auth import BaseAuthenticator, Caller
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.exceptions import Overloaded, UpstreamError
from django_ollama_openai.policies import Admission, BasePolicy, Hold, Outcome

if TYPE_CHECKING:
    from pytest_django import Settings

Ask: TypeAlias = Callable[..., Any]

HERE = __name__
DUMMY = "django_ollama_openai.backends.DummyBackend"
KEY = "sk-test-key"
HI = {"role": "user", "content": "Say something nice"}
CHAT = "/ai/v1/chat/completions"

events: list[tuple[str, Any]] = []
"""What has happened, in order."""


class Noted(Hold):
    def __init__(self, name: str) -> None:
        self._name = name

    def settle(self, outcome: Outcome) -> None:
        events.append((f"{self._name} settled", outcome))


class First(BasePolicy):
    """Holds; known to synchronous code only."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        events.append(("first admitted", admission))
        admission.headers["x-ratelimit-remaining-requests"] = "7"
        return Noted("first")


class ASecond(BasePolicy):
    """Holds; asynchronous where it can be."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        events.append(("second admitted", admission))
        return AsyncNoted("second")

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        await asyncio.sleep(0)
        return self.admit(admission)


class AsyncNoted(Noted):
    async def asettle(self, outcome: Outcome) -> None:
        await asyncio.sleep(0)
        self.settle(outcome)


class HoldsNothing(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        return None


class Refuses(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        admission.headers["x-refused"] = "yes"
        raise Overloaded("Enough for today.", retry_after=60)


class Crashes(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        raise ValueError("secret detail")


class ReturnsNonsense(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Any:
        return {"held": 1}


class SetsHeaders(BasePolicy):
    headers: ClassVar[dict[Any, Any]] = {
        "x-split": "a\r\nset-cookie: b",
        "x-näme": "c",
        "x two": "d",
        "x-half": "\ud800",
        "x-nul": "e\x00",
        7: "seven",
        "x-fine": "f",
    }

    def admit(self, admission: Admission[Any]) -> Hold | None:
        admission.headers.update(self.headers)
        return Noted("headers")


class RefusesUnreadably(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        raise Overloaded("\ud800")


class RaisesTheEndOfTheRequest(BasePolicy):
    error: type[BaseException]

    def admit(self, admission: Admission[Any]) -> Hold | None:
        raise self.error


class FailsToSettle(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        return Unsettled()


class Unsettled(Hold):
    def settle(self, outcome: Outcome) -> None:
        raise ValueError("the database is gone")


class Words(DummyBackend):
    """Says four words; fails after as many as ``fail_after``."""

    def __init__(self, *, fail_after: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._fail_after = fail_after

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        for number in range(4):
            if number == self._fail_after:
                raise UpstreamError("The engine failed.")
            yield Delta(content="well ", finish_reason="stop" if number == 3 else None)

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_chat(request):
            yield delta


class NoEndpoints(DummyBackend):
    supports_chat = supports_completions = supports_embeddings = False


@pytest.fixture(autouse=True)
def no_events() -> None:
    events.clear()


@pytest.fixture
def configure(settings: Settings) -> Callable[..., None]:
    def set_up(*policies: type[BasePolicy], backend: str = DUMMY, **more: Any) -> None:
        options = more.pop("OPTIONS", {})
        settings.OLLAMA_OPENAI = {
            "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
            "BACKENDS": {"default": {"BACKEND": backend, "OPTIONS": options}},
            "POLICIES": [f"{HERE}.{policy.__name__}" for policy in policies],
            **more,
        }

    return set_up


@pytest.fixture(params=[Client, AsyncClient], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Make a request with either client. Return the response; a stream is read to its end, and
    ``seen`` notes each of its pieces among the events."""
    client = request.param(raise_request_exception=False)
    headers = {"Authorization": f"Bearer {KEY}"}

    def post(path: str, body: dict[str, Any] | None) -> Any:
        if body is None:
            return client.get(path, headers=headers)
        content = json.dumps({"model": "m", **body})
        return client.post(path, content, content_type="application/json", headers=headers)

    def ask_sync(path: str = CHAT, body: dict[str, Any] | None = None, **changes: Any) -> Any:
        response = post(path, {"messages": [HI], **changes} if path == CHAT else body)
        if response.streaming:
            response.read = b"".join(map(_seen, response.streaming_content))
        return response

    async def ask_async(
        path: str = CHAT, body: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        response = await post(path, {"messages": [HI], **changes} if path == CHAT else body)
        if response.streaming:
            response.read = b"".join([_seen(piece) async for piece in response.streaming_content])
        return response

    return async_to_sync(ask_async) if request.param is AsyncClient else ask_sync


def _seen(piece: bytes) -> bytes:
    events.append(("seen", piece))
    return piece


def settled(name: str) -> list[Outcome]:
    return [outcome for event, outcome in events if event == f"{name} settled"]


def names() -> list[str]:
    return [event for event, _ in events]


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_answer(configure: Callable[..., None], ask: Ask, *, stream: bool) -> None:
    configure(First, HoldsNothing, ASecond)
    response = ask(stream=stream, max_tokens=5)
    assert response.status_code == 200
    assert response.headers["x-ratelimit-remaining-requests"] == "7"
    assert names()[:2] == ["first admitted", "second admitted"]
    (outcome,) = settled("first")
    assert settled("second") == [outcome]
    assert outcome.finish_reason == "stop"
    assert outcome.error is None
    assert outcome.answered_by == "m"
    assert outcome.usage.completion_tokens > 0
    assert outcome.timings.total >= outcome.timings.queued >= 0
    if stream:
        # Settled before the client gets the end.
        assert names().index("first settled") < len(names()) - 1
        assert names()[-1] == "seen"
        assert response.read.endswith(b"data: [DONE]\n\n")


def test_what_a_policy_sees(configure: Callable[..., None], ask: Ask) -> None:
    configure(First)
    ask(max_completion_tokens=5, n=2)
    admission: Admission[Any] = events[0][1]
    assert isinstance(admission.request, HttpRequest)
    assert admission.request_id.startswith("req_")
    assert (admission.endpoint, admission.scope) == ("chat.completions", "chat")
    assert admission.caller.key_id == "tester"
    assert admission.mount.backend == "default"
    assert isinstance(admission.body, ChatCompletionRequest)
    assert admission.route is not None
    assert (admission.route.name, admission.route.alias) == ("m", "default")
    assert admission.prompt_tokens == 5  # of 18 characters
    assert admission.max_completion_tokens == 5
    assert admission.choices == 2
    assert dict(admission.captured) == {}
    assert KEY not in repr(admission)
    assert HI["content"] not in repr(admission)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("completions", {"prompt": ["abcd", "abcde"], "n": 2}, ("completions", 3, 16, 4)),
        ("completions", {"prompt": "a", "max_tokens": 3}, ("completions", 1, 3, 1)),
        ("embeddings", {"input": "four" * 3}, ("embeddings", 3, None, 0)),
        ("responses", {"input": "four", "max_output_tokens": 9}, ("responses", 1, 9, 1)),
        ("responses", {"input": "four", "options": {"num_predict": 4}}, ("responses", 1, 4, 1)),
    ],
)
def test_estimates(
    configure: Callable[..., None],
    ask: Ask,
    path: str,
    body: dict[str, Any],
    expected: tuple[str, int, int | None, int],
) -> None:
    configure(First)
    assert ask(f"/ai/v1/{path}", body).status_code == 200
    admission: Admission[Any] = events[0][1]
    assert expected == (
        admission.endpoint,
        admission.prompt_tokens,
        admission.max_completion_tokens,
        admission.choices,
    )
    assert len(settled("first")) == 1


def test_the_sites_own_limit_on_tokens(configure: Callable[..., None], ask: Ask) -> None:
    configure(First, MODELS={"m": {"OPTIONS": {"num_predict": 12}}})
    ask()
    assert events[0][1].max_completion_tokens == 12


def test_an_endpoint_without_an_engine(configure: Callable[..., None], ask: Ask) -> None:
    configure(First)
    response = ask("/ai/v1/models")
    assert response.status_code == 200
    assert response.headers["x-ratelimit-remaining-requests"] == "7"
    admission: Admission[Any] = events[0][1]
    assert admission.endpoint == "models"
    assert (admission.route, admission.body, admission.choices) == (None, None, 0)
    assert settled("first") == [Outcome()]


def test_an_endpoint_without_an_engine_that_fails(configure: Callable[..., None], ask: Ask) -> None:
    configure(First, ALLOWED_MODELS=["m"])
    assert ask("/ai/v1/models/other").status_code == 404
    (outcome,) = settled("first")
    assert outcome.error is not None
    assert outcome.error.code == "model_not_found"


@pytest.mark.parametrize("fail_after", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_answer(
    configure: Callable[..., None], ask: Ask, fail_after: int, *, stream: bool
) -> None:
    configure(First, backend=f"{HERE}.Words", OPTIONS={"fail_after": fail_after})
    response = ask(stream=stream)
    (outcome,) = settled("first")
    assert isinstance(outcome.error, UpstreamError)
    assert outcome.finish_reason is None
    assert outcome.usage == Usage(completion_tokens=fail_after if stream else 0, estimated=True)
    if stream and fail_after:
        assert b'"code":"bad_upstream"' in response.read
        assert names()[-1] == "seen"
    else:
        assert response.status_code == 502
        assert response.headers["x-ratelimit-remaining-requests"] == "7"


def test_a_refusal_releases_what_earlier_policies_hold(
    configure: Callable[..., None], ask: Ask
) -> None:
    configure(First, ASecond, Refuses, HoldsNothing)
    response = ask()
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "Enough for today."
    assert response.headers["Retry-After"] == "60"
    assert response.headers["x-refused"] == "yes"
    assert response.headers["x-ratelimit-remaining-requests"] == "7"
    assert names() == ["first admitted", "second admitted", "second settled", "first settled"]
    (outcome,) = settled("first")
    assert isinstance(outcome.error, Overloaded)
    assert outcome.answered_by is None


@pytest.mark.parametrize("policy", [Crashes, ReturnsNonsense])
def test_a_policy_that_is_broken(
    configure: Callable[..., None],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
    policy: type[BasePolicy],
) -> None:
    configure(First, policy)
    response = ask()
    assert response.status_code == 500
    assert response.json()["error"]["code"] is None
    assert b"secret" not in response.content
    (outcome,) = settled("first")
    assert outcome.error is not None
    assert outcome.error.status == 500
    (record,) = [r for r in caplog.records if r.name == "django_ollama_openai"]
    assert f"{HERE}.{policy.__name__}" in caplog.text
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize("stream", [False, True])
def test_a_settlement_that_fails(
    configure: Callable[..., None],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
    *,
    stream: bool,
) -> None:
    configure(First, FailsToSettle, ASecond)
    response = ask(stream=stream)
    assert response.status_code == 200
    assert len(settled("first")) == len(settled("second")) == 1
    (record,) = [r for r in caplog.records if r.name == "django_ollama_openai"]
    assert f"{HERE}.FailsToSettle" in record.getMessage()
    assert record.exc_info is not None


def test_a_failure_before_the_engine(configure: Callable[..., None], ask: Ask) -> None:
    configure(First)
    image = {"type": "image_url", "image_url": {"url": "https://images.example/cat.png"}}
    response = ask(messages=[{"role": "user", "content": [image]}])
    assert response.status_code == 400
    (outcome,) = settled("first")
    assert outcome.error is not None
    assert outcome.error.param == "messages[0].content[0].image_url.url"


def test_a_refusal_by_an_earlier_gate(configure: Callable[..., None], ask: Ask) -> None:
    configure(First)
    assert ask(n=33, max_tokens=1).status_code == 400
    configure(First, backend=f"{HERE}.NoEndpoints")
    for path, body in (
        (CHAT, None),
        (CHAT.replace("chat/", ""), {"prompt": "a"}),
        (CHAT.replace("chat/completions", "embeddings"), {"input": "a"}),
        (CHAT.replace("chat/completions", "responses"), {"input": "a"}),
    ):
        refused = ask(path, body)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unsupported_endpoint"
    assert events == []


def test_what_is_held_is_settled_once() -> None:
    holds, admission = policy_module.Holds(), cast("Admission[Any]", None)
    run(holds.acquire([ASecond()], admission))
    for _ in range(2):
        run(holds.settle(Outcome()))
    assert names() == ["second admitted", "second settled"]


@pytest.mark.parametrize("stream", [False, True])
def test_headers_that_cannot_be_sent_are_left_out(
    configure: Callable[..., None],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
    *,
    stream: bool,
) -> None:
    configure(SetsHeaders)
    response = ask(stream=stream)
    assert response.status_code == 200
    assert response.headers["x-fine"] == "f"
    sent = {name.lower() for name in response.headers}
    assert sent.isdisjoint({"x-split", "x-näme", "x two", "x-half", "x-nul", "set-cookie"})
    assert len(settled("headers")) == 1
    assert "'x-split'" in caplog.text
    assert "set-cookie" not in caplog.text


def test_a_refusal_that_cannot_be_encoded(configure: Callable[..., None], ask: Ask) -> None:
    configure(First, RefusesUnreadably)
    response = ask()
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert len(settled("first")) == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_an_error_of_a_policy_that_passes_for_the_end_of_the_request(
    configure: Callable[..., None],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    monkeypatch.setattr(RaisesTheEndOfTheRequest, "error", error, raising=False)
    configure(First, RaisesTheEndOfTheRequest)
    assert ask().status_code == 500
    (outcome,) = settled("first")
    assert outcome.finish_reason is None
    assert outcome.error is not None


class EndsTheWorker(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        return Ending()


class Ending(Hold):
    def settle(self, outcome: Outcome) -> None:
        raise SystemExit(1)


def test_a_settlement_that_ends_the_worker_keeps_no_other(configure: Callable[..., None]) -> None:
    configure(First, EndsTheWorker)
    with pytest.raises(SystemExit):
        Client().post(
            CHAT,
            {"model": "m", "messages": [HI]},
            content_type="application/json",
            headers={"Authorization": f"Bearer {KEY}"},
        )
    assert len(settled("first")) == 1


# Policies that hang, under ASGI


class Waits(BasePolicy):
    """Is done when ``released`` is set."""

    released = threading.Event()

    def admit(self, admission: Admission[Any]) -> Hold | None:
        events.append(("waiting", None))
        self.released.wait(60)
        return Noted("late")


class AsyncWaits(Waits):
    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        events.append(("waiting", None))
        await until(self.released.is_set)
        return Noted("late")


class NeverSettles(BasePolicy):
    def admit(self, admission: Admission[Any]) -> Hold | None:
        return Unending()


class Unending(Hold):
    async def asettle(self, outcome: Outcome) -> None:
        await until(Waits.released.is_set)
        events.append(("unending settled", outcome))


@pytest.fixture
def waiting() -> Iterator[None]:
    Waits.released.clear()
    yield
    Waits.released.set()


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110  (threads set it, too)
            await asyncio.sleep(0.01)


async def until_there_is(event: str) -> None:
    await until(lambda: event in names())


class Requester:
    """Calls the site as an ASGI server does."""

    def __init__(self, **changes: Any) -> None:
        content = {"model": "m", "messages": [HI], **changes}
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": json.dumps(content).encode()})
        self.status = 0
        self.body = b""
        self.task = asyncio.create_task(ASGIHandler()(SCOPE, self._incoming.get, self._send))

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            events.append(("answered", self.status))


SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": CHAT,
    "query_string": b"",
    "headers": [
        (b"host", b"testserver"),
        (b"authorization", f"Bearer {KEY}".encode()),
        (b"content-type", b"application/json"),
    ],
}


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("policy", [Waits, AsyncWaits])
async def test_a_policy_that_takes_too_long(
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    policy: type[BasePolicy],
) -> None:
    configure(First, policy)
    monkeypatch.setattr(policy_module, "POLICY_TIMEOUT", 0.2)
    requester = Requester()
    await until_there_is("answered")
    assert requester.status == 503
    assert len(settled("first")) == 1
    assert f"{HERE}.{policy.__name__}" in caplog.text
    assert settled("late") == []
    Waits.released.set()
    await until_there_is("late settled")
    await requester.task
    (outcome,) = settled("late")
    assert outcome.error is not None
    assert outcome.error.status == 503


@pytest.mark.usefixtures("waiting")
async def test_policies_that_hang_take_no_thread_of_the_event_loop(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of hosts are resolved in its threads, and Django logs a refusal in one of them."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    configure(Waits)
    monkeypatch.setattr(policy_module, "POLICY_TIMEOUT", 0.2)
    requesters = [Requester(), Requester()]
    async with asyncio.timeout(30):
        await asyncio.gather(*(each.task for each in requesters))
    assert [each.status for each in requesters] == [503, 503]
    assert not Waits.released.is_set()


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("policy", [Waits, AsyncWaits])
async def test_a_client_that_disconnects_from_a_policy(
    configure: Callable[..., None], policy: type[BasePolicy]
) -> None:
    configure(First, policy)
    requester = Requester()
    await until_there_is("waiting")
    requester.disconnect()
    # The client is not waited for, and the policy does not hold the others up.
    await until_there_is("first settled")
    assert settled("late") == []
    Waits.released.set()
    await until_there_is("late settled")
    await requester.task
    assert [outcome.finish_reason for outcome in settled("late")] == ["cancelled"]
    assert [outcome.finish_reason for outcome in settled("first")] == ["cancelled"]


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_settlement_that_takes_too_long(
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    stream: bool,
) -> None:
    configure(First, NeverSettles)
    monkeypatch.setattr(policy_module, "POLICY_TIMEOUT", 0.2)
    requester = Requester(stream=stream)
    await requester.task
    assert requester.status == 200
    assert len(settled("first")) == 1
    assert f"{HERE}.NeverSettles" in caplog.text
    Waits.released.set()
    await until_there_is("unending settled")
    assert len(settled("unending")) == 1


@pytest.mark.usefixtures("waiting")
async def test_a_client_that_disconnects_from_a_settlement(configure: Callable[..., None]) -> None:
    configure(First, NeverSettles, backend="tests.site.test_signals.Endless")
    requester = Requester(stream=True)
    await until(lambda: b"on " in requester.body)
    requester.disconnect()
    await asyncio.sleep(0.1)
    assert settled("first") == settled("unending") == []
    Waits.released.set()
    await until_there_is("first settled")
    await requester.task
    assert [outcome.finish_reason for outcome in settled("unending")] == ["cancelled"]
    assert len(settled("first")) == 1


@pytest.mark.usefixtures("waiting")
async def test_a_client_that_disconnects_from_a_refusal(configure: Callable[..., None]) -> None:
    configure(First, NeverSettles, Refuses)
    requester = Requester()
    await until_there_is("first admitted")
    await asyncio.sleep(0.1)
    requester.disconnect()
    await asyncio.sleep(0.1)
    assert settled("first") == []
    Waits.released.set()
    await until_there_is("first settled")
    await requester.task
    (outcome,) = settled("unending")
    assert isinstance(outcome.error, Overloaded)
    assert len(settled("first")) == 1


# Limited callers


class LimitedCaller(BaseAuthenticator):
    def authenticate(self, request: HttpRequest) -> Caller | None:
        return Caller(key_id="limited", models=("small*", "b"))


LIMITED: dict[str, Any] = {
    "AUTHENTICATION": [f"{HERE}.LimitedCaller"],
    "MODELS": {
        "a": {"MODEL": "dummy"},
        "b": {"MODEL": "dummy", "FALLBACKS": ["a", "small-spare"]},
        "small-one": {"MODEL": "dummy"},
        "small-spare": {"MODEL": "dummy"},
    },
    "DEFAULT_MODEL": "a",
}


def test_a_caller_with_models_gets_no_others(configure: Callable[..., None], ask: Ask) -> None:
    configure(**LIMITED)
    listed = {model["id"] for model in ask("/ai/v1/models").json()["data"]}
    assert listed == {"b", "small-one", "small-spare"}
    for name, status in (("a", 404), ("b", 200), ("small-one", 200), ("other", 404)):
        assert ask(f"/ai/v1/models/{name}").status_code == status
        response = ask(model=name)
        assert response.status_code == status
        if status == 404:
            assert response.json()["error"]["code"] == "model_not_found"
    # The default model is limited, too, and is not named.
    response = ask(model=None)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")
    assert "'a'" not in response.text


def test_a_caller_with_models_gets_no_other_fallbacks(
    configure: Callable[..., None], ask: Ask
) -> None:
    configure(First, **LIMITED)
    ask(model="b")
    assert [route.name for route in events[0][1].route.fallbacks] == ["small-spare"]
