from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.event_stream import Events
from django_ollama_openai.exceptions import UpstreamError
from tests.wire import chunked, cuts, texts

pytestmark = pytest.mark.once

BOM = b"\xef\xbb\xbf"


def read(chunks: list[bytes], max_bytes: int = 2**20) -> list[bytes]:
    events = Events(max_bytes)
    return [event for chunk in chunks for event in events.feed(chunk)] + events.finish()


def one_by_one(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


# What an event is

STREAMS: dict[str, tuple[bytes, list[bytes]]] = {
    "events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "no space": (b"data:a\n\n", [b"a"]),
    "only one space goes": (b"data:  a \n\n", [b" a "]),
    "comments": (b": ping\n\ndata: a\n: ping\n\n:\n\n", [b"a"]),
    "other fields": (b"event: error\nid: 7\nretry: 10\ndata: a\nevent: x\n\n", [b"a"]),
    "no data": (b"event: ping\nid: 7\n\n", []),
    "a name that only begins alike": (b"database: a\ndata\n\n", []),
    "several lines": (b'data: {\ndata: "a": 1}\n\n', [b'{\n"a": 1}']),
    "empty data": (b"data:\n\ndata: \n\ndata: a\n\n", [b"a"]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "no line end at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "nothing": (b"", []),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n", [b"a", b"b\nc"]),
    "lone CR": (b"data: a\r\rdata: b\rdata: c\r\r", [b"a", b"b\nc"]),
    "every end of line": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", [b"a", b"b", b"c"]),
    "CR at the end": (b"data: a\r\rdata: b\r", [b"a", b"b"]),
    "a byte order mark": (BOM + b"data: a\n\n", [b"a"]),
    "a byte order mark before a comment": (BOM + b": ping\n\ndata: a\n\n", [b"a"]),
    "a byte order mark later on": (b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"]),
    "other ends of lines": (
        "data: a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\x85b\u2028c\u2029d\x0be\x0cf\x1cg".encode()],
    ),
    "the end": (b"data: a\n\ndata: [DONE]\n\ndata: b\n\n", [b"a"]),
    "the end alone": (b"data: [DONE]\n\n", []),
    "the end without a blank line": (b"data: a\n\ndata: [DONE]", [b"a"]),
    "data like the end": (b'data: ["[DONE]"]\n\n', [b'["[DONE]"]']),
    "JSON without an event": (b'{"choices": []}\n', []),
}


@pytest.mark.parametrize(("data", "events"), STREAMS.values(), ids=STREAMS)
def test_what_is_read(data: bytes, events: list[bytes]) -> None:
    assert read([data]) == events
    assert read(one_by_one(data)) == events


@given(st.sampled_from(list(STREAMS.values())), cuts)
def test_any_chunking_gives_the_same(stream: tuple[bytes, list[bytes]], cuts: list[int]) -> None:
    data, events = stream
    assert read(chunked(data, cuts)) == events


ends = st.sampled_from(["\n", "\r", "\r\n"])
lines = st.sampled_from(["data: a", "data:b", "data", ": c", "event: d", "", "x", "data: [DONE]"])


@given(st.lists(st.tuples(lines, ends)), cuts)
def test_any_chunking_of_any_lines_gives_the_same(
    parts: list[tuple[str, str]], cuts: list[int]
) -> None:
    data = "".join(line + end for line, end in parts).encode()
    # What follows a lone CR as an LF ends the same line.
    plain = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert read(chunked(data, cuts)) == read([plain])


@given(st.binary(), cuts)
def test_any_bytes_are_read_alike_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    assert read(chunked(data, cuts)) == read([data])


@given(st.lists(texts), ends, cuts)
def test_whatever_text_is_sent_is_read(values: list[str], end: str, cuts: list[int]) -> None:
    sent = [json.dumps({"a": value}, ensure_ascii=False).encode() for value in values]
    data = b"".join(b"data: " + value + end.encode() * 2 for value in sent)
    assert read(chunked(data, cuts)) == sent


# When it is read


def test_an_event_is_given_as_soon_as_its_blank_line_arrives() -> None:
    events = Events()
    assert events.feed(b"data: a\n") == []
    assert events.feed(b"\ndata: b") == [b"a"]
    assert events.feed(b"\n\n") == [b"b"]
    assert events.finish() == []


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
def test_no_line_waits_for_what_may_follow_its_carriage_return(end: bytes) -> None:
    events = Events()
    assert events.feed(b"data: a" + end + b"\r") == [b"a"]
    # The line feed that belongs to it comes later, and is no line of its own.
    assert events.feed(b"\ndata: b" + end) == []
    assert events.feed(b"data: c" + end + b"\r") == [b"b\nc"]


def test_nothing_that_arrives_between_a_carriage_return_and_its_line_feed_parts_them() -> None:
    assert read([b"data: a\r", b"", b"\ndata: b\r", b"", b"", b"\n\r\n"]) == [b"a\nb"]


def test_it_is_over_when_the_engine_says_so() -> None:
    events = Events()

    def after(data: bytes) -> tuple[list[bytes], bool]:
        return events.feed(data), events.is_over

    assert after(b"data: a\n\ndata: [DONE]\n") == ([b"a"], False)
    assert after(b"\n") == ([], True)
    assert after(b"data: b\n\n") == ([], True)


def test_an_unfinished_event_is_given_once() -> None:
    events = Events()
    events.feed(b"data: a")
    assert events.finish() == [b"a"]
    assert events.finish() == []


# Limits


@given(st.integers(min_value=10, max_value=40), cuts)
def test_an_event_up_to_the_limit_is_read(limit: int, cuts: list[int]) -> None:
    text = b"x" * (limit - 6)
    assert read(chunked(b"data: " + text + b"\n\n", cuts), limit) == [text]


@given(st.integers(min_value=10, max_value=40), cuts)
def test_lines_that_make_an_event_up_to_the_limit_are_read(limit: int, cuts: list[int]) -> None:
    first, second = b"x" * 2, b"y" * (limit - 10)
    data = b"data: " + first + b"\ndata: " + second + b"\n\n"
    assert read(chunked(data, cuts), limit) == [first + b"\n" + second]


@given(st.integers(min_value=10, max_value=40), st.booleans(), cuts)
def test_a_line_over_the_limit_is_an_upstream_error(
    limit: int, ended: bool, cuts: list[int]
) -> None:
    data = b"data: " + b"x" * (limit - 5) + (b"\n\n" if ended else b"")
    with pytest.raises(UpstreamError, match="too long"):
        read(chunked(data, cuts), limit)


@pytest.mark.parametrize("line", [b"data: xxxx\n", b"data:\n", b"data: \r"])
def test_an_event_that_never_ends_is_refused_before_it_fills_the_memory(line: bytes) -> None:
    events = Events(max_bytes=100)
    with pytest.raises(UpstreamError, match="event that is too long"):
        for _ in range(102):
            events.feed(line)


def test_comments_without_end_take_no_memory() -> None:
    events = Events(max_bytes=100)
    for _ in range(1000):
        assert events.feed(b": ping\n\n") == []
    assert events.feed(b"data: a\n\n") == [b"a"]
