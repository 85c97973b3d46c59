"""Answers while they are written: with and without their clients, until they end in any way."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from django.db import connection
from django.utils.timezone import now

from django_ollama_openai.contrib.chat._store.runs import end_all_expired
from django_ollama_openai.contrib.chat._store.tree import append, set_leaf
from django_ollama_openai.contrib.chat.models import Conversation, Item, Run
from tests.contrib.chat.sites import (
    END,
    Session,
    chunks,
    environment,
    eventually,
    options,
    server,
    session,
    site,
    sites_fixture,
    text_of,
    tokens,
    within,
)
from tests.ollama_server import DEFAULT_MODEL, Hold, OllamaServer, Reply, Wait, error
from tests.servers import Server, Site, serve

__all__ = ["server", "site"]

pytestmark = pytest.mark.any_database

HOLD: Final = Hold()

all_sites = sites_fixture()


@pytest.fixture
def other(server: Server, all_sites: dict[str, Site]) -> Site:
    """Another process of the site."""
    return all_sites["uvicorn" if server == "gunicorn" else "gunicorn"]


@pytest.fixture
def chat(site: Site) -> Session:
    return session(site)


def partial(*words: str) -> Reply:
    """Return an answer of an engine that stops after ``words``."""
    return Reply([*tokens(*words), HOLD])


# The first chunk, and failures


def test_ids_are_sent_before_the_engine_has_said_anything(
    chat: Session, ollama: OllamaServer
) -> None:
    gate = threading.Event()
    failure = error(500, "out of memory")
    ollama.reply(Reply(failure.steps, 500, failure.headers, before=[Hold(gate)]))
    reading = chat.stream()
    assert reading.status == 200
    first = json.loads(reading.until(b"\n\n").decode().partition("\n")[0].removeprefix("data: "))
    user, answer = chat.messages()
    assert first["sequence_number"] == 0
    assert first["session_id"] == chat.id
    assert (first["user_message_id"], first["message_id"]) == (user["id"], answer["id"])
    assert answer["status"] == "in_progress"
    gate.set()
    *_, last = chunks(reading.all())
    failed = chat.answer()
    assert (failed["status"], failed["content"]) == ("failed", "")
    assert failed["error"] == last["error"]
    assert failed["error"]["message"]
    assert not chat.is_locked()


def test_a_refusal_is_a_status_and_leaves_nothing(chat: Session) -> None:
    for fields, status in (
        ({"model": "no-such-backend:x", "tools": 1}, 400),
        ({"temperature": "hot"}, 400),
        ({"content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}}]}, 400),
    ):
        for more in ({"stream": True}, {"background": True}, {}):
            body = {"content": "Hello", "model": "smollm2:135m", **fields, **more}
            found, answer = chat("POST", "messages/", body)
            assert found == status, answer
    assert chat.messages() == []
    assert not chat.is_locked()


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_in_mid_answer_is_stored_with_the_text(
    chat: Session, ollama: OllamaServer, *, stream: bool
) -> None:
    broken = Reply([*tokens("One", " two"), *error(500, "gone").steps])
    ollama.reply(broken)
    streamed = chat.stream().all() if stream else b""
    status, data = (200, {}) if stream else chat.post()
    failed = chat.ended()
    assert (failed["status"], failed["content"]) == ("failed", "One two")
    assert failed["finish_reason"] is None
    if stream:
        assert chunks(streamed)[-1]["error"] == failed["error"]
    else:
        assert status == 502
        assert data["error"] == failed["error"]
    assert chat.post()[0] == 200


# In the background


def test_an_answer_in_the_background(chat: Session, other: Site, ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One", " two"), Hold(gate), *tokens(" three"), END]))
    with within(5):
        status, message = chat.post(background=True)
    assert (status, message["status"]) == (202, "in_progress")
    assert message["id"] == chat.answer()["id"]
    there = chat.at(other)
    # The text so far, also in another process.
    eventually(lambda: there.answer()["content"] == "One two", 3)
    assert there.post()[1]["error"]["code"] == "conversation_locked"
    gate.set()
    done = there.ended()
    assert (done["status"], done["content"]) == ("completed", "One two three")
    assert (done["finish_reason"], done["usage"]["completion_tokens"]) == ("stop", 2)
    assert chunks(there.follow(done["id"]).all())[0]["message_id"] == done["id"]


def test_an_answer_in_the_background_outlives_its_client(
    chat: Session, other: Site, ollama: OllamaServer
) -> None:
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One", " two"), Hold(gate), *tokens(" three"), END]))
    reading = chat.stream(background=True)
    reading.until(b"two")
    reading.close()
    received = ollama.wait_for_chat()
    time.sleep(1)
    assert not received.hung_up.is_set()
    resumed = chat.at(other).follow(chat.answer()["id"], 1)
    resumed.until(b"two")
    gate.set()
    rest = chunks(resumed.all())
    assert [chunk["sequence_number"] for chunk in rest] == list(range(2, 2 + len(rest)))
    assert text_of(rest) == " two three"
    assert chat.ended()["status"] == "completed"


def test_the_number_of_answers_in_the_background_is_limited(
    site: Site, ollama: OllamaServer
) -> None:
    ollama.reply(*[partial("One")] * 30)
    answers: list[tuple[int, Any]] = []
    sessions = [session(site) for _ in range(30)]

    def post(chat: Session) -> None:
        answers.append(chat.post(background=True))

    threads = [threading.Thread(target=post, args=(each,)) for each in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = [body for status, body in answers if status == 202]
    refused = [body["error"] for status, body in answers if status == 503]
    assert (len(accepted), len(refused)) == (20, 10)
    assert {error["code"] for error in refused} == {"overloaded"}
    # One that came later would not be ended with the others.
    ollama.wait_for_chat(20)


# Stopped by a client


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("kind", ["stream", "whole", "background"])
def test_a_stop_in_mid_answer(
    chat: Session, other: Site, ollama: OllamaServer, kind: str, *, elsewhere: bool
) -> None:
    ollama.reply(partial("One", " two"))
    posting = Posting(chat, kind)
    received = ollama.wait_for_chat()
    eventually(lambda: chat.answer()["content"] == "One two", 3)
    with within(2.5):
        assert (chat.at(other) if elsewhere else chat)("POST", "stop/") == (200, {"stopped": True})
        stopped = chat.ended()
        posting.join()
    assert (stopped["status"], stopped["content"]) == ("incomplete", "One two")
    assert stopped["finish_reason"] == "stop"
    assert received.hung_up.wait(1)
    if kind == "whole":
        choice = posting.result[1]["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("One two", "stop")
    else:
        found = chunks(chat.at(other).follow(stopped["id"]).all())
        assert text_of(found) == "One two"
        assert found[-1]["choices"][0]["finish_reason"] == "stop"
    if kind == "stream":
        assert chunks(posting.result) == found
    assert chat("POST", "stop/") == (200, {"stopped": False})
    assert chat.post()[0] == 200


@pytest.mark.parametrize("kind", ["stream", "whole", "background"])
@pytest.mark.parametrize("phase", ["silent", "queued"])
def test_a_stop_before_the_engine_has_said_anything(
    chat: Session, site: Site, other: Site, ollama: OllamaServer, kind: str, phase: str
) -> None:
    ollama.reply(Reply([END], before=[HOLD]))
    model = "queued"
    if phase == "queued":
        first = session(site)
        first.post(background=True, model=model)
        ollama.wait_for_chat()
    posting = Posting(chat, kind, model=model)
    eventually(chat.is_locked)
    if phase == "silent":
        ollama.wait_for_chat()
    with within(2.5):
        assert chat.at(other)("POST", "stop/") == (200, {"stopped": True})
        stopped = chat.ended()
        posting.join()
    assert (stopped["status"], stopped["content"]) == ("incomplete", "")
    assert (len(ollama.chats()), chat.is_locked()) == (1, False)


class Posting(threading.Thread):
    """Post a message, and keep what the client gets."""

    def __init__(self, chat: Session, kind: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._chat, self._kind, self._fields = chat, kind, fields
        self.result: Any = None
        self.start()

    def run(self) -> None:
        if self._kind == "stream":
            self.result = self._chat.stream(**self._fields).all()
        else:
            fields = {"background": self._kind == "background", **self._fields}
            self.result = self._chat.post(**fields)


# Clients that go, things that are deleted


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnect_keeps_the_text_and_frees_the_engine(
    chat: Session, ollama: OllamaServer, *, stream: bool
) -> None:
    ollama.reply(partial("One", " two"))
    connection = chat.send(stream=stream)
    received = ollama.wait_for_chat()
    time.sleep(0.5)
    connection.close()
    assert received.hung_up.wait(1)
    kept = chat.ended(2)
    assert (kept["status"], kept["content"]) == ("incomplete", "One two")
    assert (kept["finish_reason"], kept["error"]) == (None, None)
    assert not chat.is_locked()
    if stream:
        found = chunks(chat.follow(kept["id"]).all())
        assert text_of(found) == "One two"
        assert found[-1]["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("kind", ["stream", "whole", "background"])
@pytest.mark.parametrize("what", ["message", "question", "session"])
def test_a_deletion_stops_the_answer(
    chat: Session, other: Site, ollama: OllamaServer, kind: str, what: str
) -> None:
    ollama.reply(partial("One", " two"))
    posting = Posting(chat, kind)
    received = ollama.wait_for_chat()
    eventually(lambda: chat.answer()["content"] == "One two", 3)
    question, answer = chat.messages()
    there = chat.at(other)
    if what == "session":
        there("DELETE")
    else:
        there("DELETE", f"messages/{(question if what == 'question' else answer)['id']}/")
    if what == "question":
        # Its answer goes on without it.
        assert there.answer()["parent_id"] is None
        assert there("POST", "stop/") == (200, {"stopped": True})
    assert received.hung_up.wait(3)
    posting.join(5)
    assert not posting.is_alive()
    if kind == "stream":
        assert text_of(chunks(posting.result)) == "One two"
    if what == "message":
        assert [message["id"] for message in there.messages()] == [question["id"]]
        assert chat.post()[0] == 200


# What is stored, and when


def test_text_is_stored_each_second(chat: Session, ollama: OllamaServer) -> None:
    pause = Wait(0.02)
    words = [step for token in tokens(*["word "] * 200) for step in (token, pause)]
    ollama.reply(Reply([*words, END]))
    chat.post(background=True)
    seen: list[int] = []
    begun = time.monotonic()
    while chat.is_locked():
        output = Run.objects.values_list("output", flat=True).get()
        text = output[-1]["content"][0]["text"] if output and output[-1]["content"] else ""
        if len(text) != sum(seen[-1:]):
            seen.append(len(text))
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    # Once a second, however many tokens there are.
    assert seconds / 2 - 1 <= len(seen) <= seconds + 1
    assert chat.answer()["content"] == "word " * 200


@pytest.mark.parametrize("what", ["finish", "wait"])
def test_an_answer_that_another_process_has_ended(
    chat: Session, ollama: OllamaServer, what: str
) -> None:
    # It has taken the answer for that of a killed one.
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    reading = chat.stream()
    reading.until(b"One")
    eventually(lambda: "One" in str(Run.objects.get().output), 3)
    Run.objects.update(lease_until=now() - timedelta(seconds=1))
    kept = chat.answer()
    assert (kept["status"], kept["content"]) == ("incomplete", "One")
    if what == "finish":
        gate.set()
    # In the other case its process finds out, and stops.
    chunks(reading.all())
    assert chat.answer() == kept


def test_an_end_that_cannot_be_stored_is_an_error(chat: Session, ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), *tokens(" two"), END]))
    reading = chat.stream()
    reading.until(b"One")
    table = connection.ops.quote_name(Item._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO gone")
        try:
            gate.set()
            *_, last = chunks(reading.all())
        finally:
            cursor.execute(f"ALTER TABLE gone RENAME TO {table}")
    assert last["error"]["message"] == "The answer could not be stored."
    # As soon as it can be stored, it is.
    kept = chat.ended()
    assert (kept["status"], kept["content"]) == ("incomplete", "One two")
    assert not chat.is_locked()


# Servers that stop


@pytest.fixture
def own_site(
    server: Server, ollama: OllamaServer, transactional_db: None, tmp_path: Path
) -> Iterator[Site]:
    """A site that the test may stop."""
    with serve(server, tmp_path, options(ollama), threads=64, **environment()) as site:
        yield site


@pytest.mark.parametrize("grace", [3, None])
def test_a_server_that_stops_ends_its_answers(
    server: Server, ollama: OllamaServer, transactional_db: None, tmp_path: Path, grace: int | None
) -> None:
    found = options(ollama)
    ollama.reply(*[partial("One", " two")] * 10)
    postings = []
    with serve(server, tmp_path, found, threads=64, grace=grace, **environment()) as site:
        kinds = ["background"] * 8
        if grace is not None:
            # Without a limit, a server waits for its clients.
            kinds += ["stream", "whole"]
        chats = [session(site) for _ in kinds]
        for chat, kind in zip(chats, kinds, strict=True):
            postings.append(Posting(chat, kind))
        ollama.wait_for_chat(len(kinds))
        time.sleep(0.5)
        site.process.send_signal(signal.SIGTERM)
        site.process.wait(10)
    assert not Run.objects.filter(ended_at=None).exists()
    answers = Item.objects.filter(role="assistant").values_list("status", "text")
    assert list(answers) == [("incomplete", "One two")] * len(kinds)
    for posting in postings:
        posting.join()
    if grace is not None:
        *_, last = chunks(postings[-2].result)
        assert last["error"]["code"] == "shutting_down"
        assert postings[-1].result[0] == 503


def test_an_answer_of_a_killed_process(
    own_site: Site, other: Site, site: Site, ollama: OllamaServer
) -> None:
    words = [step for n in range(200) for step in (*tokens(f"{n} "), Wait(0.05))]
    ollama.reply(Reply([*words, HOLD]))
    chat = session(own_site)
    reading = chat.stream(background=True)
    reading.until(b'"80 "')
    killed = now()
    os.killpg(own_site.process.pid, signal.SIGKILL)
    reading.close()
    there = chat.at(other)
    assert there.answer()["status"] == "in_progress"
    assert there.post()[1]["error"]["code"] == "conversation_locked"
    resumed = there.follow(there.answer()["id"])
    # The lease was renewed a moment ago, or not yet.
    run = Run.objects.get()
    assert run.lease_until is not None
    assert run.lease_until - killed <= timedelta(seconds=60)
    Run.objects.update(lease_until=now() - timedelta(seconds=1))
    found = chunks(resumed.all())
    ended = there.answer()
    assert (ended["status"], ended["finish_reason"]) == ("incomplete", None)
    assert ended["content"] == text_of(found)
    # At most two seconds of it are lost, at 20 tokens a second.
    assert 80 - 2 * 20 <= len(ended["content"].split()) <= 110
    assert there("POST", "stop/") == (200, {"stopped": False})
    assert there.post()[0] == 200


@pytest.mark.parametrize("how", ["post", "stop", "list", "retrieve", "sweep"])
def test_an_expired_answer_is_ended_by_whoever_meets_it(
    chat: Session, other: Site, ollama: OllamaServer, how: str
) -> None:
    ollama.reply(partial("One"))
    reading = chat.stream()
    reading.until(b"One")
    eventually(lambda: "One" in str(Run.objects.get().output), 3)
    # Its own process renews the lease every 20 seconds, and finds out within one.
    Run.objects.update(lease_until=now() - timedelta(seconds=1))
    there = chat.at(other)
    if how == "post":
        assert there.post()[0] == 200
    elif how == "stop":
        assert there("POST", "stop/") == (200, {"stopped": False})
    elif how == "retrieve":
        message = Item.objects.get(role="assistant").public_id
        assert there("GET", f"messages/{message}/")[1]["status"] == "incomplete"
    elif how == "sweep":
        end_all_expired()
    kept = there.messages()[1]
    assert (kept["status"], kept["content"]) == ("incomplete", "One")
    # Its process stops it, and nothing is written twice.
    assert ollama.chats()[0].hung_up.wait(3)
    chunks(reading.all())
    assert there.messages()[1] == kept


def test_nothing_is_left_of_many_answers(site: Site, ollama: OllamaServer) -> None:
    def round_() -> None:
        ollama.reset()
        chats = [session(site) for _ in range(20)]
        ollama.reply(*[partial("One")] * 10)
        sockets = [chat.send(stream=number % 2 == 0) for number, chat in enumerate(chats[:10])]
        ollama.wait_for_chat(10)
        for sock in sockets:
            sock.close()
        for number, chat in enumerate(chats[10:]):
            chat.post(background=number % 2 == 0)
        eventually(lambda: not Run.objects.filter(ended_at=None).exists())
        assert ollama.wait_for_released(5)

    for _ in range(2):
        round_()
    time.sleep(2)
    before = site.left(reset=True)
    for _ in range(5):
        round_()
    time.sleep(2)
    after = site.left(reset=True)
    assert after["tasks"] == before["tasks"]
    assert after["pumps"] == before["pumps"] == 0
    assert after["threads"] <= before["threads"] + 32
    assert after["descriptors"] <= before["descriptors"] + 32
    assert after["memory"] - before["memory"] < 8 * 2**20


# What a long session costs


@pytest.mark.parametrize("stream", [False, True])
def test_a_post_to_a_long_session_costs_little_more(site: Site, stream: bool) -> None:
    def cost(chat: Session) -> float:
        """Return the seconds of the site's processor that five posts take."""
        before = site.left()
        for _ in range(5):
            reading = chat.stream() if stream else chat.open("POST", "messages/", hello)
            assert (reading.status, reading.all() != b"") == (200, True)
        after = site.left()
        assert after["pid"] == before["pid"]
        return float(after["cpu"] - before["cpu"])

    hello = {"content": "Hello", "model": DEFAULT_MODEL}
    short, long = session(site), session(site)
    for chat, count in [(short, 4), (long, 2_000)]:
        fill(chat, count)
        cost(chat)
    rounds = [(cost(short), cost(long)) for _ in range(10)]
    ratio = statistics.median(b for _, b in rounds) / statistics.median(a for a, _ in rounds)
    # 1.3 to 1.6, although all messages go to the engine, and up to 2.4 with Python 3.11; 3.2 to
    # 4.3 if all were read each time.
    assert ratio < 2.8


def fill(chat: Session, count: int) -> None:
    """Add ``count`` messages to an empty session."""
    row = Conversation.objects.get(pk=UUID(chat.id.removeprefix("conv_")))
    items: list[Item] = []
    for number in range(count):
        role, kind = [("user", "input_text"), ("assistant", "output_text")][number % 2]
        text = f"Message {number} of this session is about as long as most messages are."
        data = {"content": [{"type": kind, "text": text}]}
        items.append(Item(type="message", role=role, data=data, text=text))
    append(row, items, None)
    set_leaf(row, items[-1])
    row.save()
