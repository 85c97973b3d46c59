"""``OpenAIBackend`` in front of a scripted engine on a real socket: sync, async, and on aiohttp."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, closing
from typing import Any, Literal, TypeAlias

import pytest

from django_ollama_openai._cancellation import Cancelled
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.event_stream import Events
from django_ollama_openai.backends import OpenAIBackend
from django_ollama_openai.backends._openai_client import AsyncOpenAIClient, OpenAIClient
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.conftest import DEAD_HOST
from tests.ollama_server import (
    Close,
    Flood,
    Hold,
    OllamaServer,
    Reply,
    Reset,
    Send,
    Step,
    Wait,
    drip,
)
from tests.site.test_ollama_client import in_a_thread

pytestmark = pytest.mark.once

Way: TypeAlias = Literal["sync", "async", "fast"]
WAYS = ["sync", "async", pytest.param("fast", marks=pytest.mark.fast)]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, MODELS = "/v1/embeddings", "/v1/models"
SECRET = "sk-engine-secret"

REQUEST = ChatCompletionRequest.parse(
    b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
)
COMPLETION = CompletionRequest.parse(b'{"model": "m", "prompt": "Once", "logprobs": 1}')
INPUTS = EmbeddingsRequest.parse(b'{"model": "m", "input": ["a", "b"]}')


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


def made(ollama: OllamaServer, way: Way, **options: Any) -> OpenAIBackend:
    return OpenAIBackend(base_url=f"{ollama.url}/v1", fast=way == "fast", **options)


def made_with(**options: Any) -> OpenAIBackend:
    """As from a site's settings."""
    return OpenAIBackend(**options)


@pytest.fixture
def backend(ollama: OllamaServer, way: Way) -> Iterator[OpenAIBackend]:
    with closing(made(ollama, way)) as backend:
        yield backend


def ask(backend: OpenAIBackend, way: Way, method: str, *request: Any) -> Any:
    """What the method says, or its asynchronous twin."""
    if way == "sync":
        return getattr(backend, method)(*request)
    return asyncio.run(getattr(backend, f"a{method}")(*request))


def stream(backend: OpenAIBackend, way: Way, request: Any = REQUEST) -> list[Delta]:
    name = "stream_chat" if request is REQUEST else "stream_complete"
    if way == "sync":
        return list(getattr(backend, name)(request))

    async def collect() -> list[Delta]:
        return [delta async for delta in getattr(backend, f"a{name}")(request)]

    return asyncio.run(collect())


def chat(backend: OpenAIBackend, way: Way) -> Delta:
    delta: Delta = ask(backend, way, "chat", REQUEST)
    return delta


def both(backend: OpenAIBackend, way: Way) -> list[Callable[[], Any]]:
    return [lambda: chat(backend, way), lambda: stream(backend, way)]


# What the engine says


def event(value: Any) -> Send:
    return Send(b"data: " + json.dumps(value).encode() + b"\n\n")


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> Send:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"object": "chat.completion.chunk", "choices": [choice], "usage": None})


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TOKEN = chunk({"content": "Hel"})
REST: list[Step] = [
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}),
]
DONE = Send(b"data: [DONE]\n\n")
PING = Send(b": ping\n\n")
HELLO = Delta("Hello", finish_reason="stop", usage=Usage(5, 2), tokens=2)


def sse(*steps: Step, **reply: Any) -> Reply:
    return Reply(steps, headers={"Content-Type": "text/event-stream"}, **reply)


def answer(value: Any, status: int = 200) -> Reply:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply([Send(data)] if data else [], status, {"Content-Type": "application/json"})


STREAM = sse(chunk({"role": "assistant", "content": ""}), TOKEN, *REST, DONE)
WHOLE = answer(
    {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": USAGE,
    }
)


# Answers


def test_a_stream(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    ollama.routes[CHAT] = STREAM
    assert fold(stream(backend, way)) == HELLO


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_stream_that_arrives_byte_by_byte(
    backend: OpenAIBackend, ollama: OllamaServer, end: bytes, way: Way
) -> None:
    steps = [step for step in STREAM.steps if isinstance(step, Send)]
    data = b"".join(step.data for step in steps).replace(b"\n", end)
    ollama.routes[CHAT] = sse(*(Send(data[at : at + 1]) for at in range(len(data))))
    assert fold(stream(backend, way)) == HELLO


def test_an_answer_in_one_piece(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    ollama.routes[CHAT] = WHOLE
    assert chat(backend, way) == Delta("Hello", finish_reason="stop", usage=Usage(5, 2))


def test_a_call(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    def piece(arguments: str, **more: Any) -> Send:
        function = {"arguments": arguments, **more.pop("function", {})}
        return chunk({"tool_calls": [{"index": 0, "function": function, **more}]})

    ollama.routes[CHAT] = sse(
        piece("", id="call_1", type="function", function={"name": "f"}),
        piece('{"a"'),
        piece(": 1}"),
        chunk({}, "tool_calls"),
        DONE,
    )
    whole = fold(stream(backend, way))
    assert whole.tool_calls == [ToolCallDelta(0, "call_1", "f", '{"a": 1}')]
    assert (whole.finish_reason, whole.usage) == ("tool_calls", None)


def text(value: str, finish_reason: str | None = None) -> dict[str, Any]:
    logprobs = {"tokens": [value], "token_logprobs": [-1], "top_logprobs": [{value: -1}]}
    choice = {"index": 0, "text": value, "finish_reason": finish_reason, "logprobs": logprobs}
    return {"object": "text_completion", "choices": [choice], "usage": USAGE}


def test_a_completion(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    ollama.routes[COMPLETIONS] = sse(event(text(" upon")), event(text(" a", "length")), DONE)
    streamed = fold(stream(backend, way, COMPLETION))
    ollama.routes[COMPLETIONS] = answer(text(" upon a", "length"))
    whole = ask(backend, way, "complete", COMPLETION)
    for delta in (streamed, whole):
        assert (delta.content, delta.finish_reason) == (" upon a", "length")
        assert delta.usage == Usage(5, 2)
    assert streamed.logprobs is not None
    assert [entry["token"] for entry in streamed.logprobs] == [" upon", " a"]
    assert [received.body["stream"] for received in ollama.requests] == [True, False]


def test_embeddings(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    vectors = [{"index": 1, "embedding": [0.3, 0.4]}, {"index": 0, "embedding": [0.1, 0.2]}]
    ollama.routes[EMBEDDINGS] = answer({"data": vectors, "usage": {"prompt_tokens": 3}})
    found = ask(backend, way, "embed", INPUTS)
    assert found.vectors == [[0.1, 0.2], [0.3, 0.4]]
    assert found.usage == Usage(prompt_tokens=3)


def test_models(backend: OpenAIBackend, ollama: OllamaServer, way: Way) -> None:
    ollama.routes[MODELS] = answer({"data": [{"id": "org/m", "max_model_len": 8192}]})
    (card,) = ask(backend, way, "list_models")
    assert (card.id, card.metadata["context_length"]) == ("org/m", 8192)
    assert ask(backend, way, "get_model", "org/m") == card
    with pytest.raises(ModelNotFound):
        ask(backend, way, "get_model", "m")
    ask(backend, way, "ping")
    assert {(received.method, received.path) for received in ollama.requests} == {("GET", MODELS)}


# What goes out


def test_what_goes_out(ollama: OllamaServer, way: Way) -> None:
    class House(OpenAIBackend):
        def prepare_chat(self, payload: dict[str, Any], request: Any) -> dict[str, Any]:
            assert request is REQUEST
            return {**payload, "user": "house"}

        def prepare_completion(self, payload: dict[str, Any], request: Any) -> dict[str, Any]:
            assert request is COMPLETION
            return {**payload, "best_of": 2}

        def prepare_embed(self, payload: dict[str, Any], request: Any) -> dict[str, Any]:
            assert request is INPUTS
            return {**payload, "input_type": "query"}

    ollama.routes[CHAT] = ollama.routes[COMPLETIONS] = ollama.routes[EMBEDDINGS] = answer({}, 500)
    options: dict[str, Any] = {"api_key": SECRET, "headers": {"X-Tenant": "a"}}
    with closing(House(base_url=f"{ollama.url}/v1/", fast=way == "fast", **options)) as backend:
        for method, request in [("chat", REQUEST), ("complete", COMPLETION), ("embed", INPUTS)]:
            with pytest.raises(UpstreamError):
                ask(backend, way, method, request)
        for streamed in (REQUEST, COMPLETION):
            with pytest.raises(UpstreamError):
                stream(backend, way, streamed)
    for received in ollama.requests:
        assert received.method == "POST"
        assert received.headers["authorization"] == f"Bearer {SECRET}"
        assert received.headers["x-tenant"] == "a"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["accept-encoding"] == "identity"
    messages = [{"role": "user", "content": "Hello"}]
    prompt = {"model": "m", "prompt": "Once", "max_tokens": 16, "logprobs": 1, "best_of": 2}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    talk = {"model": "m", "messages": messages, "user": "house"}
    assert [(received.path, received.body) for received in ollama.requests] == [
        (CHAT, {**talk, "stream": False}),
        (COMPLETIONS, {**prompt, "stream": False}),
        (
            EMBEDDINGS,
            {
                "model": "m",
                "input": ["a", "b"],
                "encoding_format": "float",
                "input_type": "query",
            },
        ),
        (CHAT, {**talk, **usage}),
        (COMPLETIONS, {**prompt, **usage}),
    ]


def test_without_a_key_none_is_sent(ollama: OllamaServer, way: Way) -> None:
    ollama.routes[CHAT] = WHOLE
    with closing(made(ollama, way)) as backend:
        chat(backend, way)
    assert "authorization" not in ollama.requests[0].headers


@pytest.mark.parametrize(("key", "sent"), [(SECRET, f"Bearer {SECRET}"), (None, "Basic bWU6")])
def test_the_key_wins_over_a_header(key: str | None, sent: str) -> None:
    headers = {"authorization": "Basic bWU6", "X-Tenant": "a"}
    backend = made_with(base_url="http://gpu-1/v1", api_key=key, headers=headers)
    with closing(backend.get_client()) as client:
        assert client._client.headers.get_list("authorization") == [sent]
        assert client._client.headers["x-tenant"] == "a"


def test_the_key_is_not_in_errors_or_logs(
    ollama: OllamaServer, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ollama.routes[CHAT] = answer({"error": {"message": f"Incorrect API key: {SECRET}"}}, 401)
    with closing(made(ollama, way, api_key=SECRET, headers={"X-Key": SECRET})) as backend:
        for attempt in both(backend, way):
            with pytest.raises(UpstreamError) as raised:
                attempt()
            assert raised.value.message == "The engine rejected the gateway's credentials."
    assert SECRET not in f"{backend!r} {raised.value!r}"
    for record in caplog.records:
        if record.name.startswith(("django_ollama_openai", "httpx", "aiohttp")):
            assert SECRET not in record.getMessage()


@pytest.mark.parametrize("key", ["sk-a\n", "sk a", "sk-\N{BULLET}", "sk-\0"])
def test_a_key_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as raised:
        made_with(base_url="http://gpu-1/v1", api_key=key)
    assert key.strip() not in str(raised.value)


def test_what_the_engine_lacks_is_of_this_backend_alone() -> None:
    backend = OpenAIBackend(
        base_url="http://gpu-1/v1", unsupported_parameters=["tool_choice", "token_input"]
    )
    left_out = OpenAIBackend.supported_parameters - backend.supported_parameters
    assert left_out == {"tool_choice", "token_input"}
    # The gateway sees to it.
    choosing = ChatCompletionRequest.parse(
        b'{"messages": [{"role": "user", "content": "a"}], "tool_choice": "required",'
        b'"tools": [{"type": "function", "function": {"name": "f"}}]}'
    )
    assert backend.unsupported_parameters(choosing) == []


# Failures


def broken(*steps: Step, **reply: Any) -> Reply:
    return sse(*steps, **reply)


PAGE = b"<!doctype html><title>Welcome to nginx on 10.0.0.7!</title>"
FAULTS: dict[str, tuple[Reply, type[GatewayError], str]] = {
    "closed before the head": (
        broken(before=[Close()]),
        UpstreamError,
        "The connection to the engine was lost.",
    ),
    "reset before the head": (
        broken(before=[Reset()]),
        UpstreamError,
        "The connection to the engine was lost.",
    ),
    "closed in the body": (
        broken(TOKEN, Close()),
        UpstreamError,
        "The connection to the engine was lost.",
    ),
    "an end without an end": (broken(TOKEN), UpstreamError, ""),
    "nothing": (broken(), UpstreamError, "The engine sent an invalid response."),
    "only the end": (broken(DONE), UpstreamError, "The engine sent an invalid response."),
    "HTML": (
        Reply([Send(PAGE)], headers={"Content-Type": "text/html"}),
        UpstreamError,
        "The engine sent an invalid response.",
    ),
    "other JSON": (
        answer({"message": {"content": "a"}, "done": True}),
        UpstreamError,
        "The engine sent an invalid response.",
    ),
    "a redirect": (
        Reply([], 307, {"Location": f"{DEAD_HOST}/v1/chat/completions"}),
        UpstreamError,
        "The engine failed with status 307.",
    ),
    "packed without being asked": (
        Reply([Send(gzip.compress(b"data: {}\n\n"))], headers={"Content-Encoding": "gzip"}),
        UpstreamError,
        "The engine sent an invalid response.",
    ),
    "no such endpoint": (
        answer({"detail": "Not Found"}, 404),
        UpstreamError,
        "The engine does not have this endpoint.",
    ),
    "no such model": (
        answer({"error": {"message": "The model `m` does not exist."}}, 404),
        ModelNotFound,
        "The model 'm' does not exist",
    ),
    "too long": (
        answer(
            {
                "message": "The input (9 tokens) is longer than the model's context length (5 "
                "tokens)."
            },
            400,
        ),
        ContextLengthExceeded,
        "This model's maximum context length is 5 tokens.",
    ),
    "a refusal": (answer({"error": {"message": "Bad."}}, 400), InvalidRequest, "Bad."),
    "busy": (answer({}, 429), UpstreamUnavailable, "The engine is busy."),
    "starting": (answer(b"", 503), UpstreamUnavailable, "The engine is busy."),
    "a long error": (
        Reply([Flood(b"x" * 100_000, 1_000_000)], 500),
        UpstreamError,
        "The engine failed with status 500.",
    ),
    "silent before the head": (
        broken(before=[Hold()]),
        UpstreamTimeout,
        "The engine did not answer in time.",
    ),
    "silent before the body": (
        broken(Hold()),
        UpstreamTimeout,
        "The engine did not answer in time.",
    ),
}


@pytest.mark.parametrize(("reply", "kind", "message"), FAULTS.values(), ids=FAULTS)
def test_failures(
    ollama: OllamaServer, reply: Reply, kind: type[GatewayError], message: str, way: Way
) -> None:
    ollama.routes[CHAT] = reply
    with closing(made(ollama, way, timeout=0.4)) as backend:
        for attempt in both(backend, way):
            with pytest.raises(GatewayError) as raised:
                attempt()
            assert type(raised.value) is kind
            assert raised.value.message.startswith(message)
            assert not any(part in raised.value.message for part in ("127.0.0.1", "10.0.0.7"))


def test_an_engine_that_is_not_there(way: Way) -> None:
    with closing(OpenAIBackend(base_url=f"{DEAD_HOST}/v1", fast=way == "fast")) as backend:
        for attempt in both(backend, way):
            with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
                attempt()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "/srv/model", "code": 500}, UpstreamError),
        ({"message": "Bad.", "code": 400}, InvalidRequest),
        ({"type": "exceed_context_size_error"}, ContextLengthExceeded),
        ("CUDA out of memory", UpstreamError),
    ],
)
@pytest.mark.parametrize("name", ["", "error"])
def test_an_error_in_the_middle_of_a_stream(
    backend: OpenAIBackend,
    ollama: OllamaServer,
    error: Any,
    kind: type[GatewayError],
    name: str,
    way: Way,
) -> None:
    prefix = [Send(f"event: {name}\n".encode())] if name else []
    ollama.routes[CHAT] = sse(TOKEN, *prefix, event({"error": error}), DONE)
    with pytest.raises(GatewayError) as raised:
        stream(backend, way)
    assert type(raised.value) is kind
    assert "/srv" not in raised.value.message


def test_a_stream_is_not_an_answer_in_one_piece_nor_the_other_way_round(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes[CHAT] = STREAM
    with pytest.raises(UpstreamError, match="an invalid response"):
        chat(backend, way)
    ollama.routes[CHAT] = WHOLE
    with pytest.raises(UpstreamError, match="an invalid response"):
        stream(backend, way)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": [{}]}', b"[]"], ids=repr)
def test_embeddings_and_models_that_make_no_sense(
    backend: OpenAIBackend, ollama: OllamaServer, body: bytes, way: Way
) -> None:
    ollama.routes[EMBEDDINGS] = ollama.routes[MODELS] = answer(body)
    with pytest.raises(UpstreamError):
        ask(backend, way, "embed", INPUTS)
    with pytest.raises(UpstreamError, match="invalid list of models"):
        ask(backend, way, "list_models")


# Limits


def test_an_answer_without_an_end_does_not_fill_the_memory(
    backend: OpenAIBackend, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setattr("django_ollama_openai.backends._http_client.MAX_ANSWER_BYTES", 1_000_000)
    ollama.routes[CHAT] = Reply([Flood(b"x" * 100_000, 1_000_000)])
    with pytest.raises(UpstreamError, match="answer that is too long"):
        chat(backend, way)
    assert ollama.requests[0].hung_up.wait(60)


@pytest.mark.parametrize("data", [b"data: " + b"x" * 1000, b"data: xxxx\n", b"data:\n"])
def test_an_event_without_an_end_does_not_fill_the_memory(
    backend: OpenAIBackend,
    ollama: OllamaServer,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    way: Way,
) -> None:
    for client in (OpenAIClient, AsyncOpenAIClient):
        monkeypatch.setattr(client, "reader", staticmethod(lambda: Events(100_000)))
    ollama.routes[CHAT] = sse(TOKEN, Flood(data * 100, 1_000_000))
    with pytest.raises(UpstreamError, match="too long"):
        stream(backend, way)
    assert ollama.requests[0].hung_up.wait(60)


PINGS = drip(PING.data)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"first_token_timeout": 0.3}, PINGS),
        ({"token_timeout": 0.3}, [TOKEN, *PINGS]),
        ({"timeout": 0.3}, [TOKEN, *PINGS]),
    ],
    ids=["before the first token", "between tokens", "either"],
)
def test_comments_are_no_answer(
    ollama: OllamaServer, options: dict[str, Any], steps: list[Step], way: Way
) -> None:
    ollama.routes[CHAT] = sse(*steps)
    with (
        closing(made(ollama, way, **options)) as backend,
        pytest.raises(UpstreamTimeout, match="did not answer in time"),
    ):
        stream(backend, way)
    assert ollama.requests[0].hung_up.wait(60)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVASIONS: dict[str, Reply] = {
    "bytes of the head": Reply([Send(b"HTTP/1.1 200 OK\r\nX: "), *drip(b"a")], raw=True),
    "interim responses": Reply(drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"), raw=True),
    "a flood of interim responses": Reply(
        [Flood(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100, 1_000_000)], raw=True
    ),
    "bytes of the body": sse(*drip(b" ")),
    "bytes of a chunk's extension": Reply([Send(CHUNKED + b"1;"), *drip(b"a")], raw=True),
    "bytes of an error": sse(*drip(b"a"), status=500),
}


@pytest.mark.parametrize("reply", EVASIONS.values(), ids=EVASIONS)
def test_whatever_is_no_answer_does_not_hold_a_request(
    ollama: OllamaServer, reply: Reply, way: Way
) -> None:
    ollama.routes[CHAT] = reply
    with closing(made(ollama, way, timeout=0.4)) as backend:
        for attempt in both(backend, way):
            started = time.monotonic()
            with pytest.raises(UpstreamTimeout, match="did not answer in time"):
                attempt()
            assert time.monotonic() - started >= 0.4
            assert ollama.requests[-1].hung_up.wait(60)
    assert len(ollama.requests) == 2


@pytest.mark.parametrize("before", [[], [TOKEN]], ids=["before the first token", "between tokens"])
@pytest.mark.parametrize(
    "rest",
    [
        [Flood(PING.data, 10_000_000)],
        [Flood(PING.data * 10_000, 1_000_000)],
        drip(b"d"),
        drip(b"\n"),
    ],
    ids=["a flood of comments", "a flood of many at once", "bytes of an event", "empty lines"],
)
def test_whatever_is_no_token_does_not_hold_a_stream(
    ollama: OllamaServer, before: list[Step], rest: list[Step], way: Way
) -> None:
    ollama.routes[CHAT] = sse(*before, *rest)
    started = time.monotonic()
    with (
        closing(made(ollama, way, timeout=0.4)) as backend,
        pytest.raises(UpstreamTimeout, match="did not answer in time"),
    ):
        stream(backend, way)
    assert time.monotonic() - started >= 0.4
    assert ollama.requests[0].hung_up.wait(60)


@pytest.mark.parametrize("method", ["embed", "list_models"])
def test_neither_embeddings_nor_models_hold_a_request(
    ollama: OllamaServer, method: str, way: Way
) -> None:
    ollama.routes[EMBEDDINGS] = ollama.routes[MODELS] = sse(*drip(b" "))
    request = [INPUTS] if method == "embed" else []
    started = time.monotonic()
    with closing(made(ollama, way, timeout=0.4)) as backend, pytest.raises(UpstreamTimeout):
        ask(backend, way, method, *request)
    assert time.monotonic() - started >= 0.4
    assert ollama.requests[0].hung_up.wait(60)


def test_the_first_token_is_waited_for_from_the_request_on(ollama: OllamaServer, way: Way) -> None:
    late = [Wait(0.3)]
    ollama.routes[CHAT] = sse(*late, TOKEN, *REST, DONE, before=late)
    with (
        closing(made(ollama, way, first_token_timeout=0.5)) as backend,
        pytest.raises(UpstreamTimeout),
    ):
        stream(backend, way)


def test_a_reader_may_take_longer_than_the_engine(ollama: OllamaServer, way: Way) -> None:
    ollama.routes[CHAT] = STREAM

    async def slowly(backend: OpenAIBackend) -> list[Delta]:
        deltas: list[Delta] = []
        async for delta in backend.astream_chat(REQUEST):
            if not deltas:
                await asyncio.sleep(2.5)
            deltas.append(delta)
        return deltas

    with closing(made(ollama, way, timeout=2)) as backend:
        if way == "sync":
            deltas: list[Delta] = []
            for delta in backend.stream_chat(REQUEST):
                if not deltas:
                    time.sleep(2.5)
                deltas.append(delta)
        else:
            deltas = asyncio.run(slowly(backend))
    assert fold(deltas) == HELLO


def test_a_long_stream_takes_longer_in_all_than_its_limits(ollama: OllamaServer, way: Way) -> None:
    slowly: list[Step] = [TOKEN, Wait(0.3)]
    ollama.routes[CHAT] = sse(*slowly * 8, *REST, DONE)
    with closing(made(ollama, way, timeout=2)) as backend:
        assert fold(stream(backend, way)).content == "Hel" * 8 + "lo"


# The end of a stream, and the connection


def streams(backend: OpenAIBackend, way: Way, count: int) -> list[Delta]:
    """One after the other, through one client."""
    if way == "sync":
        return [fold(backend.stream_chat(REQUEST)) for _ in range(count)]

    async def one_by_one() -> list[Delta]:
        return [
            fold([delta async for delta in backend.astream_chat(REQUEST)]) for _ in range(count)
        ]

    return asyncio.run(one_by_one())


@pytest.mark.parametrize("pause", [0, 0.2])
def test_connections_are_used_again_when_the_engine_is_done(
    backend: OpenAIBackend, ollama: OllamaServer, pause: float, way: Way
) -> None:
    """The last chunk of HTTP comes after the last event, and may come late."""
    before = ollama.connections
    ollama.routes[CHAT] = sse(TOKEN, *REST, DONE, Wait(pause))
    assert streams(backend, way, 3) == [HELLO] * 3
    assert ollama.connections - before == 1


@pytest.mark.parametrize("last", [Hold(), Reset(), Close(), Flood(PING.data, 1_000_000)], ids=repr)
def test_whatever_comes_after_the_end_neither_delays_nor_breaks_the_answer(
    backend: OpenAIBackend, ollama: OllamaServer, last: Step, way: Way
) -> None:
    ollama.routes[CHAT] = sse(TOKEN, *REST, DONE, last)
    assert fold(stream(backend, way)) == HELLO
    assert ollama.wait_for_released()
    # Where nothing else ends it, the client does.
    assert ollama.requests[0].hung_up.is_set() or isinstance(last, Reset | Close)


def test_the_rest_of_a_response_is_waited_for_no_longer_for_arriving_slowly(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    said = b"".join(step.data for step in STREAM.steps if isinstance(step, Send))
    rest = [Send(CHUNKED + b"%x\r\n%b\r\n0;" % (len(said), said)), *drip(b"a")]
    ollama.routes[CHAT] = Reply(rest, raw=True)
    assert fold(stream(backend, way)) == HELLO
    assert ollama.wait_for_released()
    assert not ollama.requests[0].answered.is_set()


def test_the_end_does_not_make_up_for_a_finish_reason(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes[CHAT] = sse(TOKEN, DONE)
    with pytest.raises(UpstreamError, match="ended before it was complete"):
        stream(backend, way)


def test_a_stream_without_done_ends_with_its_connection(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes[CHAT] = sse(TOKEN, *REST)
    assert fold(stream(backend, way)) == HELLO


HANGS: dict[str, Reply] = {
    "before the head": sse(before=[Hold()]),
    "before the first token": sse(Hold()),
    "while there are comments": sse(*PINGS),
    "between tokens": sse(TOKEN, Hold()),
}


@pytest.mark.parametrize("reply", HANGS.values(), ids=HANGS)
def test_a_disconnect_frees_the_engine(
    backend: OpenAIBackend, ollama: OllamaServer, reply: Reply, way: Way
) -> None:
    ollama.routes[CHAT] = reply
    if way == "sync":
        with in_a_thread(lambda: list(backend.stream_chat(REQUEST))) as (work, raised):
            assert wait_until(lambda: bool(ollama.requests))
            time.sleep(0.15)
            work.cancel()
            assert ollama.requests[0].hung_up.wait(60)
        assert [type(error) for error in raised] == [Cancelled]
    else:

        async def read() -> None:
            async for _ in backend.astream_chat(REQUEST):
                pass

        asyncio.run(cancelled(ollama, read))
    # The connection was not put back for the next request.
    ollama.routes[CHAT] = STREAM
    assert fold(stream(backend, way)) == HELLO


async def cancelled(ollama: OllamaServer, read: Callable[[], Coroutine[Any, Any, object]]) -> None:
    task = asyncio.create_task(read())
    assert await asyncio.to_thread(wait_until, lambda: bool(ollama.requests))
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ollama.requests[0].hung_up.wait, 60)


def wait_until(is_so: Callable[[], bool], timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)
    return is_so()


def test_a_disconnect_before_a_whole_answer_frees_the_engine(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes[CHAT] = sse(before=[Hold()])
    if way != "sync":
        asyncio.run(cancelled(ollama, lambda: backend.achat(REQUEST)))
        return
    with in_a_thread(lambda: backend.chat(REQUEST)) as (work, raised):
        assert wait_until(lambda: bool(ollama.requests))
        time.sleep(0.15)
        work.cancel()
        assert ollama.requests[0].hung_up.wait(60)
    assert [type(error) for error in raised] == [Cancelled]


def test_a_reader_that_stops_frees_the_engine(
    backend: OpenAIBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes[CHAT] = sse(TOKEN, Hold())
    if way == "sync":
        deltas: Any = backend.stream_chat(REQUEST)
        with closing(deltas):
            assert next(deltas).content == "Hel"
        assert ollama.requests[0].hung_up.wait(60)
        return

    async def stop() -> None:
        deltas = backend.astream_chat(REQUEST)
        assert isinstance(deltas, AsyncGenerator)
        async with aclosing(deltas):
            assert (await anext(deltas)).content == "Hel"
        assert await asyncio.to_thread(ollama.requests[0].hung_up.wait, 60)

    asyncio.run(stop())


# What it is made with


@pytest.mark.parametrize(
    "address",
    ["http://gpu-1:8000/v1", "https://gpu-1/v1/", "http://gpu-1", "http://[::1]:8000/a/b/v1"],
)
def test_addresses(address: str) -> None:
    with closing(made_with(base_url=address, api_key=SECRET)) as backend:
        client = backend.get_client()
        with closing(client):
            url = str(client._requests.make("POST", "/chat/completions", b"", None).url)
        assert url == f"{address.rstrip('/')}/chat/completions"
        assert repr(backend) == "<OpenAIBackend: default>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "base_url"),
        ({"base_url": "gpu-1:8000/v1"}, "Not an http"),
        ({"base_url": "http://gpu-1:port/v1"}, "Not an http"),
        ({"base_url": "http://gpu-1/v1/chat/completions"}, "Leave the endpoint out"),
        ({"base_url": "http://gpu-1/v1/models/"}, "Leave the endpoint out"),
        ({"base_url": "http://gpu-1/v1?key=5"}, "no '\\?' and no '#'"),
        ({"base_url": "http://gpu-1/v1#a"}, "no '\\?' and no '#'"),
        ({"base_url": f"http://me:{SECRET}@gpu-1/v1"}, "'api_key' or 'headers'"),
        (
            {"base_url": "http://gpu-1/v1", "unsupported_parameters": ["tool-choice"]},
            "'tool-choice' is no optional",
        ),
        (
            {"base_url": "http://gpu-1/v1", "unsupported_parameters": "tools"},
            "unsupported_parameters",
        ),
        ({"base_url": "http://gpu-1/v1", "token_timeout": 0}, "token_timeout"),
    ],
)
def test_what_it_is_not_made_with(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        made_with(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": f"http://me:{SECRET}@gpu-1/v1"},
        {"headers": {"X-Key": [SECRET]}},
        {"api_key": {"key": SECRET}},
    ],
)
def test_what_is_wrong_is_not_quoted(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))) as raised:
        made_with(**{"base_url": "http://gpu-1/v1", **options})
    assert SECRET not in str(raised.value)
