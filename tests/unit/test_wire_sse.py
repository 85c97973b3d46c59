from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.sse import DONE, PING, encode_json, frame, named_frame
from tests.wire import BREAKS, events, strictly, texts, values

pytestmark = pytest.mark.once


@given(texts)
def test_any_text_survives(text: str) -> None:
    assert strictly(encode_json(text)) == text
    assert [strictly(data) for data in events(frame(text))] == [text]


@given(values)
def test_any_json_survives(value: Any) -> None:
    assert strictly(encode_json(value)) == value
    assert [strictly(data) for data in events(frame(value))] == [value]


@given(st.lists(st.tuples(st.integers(0, 2), texts), max_size=5))
def test_a_stream_has_exactly_the_frames_that_were_sent(sent: list[tuple[int, str]]) -> None:
    stream = b"".join(PING * pings + frame(text) for pings, text in sent)
    *got, last = events(stream + DONE)
    assert [strictly(item) for item in got] == [text for _, text in sent]
    assert last == "[DONE]"


@pytest.mark.compat("chat.stream.framing")
@given(values)
def test_no_line_reader_splits_inside_a_frame(value: Any) -> None:
    data = frame(value)
    assert data.count(b"\n") == 2
    assert data.decode().splitlines() == ["data: " + encode_json(value).decode(), ""]
    assert data.splitlines() == [b"data: " + encode_json(value), b""]


@pytest.mark.compat("responses.stream.framing")
@given(values)
def test_a_named_frame_is_a_frame_after_its_name(value: Any) -> None:
    assert named_frame("response.created", value) == b"event: response.created\n" + frame(value)


@pytest.mark.compat("chat.stream.framing")
@pytest.mark.parametrize("mark", BREAKS)
def test_every_line_break_is_escaped(mark: str) -> None:
    encoded = encode_json({mark: mark})
    assert strictly(encoded) == {mark: mark}
    assert encoded.decode().splitlines() == [encoded.decode()]


def test_other_text_is_sent_as_it_is() -> None:
    assert encode_json("naïve 日本 😀") == '"naïve 日本 😀"'.encode()


def test_a_character_that_shares_bytes_with_a_line_break_is_left_alone() -> None:
    # U+0085 is C2 85, and these hold a C2, an 85, or E2 80 beside other bytes.
    assert encode_json("Å\u0105¢…\u2027\u202a") == '"Å\u0105¢…\u2027\u202a"'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_still_json(number: float) -> None:
    strictly(encode_json({"logprob": number}))


def test_the_frames_without_json() -> None:
    assert events(DONE) == ["[DONE]"]
    assert events(PING) == []
