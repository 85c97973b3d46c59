"""Deletion of what is old: conversations, responses, completions, and what they leave behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.chat._store.files import Media, stored
from django_ollama_openai.contrib.chat._store.items import new_rows
from django_ollama_openai.contrib.chat._store.retention import (
    ChatPruner,
    delete_conversations,
    delete_response,
)
from django_ollama_openai.contrib.chat._store.runs import begin_response, end_response
from django_ollama_openai.contrib.chat._store.tree import append, path_to, set_leaf
from django_ollama_openai.contrib.chat.models import (
    Attachment,
    Completion,
    Conversation,
    Item,
    Kind,
    Piece,
    Response,
    Run,
)
from tests.contrib.access.conftest import DUMMY
from tests.contrib.chat.common import PNG, files_in_storage, media_site, uri

__all__ = ["media_site"]

pytestmark = pytest.mark.django_db(transaction=True)

OWNER = "key:wiki"


def conversation(days: float = 0, **fields: Any) -> Conversation:
    """Return a conversation with a picture, made some ``days`` ago."""
    made = now() - timedelta(days=days)
    row = Conversation.objects.create(owner=OWNER, created_at=made, **fields)
    media = Media()
    part = {"type": "input_image", "image_url": uri(PNG)}
    rows = new_rows([{"role": "user", "content": [part]}], media)
    with stored(media):
        append(row, rows, None)
        set_leaf(row, rows[0])
        row.save()
    return row


def respond(text: str, previous: Response | None = None, days: float = 0) -> Response:
    """Store a response to ``text``, made some ``days`` ago."""
    body = {"status": "in_progress"}
    response, run = begin_response(
        owner=OWNER,
        user_id=None,
        response_id=uuid7(),
        body=body,
        items=[{"role": "user", "content": text}],
        references=[None],
        previous=previous,
        media=Media(),
    )
    answer = {"type": "message", "role": "assistant", "content": f"to {text}"}
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    assert end_response(run, {"status": "completed"}, [answer, call], joins=False)
    made = now() - timedelta(days=days)
    Response.objects.filter(pk=response.pk).update(created_at=made)
    Conversation.objects.filter(pk=response.conversation_id).update(created_at=made)
    return Response.objects.select_related("conversation", "leaf").get(pk=response.pk)


def texts_before(response: Response) -> list[str]:
    leaf = Response.objects.select_related("leaf").get(pk=response.pk).leaf
    return [item.text for item in path_to(leaf).oldest(head=None)]


def prune(older_than: timedelta | None = None) -> dict[str, int]:
    """Prune, and return the number of deleted rows by kind."""
    deleted = {}
    for pruning in ChatPruner().prunings(older_than):
        expected = pruning.count()
        deleted[pruning.label] = 0
        while batch := pruning.delete_batch():
            deleted[pruning.label] += batch
        assert deleted[pruning.label] >= expected
    return {label: count for label, count in deleted.items() if count}


@pytest.mark.parametrize(
    ("kept", "older_than", "expected"),
    [
        ({}, None, {"responses": 1, "completions": 1}),
        ({"conversations": 20}, None, {"responses": 1, "completions": 1, "conversations": 1}),
        (dict.fromkeys(("responses", "completions", "conversations")), None, {}),
        ({}, 5, {"responses": 2, "completions": 2, "conversations": 2}),
        ({}, 50, {}),
    ],
)
def test_the_settings_say_what_is_old(
    settings: Settings, kept: dict[str, Any], older_than: int | None, expected: dict[str, int]
) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "CHAT": {"RETENTION_DAYS": kept}}
    for days in (1, 10, 40):
        conversation(days)
        respond("a", days=days)
        made = now() - timedelta(days=days)
        Completion.objects.create(owner=OWNER, model="m", body={}, messages=[], created_at=made)
    deleted = prune(None if older_than is None else timedelta(days=older_than))
    assert deleted == expected
    assert Response.objects.count() == 3 - expected.get("responses", 0)
    # Threads go with their last response.
    assert Conversation.objects.filter(kind=Kind.THREAD).count() == Response.objects.count()
    left = Conversation.objects.filter(kind=Kind.CONVERSATION).count()
    assert left == 3 - expected.get("conversations", 0)
    assert len(files_in_storage()) == Attachment.objects.count() == left
    assert not Item.objects.exclude(conversation__in=Conversation.objects.all()).exists()
    assert prune(None if older_than is None else timedelta(days=older_than)) == {}


def test_a_response_leaves_what_others_continue() -> None:
    first = respond("first")
    second = respond("second", first)
    third = respond("third", first)
    fourth = respond("fourth", second)
    assert " ".join(texts_before(fourth)) == "first to first second to second fourth to fourth"
    delete_response(first)
    assert texts_before(third) == ["first", "to first", "third", "to third"]
    # Of another branch nothing is needed.
    delete_response(third)
    assert not Item.objects.filter(text__contains="third").exists()
    assert len(texts_before(fourth)) == 6
    delete_response(fourth)
    assert texts_before(second) == ["first", "to first", "second", "to second"]
    assert set(Item.objects.values_list("text", flat=True)) == {*texts_before(second), ""}
    assert Item.objects.filter(type="function_call").count() == 2
    delete_response(second)
    assert not Item.objects.exists() and not Conversation.objects.exists()
    assert not Run.objects.exists()


def test_a_response_of_a_conversation_leaves_its_items() -> None:
    row = conversation()
    response = respond("a")
    Item.objects.filter(conversation=row).update(response=response)
    Response.objects.filter(pk=response.pk).update(conversation=row)
    delete_response(Response.objects.get())
    assert Item.objects.get(conversation=row).response is None
    assert Conversation.objects.filter(pk=row.pk).exists()


def test_what_is_left_behind_is_deleted(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "CHAT": {"STREAM_RETENTION_SECONDS": 60}}
    made = now() - timedelta(hours=2)
    Conversation.objects.create(kind=Kind.THREAD, owner=OWNER, created_at=made)
    young = Conversation.objects.create(kind=Kind.THREAD, owner=OWNER)
    row = conversation()
    for seconds, is_kept in ((30, True), (90, False), (None, True)):
        item = new_rows([{"role": "assistant", "content": "a"}], Media())
        append(row, item, row.leaf)
        ended = None if seconds is None else now() - timedelta(seconds=seconds)
        run = Run.objects.create(item=item[0], ended_at=ended)
        Piece.objects.create(run=run, first=0, count=1, data="x" if is_kept else "old")
    assert prune() == {"threads": 1, "streams": 1}
    assert set(Piece.objects.values_list("data", flat=True)) == {"x"}
    assert Run.objects.count() == 2 and Item.objects.filter(conversation=row).count() == 4
    assert Conversation.objects.filter(pk=young.pk).exists()


def test_an_answer_elsewhere_goes_on_when_its_conversation_is_deleted() -> None:
    row = conversation()
    response, run = begin_response(
        owner=OWNER,
        user_id=None,
        response_id=uuid7(),
        body={"status": "in_progress"},
        items=[{"role": "user", "content": "b"}],
        references=[None],
        conversation=row,
        media=Media(),
    )
    delete_conversations([row.pk])
    answer = {"type": "message", "role": "assistant", "content": "c"}
    assert end_response(run, {"status": "completed"}, [answer], joins=True)
    response.refresh_from_db()
    assert (response.status, response.conversation.kind) == ("completed", Kind.THREAD)
    assert texts_before(response) == ["b", "c"]


def test_batches_are_small() -> None:
    Conversation.objects.bulk_create(
        Conversation(owner=OWNER, created_at=now() - timedelta(days=9)) for _ in range(250)
    )
    prunings = {each.label: each for each in ChatPruner().prunings(timedelta(days=5))}
    sizes = []
    with CaptureQueriesContext(connection) as queries:
        while batch := prunings["conversations"].delete_batch():
            sizes.append(batch)
    assert sizes == [100, 100, 50]
    assert len(queries) < 60
