from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai._wire.case import camel_keys
from django_ollama_openai._wire.completions import DEFAULT_OUTPUT_LIMIT, CompletionRequest
from django_ollama_openai.exceptions import InvalidRequest
from tests.wire import GENERATION

# Every field.
FULL: dict[str, Any] = {
    **GENERATION,
    "model": "m",
    "prompt": ["a", "b"],
    "suffix": "z",
    "echo": True,
    "n": 2,
    "user": "ada",
    "options": {"top_k": 3},
}


def parse(**fields: Any) -> CompletionRequest:
    return CompletionRequest.parse(json.dumps({"prompt": "a", **fields}).encode())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value


@pytest.mark.compat("completions.request.options, keep_alive, shift, think, truncate")
def test_every_field_is_read_in_both_spellings() -> None:
    assert parse(**FULL).dump_known() == FULL
    assert CompletionRequest.parse(json.dumps(camel_keys(FULL)).encode()).dump_known() == FULL
    assert set(FULL) == set(CompletionRequest.model_fields) - {"best_of", "logprobs"}


def test_absent_and_null_mean_the_same() -> None:
    nothing = parse(**dict.fromkeys(set(CompletionRequest.model_fields) - {"prompt"}))
    assert nothing.dump_known() == parse().dump_known() == {"prompt": "a"}
    assert nothing.output_limit == parse().output_limit
    assert not nothing.include_usage


@pytest.mark.compat(
    "completions.request.frequency_penalty",
    "completions.request.logit_bias",
    "completions.request.logprobs",
    "completions.request.presence_penalty",
    "completions.request.seed",
    "completions.request.stop",
    "completions.request.temperature",
    "completions.request.top_p",
)
@pytest.mark.parametrize(
    ("field", "allowed", "forbidden"),
    [
        ("temperature", [0, 2, 0.5], [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1], [-0.1, 1.1]),
        ("max_tokens", [1, 2**31 - 1], [0, -1, 2**31, 1.5, "5", True]),
        ("n", [1, 128], [0, 129, 1.5]),
        ("logprobs", [0, 5, 20], [-1, 21, True, 1.5]),
        ("seed", [-(2**63), 2**63 - 1], [2**63, 1.5]),
        ("presence_penalty", [-2, 2], [-2.1, 2.1]),
        ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
        ("stop", ["x", ["x"] * 4], [["x"] * 5, 5, [5]]),
        ("suffix", ["", "x"], [5, ["x"]]),
        ("echo", [True, False], [1, "yes"]),
        ("stream", [True, False], [1]),
        (
            "logit_bias",
            [{}, {"5": -100}],
            [{"5": "x"}, [5], dict.fromkeys(map(str, range(1001)), 1)],
        ),
        ("user", ["ada"], [5]),
        ("think", [True, "high"], ["xhigh", 1]),
    ],
)
def test_the_range_of_a_field(field: str, allowed: list[Any], forbidden: list[Any]) -> None:
    for value in allowed:
        assert getattr(parse(**{field: value}), field) == value
    for value in forbidden:
        assert (refused(**{field: value}).param or "").startswith(field)


@pytest.mark.compat(
    "completions.request.stream_options.include_usage",
    "completions.request.stream_options.include_obfuscation",
)
def test_the_usage_of_a_stream_is_asked_for_with_a_stream_only() -> None:
    assert parse(stream=True, stream_options={"include_usage": True}).include_usage
    assert not parse(stream=True, stream_options={}).include_usage
    assert not parse(stream=True, stream_options={"include_obfuscation": True}).include_usage
    assert not parse(stream=True).include_usage
    for fields in ({}, {"stream": False}, {"stream": None}):
        assert refused(stream_options={}, **fields).param == "stream_options"


@pytest.mark.compat("completions.request.echo")
@pytest.mark.parametrize("logprobs", [0, 5])
def test_there_are_no_log_probabilities_of_an_echoed_prompt(logprobs: int) -> None:
    error = refused(echo=True, logprobs=logprobs)
    assert error.param == "logprobs"
    assert "echo" in error.message
    assert parse(echo=False, logprobs=logprobs).logprobs == logprobs
    assert parse(echo=True, suffix="x").echo


@pytest.mark.parametrize("prompt", [[1, 2], [[1], [2]]])
def test_tokens_cannot_be_echoed(prompt: Any) -> None:
    assert refused(prompt=prompt, echo=True).param == "echo"
    assert parse(prompt=prompt, echo=False).token_input


@pytest.mark.compat("completions.request.best_of")
@pytest.mark.parametrize(
    ("fields", "best_of"),
    [
        ({}, None),
        ({"best_of": None}, None),
        ({"best_of": 1}, None),
        ({"best_of": 3, "n": 3}, None),
        ({"bestOf": 2, "n": 2}, None),
        ({"best_of": 2}, 2),
        ({"best_of": 5, "n": 3}, 5),
        ({"best_of": 1, "n": 3}, 1),
    ],
)
def test_the_best_of_as_many_as_are_returned_asks_for_nothing(
    fields: dict[str, Any], best_of: int | None
) -> None:
    assert parse(**fields).best_of == best_of


# How much is produced


@pytest.mark.compat("completions.request.max_tokens")
@pytest.mark.parametrize(
    ("fields", "site", "limit"),
    [
        ({}, {}, DEFAULT_OUTPUT_LIMIT),
        ({}, {"num_predict": 40}, 40),
        ({}, {"num_predict": -1}, -1),
        ({}, {"num_predict": None}, DEFAULT_OUTPUT_LIMIT),
        ({}, {"num_predict": "many"}, DEFAULT_OUTPUT_LIMIT),
        ({"options": {}}, {}, DEFAULT_OUTPUT_LIMIT),
        ({"options": {"num_predict": 30}}, {}, 30),
        ({"options": {"num_predict": 30}}, {"num_predict": 40}, 30),
        ({"max_tokens": 20, "options": {"num_predict": 30}}, {"num_predict": 40}, 20),
        ({"maxTokens": 20}, {}, 20),
        ({"max_tokens": None}, {"num_predict": 40}, 40),
    ],
)
def test_the_output_limit(fields: dict[str, Any], site: dict[str, Any], limit: int) -> None:
    assert parse(**fields).routed_to("m", site).output_limit == limit


@pytest.mark.compat("completions.request.max_tokens")
def test_openais_default_limit() -> None:
    assert DEFAULT_OUTPUT_LIMIT == 16


# One choice of one prompt


def test_the_request_for_one_prompt_is_otherwise_the_same() -> None:
    request = parse(**FULL | {"prompt": ["a", "b"]}).routed_to("engine", {"num_ctx": 8})
    one = request.for_prompt("b", 0)
    assert one.prompts() == ["b"]
    expected = FULL | {"model": "engine", "prompt": "b"}
    del expected["n"]
    assert one.dump_known() == expected
    assert one.engine_options == {"num_ctx": 8}
    assert request.prompts() == ["a", "b"]
    assert request.n == 2


def test_a_prompt_in_tokens() -> None:
    one = parse(prompt=[[1, 2], [3]]).for_prompt([1, 2], 0)
    assert (one.prompt, one.prompts(), one.token_input) == ([1, 2], [[1, 2]], True)


@pytest.mark.compat("completions.request.n", "completions.request.seed")
@pytest.mark.parametrize(
    ("fields", "site", "seeds"),
    [
        ({}, {}, [None, None]),
        ({"seed": 5}, {}, [5, 7]),
        ({"seed": 0}, {"seed": 9}, [0, 2]),
        ({"options": {"seed": 5}}, {}, [None, 7]),
        ({"options": {"seed": 5}}, {"seed": 9}, [None, 7]),
        ({}, {"seed": 9}, [None, 11]),
        ({}, {"seed": "x"}, [None, None]),
        ({"seed": 2**63 - 1}, {}, [2**63 - 1, -(2**63) + 1]),
        ({"seed": -1}, {}, [-1, 1]),
    ],
)
def test_choices_have_seeds_of_their_own(
    fields: dict[str, Any], site: dict[str, Any], seeds: list[int | None]
) -> None:
    request = parse(**fields).routed_to("m", site)
    assert [request.for_prompt("a", offset).seed for offset in (0, 2)] == seeds
