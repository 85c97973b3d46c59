from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, Usage, fold
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.exceptions import InvalidRequest


def completion(prompt: Any = "How are you?", **fields: Any) -> CompletionRequest:
    return CompletionRequest.parse(json.dumps({"prompt": prompt, **fields}).encode())


def embeddings(input: Any, **fields: Any) -> EmbeddingsRequest:
    return EmbeddingsRequest.parse(json.dumps({"input": input, **fields}).encode())


async def collected(backend: DummyBackend, request: CompletionRequest) -> list[Delta]:
    return [delta async for delta in backend.astream_complete(request)]


def test_completions_are_the_replies_in_turn_word_by_word() -> None:
    backend = DummyBackend(replies=["one two", {"reasoning": "hm", "content": "three"}])
    request = completion()
    first = list(backend.stream_complete(request))
    assert [delta.content for delta in first] == ["one", " two", ""]
    assert first[-1].usage == Usage(prompt_tokens=3, completion_tokens=2)
    second = fold(asyncio.run(collected(backend, request)))
    assert (second.reasoning, second.content, second.finish_reason) == ("hm", "three", "stop")
    assert second.usage == Usage(3, 2, reasoning_tokens=1)
    assert backend.complete(request).content == "one two"
    assert backend.requests == [request] * 3


def test_how_a_completion_ends_can_be_said() -> None:
    backend = DummyBackend(replies=[{"content": "a", "finish_reason": "length"}])
    assert backend.complete(completion()).finish_reason == "length"
    assert asyncio.run(backend.acomplete(completion())).finish_reason == "length"


def test_tokens_of_a_prompt_are_counted() -> None:
    usage = DummyBackend().complete(completion([1, 2, 3, 4])).usage
    assert usage is not None
    assert usage.prompt_tokens == 4


def test_an_embedding_is_a_unit_vector_of_the_texts_own() -> None:
    backend = DummyBackend()
    request = embeddings(["one", "two", "one"])
    found = backend.embed(request)
    one, two, again = found.vectors
    assert one == again != two
    assert found.usage == Usage(prompt_tokens=3)
    for vector in found.vectors:
        assert len(vector) == 8
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    # The same in every process, so that a test may expect it.
    assert one[:2] == ONE
    assert asyncio.run(backend.aembed(request)) == found
    assert backend.requests == [request, request]


ONE = [-0.0893608011, 0.300738289]


def test_tokens_have_embeddings_too() -> None:
    tokens, other, text = (
        DummyBackend().embed(embeddings(input)).vectors for input in ([[1, 2]], [[1, 3]], "[1, 2]")
    )
    assert tokens not in (other, text)


def test_the_dimensions_are_an_option_and_may_be_reduced() -> None:
    backend = DummyBackend(dimensions=16)
    full, reduced = (
        backend.embed(embeddings("a", **fields)).vectors[0] for fields in ({}, {"dimensions": 4})
    )
    assert (len(full), len(reduced)) == (16, 4)
    scale = math.hypot(*full[:4])
    assert reduced == pytest.approx([number / scale for number in full[:4]], abs=1e-6)
    with pytest.raises(InvalidRequest) as caught:
        backend.embed(embeddings("a", dimensions=17))
    assert caught.value.param == "dimensions"
    with pytest.raises(ValueError, match="dimensions"):
        DummyBackend(dimensions=0)
