from __future__ import annotations

import base64
import json
import math
import struct
import time
from array import array
from contextlib import suppress
from typing import Any, Literal

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from django_ollama_openai._translation.embeddings import (
    embeddings_response,
    ollama_embeddings,
    openai_embeddings,
)
from django_ollama_openai._wire.case import Case
from django_ollama_openai._wire.delta import Embeddings, Usage
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.exceptions import InvalidRequest, UnsupportedParameter, UpstreamError
from tests.recordings import load, names
from tests.wire import strictly, texts

pytestmark = pytest.mark.once

ANSWERS = [name for name in names("embed") if load(name).status == 200 and name != "embed_empty"]


def asking(count: int = 1, **fields: Any) -> EmbeddingsRequest:
    body = {"model": "m", "input": ["a"] * count, **fields}
    return EmbeddingsRequest.parse(json.dumps(body).encode())


def answer(*vectors: Any, **fields: Any) -> bytes:
    return json.dumps({"embeddings": list(vectors), **fields}).encode()


def written(
    embeddings: Embeddings,
    encoding_format: Literal["float", "base64"] = "float",
    case: Case = "both",
    model: str = "my_model",
) -> Any:
    return strictly(embeddings_response(embeddings, model, encoding_format, case))


# What Ollama sends


@pytest.mark.compat("embeddings.response.usage.prompt_tokens")
@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_answer_is_translated_in_full(name: str) -> None:
    recording = load(name)
    sent = recording.request["json"]
    request = EmbeddingsRequest.parse(json.dumps(sent).encode())
    embeddings = ollama_embeddings(recording.body, request)
    assert embeddings.vectors == recording.json()["embeddings"]
    assert len(embeddings.vectors) == len(request.inputs())
    assert {len(vector) for vector in embeddings.vectors} == {sent.get("dimensions", 384)}
    assert embeddings.usage == Usage(recording.json()["prompt_eval_count"])


def test_numbers_go_on_as_ollama_wrote_them() -> None:
    recording = load("embed")
    numbers = recording.body.partition(b"[[")[2].partition(b"]]")[0].decode().split(",")
    embeddings = ollama_embeddings(recording.body, asking(2))
    body = embeddings_response(embeddings, "m", "float", "both").decode()
    # "-0.00006035834" and "-6.035834e-5" are as short; all others are the same, digit by digit.
    for number in numbers:
        plain = number.strip("[]")
        assert plain in body or abs(float(plain)) < 1e-4


@pytest.mark.parametrize(
    "body",
    [
        answer(),
        answer([1.0]),
        answer([1.0], [2.0], [3.0]),
        answer([1.0], [2.0, 3.0]),
        answer([], []),
        load("embed_empty").body,
    ],
)
def test_a_number_of_vectors_that_is_not_that_of_the_inputs(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="one vector for each input"):
        ollama_embeddings(body, asking(2))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b'{"embeddings":null}',
        b'{"embeddings":[null]}',
        b'{"embeddings":[["1"]]}',
        b'{"embeddings":[[true]]}',
        b'{"embeddings":[[NaN]]}',
        b'{"embeddings":[[1e999]]}',
        b'{"embeddings":[[-3.5e38]]}',
        b'{"embeddings":[[0.1]],"prompt_eval_count":"5"}',
        b'{"embedding":[0.1]}',
    ],
)
def test_nonsense_is_an_upstream_error(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        ollama_embeddings(body, asking())


@given(st.binary() | st.recursive(st.floats() | st.text(), st.lists).map(answer))
def test_anything_at_all_is_translated_or_an_upstream_error(body: bytes) -> None:
    with suppress(UpstreamError):
        embeddings = ollama_embeddings(body, asking())
        written(embeddings)
        written(embeddings, "base64")


def test_a_count_that_is_missing_is_zero() -> None:
    assert ollama_embeddings(answer([0.5]), asking()).usage == Usage()


@pytest.mark.compat("embeddings.request.dimensions")
def test_more_dimensions_than_the_model_has_are_refused_with_their_number() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ollama_embeddings(load("embed_single").body, asking(dimensions=385))
    assert caught.value.param == "dimensions"
    assert "384" in caught.value.message
    assert ollama_embeddings(load("embed_single").body, asking(dimensions=384)).vectors


def test_dimensions_that_an_engine_ignores_are_an_error() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        ollama_embeddings(load("embed_single").body, asking(dimensions=8))
    assert caught.value.param == "dimensions"


# What llama-server sends

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def float32(number: float) -> bytes:
    return array("f", [number]).tobytes()


def llama(*vectors: Any, tokens: int = 1, first: int = 0) -> dict[str, Any]:
    data = [
        {"embedding": vector, "index": index, "object": "embedding"}
        for index, vector in enumerate(vectors, start=first)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"model": "m", "object": "list", "usage": usage, "data": data}


def test_answers_piece_by_piece_are_one() -> None:
    embeddings = openai_embeddings(
        [llama([0.5, 1.0], [0.25, 2.0], tokens=3), llama([0.125, 3.0], tokens=4)], asking(3)
    )
    assert embeddings == Embeddings([[0.5, 1.0], [0.25, 2.0], [0.125, 3.0]], Usage(7))


def test_the_order_is_that_of_the_index() -> None:
    answer = llama([1.0], [2.0])
    answer["data"].reverse()
    assert openai_embeddings([answer], asking(2)).vectors == [[1.0], [2.0]]


@given(floats)
def test_nine_digits_are_the_same_float32(number: float) -> None:
    ((short,),) = openai_embeddings([llama([number])], asking()).vectors
    assert float32(short) == float32(number)
    assert f"{short:.9g}" == f"{number:.9g}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"error": {"code": 400, "message": "Prompt contains invalid tokens"}}, "invalid tokens"),
        ({"error": {"code": 500, "message": "open /srv/model.gguf"}}, "engine failed"),
        ({}, "an invalid response"),
        (None, "an invalid response"),
        ({"data": [], "usage": {}}, "an invalid response"),
        ({**llama([0.5]), "data": [{"embedding": "AAAA", "index": 0}]}, "an invalid response"),
        (llama([float("nan")]), "an invalid response"),
        (llama([0.5], [0.5]), "one vector for each input"),
        (llama(), "one vector for each input"),
    ],
)
def test_what_is_no_embedding(answer: Any, message: str) -> None:
    with pytest.raises((InvalidRequest, UpstreamError), match=message):
        openai_embeddings([answer], asking())


# What clients get

TWO = Embeddings([[0.25, -1.5], [0.1, 3e-33]], Usage(7))
DATA = [
    {"object": "embedding", "index": 0, "embedding": [0.25, -1.5]},
    {"object": "embedding", "index": 1, "embedding": [0.1, 3e-33]},
]


@pytest.mark.compat(
    "embeddings.response.object",
    "embeddings.response.data[].object",
    "embeddings.response.data[].index",
    "embeddings.response.model",
    "embeddings.response.usage.total_tokens",
    "embeddings.response.promptTokens, totalTokens",
)
@pytest.mark.parametrize(
    ("case", "usage"),
    [
        (
            "both",
            {"prompt_tokens": 7, "total_tokens": 7, "promptTokens": 7, "totalTokens": 7},
        ),
        ("snake", {"prompt_tokens": 7, "total_tokens": 7}),
        ("camel", {"promptTokens": 7, "totalTokens": 7}),
    ],
)
def test_the_response(case: Case, usage: dict[str, int]) -> None:
    assert written(TWO, case=case) == {
        "object": "list",
        "data": DATA,
        "model": "my_model",
        "usage": usage,
    }


@pytest.mark.parametrize("case", ["both", "snake"])
def test_openais_types_take_it(case: Case) -> None:
    parsed = CreateEmbeddingResponse.model_validate(written(TWO, case=case), strict=True)
    assert [entry.embedding for entry in parsed.data] == TWO.vectors


@pytest.mark.compat("embeddings.request.encoding_format", "embeddings.response.data[].embedding")
def test_base64_is_float32_with_the_lowest_byte_first() -> None:
    found = [entry["embedding"] for entry in written(TWO, "base64")["data"]]
    assert [base64.b64decode(text) for text in found] == [
        struct.pack("<2f", *vector) for vector in TWO.vectors
    ]
    assert base64.b64decode(found[0]) == bytes.fromhex("0000803e0000c0bf")


@given(st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=3))
def test_both_encodings_say_the_same(vectors: list[list[float]]) -> None:
    embeddings = Embeddings(vectors, Usage())
    plain = [entry["embedding"] for entry in written(embeddings)["data"]]
    encoded = [
        list(struct.unpack("<3f", base64.b64decode(entry["embedding"])))
        for entry in written(embeddings, "base64")["data"]
    ]
    assert plain == encoded == vectors


@given(floats.filter(bool))
def test_the_shortest_number_is_the_same_float32(number: float) -> None:
    short = next(
        text
        for digits in range(1, 10)
        if float32(float(text := f"{number:.{digits}g}")) == float32(number)
    )
    embeddings = ollama_embeddings(b'{"embeddings":[[%b]]}' % short.encode(), asking())
    (encoded,) = written(embeddings, "base64")["data"]
    (plain,) = written(embeddings)["data"]
    assert base64.b64decode(encoded["embedding"]) == struct.pack("<f", number)
    assert plain["embedding"] == [float(short)]


@given(texts)
def test_the_name_of_the_model_arrives_as_it_is(model: str) -> None:
    assert written(TWO, model=model)["model"] == model


def test_a_large_answer_takes_little_time() -> None:
    count, length = 512, 1024
    vectors = [[math.sin(row * length + place) for place in range(length)] for row in range(count)]
    body = pydantic_core.to_json({"embeddings": vectors, "prompt_eval_count": 1})
    request = asking(count)
    started = time.process_time()
    embeddings = ollama_embeddings(body, request)
    for encoding_format in ("float", "base64"):
        assert embeddings_response(embeddings, "m", encoding_format, "both")
    assert time.process_time() - started < 1
