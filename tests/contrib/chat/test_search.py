"""Search in titles and texts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from django_ollama_openai.contrib.chat._store import search
from django_ollama_openai.contrib.chat._views.callers import Owner
from django_ollama_openai.contrib.chat.models import Conversation, Item
from tests.contrib.access.conftest import Caller, World
from tests.contrib.chat.conftest import SESSIONS, Chat, walk
from tests.contrib.settings import KIND


@pytest.fixture
def library(ada: Caller) -> Caller:
    """A caller with sessions whose titles are their numbers, or words."""
    Chat(ada, title="One", messages=[{"role": "user", "content": "A Quagga in the ÄTHER"}])
    Chat(ada, title="Two", messages=[{"role": "user", "content": "quagga, zebra"}])
    three = Chat(ada, title="Three zebras")
    three.keep("abc 100% a_c", role="assistant")
    three.keep("an edit", parent_id=None)
    four = Chat(ada, title="Four")
    calls = [{"id": "c", "function": {"name": "f", "arguments": '{"secret": "gnu"}'}}]
    four.keep("x", role="assistant", reasoning_content="hidden", tool_calls=calls)
    four.keep("result of a tool", role="tool", tool_call_id="c")
    Chat(ada, title="Five \\ backslash")
    return ada


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("quagga", ["Two", "One"]),
        ("QUAGGA", ["Two", "One"]),
        ("%C3%A4ther", ["One"]),
        ("zebra quagga", ["Two"]),
        ("quagga%20%20zebra", ["Two"]),
        ("zebras", ["Three zebras"]),
        ("THREE", ["Three zebras"]),
        # All words are in one text.
        ("two quagga", []),
        # Of any branch, and of results of tools; not of reasoning and of arguments.
        ("edit", ["Three zebras"]),
        ("abc", ["Three zebras"]),
        ("result", ["Four"]),
        ("hidden", []),
        ("gnu", []),
        # Wildcards of LIKE, and of regular expressions, are characters.
        ("100%25", ["Three zebras"]),
        ("q%25a", []),
        ("q_agga", []),
        ("a_c", ["Three zebras"]),
        ("a.c", []),
        ("%C3%A4th.r", []),
        ("backslash%20%5C", ["Five \\ backslash"]),
        # Without a word nothing is found.
        ("%25", []),
        ("!!!", []),
        ("%5C", []),
        ("'%22;--", []),
        ("%00", []),
        ("", ["Five \\ backslash", "Four", "Three zebras", "Two", "One"]),
        ("%20", ["Five \\ backslash", "Four", "Three zebras", "Two", "One"]),
    ],
)
def test_words_in_titles_and_texts(library: Caller, query: str, titles: list[str]) -> None:
    assert walk(library, f"q={query}") == titles


def test_a_search_goes_with_the_other_parameters(library: Caller) -> None:
    assert walk(library, "q=quagga&pinned=true") == []
    newest = library("GET", f"{SESSIONS}?q=quagga&limit=1").body
    assert newest["has_more"]
    library("PATCH", f"{SESSIONS}{newest['data'][0]['id']}/", {"archived": True, "pinned": True})
    assert walk(library, "q=quagga") == ["One"]
    assert walk(library, "q=quagga&archived=all&pinned=true") == ["Two"]
    # What does not match is not in this list.
    other = walk(library, "q=zebras", "id")[0]
    assert library("GET", f"{SESSIONS}?q=quagga&after={other}").error["param"] == "after"
    for wrong in ("x" * 1_001, "x+" * 501):
        assert library("GET", f"{SESSIONS}?q={wrong}").error["param"] == "q"
    assert walk(library, "q=" + "+".join(["quagga"] * 100)) == ["One"]


def test_the_text_of_others_is_not_searched(library: Caller, world: World) -> None:
    bob = world.session(world.user("bob"))
    Chat(bob, title="quagga of mine")
    assert walk(bob, "q=quagga") == ["quagga of mine"]
    assert walk(bob, "q=zebra") == []


def test_a_deleted_or_edited_message_is_not_found(library: Caller) -> None:
    chat = Chat(library, title="Six")
    kept = chat.keep("okapi")
    assert walk(library, "q=okapi") == ["Six"]
    chat("DELETE", f"messages/{kept}/")
    assert walk(library, "q=okapi") == []


@pytest.mark.skipif(KIND != "postgresql", reason="Only PostgreSQL has an index for texts.")
def test_postgresql_finds_words_by_its_index(ada: Caller) -> None:
    """With many sessions of one owner: what they contain is not read."""
    Chat(ada)
    owner = Conversation.objects.get().owner
    rows = [Conversation(owner=owner, title=str(number)) for number in range(400)]
    Conversation.objects.bulk_create(rows)
    items: list[Any] = []
    for row in rows:
        for number in range(50):
            text = "A text with many words that are in all of them. " * 4
            place = {"branch": row.id, "sequence": number}
            items.append(Item(conversation=row, type="message", role="user", text=text, **place))
    items[-1].text = "okapi"
    Item.objects.bulk_create(items, batch_size=5_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    found = search.matching(Owner(owner, None, "").conversations(), "okapi")
    plan = found.order_by("-active_at", "-id")[:21].explain()
    assert "Bitmap Index Scan on ollama_openai_chat_text" in plan, plan
    assert "Seq Scan on ollama_openai_chat_item" not in plan, plan
    assert walk(ada, "q=okapi") == [rows[-1].title]
