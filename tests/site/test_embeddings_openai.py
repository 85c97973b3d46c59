"""``v1/embeddings`` through the official OpenAI client, on both servers."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest

from tests.ollama_server import OllamaServer, recorded
from tests.recordings import load
from tests.servers import Site

MODEL = "all-minilm:22m"


def vectors() -> list[list[float]]:
    found: list[list[float]] = load("embed").json()["embeddings"]
    return found


def test_openais_own_client_asks_for_base64(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.routes["/api/embed"] = recorded(load("embed"))
    answer = client.embeddings.create(model=MODEL, input=["hello", "world"])
    assert [item.index for item in answer.data] == [0, 1]
    for item, vector in zip(answer.data, vectors(), strict=True):
        assert item.embedding == pytest.approx(vector, rel=1e-6)
    assert (answer.object, answer.model) == ("list", MODEL)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (6, 6)
    assert ollama.requests[-1].body == {
        "model": MODEL,
        "input": ["hello", "world"],
        "truncate": False,
    }


@pytest.mark.compat("embeddings.response.data[].embedding")
def test_floats_are_what_the_engine_sent(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.routes["/api/embed"] = recorded(load("embed"))
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input=["hello", "world"], encoding_format="float"
    )
    data = raw.http_response.json()["data"]
    assert [item["embedding"] for item in data] == vectors()


def test_base64_is_little_endian_float32(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.routes["/api/embed"] = recorded(load("embed_dims"))
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input="hello", encoding_format="base64", dimensions=8
    )
    (item,) = raw.http_response.json()["data"]
    numbers = struct.unpack("<8f", base64.b64decode(item["embedding"]))
    assert list(numbers) == pytest.approx(load("embed_dims").json()["embeddings"][0], rel=1e-6)
    assert ollama.requests[-1].body["dimensions"] == 8


@pytest.mark.compat("embeddings.request.input (tokens)")
def test_what_cannot_be_done_is_a_400(client: openai.OpenAI, ollama: OllamaServer) -> None:
    def refused(**fields: Any) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as raised:
            client.embeddings.create(**{"model": MODEL, "input": "hello", **fields})
        return raised.value

    assert refused(input="").param == "input"
    assert refused(input=[]).param == "input"
    assert refused(input=["a", ""]).param == "input[1]"
    assert refused(input=["a"] * 2049).param == "input"
    assert refused(dimensions=0).param == "dimensions"
    tokens = refused(input=[1, 2, 3])
    assert tokens.param == "input"
    assert "text" in tokens.message
    assert refused(model="smollm2:135m").code == "unsupported_endpoint"
    ollama.routes["/api/embed"] = recorded(load("embed_long_notruncate"))
    too_long = refused()
    assert (too_long.code, too_long.param) == ("context_length_exceeded", "input")
    ollama.routes["/api/embed"] = recorded(load("embed_single"))
    assert "384" in refused(dimensions=1000).message


@pytest.mark.compat("embeddings.request.model")
def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    for model in ("missing", "gone"):
        with pytest.raises(openai.NotFoundError) as raised:
            client.embeddings.create(model=model, input="hello")
        assert raised.value.code == "model_not_found"
        assert repr(model) in raised.value.message


def test_an_engine_that_is_down(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.embeddings.create(model="dead", input="hello")
    assert raised.value.status_code == 503


def test_signals(site: Site, client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.routes["/api/embed"] = recorded(load("embed"))
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=["hello", "world"])
    started, finished = site.signals(raw.headers["x-request-id"], 2)
    assert (started["event"], finished["event"]) == ("started", "finished")
    assert (finished["finish_reason"], finished["content"]) == (None, None)
    assert finished["usage"]["prompt_tokens"] == 6
