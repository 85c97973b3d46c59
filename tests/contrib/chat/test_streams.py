"""Streams of answers that are read again: in any process, from any chunk on, by any number of
readers."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import Any, Final

import pytest
from django.utils.timezone import now

from django_ollama_openai.contrib.chat._answers.events import Events
from django_ollama_openai.contrib.chat.models import Run
from tests.contrib.chat.sites import (
    END,
    Reading,
    Session,
    chunks,
    eventually,
    server,
    session,
    site,
    sites_fixture,
    text_of,
    tokens,
    within,
)
from tests.ollama_server import Answer, Hold, OllamaServer, Reply, Wait, error
from tests.servers import Site

__all__ = ["server", "site"]

pytestmark = pytest.mark.any_database

CALL: Final = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}

all_sites = sites_fixture()


@pytest.fixture
def places(site: Site, all_sites: dict[str, Site]) -> list[Site]:
    """The process that writes the answer, and two others."""
    return [site, *(each for each in all_sites.values() if each is not site)]


@pytest.fixture
def chat(site: Site) -> Session:
    return session(site)


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [chunk["sequence_number"] for chunk in found]


def test_a_stream_is_read_again(chat: Session, places: list[Site], ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One", " two"), Hold(gate), *tokens(" three", " four"), END]))
    first = chat.stream()
    first.until(b"two")
    answer = chat.answer()["id"]
    readings = [
        (after, chat.at(place).follow(answer, after))
        for place in places
        for after in (None, None, 0, 1, 2, 4)
    ]
    for after, reading in readings:
        if after is None:
            with within(2):
                reading.until(b"two")
    gate.set()
    whole = first.all()
    frames = whole.split(b"\n\n")
    for after, reading in readings:
        assert reading.all() == b"\n\n".join(frames[0 if after is None else after + 1 :])
    # When it has ended, it is the same; beyond the end there is only the end.
    assert numbers(chunks(whole)) == [0, 1, 2, 3, 4, 5]
    for place in places:
        again = chat.at(place)
        assert again.follow(answer).all() == whole
        assert chunks(again.follow(answer, 4).all()) == chunks(whole)[5:]
        for after in (5, 6, 10**30):
            assert again.follow(answer, after).all() == b"data: [DONE]\n\n"


def test_a_failed_stream_ends_as_it_did(
    chat: Session, places: list[Site], ollama: OllamaServer
) -> None:
    ollama.reply(Reply([*tokens("One"), Wait(1.5), *error(500, "gone").steps]))
    first = chat.stream()
    first.until(b"One")
    answer = chat.answer()["id"]
    live = [chat.at(place).follow(answer, 0) for place in places]
    whole = first.all()
    failure = chunks(whole)[-1]
    assert failure["error"]["code"] == "bad_upstream"
    for reading in [*live, *(chat.at(place).follow(answer, 0) for place in places)]:
        found = chunks(reading.all())
        assert (text_of(found), found[-1]) == ("One", failure)
    # Past its time it is one chunk, and the error.
    Run.objects.update(ended_at=now() - timedelta(seconds=601))
    chunk, last = chunks(chat.follow(answer).all())
    assert (text_of([chunk]), last) == ("One", failure)


@pytest.mark.parametrize("case", ["ai", "camel", "snake"])
def test_an_answer_that_is_one_chunk(
    chat: Session, places: list[Site], ollama: OllamaServer, case: str
) -> None:
    ollama.reply(
        Answer(["Let us ", "see."], thinking=["Well"], tool_calls=[CALL]),
        Answer(["Fine."]),
    )
    model, tool = "smollm2-tools:135m", {"type": "function", "function": {"name": "get_weather"}}
    status, completion = chat.post(model=model, tools=[tool])
    assert status == 200, completion
    streamed = chat.stream()
    streamed.all()
    kept = chat("POST", "messages/", {"role": "assistant", "content": "Kept", "reply": False})[1]
    Run.objects.update(ended_at=now() - timedelta(seconds=601))
    question, whole, _, late, _ = chat.messages()
    for place in places[:2]:
        there = Session(place, chat.id, mount=case)
        for message, text in ((whole, "Let us see."), (late, "Fine."), (kept, "Kept")):
            for after in (None, 3):
                reading = there.follow(message["id"], after)
                (chunk,) = chunks(reading.all())
                assert text_of([chunk]) == text
        (chunk,) = chunks(there.follow(whole["id"]).all())
        snake = case != "camel"
        choice = chunk["choices"][0]
        assert choice["finish_reason" if snake else "finishReason"] == "tool_calls"
        assert ("finishReason" in choice) == (case != "snake")
        assert choice["delta"]["role"] == "assistant"
        assert choice["delta"]["reasoning_content" if snake else "reasoningContent"] == "Well"
        (call,) = choice["delta"]["tool_calls" if snake else "toolCalls"]
        assert (call["index"], call["function"]["name"]) == (0, "get_weather")
        assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
        assert chunk["sequence_number" if snake else "sequenceNumber"] == 0
        assert chunk["message_id" if snake else "messageId"] == whole["id"]
        assert chunk["user_message_id" if snake else "userMessageId"] == question["id"]
        assert chunk["usage"]["prompt_tokens" if snake else "promptTokens"] == 33
    # The id of the completion is that of its stream.
    (chunk,) = chunks(chat.follow(late["id"]).all())
    assert chunk["id"] == chunks(streamed.data)[0]["id"]


def test_a_whole_answer_is_one_chunk_when_it_has_ended(
    chat: Session, places: list[Site], ollama: OllamaServer
) -> None:
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    posting = threading.Thread(target=chat.post)
    posting.start()
    ollama.wait_for_chat()
    readings = [chat.at(place).follow(chat.answer()["id"]) for place in places]
    for reading in readings:
        # Comments, meanwhile.
        assert reading.until(b": ping\n: ping\n") == b": ping\n: ping\n"
    gate.set()
    posting.join()
    for reading in readings:
        (chunk,) = chunks(reading.all())
        assert text_of([chunk]) == "One"


def test_what_has_no_stream(chat: Session, site: Site) -> None:
    chat.post()
    question, answer = chat.messages()
    for after in ("x", "-1", "1.5"):
        status, body = chat("GET", f"messages/{answer['id']}/stream/?after={after}")
        assert (status, body["error"]["param"]) == (400, "after")
    status, body = chat("GET", f"messages/{question['id']}/stream/")
    assert status == 400
    assert "not an answer" in body["error"]["message"]
    foreign = session(site, "sk-other")
    for there in (chat, foreign):
        for id_ in ("msg_0", "msg_" + "0" * 32, answer["id"] if there is foreign else "x"):
            assert there("GET", f"messages/{id_}/stream/")[0] == 404
    other = Session(site, chat.id, "sk-other")
    assert other("GET", f"messages/{answer['id']}/stream/")[0] == 404
    assert other("POST", "stop/")[0] == 404
    assert chat("HEAD", f"messages/{answer['id']}/stream/") == (200, None)


def test_readers_cost_nothing(
    chat: Session, site: Site, places: list[Site], ollama: OllamaServer
) -> None:
    """Neither those that go nor those that read nothing slow the answer down, or stay."""
    before = [place.left()["tasks"] for place in places]
    word = "word" * 500
    ollama.reply(Reply([*tokens("One"), Wait(1), *tokens(*[word] * 4000), END]))
    first = chat.stream()
    first.until(b"One")
    answer = chat.answer()["id"]
    readings = [chat.at(place).follow(answer) for place in places for _ in range(5)]
    for reading in readings[::2]:
        reading.until(b"One")
        reading.close()
    with within(20):
        assert text_of(chunks(first.all())) == "One" + word * 4000
    assert chat.ended()["status"] == "completed"
    for reading in readings[1::2]:
        reading.close()
    eventually(lambda: [place.left()["tasks"] for place in places] == before)


def test_a_reader_gets_a_long_answer_in_parts() -> None:
    """One that does not go on keeps a part in memory, and not the whole answer."""
    events = Events()
    for number in range(1000):
        events.add(b"data: %d %s\n\n" % (number, b"x" * 1000))
    whole, position, largest = b"", 0, 0
    while position < events.end_position:
        part, position = events.read(position)
        whole += part
        largest = max(largest, len(part))
    assert [int(each.split()[1]) for each in whole.split(b"\n\n")[:-1]] == list(range(1000))
    assert largest < 70_000
    assert events.read(position) == (b"", position)


def test_a_reader_of_a_message_that_is_deleted(
    chat: Session, places: list[Site], ollama: OllamaServer
) -> None:
    ollama.reply(Reply([*tokens("One"), Hold()]))
    chat.post(background=True)
    answer = chat.answer()["id"]
    readings: list[Reading] = [chat.at(place).follow(answer) for place in places]
    for reading in readings:
        reading.until(b"One")
    begun = time.monotonic()
    status, body = chat("DELETE", f"messages/{answer}/")
    assert status == 200, (body, chat.site.log())
    for reading in readings:
        chunks(reading.all())
    assert time.monotonic() - begun < 4
