from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from django_ollama_openai._translation.model_cards import METADATA, ModelCard
from django_ollama_openai._translation.openai_models import openai_models
from django_ollama_openai.exceptions import UpstreamError
from tests.wire import any_json


def cards(*models: Any) -> list[ModelCard]:
    return openai_models(json.dumps({"object": "list", "data": models}).encode())


def known(card: ModelCard) -> dict[str, Any]:
    return {name: value for name, value in card.metadata.items() if value is not None}


def test_openais_models() -> None:
    entry = {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"}
    (card,) = cards(entry)
    assert (card.id, card.created, card.owned_by) == ("gpt-4o", 1715367049, "system")
    assert card.aliases == ()
    assert known(card) == {}


def test_missing_fields_have_defaults() -> None:
    (card,) = cards({"id": "m"})
    assert (card.created, card.owned_by, card.aliases) == (0, "unknown", ())
    (card,) = cards({"id": "m", "created": -1, "owned_by": None, "aliases": None})
    assert (card.created, card.owned_by, card.aliases) == (0, "unknown", ())


def test_vllms_models() -> None:
    (card,) = cards(
        {
            "id": "meta-llama/Llama-3.2-3B-Instruct",
            "object": "model",
            "created": 1732000000.5,
            "owned_by": "vllm",
            "root": "/models/llama",
            "parent": None,
            "max_model_len": 131072,
            "permission": [{"id": "modelperm-1", "object": "model_permission"}],
        }
    )
    assert card.created == 1732000000
    assert known(card) == {"context_length": 131072}


def test_llama_servers_models() -> None:
    (card,) = cards(
        {
            "id": "smollm2",
            "aliases": ["smollm2", "small"],
            "object": "model",
            "created": 1795629167,
            "owned_by": "llamacpp",
            "meta": {
                "vocab_type": 2,
                "n_vocab": 49152,
                "n_ctx": 4096,
                "n_ctx_train": 8192,
                "n_embd": 576,
                "n_params": 134515008,
                "size": 96576768,
                "ftype": "Q4_1",
            },
        }
    )
    assert card.names == ("smollm2", "small")
    assert known(card) == {
        "context_length": 4096,
        "embedding_length": 576,
        "size": 96576768,
        "quantization_level": "Q4_1",
    }


def test_the_models_of_another_gateway_of_this_kind() -> None:
    told = {
        "family": "llama",
        "parameter_size": "134.52M",
        "quantization_level": "Q4_K_M",
        "format": "gguf",
        "size": 270898672,
        "digest": "9077fe9d2ae1",
        "context_length": 8192,
        "embedding_length": 576,
        "capabilities": ["completion", "tools"],
        "modified_at": "2026-01-01T00:00:00Z",
    }
    assert set(told) == set(METADATA)
    first = ModelCard("smollm2:135m", created=1767225600, metadata=told)
    sent = first.as_openai(name="small", backend="gpu")
    (card,) = cards(sent)
    assert card.as_openai(name="small", backend="gpu") == sent


@pytest.mark.parametrize("field", ["aliases", "max_model_len", "meta", "metadata"])
@pytest.mark.parametrize(
    "value",
    [5.5, "x", [5], {"size": "large"}, {"capabilities": {"vision": True}}, {"n_ctx": "8k"}],
    ids=repr,
)
def test_what_others_mean_something_else_by_is_left_out(field: str, value: Any) -> None:
    (card,) = cards({"id": "m", field: value})
    assert (card.id, card.aliases, known(card)) == ("m", (), {})


def test_a_model_without_a_name_is_left_out() -> None:
    assert [card.id for card in cards({"id": ""}, {"id": "m"})] == ["m"]


def test_an_engine_without_a_model() -> None:
    assert cards() == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": [null]}',
        b'{"data": [{}]}',
        b'{"data": [{"id": 5}]}',
        b'{"data": [{"id": "m", "owned_by": 5}]}',
        b'{"error": {"message": "no"}}',
    ],
)
def test_nonsense_is_an_upstream_error(answer: bytes) -> None:
    with pytest.raises(UpstreamError, match="invalid list of models"):
        openai_models(answer)


@given(any_json, any_json, any_json, any_json)
def test_whatever_engines_add_the_card_can_be_sent(
    aliases: Any, length: Any, meta: Any, metadata: Any
) -> None:
    extras = {"aliases": aliases, "max_model_len": length, "meta": meta, "metadata": metadata}
    (card,) = cards({"id": "m", **extras})
    sent = card.as_openai(name="m", backend="b")["metadata"]
    for name in ("size", "context_length", "embedding_length"):
        assert sent[name] is None or type(sent[name]) is int
    for name in ("family", "parameter_size", "quantization_level", "format", "digest"):
        assert sent[name] is None or type(sent[name]) is str


@pytest.mark.parametrize("created", ['"now"', "NaN", "1e999", "1e300", "-1", "null", "[]"])
def test_a_moment_that_is_none_is_left_out(created: str) -> None:
    (card,) = openai_models(b'{"data": [{"id": "m", "created": %b}]}' % created.encode())
    assert card.created == 0
