"""Simultaneous writers of one session, in two processes: one is answered, and nothing is mixed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from django_ollama_openai.contrib.chat.models import Item, Run
from tests.contrib.chat.sites import (
    END,
    Session,
    chunks,
    eventually,
    session,
    sites_fixture,
    tokens,
)
from tests.ollama_server import Hold, OllamaServer, Reply
from tests.servers import Site

SENT = 20

all_sites = sites_fixture(("uvicorn+fast-lane", "gunicorn"))


@pytest.fixture
def places(
    all_sites: dict[str, Site], ollama: OllamaServer, transactional_db: None
) -> Iterator[list[Site]]:
    yield list(all_sites.values())
    ollama.close_connections(reset=True)
    eventually(lambda: not Run.objects.filter(ended_at=None).exists())


def burst(chats: list[Session], number: int = SENT, **fields: Any) -> list[tuple[int, Any]]:
    """Post simultaneously, in turns through each of ``chats``."""
    answers: list[tuple[int, Any]] = []
    barrier = threading.Barrier(number)

    def post(number: int) -> None:
        barrier.wait()
        chat = chats[number % len(chats)]
        answers.append(chat.post(f"Question {number}", **fields))

    threads = [threading.Thread(target=post, args=(each,)) for each in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("background", [True, False])
def test_one_of_simultaneous_posts_is_answered(
    places: list[Site], ollama: OllamaServer, *, background: bool
) -> None:
    chat = session(places[0])
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    threading.Timer(3, gate.set).start()
    answers = burst([chat.at(place) for place in places], background=background)
    statuses = Counter(status for status, _ in answers)
    assert statuses == {202 if background else 200: 1, 400: SENT - 1}, answers
    codes = {body["error"]["code"] for status, body in answers if status == 400}
    assert codes == {"conversation_locked"}
    chat.ended()
    question, answer = chat.messages()
    assert question["content"].startswith("Question ")
    assert (answer["content"], answer["parent_id"]) == ("One", question["id"])
    assert len(chat.rows()) == len(ollama.chats()) + 1 == 2


def test_a_burst_of_quick_answers_is_one_history(places: list[Site], ollama: OllamaServer) -> None:
    """Every question is followed by its answer, and the engine got exactly what was before."""
    chat = session(places[0])
    answered = 0
    for _ in range(3):
        statuses = Counter(status for status, _ in burst([chat.at(place) for place in places]))
        assert set(statuses) <= {200, 400}
        answered += statuses[200]
    messages = chat.messages()
    assert [message["role"] for message in messages] == ["user", "assistant"] * answered
    parents = [None, *(message["id"] for message in messages)]
    assert [message["parent_id"] for message in messages] == parents[:-1]
    assert chat("GET")[1]["message_count"] == len(messages) == 2 * answered
    assert len(ollama.chats()) == answered
    for number, request in enumerate(ollama.chats()):
        sent = [message["content"] for message in request.body["messages"]]
        assert sent == [message["content"] for message in messages[: 2 * number + 1]]


def test_many_sessions_at_once(places: list[Site]) -> None:
    """Their answers begin and end in one database, without an error."""
    chats = [session(places[number % 2]) for number in range(SENT)]
    for stream in (True, False):
        answers: list[int] = []

        def post(chat: Session, *, stream: bool = stream, answers: list[int] = answers) -> None:
            answers.append(len(chunks(chat.stream().all())) if stream else chat.post()[0])

        for _ in range(3):
            threads = [threading.Thread(target=post, args=(chat,)) for chat in chats]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            eventually(lambda: not Run.objects.filter(ended_at=None).exists())
        assert answers == [4 if stream else 200] * 3 * SENT
    assert Item.objects.filter(role="assistant").count() == 6 * SENT
