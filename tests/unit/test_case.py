from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.case import camel_keys, to_camel


@pytest.mark.parametrize(
    ("snake", "camel"),
    [
        ("n", "n"),
        ("max_tokens", "maxTokens"),
        ("top_p", "topP"),
        ("max_completion_tokens", "maxCompletionTokens"),
        ("include_usage", "includeUsage"),
        ("reasoning", "reasoning"),
    ],
)
def test_a_snake_case_name_becomes_camel_case(snake: str, camel: str) -> None:
    assert to_camel(snake) == camel


WORDS = st.builds("{}{}".format, st.sampled_from("abz"), st.text("az09", max_size=3))


@given(st.lists(WORDS, min_size=1, max_size=4).map("_".join))
def test_a_camel_case_name_stays_as_it_is(name: str) -> None:
    assert to_camel(to_camel(name)) == to_camel(name)
    assert "_" not in to_camel(name)


def test_keys_are_renamed_at_every_depth() -> None:
    value: Any = {
        "finish_reason": "stop",
        "top_logprobs": [{"top_logprobs": [{"a_b": None}]}],
        "usage": {"prompt_tokens_details": {"cached_tokens": 1}},
    }
    assert camel_keys(value) == {
        "finishReason": "stop",
        "topLogprobs": [{"topLogprobs": [{"aB": None}]}],
        "usage": {"promptTokensDetails": {"cachedTokens": 1}},
    }


@pytest.mark.parametrize("value", ["tool_calls", 1, 1.5, None, True, ["tool_calls"]])
def test_values_are_left_alone(value: Any) -> None:
    assert camel_keys(value) == value
    assert camel_keys({"finish_reason": value}) == {"finishReason": value}


def test_what_is_the_clients_own_is_left_alone_at_every_depth() -> None:
    own = {"a_b": [{"c_d": 1}]}
    value = {"meta_data": own, "x_y": [{"meta_data": own, "z_z": own}]}
    assert camel_keys(value, frozenset({"meta_data"})) == {
        "metaData": own,
        "xY": [{"metaData": own, "zZ": {"aB": [{"cD": 1}]}}],
    }


def test_the_original_is_not_changed() -> None:
    value = {"a_b": {"c_d": 1}}
    camel_keys(value)
    assert value == {"a_b": {"c_d": 1}}
