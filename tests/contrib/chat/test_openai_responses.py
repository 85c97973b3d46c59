"""openai-python, unmodified, with stored responses and conversations, in each server."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import openai
import pytest
from openai.types.responses import Response

from tests.conftest import site_options
from tests.contrib.access.sites import Database
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, error, line
from tests.servers import KEY, SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import DONE, part

CHAT: Final = "django_ollama_openai.contrib.chat"
pytestmark = pytest.mark.any_database

MODEL: Final = "smollm2:135m"
OTHER: Final = "sk-other"


@contextmanager
def chat_site(server: Any, database: Database) -> Iterator[Site]:
    variables: dict[str, Any] = database.environment
    with serve(server, database.directory, dict(database.options), **variables) as site:
        yield site


@pytest.fixture(scope="module")
def database(ollama_server: OllamaServer, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database with the tables of the app, which all servers use."""
    options = {
        **site_options(ollama_server),
        "DEFAULT_MODEL": MODEL,
        "API_KEYS": [{"KEY": KEY, "NAME": "ada"}, {"KEY": OTHER, "NAME": "bob"}],
        "STREAM_KEEPALIVE_SECONDS": 0.5,
    }
    made = Database(tmp_path_factory.mktemp("chat"), options, {"SITE_APPS": CHAT})
    made.command("migrate", "-v", "0")
    return made


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def running_site(request: pytest.FixtureRequest, database: Database) -> Iterator[Site]:
    with chat_site(request.param, database) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def until(condition: Any, seconds: float = 20) -> Any:
    """Return what ``condition()`` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_by_previous_response_id(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    def ask(text: str, **fields: Any) -> Response:
        answer: Any = client.responses.create(model=MODEL, input=text, stream=stream, **fields)
        found: Response = list(answer)[-1].response if stream else answer
        return found

    ollama.reply(Answer(["Ro", "me."]), Answer(["Of course."]), Answer(["No."]))
    first = ask("Which city?", instructions="Be brief.")
    assert (first.status, first.output_text) == ("completed", "Rome.")
    assert first.to_dict()["store"] is True
    second = ask("Sure?", previous_response_id=first.id)
    # Instructions are not carried over.
    assert texts(ollama.chats()[1].body["messages"]) == [
        ("user", "Which city?"),
        ("assistant", "Rome."),
        ("user", "Sure?"),
    ]
    assert second.previous_response_id == first.id
    # Both continue the first.
    ask("Really?", previous_response_id=first.id)
    assert texts(ollama.chats()[2].body["messages"])[-2:] == [
        ("assistant", "Rome."),
        ("user", "Really?"),
    ]
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    (item,) = client.responses.input_items.list(
        second.id, include=["message.input_image.image_url"]
    )
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "Sure?"}]
    client.responses.delete(first.id)
    for gone in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
        lambda: client.responses.input_items.list(first.id),
    ):
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.id}' not found"):
            gone()
    # The rest of the chain stays.
    assert client.responses.retrieve(second.id).output_text == "Of course."


def test_an_item_reference_stands_for_what_was_said(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    ollama.reply(Answer(["Rome."], thinking=["Hm."]), Answer(["Yes."]))
    first = client.responses.create(model="smollm2-think:135m", input="Which city?")
    reasoning, message = first.output
    items: Any = [
        {"role": "user", "content": "Which city?"},
        {"type": "item_reference", "id": reasoning.id},
        {"id": message.id},
        {"role": "user", "content": "Sure?"},
    ]
    second = client.responses.create(model=MODEL, input=items)
    assert texts(ollama.chats()[1].body["messages"]) == [
        ("user", "Which city?"),
        ("assistant", "Rome."),
        ("user", "Sure?"),
    ]
    listed = client.responses.input_items.list(second.id, order="asc", limit=3)
    ids = [item.id for item in listed]
    assert len(ids) == 4
    assert ids[1:3] == [reasoning.id, message.id]
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_x"}])
    assert caught.value.param == "input[0]"
    assert "Item with id 'msg_x' not found." in caught.value.message


def test_a_conversation_by_its_id(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Rome."]), Answer(["Yes."]))
    items: Any = [{"role": "user", "content": f"Note {n}"} for n in range(20)]
    made = client.conversations.create(items=items, metadata={"a": "b"})
    more = client.conversations.items.create(made.id, items=items)
    first: Any = more.data[0]
    assert first.content[0].text == "Note 0"
    answer = client.responses.create(model=MODEL, input="Which city?", conversation=made.id)
    assert answer.conversation is not None
    assert answer.conversation.id == made.id
    with client.responses.stream(
        model=MODEL, input="Sure?", conversation={"id": made.id}
    ) as events:
        assert events.get_final_response().output_text == "Yes."
    assert texts(ollama.chats()[1].body["messages"])[-3:] == [
        ("user", "Which city?"),
        ("assistant", "Rome."),
        ("user", "Sure?"),
    ]
    forwards = list(client.conversations.items.list(made.id, order="asc", limit=7))
    assert len(forwards) == 44
    backwards = list(client.conversations.items.list(made.id))
    assert [item.to_dict() for item in reversed(backwards)] == [item.to_dict() for item in forwards]
    assert forwards[41].to_dict() == answer.output[0].to_dict()
    last: Any = forwards[-1]
    found = client.conversations.items.retrieve(last.id, conversation_id=made.id)
    assert found.to_dict() == last.to_dict()
    after = client.conversations.items.delete(last.id, conversation_id=made.id)
    assert (after.id, after.metadata) == (made.id, {"a": "b"})
    assert len(list(client.conversations.items.list(made.id))) == 43
    changed = client.conversations.update(made.id, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    assert client.conversations.retrieve(made.id) == changed
    assert client.conversations.delete(made.id).deleted is True
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        client.conversations.retrieve(made.id)


REST: Final = [part(" two"), part(" three"), line(DONE)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_in_the_background_goes_on_without_its_client(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    gate = threading.Event()
    ollama.reply(Reply([part("one"), Hold(gate), *REST]))
    cursor = 0
    if stream:
        events = client.responses.create(model=MODEL, input="Count", background=True, stream=True)
        seen = []
        for event in events:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        events.close()
        assert [event.type for event in seen[:3]] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        begun: Any = seen[0]
        id, cursor = begun.response.id, seen[-1].sequence_number
    else:
        made = client.responses.create(model=MODEL, input="Count", background=True)
        assert made.status in ("queued", "in_progress")
        assert made.background is True
        id = made.id
    running = until(lambda: _with_text(client.responses.retrieve(id)))
    assert (running.status, running.output_text) == ("in_progress", "one")
    with pytest.raises(openai.BadRequestError, match="in progress"):
        client.responses.create(model=MODEL, input="And?", previous_response_id=id)
    gate.set()
    rest = list(client.responses.retrieve(id, stream=True, starting_after=cursor))
    assert [event.sequence_number for event in rest] == [
        cursor + 1 + number for number in range(len(rest))
    ]
    last: Any = rest[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "one two three"
    assert client.responses.retrieve(id).to_dict() == last.response.to_dict()
    # As often as wanted, also when it has ended.
    everything = list(client.responses.retrieve(id, stream=True))
    assert [event.sequence_number for event in everything] == list(range(len(everything)))
    assert everything[-len(rest) :] == rest
    # One that has finished stays as it is.
    assert client.responses.cancel(id).status == "completed"


def _with_text(response: Response) -> Response | None:
    return response if response.output_text else None


def test_a_response_is_cancelled(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one"), Hold()]))
    events = client.responses.create(model=MODEL, input="Count", background=True, stream=True)
    begun: Any = next(iter(events))
    received = ollama.wait_for_chat()
    until(lambda: client.responses.retrieve(begun.response.id).output_text)
    cancelled = client.responses.cancel(begun.response.id)
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "one")
    assert cancelled.usage is None
    assert received.hung_up.wait(10)
    last: Any = list(events)[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")
    assert client.responses.cancel(begun.response.id).to_dict() == cancelled.to_dict()
    assert client.responses.retrieve(begun.response.id).to_dict() == cancelled.to_dict()
    plain = client.responses.create(model=MODEL, input="Hi")
    for call in (
        lambda: client.responses.cancel(plain.id),
        lambda: list(client.responses.retrieve(plain.id, stream=True)),
    ):
        with pytest.raises(openai.BadRequestError, match="in the background"):
            call()


def test_a_disconnect_keeps_the_text_so_far(
    site: Site, client: openai.OpenAI, ollama: OllamaServer
) -> None:
    conversation = client.conversations.create()
    ollama.reply(Reply([part("one"), Hold()]))
    events = client.responses.create(
        model=MODEL, input="Count", stream=True, conversation=conversation.id
    )
    for event in events:
        if event.type == "response.created":
            id = event.response.id
        if event.type == "response.output_text.delta":
            break
    with pytest.raises(openai.BadRequestError) as locked:
        client.responses.create(model=MODEL, input="Me, too", conversation=conversation.id)
    assert (locked.value.code, locked.value.param) == ("conversation_locked", "conversation")
    events.close()
    assert ollama.chats()[0].hung_up.wait(10)
    kept = until(lambda: _ended(client.responses.retrieve(id)))
    assert (kept.status, kept.output_text) == ("incomplete", "one")
    assert kept.incomplete_details is None
    # Only what has completed is added.
    assert list(client.conversations.items.list(conversation.id)) == []
    ollama.reply(Answer(["Rome."]))
    client.responses.create(model=MODEL, input="Which city?", conversation=conversation.id)
    assert len(list(client.conversations.items.list(conversation.id))) == 2


def _ended(response: Response) -> Response | None:
    return None if response.status in ("queued", "in_progress") else response


@pytest.mark.parametrize("background", [False, True])
def test_a_failure_is_kept(client: openai.OpenAI, ollama: OllamaServer, background: bool) -> None:
    conversation = client.conversations.create()
    ollama.reply(Reply([part("one"), Close()]))
    *_, last = client.responses.create(
        model=MODEL,
        input="Count",
        stream=True,
        background=background,
        conversation=conversation.id,
    )
    assert last.type == "response.failed"
    kept = client.responses.retrieve(last.response.id)
    assert kept.to_dict() == last.response.to_dict()
    assert kept.error is not None
    assert (kept.status, kept.error.code, kept.output_text) == ("failed", "server_error", "one")
    assert list(client.conversations.items.list(conversation.id)) == []


def test_the_model_of_a_response_in_the_background_has_vanished(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    made = client.responses.create(model="gone", input="Hi", background=True)
    failed = until(lambda: _ended(client.responses.retrieve(made.id)))
    assert failed.status == "failed"
    assert "'gone'" in failed.error.message
    (last,) = (
        event
        for event in client.responses.retrieve(made.id, stream=True)
        if event.type == "response.failed"
    )
    assert last.response.to_dict() == failed.to_dict()


def test_a_stream_that_is_no_longer_kept_is_its_last_event(
    client: openai.OpenAI, database: Database, ollama: OllamaServer
) -> None:
    *_, last = client.responses.create(model=MODEL, input="Hi", background=True, stream=True)
    assert last.type == "response.completed"
    database.run(
        "from django_ollama_openai.contrib.chat.models import Run\n"
        "Run.objects.filter(lease_until=None).delete()\n"
    )
    events = client.responses.retrieve(last.response.id, stream=True, starting_after=7)
    (again,) = events
    assert again.type == "response.completed"
    assert again.sequence_number == 8
    assert again.response.to_dict() == last.response.to_dict()
    (whole,) = client.responses.retrieve(last.response.id, stream=True)
    assert whole.sequence_number == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_in_the_background_before_the_first_token(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(error(500, "boom"))
    made: Any = client.responses.create(model=MODEL, input="Hi", background=True, stream=stream)
    if stream:
        *_, last = made
        assert last.type == "response.failed"
        made = last.response
    failed = until(lambda: _ended(client.responses.retrieve(made.id)))
    assert (failed.status, failed.error.code) == ("failed", "server_error")


def test_what_is_not_stored(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Rome."]), Answer(["Yes."]), Answer(["No."]))
    first = client.responses.create(model=MODEL, input="Which city?")
    second = client.responses.create(
        model=MODEL, input="Sure?", previous_response_id=first.id, store=False
    )
    assert second.to_dict()["store"] is False
    assert len(ollama.chats()[1].body["messages"]) == 3
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="Hm", previous_response_id=second.id)
    assert (caught.value.code, caught.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="Hm", background=True, store=False)
    assert caught.value.param == "background"
    conversation = client.conversations.create()
    third = client.responses.create(
        model=MODEL, input="Sure?", conversation=conversation.id, store=False
    )
    assert len(list(client.conversations.items.list(conversation.id))) == 2
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(third.id)


def test_another_has_nothing(site: Site, client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Rome."]))
    made = client.responses.create(model=MODEL, input="Which city?", background=True)
    until(lambda: _ended(client.responses.retrieve(made.id)))
    conversation = client.conversations.create(items=[{"role": "user", "content": "Hi"}])
    (item,) = client.conversations.items.list(conversation.id)
    with openai.OpenAI(base_url=site.base_url, api_key=OTHER, max_retries=0) as other:
        ids = [(made.id, conversation.id, item.id or ""), ("resp_x", "conv_x", "msg_x")]
        for response_id, conversation_id, item_id in ids:
            for call in calls(other, response_id, conversation_id, item_id):
                with pytest.raises(openai.NotFoundError, match="not found"):
                    call()
            with pytest.raises(openai.BadRequestError) as caught:
                other.responses.create(input="Hi", previous_response_id=response_id)
            assert caught.value.code == "previous_response_not_found"
    assert client.responses.retrieve(made.id).status == "completed"


def calls(client: openai.OpenAI, response: str, conversation: str, item: str) -> list[Any]:
    """Every call that names something stored."""
    responses, conversations = client.responses, client.conversations
    items = conversations.items
    return [
        lambda: responses.retrieve(response),
        lambda: list(responses.retrieve(response, stream=True)),
        lambda: responses.cancel(response),
        lambda: responses.delete(response),
        lambda: responses.input_items.list(response),
        lambda: responses.create(input="Hi", conversation=conversation),
        lambda: responses.create(input=[{"type": "item_reference", "id": item}]),
        lambda: responses.input_tokens.count(conversation=conversation),
        lambda: conversations.retrieve(conversation),
        lambda: conversations.update(conversation, metadata={}),
        lambda: conversations.delete(conversation),
        lambda: conversations.create(items=[{"type": "item_reference", "id": item}]),
        lambda: items.list(conversation),
        lambda: items.create(conversation, items=[]),
        lambda: items.retrieve(item, conversation_id=conversation),
        lambda: items.delete(item, conversation_id=conversation),
    ]


def test_a_conversation_is_compacted(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Rome."]), Answer(["The city", " is Rome."]), Answer(["Italy."]))
    first = client.responses.create(model=MODEL, input="Which city?")
    compacted = client.responses.compact(model=MODEL, previous_response_id=first.id)
    assert compacted.object == "response.compaction"
    assert compacted.usage.output_tokens > 0
    question: Any
    item: Any
    question, item = (output.to_dict(warnings=False) for output in compacted.output)
    assert question["content"] == [{"type": "input_text", "text": "Which city?"}]
    assert (item["type"], item["id"][:4]) == ("compaction", "cmp_")
    assert "Rome" not in str(item)
    again: Any = [question, item, {"role": "user", "content": "Which country?"}]
    last = client.responses.create(model=MODEL, input=again)
    question_, summary, new = ollama.chats()[2].body["messages"]
    assert (question_["content"], new["content"]) == ("Which city?", "Which country?")
    assert summary["content"].endswith("The city is Rome.")
    assert item["encrypted_content"] not in str(ollama.chats()[2].body)
    # It is an item as others are.
    ollama.reply(Answer(["Yes."]))
    client.responses.create(model=MODEL, input="Sure?", previous_response_id=last.id)
    assert ollama.chats()[3].body["messages"][1] == summary


def test_input_tokens_are_estimated(client: openai.OpenAI, ollama: OllamaServer) -> None:
    raw = client.responses.input_tokens.with_raw_response.count(model=MODEL, input="x" * 400)
    assert raw.headers["x-estimated"] == "true"
    assert raw.parse().input_tokens == 100
    first = client.responses.create(model=MODEL, input="x" * 400)
    after = client.responses.input_tokens.count(
        model=MODEL, input="x" * 400, previous_response_id=first.id
    )
    assert after.input_tokens > 200
    assert len(ollama.chats()) == 1


def test_the_asynchronous_client(site: Site, ollama: OllamaServer) -> None:
    async def walk() -> None:
        async with openai.AsyncOpenAI(base_url=site.base_url, api_key=KEY) as client:
            made = await client.conversations.create(items=[])
            for number in range(3):
                items: Any = [{"role": "user", "content": f"{number}.{n}"} for n in range(9)]
                await client.conversations.items.create(made.id, items=items)
            found = [item async for item in client.conversations.items.list(made.id, limit=10)]
            assert len({item.id for item in found}) == 27
            first = await client.responses.create(model=MODEL, input="Hi", background=True)
            while first.status != "completed":
                await asyncio.sleep(0.05)
                first = await client.responses.retrieve(first.id)
            events = await client.responses.retrieve(first.id, stream=True)
            assert 0 in [event.sequence_number async for event in events]
            async with client.responses.stream(
                model=MODEL, input=items, previous_response_id=first.id
            ) as stream:
                last = await stream.get_final_response()
            pages = client.responses.input_items.list(last.id, limit=2, order="asc")
            kept: list[Any] = [item.to_dict() async for item in pages]
            assert [item["content"][0]["text"] for item in kept] == [f"2.{n}" for n in range(9)]

    asyncio.run(walk())


def test_simultaneous_responses_do_not_mix_in_a_conversation(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    conversation = client.conversations.create()
    barrier = threading.Barrier(6)
    answers: list[Any] = []

    def ask(number: int) -> None:
        barrier.wait()
        try:
            made = client.responses.create(
                model=MODEL, input=f"{number}", conversation=conversation.id
            )
            answers.append(made.output[0].id)
        except openai.BadRequestError as refused:
            assert refused.code == "conversation_locked"

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items: list[Any] = list(client.conversations.items.list(conversation.id, order="asc"))
    assert answers
    assert [item.role for item in items] == ["user", "assistant"] * len(answers)
    assert {item.id for item in items if item.role == "assistant"} == set(answers)


def test_the_conversation_of_a_running_response_is_deleted(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    """The response ends by itself."""
    conversation = client.conversations.create(items=[{"role": "user", "content": "Hi"}])
    gate = threading.Event()
    ollama.reply(Reply([part("one"), Hold(gate), *REST]))
    made = client.responses.create(
        model=MODEL, input="Count", background=True, conversation=conversation.id
    )
    until(lambda: client.responses.retrieve(made.id).output_text)
    client.conversations.delete(conversation.id)
    gate.set()
    ended = until(lambda: _ended(client.responses.retrieve(made.id)))
    assert (ended.status, ended.output_text) == ("completed", "one two three")
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    ollama.reply(Answer(["Yes."]))
    client.responses.create(model=MODEL, input="And?", previous_response_id=made.id)
    assert [text for _, text in texts(ollama.chats()[1].body["messages"])] == [
        "Count",
        "one two three",
        "And?",
    ]


@pytest.mark.parametrize("server", SERVERS_AND_LANE)
def test_a_server_that_stops_ends_its_responses(
    database: Database, ollama: OllamaServer, server: Any
) -> None:
    ollama.reply(Reply([part("one"), Hold()]))
    with (
        chat_site(server, database) as site,
        openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=60) as client,
    ):
        made = client.responses.create(model=MODEL, input="Count", background=True)
        until(lambda: client.responses.retrieve(made.id).output_text)
        site.process.send_signal(signal.SIGTERM)
        site.process.wait(30)
    with (
        chat_site(server, database) as site,
        openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=60) as client,
    ):
        kept = client.responses.retrieve(made.id)
        assert (kept.status, kept.output_text) == ("incomplete", "one")
        *_, last = client.responses.retrieve(made.id, stream=True)
        assert last.type == "response.incomplete"
        assert last.response.to_dict() == kept.to_dict()


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_another_process_takes_over(
    database: Database, ollama: OllamaServer, server: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A stream is read from another process; when its own is killed, the answer does not stay in
    progress, nor is its conversation locked."""
    ollama.reply(Reply([part("one"), Hold()]))
    other = Database(
        tmp_path_factory.mktemp("other"),
        database.options,
        {**database.more, "SITE_DATABASE": str(database.path)},
    )
    with chat_site(server, database) as doomed, chat_site("uvicorn", other) as site:
        options: dict[str, Any] = {"api_key": KEY, "max_retries": 0, "timeout": 60}
        with (
            openai.OpenAI(base_url=doomed.base_url, **options) as first,
            openai.OpenAI(base_url=site.base_url, **options) as second,
        ):
            conversation = first.conversations.create()
            made = first.responses.create(
                model=MODEL, input="Count", background=True, conversation=conversation.id
            )
            until(lambda: second.responses.retrieve(made.id).output_text == "one")
            following: list[Any] = []
            reader = threading.Thread(
                target=lambda: following.extend(second.responses.retrieve(made.id, stream=True))
            )
            reader.start()
            os.killpg(doomed.process.pid, signal.SIGKILL)
            # As if the lease of a minute were over.
            database.run(
                "from django.utils.timezone import now\n"
                "from django_ollama_openai.contrib.chat.models import Run\n"
                "Run.objects.filter(ended_at=None).update(lease_until=now())\n"
            )
            kept = second.responses.retrieve(made.id)
            assert (kept.status, kept.output_text) == ("incomplete", "one")
            reader.join(20)
            assert not reader.is_alive()
            assert following[-1].type == "response.incomplete"
            numbers = [event.sequence_number for event in following]
            assert numbers == list(range(len(numbers)))
            assert following[-1].response.to_dict() == kept.to_dict()
            second.responses.create(model=MODEL, input="Hi", conversation=conversation.id)
            assert len(list(second.conversations.items.list(conversation.id))) == 2
