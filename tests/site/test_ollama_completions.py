"""Completions and embeddings of ``OllamaBackend``: a real socket, and both ways of waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

from django_ollama_openai._translation.ollama_chunks import OllamaGenerateChunks
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, Embeddings, Usage, fold
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import OllamaBackend
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, Send, recorded
from tests.recordings import load, names
from tests.site.test_ollama_backend import BOTH_WAYS, Way, replayed

pytestmark = pytest.mark.once

MODEL = "smollm2:135m"
EMBEDDER = "all-minilm:22m"

ANSWERS = [name for name in names("generate") if load(name).status == 200]


def completion(prompt: str = "Hello", **fields: Any) -> CompletionRequest:
    body = {"model": MODEL, "prompt": prompt, **fields}
    return CompletionRequest.parse(json.dumps(body).encode())


def embeddings(input: Any = "hello", **fields: Any) -> EmbeddingsRequest:
    body = {"model": EMBEDDER, "input": input, **fields}
    return EmbeddingsRequest.parse(json.dumps(body).encode())


@pytest.fixture
def backend(ollama: OllamaServer) -> Iterator[OllamaBackend]:
    with closing(OllamaBackend(host=ollama.url)) as backend:
        yield backend


def stream(backend: OllamaBackend, way: Way, request: CompletionRequest) -> list[Delta]:
    if way == "sync":
        return list(backend.stream_complete(request))

    async def collect() -> list[Delta]:
        return [delta async for delta in backend.astream_complete(request)]

    return asyncio.run(collect())


def whole(backend: OllamaBackend, way: Way, request: CompletionRequest) -> Delta:
    return backend.complete(request) if way == "sync" else asyncio.run(backend.acomplete(request))


def embedded(backend: OllamaBackend, way: Way, request: EmbeddingsRequest) -> Embeddings:
    return backend.embed(request) if way == "sync" else asyncio.run(backend.aembed(request))


# Completions


@BOTH_WAYS
@pytest.mark.parametrize("size", [7, 1 << 20], ids=["in small pieces", "at once"])
@pytest.mark.parametrize("name", ANSWERS)
def test_recorded_answers(
    backend: OllamaBackend, ollama: OllamaServer, name: str, size: int, way: Way
) -> None:
    recording = load(name)
    ollama.reply(replayed(recording, size))
    parts = OllamaGenerateChunks()
    expected = [parts.feed(line) for line in recording.lines]
    if recording.is_stream:
        assert stream(backend, way, completion()) == expected
    else:
        assert [whole(backend, way, completion())] == expected


@BOTH_WAYS
def test_what_a_scripted_ollama_says(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    answer = Answer([" Paris", "."], thinking=["hm"], done_reason="length", prompt_tokens=5)
    ollama.reply(answer, answer)
    streamed = fold(stream(backend, way, completion()))
    for told in (streamed, whole(backend, way, completion())):
        assert (told.content, told.reasoning) == (" Paris.", "hm")
        assert (told.finish_reason, told.usage) == ("length", Usage(5, 3))


@BOTH_WAYS
def test_what_goes_out(ollama: OllamaServer, way: Way) -> None:
    class HouseStyle(OllamaBackend):
        def prepare_completion(
            self, payload: dict[str, Any], request: CompletionRequest
        ) -> dict[str, Any]:
            payload["prompt"] = f"// {request.user}\n{payload['prompt']}"
            return payload

    with closing(HouseStyle(host=ollama.url)) as backend:
        whole(backend, way, completion(user="ada", stop="\n"))
        stream(backend, way, completion(user="ada", stop="\n"))
    for received, streamed in zip(ollama.generates(), [False, True], strict=True):
        assert received.method == "POST"
        assert received.body == {
            "model": MODEL,
            "prompt": "// ada\nHello",
            "raw": True,
            "stream": streamed,
            "truncate": False,
            "shift": False,
            "options": {"num_predict": 16, "stop": ["\n"]},
        }


@BOTH_WAYS
@pytest.mark.parametrize(
    ("request_", "kind", "param", "code"),
    [
        (completion(model="nope"), ModelNotFound, "model", "model_not_found"),
        (completion(suffix="x"), UnsupportedParameter, "suffix", "unsupported_parameter"),
        (completion(model=EMBEDDER), InvalidRequest, "model", "unsupported_endpoint"),
        (completion(think=True), UnsupportedParameter, "think", "unsupported_parameter"),
    ],
    ids=["no such model", "no template for a suffix", "a model for embeddings", "thinking"],
)
def test_refusals(
    backend: OllamaBackend,
    ollama: OllamaServer,
    request_: CompletionRequest,
    kind: type[GatewayError],
    param: str | None,
    code: str | None,
    way: Way,
) -> None:
    for ask in (whole, stream):
        with pytest.raises(GatewayError) as raised:
            ask(backend, way, request_)
        assert type(raised.value) is kind
        assert (raised.value.param, raised.value.code) == (param, code)


@BOTH_WAYS
def test_a_prompt_that_is_too_long(backend: OllamaBackend, ollama: OllamaServer, way: Way) -> None:
    for ask in (whole, stream):
        ollama.reply(recorded(load("chat_long_notruncate")))
        with pytest.raises(ContextLengthExceeded) as raised:
            ask(backend, way, completion())
        assert raised.value.param == "prompt"


@BOTH_WAYS
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply([Close()]), UpstreamError),
        (Reply([Send(b'{"response": "a", "done": false}\n')]), UpstreamError),
        (Reply([Send(b'{"message": {"content": "a"}, "done": true}\n')]), UpstreamError),
        (Reply([], 503), UpstreamUnavailable),
        (Reply([Hold()]), UpstreamTimeout),
    ],
    ids=["cut off", "not done", "a chat", "busy", "silent"],
)
def test_failures(ollama: OllamaServer, reply: Reply, kind: type[GatewayError], way: Way) -> None:
    with closing(OllamaBackend(host=ollama.url, timeout=0.3)) as backend:
        for ask in (whole, stream):
            ollama.reply(reply)
            with pytest.raises(GatewayError) as raised:
                ask(backend, way, completion())
            assert type(raised.value) is kind


def test_an_iterator_that_is_closed_frees_the_engine(
    backend: OllamaBackend, ollama: OllamaServer
) -> None:
    first = Send(b'{"response": "a"}\n')
    ollama.reply(Reply([first, Hold()]), Reply([first, Hold()]))
    deltas = backend.stream_complete(completion())
    assert next(iter(deltas)).content == "a"
    del deltas
    assert ollama.generates()[0].hung_up.wait(60)

    async def hang_up() -> None:
        deltas = backend.astream_complete(completion())
        assert isinstance(deltas, AsyncGenerator)
        async with aclosing(deltas):
            assert (await anext(deltas)).content == "a"

    asyncio.run(hang_up())
    assert ollama.generates()[1].hung_up.wait(60)


# Embeddings


@BOTH_WAYS
@pytest.mark.parametrize("size", [1009, 1 << 20], ids=["in small pieces", "at once"])
@pytest.mark.parametrize(
    "name", ["embed", "embed_dims", "embed_long", "embed_single", "embed_truncate_false_ok"]
)
def test_recorded_embeddings(
    backend: OllamaBackend, ollama: OllamaServer, name: str, size: int, way: Way
) -> None:
    recording = load(name)
    ollama.routes["/api/embed"] = replayed(recording, size)
    request = embeddings(**recording.request["json"])
    found = embedded(backend, way, request)
    assert found.vectors == recording.json()["embeddings"]
    assert found.usage == Usage(recording.json()["prompt_eval_count"])


@BOTH_WAYS
def test_the_order_is_that_of_the_inputs(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    words = [f"word {number}" for number in range(100)]
    together = embedded(backend, way, embeddings(words)).vectors
    apart = [embedded(backend, way, embeddings(word)).vectors[0] for word in words[:3]]
    assert together[:3] == apart
    assert len({tuple(vector) for vector in together}) == 100


@BOTH_WAYS
def test_what_goes_out_to_be_embedded(ollama: OllamaServer, way: Way) -> None:
    class Prefixed(OllamaBackend):
        def prepare_embed(
            self, payload: dict[str, Any], request: EmbeddingsRequest
        ) -> dict[str, Any]:
            payload["input"] = [f"search_query: {text}" for text in request.inputs()]
            return payload

    with closing(Prefixed(host=ollama.url)) as backend:
        embedded(backend, way, embeddings(["a", "b"], dimensions=8, encoding_format="base64"))
    (received,) = ollama.embeds()
    assert received.body == {
        "model": EMBEDDER,
        "input": ["search_query: a", "search_query: b"],
        "dimensions": 8,
        "truncate": False,
    }


@BOTH_WAYS
def test_too_long_is_an_error_unless_the_client_or_the_site_says_otherwise(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    long = "hello " * 900
    with pytest.raises(ContextLengthExceeded) as raised:
        embedded(backend, way, embeddings(["short", long]))
    assert raised.value.param == "input"
    assert embedded(backend, way, embeddings(long, truncate=True)).usage == Usage(512)
    routed = embeddings(long).routed_to(EMBEDDER, {"truncate": True})
    assert embedded(backend, way, routed).usage == Usage(512)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("request_", "kind", "param", "code"),
    [
        (embeddings(model="nope"), ModelNotFound, "model", "model_not_found"),
        (embeddings(model=MODEL), InvalidRequest, "model", "unsupported_endpoint"),
        (embeddings(dimensions=385), InvalidRequest, "dimensions", None),
        (embeddings([1, 2]), UnsupportedParameter, "input", "unsupported_parameter"),
    ],
    ids=["no such model", "a model for chats", "too many dimensions", "tokens"],
)
def test_refusals_to_embed(
    backend: OllamaBackend,
    ollama: OllamaServer,
    request_: EmbeddingsRequest,
    kind: type[GatewayError],
    param: str,
    code: str | None,
    way: Way,
) -> None:
    with pytest.raises(GatewayError) as raised:
        embedded(backend, way, request_)
    assert type(raised.value) is kind
    assert (raised.value.param, raised.value.code) == (param, code)
    assert raised.value.status in (400, 404)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply([Close()]), UpstreamError),
        (Reply([Send(b'{"embeddings": []}')]), UpstreamError),
        (Reply([Send(b'{"embeddings": [[1, 2], [3, 4]]}')]), UpstreamError),
        (Reply([Send(b"<html>")]), UpstreamError),
        (Reply([], 503), UpstreamUnavailable),
        (Reply([], before=[Hold()]), UpstreamTimeout),
    ],
    ids=["cut off", "too few", "too many", "not JSON", "busy", "silent"],
)
def test_failures_to_embed(
    ollama: OllamaServer, reply: Reply, kind: type[GatewayError], way: Way
) -> None:
    ollama.routes["/api/embed"] = reply
    with (
        closing(OllamaBackend(host=ollama.url, timeout=0.3)) as backend,
        pytest.raises(GatewayError) as raised,
    ):
        embedded(backend, way, embeddings())
    assert type(raised.value) is kind
