from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.ndjson import Lines
from django_ollama_openai.exceptions import UpstreamError
from tests.recordings import load
from tests.wire import chunked, cuts, texts


def read(chunks: list[bytes], max_bytes: int = 2**20) -> list[bytes]:
    lines = Lines(max_bytes)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.finish()


@given(st.lists(texts), cuts, st.booleans())
def test_any_chunking_gives_the_same_lines(values: list[str], cuts: list[int], ended: bool) -> None:
    lines = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    assert read(chunked(data, cuts)) == lines


@given(st.binary(), cuts)
def test_any_chunking_of_any_bytes_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    assert read(chunked(data, cuts)) == [line for line in data.split(b"\n") if line.strip()]


@given(st.lists(st.integers(min_value=0, max_value=5000), max_size=50))
def test_a_recorded_stream_gives_its_lines_however_it_arrives(cuts: list[int]) -> None:
    recording = load("chat_stream")
    assert read(chunked(recording.body, cuts)) == recording.lines


def test_a_line_is_given_as_soon_as_its_end_arrives() -> None:
    lines = Lines()
    assert lines.feed(b'{"a"') == []
    assert lines.feed(b":1}\n{") == [b'{"a":1}']
    assert lines.feed(b"}") == []
    assert lines.feed(b"\n") == [b"{}"]
    assert lines.finish() == []


def test_an_unfinished_line_is_given_once() -> None:
    lines = Lines()
    lines.feed(b'{"error":"x"}')
    assert lines.finish() == [b'{"error":"x"}']
    assert lines.finish() == []


@pytest.mark.parametrize("blank", [b"\n", b"\n\n", b" \n\t\n", b"\r\n", b""])
def test_blank_lines_are_left_out(blank: bytes) -> None:
    assert read([b"{}\n" + blank + b"[]\n" + blank]) == [b"{}", b"[]"]


@given(st.integers(min_value=1, max_value=40), cuts)
def test_a_line_up_to_the_limit_is_read(limit: int, cuts: list[int]) -> None:
    data = b"x" * limit + b"\n" + b"y" * limit + b"\n"
    assert read(chunked(data, cuts), limit) == [b"x" * limit, b"y" * limit]


@given(st.integers(min_value=1, max_value=40), st.booleans(), cuts)
def test_a_line_over_the_limit_is_an_upstream_error(
    limit: int, ended: bool, cuts: list[int]
) -> None:
    data = b"x" * (limit + 1) + (b"\n" if ended else b"")
    with pytest.raises(UpstreamError):
        read(chunked(data, cuts), limit)


def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    lines = Lines(max_bytes=100)
    with pytest.raises(UpstreamError):
        for _ in range(11):
            lines.feed(b"x" * 10)
