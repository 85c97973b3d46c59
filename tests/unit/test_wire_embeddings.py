from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai._wire.case import camel_keys
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.exceptions import InvalidRequest

# Every field.
FULL: dict[str, Any] = {
    "model": "m",
    "input": ["a", "b"],
    "dimensions": 8,
    "encoding_format": "base64",
    "user": "ada",
    "options": {"num_ctx": 512},
    "keep_alive": 60,
    "truncate": True,
}


def parse(**fields: Any) -> EmbeddingsRequest:
    return EmbeddingsRequest.parse(json.dumps({"input": "a", **fields}).encode())


@pytest.mark.compat("embeddings.request.options, keep_alive, truncate")
def test_every_field_is_read_in_both_spellings() -> None:
    assert parse(**FULL).dump_known() == FULL
    assert EmbeddingsRequest.parse(json.dumps(camel_keys(FULL)).encode()).dump_known() == FULL
    assert set(FULL) == set(EmbeddingsRequest.model_fields)


def test_absent_and_null_mean_the_same() -> None:
    nothing = parse(**dict.fromkeys(set(FULL) - {"input"}))
    assert nothing.dump_known() == parse().dump_known() == {"input": "a"}


@pytest.mark.compat("embeddings.request.encoding_format")
@pytest.mark.parametrize(
    ("field", "allowed", "forbidden"),
    [
        ("dimensions", [1, 1024], [0, -1, 2**31, 8.5, "8", True]),
        ("encoding_format", ["float", "base64"], ["int8", "", 1]),
        ("user", ["ada"], [5]),
    ],
)
def test_the_range_of_a_field(field: str, allowed: list[Any], forbidden: list[Any]) -> None:
    for value in allowed:
        assert getattr(parse(**{field: value}), field) == value
    for value in forbidden:
        with pytest.raises(InvalidRequest) as caught:
            parse(**{field: value})
        assert caught.value.param == field
