"""What follows for every backend from the few methods that it defines."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_ollama_openai._cancellation import interruptible
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, Embeddings, Usage
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.engine import EngineRequest
from django_ollama_openai.backends import BaseBackend
from django_ollama_openai.backends._base import OPTIONAL_PARAMETERS
from django_ollama_openai.exceptions import InvalidRequest, UnsupportedParameter


def chat(**fields: Any) -> ChatCompletionRequest:
    body = {"messages": [{"role": "user", "content": "a"}], **fields}
    return ChatCompletionRequest.parse(json.dumps(body).encode())


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.parse(json.dumps({"prompt": "a b", **fields}).encode())


def embeddings(**fields: Any) -> EmbeddingsRequest:
    return EmbeddingsRequest.parse(json.dumps({"input": "a b", **fields}).encode())


class Small(BaseBackend):
    """Defines what has to be defined, and no more."""

    supports_completions = True
    supports_embeddings = True

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        assert isinstance(request.prompt, str)
        for word in request.prompt.split():
            yield Delta(word.upper())
        yield Delta(finish_reason="stop", usage=Usage(2, 2), tokens=0)

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        return Embeddings([[1.0] for _ in request.inputs()], Usage(1))


def test_a_completion_follows_from_its_stream() -> None:
    backend, request = Small(), completion()
    whole = Delta("AB", finish_reason="stop", usage=Usage(2, 2), tokens=2)
    assert backend.complete(request) == whole
    assert asyncio.run(backend.acomplete(request)) == whole

    async def stream() -> list[Delta]:
        return [delta async for delta in backend.astream_complete(request)]

    assert asyncio.run(stream()) == list(backend.stream_complete(request))


def test_embeddings_of_a_backend_without_an_asynchronous_way() -> None:
    backend = Small()
    assert asyncio.run(backend.aembed(embeddings())) == backend.embed(embeddings())


def test_an_error_of_a_thread_arrives() -> None:
    class Fails(Small):
        def embed(self, request: EmbeddingsRequest) -> Embeddings:
            raise InvalidRequest("No.")

    with pytest.raises(InvalidRequest, match="No"):
        asyncio.run(Fails().aembed(embeddings()))


def test_a_disconnect_ends_the_work_of_a_thread() -> None:
    begun, woken = threading.Event(), threading.Event()

    class Waits(Small):
        def embed(self, request: EmbeddingsRequest) -> Embeddings:
            begun.set()
            with interruptible(woken.set):
                woken.wait(120)
            raise AssertionError("Nobody waits for this")

    async def hang_up() -> None:
        task = asyncio.create_task(Waits().aembed(embeddings()))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    assert woken.is_set()


# What a backend does not have


class ChatOnly(BaseBackend):
    pass


class EmbedOnly(Small):
    supports_chat = False
    supports_completions = False


@pytest.mark.parametrize(
    ("backend", "request_", "endpoint"),
    [
        (ChatOnly(), completion(), "completions"),
        (ChatOnly(), embeddings(), "embeddings"),
        (EmbedOnly(), chat(), "chat completions"),
        (EmbedOnly(), completion(), "completions"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseBackend) else None,
)
def test_an_endpoint_that_is_not_there(
    backend: BaseBackend, request_: EngineRequest, endpoint: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        backend.check_support(request_)
    assert caught.value.message == f"This model does not support {endpoint}."
    assert (caught.value.param, caught.value.code) == ("model", "unsupported_endpoint")


@pytest.mark.parametrize("way", ["complete", "stream_complete", "embed"])
def test_a_method_that_is_not_supported_raises(way: str) -> None:
    request: EngineRequest = embeddings() if way == "embed" else completion()
    with pytest.raises(InvalidRequest, match="does not support"):
        getattr(ChatOnly(), way)(request)


def test_supported_methods_must_be_defined() -> None:
    class Promises(BaseBackend):
        supports_completions = True
        supports_embeddings = True

    with pytest.raises(NotImplementedError, match=r"Promises must define stream_complete\(\)"):
        Promises().complete(completion())
    with pytest.raises(NotImplementedError, match=r"Promises must define embed\(\)"):
        Promises().embed(embeddings())


@pytest.mark.parametrize("request_", [chat(), completion(), embeddings(), EngineRequest(model="m")])
def test_what_is_there(request_: EngineRequest) -> None:
    Small().check_support(request_)


# Parameters


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (completion(prompt=[1, 2]), "prompt"),
        (completion(prompt=[[1], [2]]), "prompt"),
        (embeddings(input=[1, 2]), "input"),
        (embeddings(input=[[1], [2]]), "input"),
    ],
)
def test_tokens_are_refused_by_the_name_of_their_field(request_: EngineRequest, param: str) -> None:
    class TakesTokens(Small):
        supported_parameters = frozenset({"token_input"})

    with pytest.raises(UnsupportedParameter) as caught:
        Small().check_support(request_)
    assert caught.value.param == param
    TakesTokens().check_support(request_)


@pytest.mark.parametrize(
    ("request_", "unsupported"),
    [
        (completion(), []),
        (completion(suffix="", logit_bias={}, best_of=1, echo=True, logprobs=None), []),
        (completion(suffix="x"), ["suffix"]),
        (completion(logit_bias={"5": 1}), ["logit_bias"]),
        (completion(logprobs=0), ["logprobs"]),
        (completion(logprobs=5), ["logprobs"]),
        (completion(best_of=3), ["best_of"]),
        (completion(best_of=3, suffix="x"), ["suffix", "best_of"]),
        (completion(tools=[1], dimensions=5), []),
        (embeddings(), []),
        (embeddings(encoding_format="base64", user="ada"), []),
        (embeddings(dimensions=8), ["dimensions"]),
        (embeddings(suffix="x", logit_bias={"5": 1}), []),
        (chat(logprobs=False), []),
        (chat(logprobs=True), ["logprobs"]),
        (chat(suffix="x", dimensions=5, best_of=3), []),
    ],
)
def test_parameters_that_are_not_honoured(request_: EngineRequest, unsupported: list[str]) -> None:
    class HonoursAll(Small):
        supported_parameters = frozenset(OPTIONAL_PARAMETERS)

    assert sorted(Small().unsupported_parameters(request_)) == sorted(unsupported)
    assert HonoursAll().unsupported_parameters(request_) == []
