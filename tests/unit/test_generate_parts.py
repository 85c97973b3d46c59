from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.ollama_chunks import OllamaGenerateChunks
from django_ollama_openai._wire.delta import Delta, Usage, fold
from django_ollama_openai.exceptions import ContextLengthExceeded, UpstreamError
from tests.recordings import load, names
from tests.unit.test_chat_parts import any_json, paths, replaced, well_formed
from tests.unit.test_wire_sse import texts

ANSWERS = [name for name in names("generate") if load(name).status == 200]


def replay(name: str) -> Delta:
    parts = OllamaGenerateChunks()
    whole = fold([parts.feed(line) for line in load(name).lines])
    parts.finish()
    return whole


def line(response: str | None = "", **fields: Any) -> bytes:
    return json.dumps({"response": response, **fields}).encode()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_answer_is_told_in_full(name: str) -> None:
    parts = [json.loads(line) for line in load(name).lines]
    last = parts[-1]
    answer = replay(name)
    assert answer.content == "".join(part["response"] for part in parts)
    assert answer.content
    assert answer.usage == Usage(last["prompt_eval_count"], last["eval_count"])
    assert answer.finish_reason == last["done_reason"]
    assert (answer.reasoning, answer.tool_calls, answer.logprobs) == ("", [], None)
    assert well_formed(answer)


def test_what_some_of_them_are_is_known() -> None:
    assert load("generate_stream").is_stream
    assert replay("generate_raw").content.startswith(" Paris.")
    assert replay("generate_raw").finish_reason == "length"


def test_a_streamed_answer_is_the_same_as_a_whole_one() -> None:
    whole, streamed = replay("generate"), replay("generate_stream")
    assert streamed.tokens == 16
    streamed.tokens = whole.tokens
    assert streamed == whole


@given(texts, st.booleans())
def test_text_and_thinking_arrive_as_they_are(text: str, escaped: bool) -> None:
    part = json.dumps({"response": text, "thinking": text}, ensure_ascii=escaped).encode()
    delta = OllamaGenerateChunks().feed(part)
    assert (delta.content, delta.reasoning) == (text, text)


def test_log_probabilities_are_those_of_a_chat() -> None:
    entries = [{"token": "é", "logprob": -1, "top_logprobs": [{"token": "e", "logprob": -2}]}]
    assert OllamaGenerateChunks().feed(line("é", logprobs=entries)).logprobs == [
        {
            "token": "é",
            "logprob": -1,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -2, "bytes": [101]}],
        }
    ]


@pytest.mark.compat("completions.response.choices[].finish_reason")
@pytest.mark.parametrize(
    ("done_reason", "finish_reason"),
    [("stop", "stop"), ("length", "length"), ("load", "stop"), ("", "stop"), (None, "stop")],
)
def test_why_an_answer_ended(done_reason: str | None, finish_reason: str) -> None:
    delta = OllamaGenerateChunks().feed(line(done=True, done_reason=done_reason, eval_count=4))
    assert (delta.finish_reason, delta.usage, delta.tokens) == (finish_reason, Usage(0, 4), 0)


@pytest.mark.parametrize("lines", [[], [line("x")], [line("x", done=False)]])
def test_an_answer_that_breaks_off_is_an_error(lines: list[bytes]) -> None:
    parts = OllamaGenerateChunks()
    for part in lines:
        parts.feed(part)
    with pytest.raises(UpstreamError, match="ended before it was complete"):
        parts.finish()


@pytest.mark.parametrize("after", [b"garbage", line("more"), line(done=True)])
def test_what_follows_the_end_is_no_part_of_the_answer(after: bytes) -> None:
    parts = OllamaGenerateChunks()
    parts.feed(line("x", done=True, done_reason="stop"))
    assert parts.feed(after) == Delta(tokens=0)
    parts.finish()


@pytest.mark.compat("completions.stream.failure in mid-stream")
def test_a_failure_in_the_middle_of_an_answer() -> None:
    with pytest.raises(UpstreamError, match="failed while generating"):
        OllamaGenerateChunks().feed(b'{"error":"boom","response":"x"}')


def test_a_prompt_that_is_too_long_is_called_a_prompt() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        OllamaGenerateChunks().feed(load("chat_long_notruncate").body)
    assert caught.value.param == "prompt"
    assert "your prompt resulted in" in caught.value.message


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"null",
        b"{}",
        b'{"done":true}',
        b'{"message":{"content":"x"},"done":true}',
        b'{"response":5}',
        b'{"response":["x"]}',
        b'{"response":"x","thinking":5}',
        b'{"response":"x","logprobs":[{"token":"a"}]}',
        b'{"response":"x","logprobs":[{"token":"a","logprob":-1,"bytes":[256]}]}',
        b'{"response":"","done":true,"eval_count":"5"}',
        b'{"response":"\\ud800"}',
    ],
)
def test_nonsense_is_an_upstream_error(nonsense: bytes) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        OllamaGenerateChunks().feed(nonsense)


FULL: dict[str, Any] = {
    "response": "x",
    "thinking": "y",
    "logprobs": [{"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []}],
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 1,
    "eval_count": 2,
}


@given(
    st.binary()
    | any_json.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda path, value: json.dumps(replaced(FULL, path, value)).encode(),
        st.sampled_from(paths(FULL)),
        any_json,
    )
)
def test_anything_at_all_is_translated_well_or_an_upstream_error(data: bytes) -> None:
    with suppress(UpstreamError):
        assert well_formed(OllamaGenerateChunks().feed(data))
