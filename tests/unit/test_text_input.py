"""Text and tokens, in the two fields that take them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.text_input import tokens_unsupported
from django_ollama_openai.exceptions import InvalidRequest

pytestmark = pytest.mark.once

FIELDS = pytest.mark.parametrize("field", ["prompt", "input"])


def read(field: str, value: Any) -> tuple[list[str | list[int]], bool]:
    """The texts, and whether they are in tokens."""
    body = json.dumps({field: value}).encode()
    if field == "prompt":
        completion = CompletionRequest.parse(body)
        return completion.prompts(), completion.token_input
    embeddings = EmbeddingsRequest.parse(body)
    return embeddings.inputs(), embeddings.token_input


def refused(field: str, value: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(field, value)
    return caught.value


@FIELDS
@pytest.mark.parametrize(
    ("value", "entries", "in_tokens"),
    [
        ("a", ["a"], False),
        (" ", [" "], False),
        (["a"], ["a"], False),
        (["a", "b", "a"], ["a", "b", "a"], False),
        ([0], [[0]], True),
        ([1, 2**31 - 1], [[1, 2**31 - 1]], True),
        ([[1]], [[1]], True),
        ([[1, 2], [3]], [[1, 2], [3]], True),
    ],
)
def test_one_or_many_texts_or_tokens(
    field: str, value: Any, entries: list[Any], in_tokens: bool
) -> None:
    assert read(field, value) == (entries, in_tokens)


@pytest.mark.compat("embeddings.request.input")
@FIELDS
@pytest.mark.parametrize(
    ("value", "place"),
    [("", ""), ([], ""), ([""], "[0]"), (["a", "b", ""], "[2]"), ([[]], "[0]"), ([[1], []], "[1]")],
)
def test_what_is_empty_is_named(field: str, value: Any, place: str) -> None:
    error = refused(field, value)
    assert error.param == f"{field}{place}"
    assert error.message == f"'{field}{place}' must not be empty."


@FIELDS
@pytest.mark.parametrize(
    ("value", "place"),
    [
        (["a", 1], "[1]"),
        (["a", ["b"]], "[1]"),
        (["a", None], "[1]"),
        ([1, "a"], "[1]"),
        ([1, 2.5], "[1]"),
        ([1, True], "[1]"),
        ([1, -1], "[1]"),
        ([1, 2**31], "[1]"),
        ([1, 10**400], "[1]"),
        ([1, [2]], "[1]"),
        ([[1], "a"], "[1]"),
        ([[1], 2], "[1]"),
        ([[1, "2"]], "[0][1]"),
        ([[1], [2, -3]], "[1][1]"),
        ([[[1]]], "[0][0]"),
    ],
)
def test_what_is_at_fault_is_named(field: str, value: Any, place: str) -> None:
    error = refused(field, value)
    assert error.param == f"{field}{place}"
    assert error.message.startswith(f"Invalid value for '{field}{place}': input should be ")


@FIELDS
@pytest.mark.parametrize("value", [None, 5, True, {}, {"a": 1}, [None], [1.5], [True], [{}]])
def test_the_error_for_another_type_lists_the_types(field: str, value: Any) -> None:
    assert refused(field, value).message == (
        f"Invalid value for '{field}': input should be a string, an array of strings, of tokens, "
        "or of arrays of tokens."
    )


@FIELDS
def test_it_is_required(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Missing required parameter: '{field}'") as caught:
        (CompletionRequest if field == "prompt" else EmbeddingsRequest).parse(b"{}")
    assert caught.value.param == field


@FIELDS
@pytest.mark.parametrize("entry", ["a", [1]], ids=["text", "tokens"])
def test_there_may_be_2048(field: str, entry: Any) -> None:
    assert len(read(field, [entry] * 2048)[0]) == 2048
    error = refused(field, [entry] * 2049)
    assert error.param == field
    assert "2048" in error.message


@FIELDS
@pytest.mark.parametrize("nested", [False, True])
def test_an_array_has_up_to_100000_tokens(field: str, nested: bool) -> None:
    def tokens(count: int) -> Any:
        return [[1] * count] if nested else [1] * count

    assert len(read(field, tokens(100_000))[0][0]) == 100_000
    assert "100000" in refused(field, tokens(100_001)).message


def test_all_prompts_together_have_up_to_100000_tokens() -> None:
    assert len(read("prompt", [[1] * 50_000] * 2)[0]) == 2
    error = refused("prompt", [[1] * 50_000, [1] * 50_001])
    assert (
        error.message == "Invalid value for 'prompt': input should have up to 100000 tokens in all."
    )


@FIELDS
@pytest.mark.parametrize(("first", "other"), [(b'"a"', b"0"), (b"0", b'"a"'), (b"[0]", b"0")])
def test_a_million_errors_take_no_longer_than_one(field: str, first: bytes, other: bytes) -> None:
    body = b'{"%b":[%b]}' % (field.encode(), b",".join([first, *[other] * 1_000_000]))
    model = CompletionRequest if field == "prompt" else EmbeddingsRequest
    started = time.process_time()
    with pytest.raises(InvalidRequest, match=rf"{field}\[1\]"):
        model.parse(body)
    # Each error would take a microsecond and a kilobyte: seconds, and a gigabyte.
    assert time.process_time() - started < 1


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1)
    | st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1), min_size=1)
)
def test_everything_arrives_as_it_is_and_in_order(value: Any) -> None:
    for field in ("prompt", "input"):
        assert read(field, value) == (value, isinstance(value[0], list))


def test_an_engine_without_tokens_says_what_to_do() -> None:
    error = tokens_unsupported("input")
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", "input")
    assert "send the text itself" in error.message
