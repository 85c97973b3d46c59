from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.ollama_payload import ollama_completion_payload
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai.exceptions import UnsupportedParameter
from tests.recordings import load


def payload(prompt: Any = "a", stream: bool = False, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "prompt": prompt, **fields}
    return ollama_completion_payload(
        CompletionRequest.parse(json.dumps(body).encode()), stream=stream
    )


@pytest.mark.compat(
    "completions.request.prompt",
    "completions.request.frequency_penalty",
    "completions.request.presence_penalty",
    "completions.request.temperature",
    "completions.request.top_p",
)
def test_a_plain_prompt_is_continued_as_it_is() -> None:
    assert payload("The capital of France is") == {
        "model": "m",
        "prompt": "The capital of France is",
        "raw": True,
        "stream": False,
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 16},
    }


def test_it_is_what_a_real_server_was_asked() -> None:
    recorded = load("generate_raw").request["json"]
    body = payload(recorded["prompt"], model=recorded["model"], temperature=0, seed=1)
    assert body == {**recorded, "truncate": False, "shift": False}


@pytest.mark.parametrize("stream", [True, False])
def test_ollama_streams_as_the_caller_says_and_not_as_the_request_does(stream: bool) -> None:
    body = {"model": "m", "prompt": "a", "stream": not stream}
    request = CompletionRequest.parse(json.dumps(body).encode())
    assert ollama_completion_payload(request, stream=stream)["stream"] is stream


@pytest.mark.compat("completions.request.suffix")
def test_a_suffix_takes_the_models_own_template() -> None:
    body = payload("def add(", suffix="return c")
    assert body["suffix"] == "return c"
    assert "raw" not in body


@pytest.mark.parametrize("suffix", [None, ""])
def test_no_suffix_is_no_suffix(suffix: str | None) -> None:
    assert payload(suffix=suffix) == payload()


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        (None, {}),
        (0, {"logprobs": True, "top_logprobs": 0}),
        (5, {"logprobs": True, "top_logprobs": 5}),
    ],
)
def test_log_probabilities(logprobs: int | None, expected: dict[str, Any]) -> None:
    body = payload(logprobs=logprobs)
    assert {name: body[name] for name in ("logprobs", "top_logprobs") if name in body} == expected


@pytest.mark.compat("completions.request.user")
@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "n": 3, "best_of": 3, "echo": True, "logit_bias": {}},
        {"format": "json", "images": ["/etc/passwd"], "system": "x", "template": "x"},
        {"context": [1], "num_ctx": 1, "raw": False, "_debug_render_only": True},
    ],
)
def test_what_ollama_has_no_place_for_does_not_go_out(fields: dict[str, Any]) -> None:
    assert payload(**fields) == payload()


@pytest.mark.parametrize("prompt", [[1, 2], [[1, 2]]])
def test_there_is_no_place_for_tokens(prompt: Any) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        payload(prompt)
    assert caught.value.param == "prompt"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_goes_out_byte_for_byte(text: str) -> None:
    assert payload(text)["prompt"] == text
    assert payload(suffix=text)["suffix"] == text
