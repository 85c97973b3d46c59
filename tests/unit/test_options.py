"""Ollama's options, for each of its endpoints that takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai._translation.ollama_payload import (
    TOP_LEVEL_OPTIONS,
    ollama_chat_payload,
    ollama_completion_payload,
    ollama_embeddings_payload,
)
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest


def chat(site: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "a"}], **fields}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    return ollama_chat_payload(request.routed_to("m", site), stream=False)


def generate(site: dict[str, Any], **fields: Any) -> dict[str, Any]:
    request = CompletionRequest.parse(json.dumps({"prompt": "a", **fields}).encode())
    return ollama_completion_payload(request.routed_to("m", site), stream=False)


def embed(site: dict[str, Any], **fields: Any) -> dict[str, Any]:
    request = EmbeddingsRequest.parse(json.dumps({"input": "a", **fields}).encode())
    return ollama_embeddings_payload(request.routed_to("m", site))


EVERYWHERE = pytest.mark.parametrize("payload", [chat, generate, embed])
ANSWERS = pytest.mark.parametrize("payload", [chat, generate])


def options(body: dict[str, Any]) -> dict[str, Any]:
    """Those in ``options``, without the limit that every completion has."""
    found = dict(body.get("options", {}))
    if "prompt" in body and found["num_predict"] == 16:
        del found["num_predict"]
    return found


@EVERYWHERE
def test_a_long_prompt_is_an_error_by_default(payload: Any) -> None:
    assert payload({})["truncate"] is False
    assert payload({}, truncate=None)["truncate"] is False
    assert payload({"truncate": True})["truncate"] is True
    assert payload({"truncate": True}, truncate=False)["truncate"] is False
    assert payload({}, truncate=True)["truncate"] is True


@pytest.mark.compat("chat.request.shift")
@ANSWERS
def test_a_full_context_ends_the_answer_by_default(payload: Any) -> None:
    assert payload({})["shift"] is False
    assert payload({"shift": True})["shift"] is True
    assert payload({"shift": True}, shift=False)["shift"] is False
    assert payload({}, shift=True)["shift"] is True
    # Who lets a prompt be cut leaves the rest to Ollama, too.
    assert "shift" not in payload({}, truncate=True)
    assert "shift" not in payload({"truncate": True})
    assert payload({"truncate": True}, truncate=False)["shift"] is False


@EVERYWHERE
def test_no_options_are_sent_by_default(payload: Any) -> None:
    expected = {"truncate"} if payload is embed else {"truncate", "shift"}
    assert TOP_LEVEL_OPTIONS & set(payload({})) == expected
    assert options(payload({})) == {}
    assert options(payload({}, options={})) == {}
    assert options(payload({}, options={"num_ctx": None})) == {}
    assert "keep_alive" not in payload({}, keep_alive=None)


@EVERYWHERE
def test_the_sites_options_stand_in_options_or_beside_them(payload: Any) -> None:
    site = {"num_ctx": 8, "num_gpu": 1, "keep_alive": "10m", "shift": False, "think": "low"}
    body = payload(site)
    assert options(body) == {"num_ctx": 8, "num_gpu": 1}
    assert {name: body[name] for name in ("keep_alive", "shift", "think")} == {
        "keep_alive": "10m",
        "shift": False,
        "think": "low",
    }
    assert site == {
        "num_ctx": 8,
        "num_gpu": 1,
        "keep_alive": "10m",
        "shift": False,
        "think": "low",
    }


@pytest.mark.compat("completions.request.options, keep_alive, shift, think, truncate")
@EVERYWHERE
def test_the_clients_options_win_over_the_sites(payload: Any) -> None:
    site = {"num_ctx": 8, "top_k": 5, "keep_alive": "10m"}
    body = payload(site, options={"numCtx": 4096, "min_p": 0.1}, keep_alive=0)
    assert options(body) == {"num_ctx": 4096, "top_k": 5, "min_p": 0.1}
    assert body["keep_alive"] == 0


@ANSWERS
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": None}, {"temperature": 0.5}),
        ({"top_p": 0.9, "seed": 0}, {"temperature": 0.5, "top_p": 0.9, "seed": 0}),
        ({"presence_penalty": 1}, {"temperature": 0.5, "presence_penalty": 1}),
        ({"frequency_penalty": -1}, {"temperature": 0.5, "frequency_penalty": -1}),
        ({"stop": "x"}, {"temperature": 0.5, "stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"temperature": 0.5, "stop": ["x", "y"]}),
        ({"max_tokens": 5}, {"temperature": 0.5, "num_predict": 5}),
    ],
)
def test_openais_fields_win_over_all(
    payload: Any, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    site = {"temperature": 0.1}
    assert options(payload(site, options={"temperature": 0.5}, **fields)) == expected


@ANSWERS
@pytest.mark.parametrize(
    ("site", "fields"),
    [({"stop": "x"}, {}), ({}, {"options": {"stop": "x"}}), ({}, {"stop": "x"})],
    ids=["the site", "the client's options", "a field"],
)
def test_stop_is_a_list_from_each_source(
    payload: Any, site: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert options(payload(site, **fields)) == {"stop": ["x"]}


@ANSWERS
def test_thinking(payload: Any) -> None:
    assert payload({"think": True}, think=False)["think"] is False
    assert payload({}, think="high")["think"] == "high"
    assert payload({"think": True}, think=None)["think"] is True


@pytest.mark.compat("chat.request.think")
def test_think_wins_over_the_effort_of_reasoning() -> None:
    assert chat({}, think=False, reasoning_effort="high")["think"] is False
    assert chat({}, think="max", reasoning_effort="none")["think"] == "max"
    assert chat({"think": False}, reasoning_effort="minimal")["think"] == "low"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_a_chat_wins_over_num_predict(name: str) -> None:
    limits = {"options": {"num_predict": 50}}
    assert options(chat({"num_predict": 9}, **limits)) == {"num_predict": 50}
    assert options(chat({"num_predict": 9}, **limits, **{name: 7})) == {"num_predict": 7}
