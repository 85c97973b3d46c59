"""``OllamaBackend`` in front of a real socket: every recording, sync and async."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, closing, nullcontext, suppress
from itertools import dropwhile
from typing import Any, Literal, TypeAlias

import pytest

from django_ollama_openai._translation.ollama_chunks import OllamaChatChunks, OllamaGenerateChunks
from django_ollama_openai._translation.ollama_errors import ollama_error
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, Embeddings, Usage, fold, has_output
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
from tests.recordings import Recording, load, names

pytestmark = pytest.mark.once

Way: TypeAlias = Literal["sync", "async"]
WAYS: tuple[Way, ...] = ("sync", "async")
BOTH_WAYS = pytest.mark.parametrize("way", WAYS)

MODEL, EMBEDDER = "smollm2:135m", "all-minilm:22m"
REQUEST = ChatCompletionRequest.parse(
    b'{"model": "smollm2:135m", "messages": [{"role": "user", "content": "Hello"}]}'
)


@pytest.fixture
def backend(ollama: OllamaServer) -> Iterator[OllamaBackend]:
    with closing(OllamaBackend(host=ollama.url)) as backend:
        yield backend


def completion(prompt: str = "Hello", **fields: Any) -> CompletionRequest:
    body = {"model": MODEL, "prompt": prompt, **fields}
    return CompletionRequest.parse(json.dumps(body).encode())


def embeddings(input: Any = "hello", **fields: Any) -> EmbeddingsRequest:
    body = {"model": EMBEDDER, "input": input, **fields}
    return EmbeddingsRequest.parse(json.dumps(body).encode())


Asked: TypeAlias = ChatCompletionRequest | CompletionRequest
BOTH_REQUESTS = pytest.mark.parametrize(
    "request_", [REQUEST, completion()], ids=["chat", "completion"]
)


def deltas_of(backend: OllamaBackend, request: Asked) -> Iterator[Delta]:
    if isinstance(request, CompletionRequest):
        return backend.stream_complete(request)
    return backend.stream_chat(request)


def adeltas_of(backend: OllamaBackend, request: Asked) -> AsyncIterator[Delta]:
    if isinstance(request, CompletionRequest):
        return backend.astream_complete(request)
    return backend.astream_chat(request)


def stream(backend: OllamaBackend, way: Way, request: Asked) -> list[Delta]:
    if way == "sync":
        return list(deltas_of(backend, request))

    async def collect() -> list[Delta]:
        return [delta async for delta in adeltas_of(backend, request)]

    return asyncio.run(collect())


def whole(backend: OllamaBackend, way: Way, request: Asked) -> Delta:
    if isinstance(request, CompletionRequest):
        if way == "sync":
            return backend.complete(request)
        return asyncio.run(backend.acomplete(request))
    return backend.chat(request) if way == "sync" else asyncio.run(backend.achat(request))


def embedded(backend: OllamaBackend, way: Way, request: EmbeddingsRequest) -> Embeddings:
    return backend.embed(request) if way == "sync" else asyncio.run(backend.aembed(request))


def pieces(data: bytes, size: int) -> list[Send]:
    return [Send(data[start : start + size]) for start in range(0, len(data), size)]


def replayed(recording: Recording, size: int) -> Reply:
    """The recorded answer, cut without regard to lines and characters."""
    return Reply(
        pieces(recording.body, size),
        recording.status,
        {"Content-Type": recording.headers["Content-Type"]},
    )


ANSWERS: list[tuple[str, Asked]] = [
    (name, request)
    for kind, request in (("chat", REQUEST), ("generate", completion()))
    for name in names(kind)
    if load(name).status == 200
]
REFUSALS = [name for name in names("chat") if load(name).status != 200]


@BOTH_WAYS
@pytest.mark.parametrize("size", [7, 1 << 20], ids=["in small pieces", "at once"])
@pytest.mark.parametrize(("name", "request_"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_recorded_answers(
    backend: OllamaBackend, ollama: OllamaServer, name: str, request_: Asked, size: int, way: Way
) -> None:
    recording = load(name)
    ollama.reply(replayed(recording, size))
    parts = OllamaChatChunks() if request_ is REQUEST else OllamaGenerateChunks()
    expected = [parts.feed(line) for line in recording.lines]
    if recording.is_stream:
        said = list(dropwhile(lambda delta: not has_output(delta), expected))
        assert stream(backend, way, request_) == said
    else:
        assert [whole(backend, way, request_)] == expected


@BOTH_WAYS
@pytest.mark.parametrize("name", REFUSALS)
def test_recorded_refusals(
    backend: OllamaBackend, ollama: OllamaServer, name: str, way: Way
) -> None:
    recording = load(name)
    expected = ollama_error(recording.status, recording.body, model="smollm2:135m")
    for ask in (whole, stream):
        ollama.reply(recorded(recording))
        with pytest.raises(GatewayError) as raised:
            ask(backend, way, REQUEST)
        assert type(raised.value) is type(expected)
        assert raised.value.envelope() == expected.envelope()


@BOTH_WAYS
def test_what_goes_out(ollama: OllamaServer, way: Way) -> None:
    class HouseStyle(OllamaBackend):
        def prepare_chat(
            self, payload: dict[str, Any], request: ChatCompletionRequest
        ) -> dict[str, Any]:
            assert request is REQUEST
            payload["messages"].insert(0, {"role": "system", "content": "Be brief."})
            return payload

    with closing(HouseStyle(host=ollama.url, headers={"X-Tenant": "a"})) as backend:
        whole(backend, way, REQUEST)
        stream(backend, way, REQUEST)
    for received, streamed in zip(ollama.chats(), [False, True], strict=True):
        assert received.headers["x-tenant"] == "a"
        assert received.headers["content-type"] == "application/json"
        assert received.body == {
            "model": "smollm2:135m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
            ],
            "stream": streamed,
            "truncate": False,
            "shift": False,
        }


# Failures


@BOTH_WAYS
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply([Close()]), UpstreamError),
        (Reply([], before=[Close()]), UpstreamError),
        (Reply([Send(b'{"response": "a", "done": false}\n')]), UpstreamError),
        (Reply([Send(b'{"message": {"content": "a"}}\n')]), UpstreamError),
        (Reply([Send(b"<html>")]), UpstreamError),
        (Reply([]), UpstreamError),
        (Reply([], 302, {"Location": "http://127.0.0.1:9/"}), UpstreamError),
        (Reply([], 429), UpstreamUnavailable),
        (Reply([], 503), UpstreamUnavailable),
        (Reply([Send(b"x" * 10_000_000)], 500), UpstreamError),
        (Reply([], before=[Hold()]), UpstreamTimeout),
        (Reply([Hold()]), UpstreamTimeout),
    ],
    ids=[
        "cut off",
        "cut off before its head",
        "a completion",
        "not done",
        "not JSON",
        "empty",
        "redirect",
        "busy",
        "queue full",
        "long error",
        "silent before its head",
        "silent after its head",
    ],
)
def test_failures(ollama: OllamaServer, reply: Reply, kind: type[GatewayError], way: Way) -> None:
    with closing(OllamaBackend(host=ollama.url, timeout=0.3)) as backend:
        for ask in (whole, stream):
            ollama.reply(reply)
            with pytest.raises(GatewayError) as raised:
                ask(backend, way, REQUEST)
            assert type(raised.value) is kind
            assert "127.0.0.1" not in raised.value.message


@BOTH_WAYS
def test_an_answer_without_an_end_does_not_fill_the_memory(
    backend: OllamaBackend, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setattr("django_ollama_openai.backends._http_client.MAX_ANSWER_BYTES", 1_000_000)
    ollama.reply(Reply([Send(b"x" * 100_000)] * 1000))
    with pytest.raises(UpstreamError, match="too long"):
        whole(backend, way, REQUEST)
    assert ollama.wait_for_chat().hung_up.wait(60)


@BOTH_WAYS
@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:9", "http://nowhere.invalid", "https://127.0.0.1:9"]
)
def test_a_dead_host(host: str, way: Way) -> None:
    with closing(OllamaBackend(host=host)) as backend:
        with pytest.raises(UpstreamUnavailable) as raised:
            whole(backend, way, REQUEST)
        assert raised.value.message == "The engine cannot be reached. Try again later."
        assert raised.value.headers == {"Retry-After": "5"}


@BOTH_WAYS
@pytest.mark.parametrize(
    "data",
    [b'{"response": "a", "done": false}\n', b'{"message": {"content": "a"}, "done": true}\n'],
    ids=["not done", "a chat"],
)
def test_failures_of_completions(
    backend: OllamaBackend, ollama: OllamaServer, data: bytes, way: Way
) -> None:
    for ask in (whole, stream):
        ollama.reply(Reply([Send(data)]))
        with pytest.raises(UpstreamError):
            ask(backend, way, completion())


@BOTH_REQUESTS
def test_an_iterator_that_is_dropped_frees_the_engine(
    backend: OllamaBackend, ollama: OllamaServer, request_: Asked
) -> None:
    first = Send(b'{"message": {"content": "a"}, "response": "a"}\n')
    ollama.reply(Reply([first, Hold()]), Reply([first, Hold()]))
    deltas = deltas_of(backend, request_)
    assert next(iter(deltas)).content == "a"
    del deltas
    gc.collect()
    requests = ollama.chats if request_ is REQUEST else ollama.generates
    assert requests()[0].hung_up.wait(60)

    async def hang_up() -> None:
        deltas = adeltas_of(backend, request_)
        assert isinstance(deltas, AsyncGenerator)
        async with aclosing(deltas):
            assert (await anext(deltas)).content == "a"

    asyncio.run(hang_up())
    assert requests()[1].hung_up.wait(60)


@BOTH_WAYS
@pytest.mark.parametrize("cookie", ["who=alice; Path=/", "who=\x01alice; Path=/"])
def test_cookies_of_the_engine_go_nowhere(
    backend: OllamaBackend, ollama: OllamaServer, way: Way, cookie: str
) -> None:
    done = Send(b'{"message": {"content": "a"}, "done": true}')
    ollama.reply(Reply([done], headers={"Set-Cookie": cookie}), Reply([done]))

    # Whether a header may have such a character is the transport's to say.
    refused = suppress(UpstreamError) if "\x01" in cookie else nullcontext()

    async def twice() -> None:
        with refused:
            await backend.achat(REQUEST)
        await backend.achat(REQUEST)

    if way == "sync":
        with refused:
            backend.chat(REQUEST)
        backend.chat(REQUEST)
    else:
        asyncio.run(twice())
    assert ["cookie" in request.headers for request in ollama.chats()] == [False, False]


# Connections


@BOTH_WAYS
def test_connections_are_used_again(backend: OllamaBackend, ollama: OllamaServer, way: Way) -> None:
    async def thrice() -> None:
        for _ in range(3):
            await backend.achat(REQUEST)

    before = ollama.connections
    if way == "sync":
        for _ in range(3):
            backend.chat(REQUEST)
    else:
        asyncio.run(thrice())
    assert ollama.connections - before == 1


def test_threads_share_one_client(backend: OllamaBackend, ollama: OllamaServer) -> None:
    answers: list[Delta] = []
    threads = [
        threading.Thread(target=lambda: answers.append(backend.chat(REQUEST))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fold([answer]).content for answer in answers] == ["Hello!"] * 8


def test_an_event_loop_that_ends_closes_its_connections() -> None:
    with OllamaServer() as own, closing(OllamaBackend(host=own.url)) as backend:
        for number in (1, 2):
            asyncio.run(backend.achat(REQUEST))
            assert len(own.chats()) == own.connections == number
        assert own.wait_for_closed()


def test_event_loops_that_have_ended_are_forgotten(
    backend: OllamaBackend, ollama: OllamaServer
) -> None:
    for _ in range(5):
        asyncio.run(backend.aping())
    assert len(backend._async_clients) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@BOTH_WAYS
def test_proxies_of_the_environment_are_not_used(
    ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch, variable: str, way: Way
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with closing(OllamaBackend(host=ollama.url)) as backend:
        assert whole(backend, way, REQUEST).content == "Hello!"


@BOTH_WAYS
def test_without_a_host_the_environment_tells(
    ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url.removeprefix("http://"))
    with closing(OllamaBackend()) as backend:
        assert whole(backend, way, REQUEST).content == "Hello!"


def test_credentials_of_the_host_are_not_shown() -> None:
    with closing(OllamaBackend(host="http://me:hunter2@127.0.0.1:9")) as backend:
        assert repr(backend) == "<OllamaBackend: default>"
        with pytest.raises(UpstreamUnavailable) as raised:
            backend.chat(REQUEST)
    assert "hunter2" not in str(raised.value)


# Completions


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
def test_what_goes_out_to_be_completed(ollama: OllamaServer, way: Way) -> None:
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
def test_refusals_to_complete(
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


# Models


def listed(backend: OllamaBackend, way: Way) -> Any:
    return backend.list_models() if way == "sync" else asyncio.run(backend.alist_models())


def asked(ollama: OllamaServer) -> list[str]:
    return [request.path for request in ollama.requests]


@BOTH_WAYS
def test_tags_tell_everything_at_once(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    cards = {card.id: card for card in listed(backend, way)}
    assert asked(ollama) == ["/api/tags"]
    tag = next(tag for tag in load("tags").json()["models"] if tag["name"] == "smollm2:135m")
    card = cards["smollm2:135m"]
    assert card.metadata["digest"] == tag["digest"]
    assert card.metadata["context_length"] == tag["details"]["context_length"]
    assert card.metadata["capabilities"] == tag["capabilities"]


def older(tags: dict[str, Any]) -> Reply:
    """What servers say that leave the lengths and the capabilities to ``/api/show``."""
    for tag in tags["models"]:
        del tag["capabilities"]
        tag["details"] = {"family": tag["details"]["family"]}
    body = json.dumps(tags).encode()
    return Reply([Send(body)], headers={"Content-Type": "application/json; charset=utf-8"})


@BOTH_WAYS
def test_older_servers_are_asked_once_for_what_their_tags_lack(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    tags = load("tags").json()
    count = len(tags["models"])
    ollama.routes["/api/tags"] = older(tags)
    (card,) = (card for card in listed(backend, way) if card.id == "smollm2:135m")
    show = load("show").json()
    assert card.metadata["context_length"] == show["model_info"]["llama.context_length"]
    assert card.metadata["capabilities"] == show["capabilities"]
    assert asked(ollama) == ["/api/tags", *["/api/show"] * count]
    listed(backend, way)
    assert asked(ollama)[count + 1 :] == ["/api/tags"]


def test_what_show_said_is_forgotten_after_a_while(
    backend: OllamaBackend, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_ollama_openai.backends._ollama.SHOW_CACHE_SECONDS", 0)
    tags = load("tags").json()
    ollama.routes["/api/tags"] = older(tags)
    backend.list_models()
    backend.list_models()
    assert asked(ollama).count("/api/show") == 2 * len(tags["models"])


@BOTH_WAYS
def test_a_model_that_goes_away_while_it_is_asked_about_is_listed_without_details(
    backend: OllamaBackend, ollama: OllamaServer, way: Way
) -> None:
    ollama.routes["/api/tags"] = older(load("tags").json())
    ollama.routes["/api/show"] = recorded(load("show_404"))
    assert {card.metadata["context_length"] for card in listed(backend, way)} == {None}


@BOTH_WAYS
@pytest.mark.parametrize("body", [b"[]", b"nope", b'{"models": 5}', b'{"models": [{}]}'])
def test_a_list_that_makes_no_sense(
    backend: OllamaBackend, ollama: OllamaServer, body: bytes, way: Way
) -> None:
    ollama.routes["/api/tags"] = Reply([Send(body)])
    with pytest.raises(UpstreamError):
        listed(backend, way)


def test_the_tag_latest_may_be_left_out(backend: OllamaBackend, ollama: OllamaServer) -> None:
    tags = load("tags").json()
    tags["models"][0]["name"] = tags["models"][0]["model"] = "house/model:latest"
    ollama.routes["/api/tags"] = Reply([Send(json.dumps(tags).encode())])
    assert backend.get_model("house/model").id == "house/model:latest"
    assert asyncio.run(backend.aget_model("house/model:latest")).id == "house/model:latest"
    with pytest.raises(ModelNotFound):
        backend.get_model("model")


def test_which_models_are_in_memory(backend: OllamaBackend, ollama: OllamaServer) -> None:
    assert backend.loaded_models() == frozenset({"smollm2:135m"})
    running = load("ps").json()
    running["models"][0]["name"] = running["models"][0]["model"] = "house/model:latest"
    ollama.routes["/api/ps"] = Reply([Send(json.dumps(running).encode())])
    assert backend.loaded_models() == frozenset({"house/model:latest", "house/model"})
    ollama.routes["/api/ps"] = recorded(load("ps_empty"))
    assert backend.loaded_models() == frozenset()
    ollama.routes["/api/ps"] = Reply([Send(b"nope")])
    with pytest.raises(UpstreamError):
        backend.loaded_models()
    assert asked(ollama) == ["/api/ps"] * 4


@BOTH_WAYS
def test_ping(backend: OllamaBackend, ollama: OllamaServer, way: Way) -> None:
    def ping() -> None:
        backend.ping() if way == "sync" else asyncio.run(backend.aping())

    ping()
    assert asked(ollama) == ["/api/version"]
    ollama.routes["/api/version"] = Reply([], 500)
    with pytest.raises(UpstreamError):
        ping()
