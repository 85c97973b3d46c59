from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai._translation.ollama_payload import ollama_embeddings_payload
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.exceptions import UnsupportedParameter


def payload(input: Any = "a", **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "input": input, **fields}
    return ollama_embeddings_payload(EmbeddingsRequest.parse(json.dumps(body).encode()))


@pytest.mark.compat("embeddings.request.input", "embeddings.request.options, keep_alive, truncate")
@pytest.mark.parametrize(("input", "sent"), [("a", ["a"]), (["a", "b", "a"], ["a", "b", "a"])])
def test_inputs_go_out_in_order(input: Any, sent: list[str]) -> None:
    assert payload(input) == {"model": "m", "input": sent, "truncate": False}


@pytest.mark.compat("embeddings.request.dimensions")
def test_dimensions() -> None:
    assert payload(dimensions=8)["dimensions"] == 8
    assert payload(dimensions=None) == payload()


@pytest.mark.compat("embeddings.request.user")
def test_the_encoding_is_not_the_engines_concern() -> None:
    assert payload(encoding_format="base64", user="ada") == payload()


@pytest.mark.parametrize("input", [[1, 2], [[1, 2], [3]]])
def test_there_is_no_place_for_tokens(input: Any) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        payload(input)
    assert caught.value.param == "input"
