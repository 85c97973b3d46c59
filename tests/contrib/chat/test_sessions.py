"""Sessions: their fields, lists, changes and titles."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_ollama_openai import auth
from django_ollama_openai.contrib.chat._views.callers import Owner
from django_ollama_openai.contrib.chat.models import Conversation, Item, Run
from tests.contrib.access.conftest import Caller, World
from tests.contrib.chat.conftest import SESSIONS, Chat, walk
from tests.contrib.settings import KIND
from tests.ollama_server import Answer, OllamaServer

TOOL = {"type": "function", "function": {"name": "sum_up", "parameters": {"type": "object"}}}
FIELDS: dict[str, Any] = {
    "title": "Über die Zeit",
    "model": "llama3.2",
    "instructions": "Be brief.",
    "parameters": {"temperature": 0.2, "maxTokens": 5, "options": {"num_ctx": 8192}},
    "tools": [TOOL],
    "metadata": {"snake_key": "v", "camelKey": "w"},
    "archived": True,
    "pinned": True,
}
DEFAULTS: dict[str, Any] = {
    "title": "",
    "model": None,
    "instructions": None,
    "parameters": {},
    "tools": [],
    "metadata": {},
    "visibility": "private",
    "workspace": None,
    "archived": False,
    "pinned": False,
    "current_message_id": None,
    "message_count": 0,
}
GIVEN = {"id", "object", "created_at", "updated_at"}


def test_a_session_has_the_fields_of_the_api(ada: Caller) -> None:
    made = ada("POST", SESSIONS, {})
    assert made.status == 201
    assert made.body.keys() == DEFAULTS.keys() | GIVEN
    assert {name: made.body[name] for name in DEFAULTS} == DEFAULTS
    assert made.body["object"] == "chat.session"
    for name in ("created_at", "updated_at"):
        assert made.body[name].endswith("Z")
        assert datetime.fromisoformat(made.body[name]).utcoffset() == timedelta(0)
    assert ada("GET", f"{SESSIONS}{made.body['id']}/").body == made.body
    assert ada("GET", f"{SESSIONS}{made.body['id']}").body == made.body


def test_all_fields_are_kept_and_each_can_be_changed_alone(ada: Caller) -> None:
    full = Chat(ada, **FIELDS).shown
    assert {name: full[name] for name in FIELDS} == FIELDS
    one_by_one = Chat(ada)
    for name, value in FIELDS.items():
        before = one_by_one.shown
        changed = one_by_one("PATCH", "", {name: value})
        assert (changed.status, changed.body) == (200, one_by_one.shown)
        assert {
            key: changed.body[key] for key in changed.body if key not in (name, "updated_at")
        } == {key: before[key] for key in before if key not in (name, "updated_at")}
        assert changed.body[name] == value
    assert one_by_one("PATCH", "", {}).body["title"] == FIELDS["title"]
    nothing: dict[str, Any] = {
        "title": "",
        "model": None,
        "instructions": None,
        "parameters": {},
        "tools": [],
    }
    emptied = one_by_one("PATCH", "", nothing | {"metadata": {}}).body
    assert {name: emptied[name] for name in nothing} == nothing


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"titel": "x"}, "titel"),
        ({"owner": "user:1"}, "owner"),
        ({"message_count": 3}, "message_count"),
        ({"title": "x" * 256}, "title"),
        ({"title": None}, "title"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"instructions": "x" * 200_001}, "instructions"),
        ({"visibility": "public"}, "visibility"),
        ({"visibility": "workspace"}, "visibility"),
        ({"archived": "true"}, "archived"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"parameters": {"temperature": 9}}, "parameters.temperature"),
        ({"parameters": {"topLogprobs": 2}}, "parameters.top_logprobs"),
        ({"parameters": {"stream": True}}, "parameters.stream"),
        ({"parameters": {"messages": []}}, "parameters.messages"),
        ({"parameters": {"functionCall": "auto"}}, "parameters.functionCall"),
        ({"parameters": {"user": "x" * 200_000}}, "parameters"),
        ({"parameters": {"options": {"num_ctx": "x"}}}, "parameters.options.num_ctx"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        (
            {"tools": [TOOL], "parameters": {"tool_choice": {"type": "x"}}},
            "parameters.tool_choice.type",
        ),
        ({"tools": [{**TOOL, "about": "x" * 200_000}]}, "tools"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_changes(
    chat: Chat, body: dict[str, Any], param: str
) -> None:
    before = chat.shown
    for answer in (chat("PATCH", "", body), chat.caller("POST", SESSIONS, body)):
        assert (answer.status, answer.error["param"]) == (400, param), answer.body
        assert "messages[" not in answer.error["message"]
    assert chat.shown == before
    assert Conversation.objects.count() == 1


def test_the_tools_and_the_choice_of_one_are_checked_together(chat: Chat) -> None:
    choice = {"tool_choice": {"type": "function", "function": {"name": "other"}}}
    assert chat("PATCH", "", {"parameters": choice}).status == 200
    refused = chat("PATCH", "", {"tools": [TOOL]})
    assert (refused.status, refused.error["param"]) == (400, "parameters.tool_choice")


def test_both_spellings_in_requests_and_one_in_answers(chat: Chat, ada: Caller) -> None:
    message = chat.keep([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert chat("PATCH", "", {"currentMessageId": None, "title": "t"}).body["message_count"] == 0
    assert chat("PATCH", "", {"currentMessageId": message}).body["current_message_id"] == message
    given = {name: FIELDS[name] for name in ("parameters", "tools", "metadata")}
    chat("PATCH", "", given)
    shown = ada.client.get(f"/camel/{chat.path}").json()
    assert shown.keys() >= {"currentMessageId", "messageCount", "createdAt", "updatedAt"}
    assert not [name for name in shown if "_" in name]
    assert {name: shown[name] for name in given} == given
    listed = ada.client.get(f"/camel/{chat.path}messages/").json()
    assert listed.keys() == {"object", "data", "firstId", "lastId", "hasMore"}
    assert not [name for name in listed["data"][0] if "_" in name]


@pytest.mark.parametrize(
    "name", ["limit=0", "limit=101", "limit=x", "after=conv_1", "archived=maybe"]
)
def test_a_wrong_query_is_named(chat: Chat, ada: Caller, name: str) -> None:
    for path in (SESSIONS, f"{chat.path}messages/"):
        if path.endswith("messages/") and name.startswith("archived"):
            continue
        answer = ada("GET", f"{path}?{name}")
        assert (answer.status, answer.error["param"]) == (400, name.partition("=")[0])


def test_lists_are_walked_by_activity(ada: Caller) -> None:
    chats = [Chat(ada, title=str(number), pinned=number == 3) for number in range(5)]
    chats[1].keep("news")
    chats[4]("PATCH", "", {"archived": True})
    assert walk(ada) == ["1", "3", "2", "0"]
    assert walk(ada, "archived=true") == ["4"]
    assert walk(ada, "archived=all") == ["1", "4", "3", "2", "0"]
    assert walk(ada, "pinned=true") == ["3"]
    assert walk(ada, "pinned=false") == ["1", "2", "0"]
    assert walk(ada, "workspace=ws_0") == []
    last = ada("GET", f"{SESSIONS}?after={chats[0].id}")
    assert last.body == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    # It is in another list.
    wrong = ada("GET", f"{SESSIONS}?after={chats[4].id}")
    assert (wrong.status, wrong.error["param"]) == (400, "after")
    # Rows of the same moment are neither lost nor told twice.
    Conversation.objects.update(active_at=chats[0].row.active_at)
    assert sorted(walk(ada, "archived=all")) == ["0", "1", "2", "3", "4"]


def test_a_session_brings_its_history(ada: Caller) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Rules"},
        {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoningContent": "hm",
            "toolCalls": [
                {"id": "c1", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "toolCallId": "c1", "content": "3"},
        {"role": "assistant", "content": "Three"},
    ]
    chat = Chat(ada, messages=messages)
    assert chat.shown["message_count"] == 5
    shown = chat("GET", "messages/").body["data"]
    assert [each["role"] for each in shown] == [each["role"] for each in messages]
    assert [each["content"] for each in shown] == ["Rules", "How many?", "", "3", "Three"]
    assert [each["parent_id"] for each in shown] == [None, *[each["id"] for each in shown[:-1]]]
    assert chat.shown["current_message_id"] == shown[-1]["id"]
    assert shown[2]["reasoning_content"] == "hm"
    assert shown[2]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
    ]
    assert (shown[3]["tool_call_id"], shown[4]["tool_call_id"]) == ("c1", None)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user"}], "messages[0].content"),
        (
            [{"role": "user", "content": "x"}, {"role": "critic", "content": "x"}],
            "messages[1].role",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                    ],
                }
            ],
            "messages[0].content[0].image_url.url",
        ),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].function_call"),
        ([{"role": "user", "content": "x"}] * 1_001, "messages"),
        (["text"], "messages[0]"),
    ],
)
def test_a_wrong_history_is_named(ada: Caller, messages: Any, param: str) -> None:
    answer = ada("POST", SESSIONS, {"messages": messages})
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    assert not Conversation.objects.exists()


def test_a_current_message_is_one_of_the_session(chat: Chat, ada: Caller) -> None:
    first, second = chat.keep("one"), chat.keep("two")
    foreign = Chat(ada).keep("other")
    assert chat("PATCH", "", {"current_message_id": first}).body["message_count"] == 1
    assert chat.texts() == ["one"]
    for wrong in (
        foreign,
        first.replace("msg_", "rs_"),
        "msg_" + "0" * 32,
        chat.id,
        "\x00",
        "x" * 9_999,
    ):
        answer = chat("PATCH", "", {"current_message_id": wrong, "title": "no"})
        assert (answer.status, answer.error["param"]) == (400, "current_message_id")
    assert chat.shown["title"] == ""
    assert chat("PATCH", "", {"current_message_id": second}).body["message_count"] == 2


def test_a_shared_session_is_read_by_its_workspace(world: World) -> None:
    ada, bob, eve = (world.user(name) for name in ("ada", "bob", "eve"))
    lab, firm = world.workspace("Lab", member=ada), world.workspace("Firm", member=eve)
    lab.memberships.create(user=bob, role="member")
    owner, member, stranger = world.key(ada, lab), world.key(bob, lab), world.key(eve, firm)
    chat = Chat(owner, title="shared", visibility="workspace")
    assert chat.shown["workspace"] == lab.public_id
    private = Chat(owner, title="private")
    assert private.shown["workspace"] is None
    message = chat.keep("Hello")
    of_lab = f"workspace={lab.public_id}"
    assert walk(member, of_lab) == walk(owner, of_lab) == ["shared"]
    assert walk(member) == walk(stranger, of_lab) == []
    assert walk(owner) == ["shared", "private"]
    assert member("GET", chat.path).body == chat.shown
    assert member("GET", f"{chat.path}messages/{message}/").body["content"] == "Hello"
    for method, path, body in (
        ("PATCH", "", {"title": "x"}),
        ("DELETE", "", None),
        ("POST", "messages/", {"content": "x"}),
        ("PATCH", f"messages/{message}/", {"content": "x"}),
        ("DELETE", f"messages/{message}/", None),
        ("POST", f"messages/{message}/regenerate/", {}),
        ("POST", "stop/", None),
        ("POST", "title/", {"title": "x"}),
    ):
        assert member(method, chat.path + path, body).status == 403, (method, path)
        assert stranger(method, chat.path + path, body).status == 404, (method, path)
    assert chat("PATCH", "", {"visibility": "private"}).body["workspace"] is None
    assert member("GET", chat.path).status == 404
    # Nobody shares with a workspace that they are not in.
    refused = world.session(world.user("max"))("POST", SESSIONS, {"visibility": "workspace"})
    assert (refused.status, refused.error["param"]) == (400, "visibility")


def test_owners_are_told_apart_on_every_database() -> None:
    names = ["wiki", "Wiki", "wíki", "wiki ", "WIKI", "w" * 300]
    owners = {Owner.of(auth.Caller(key_id=name)).text for name in names}
    assert all(owner == owner.lower() and owner.isascii() and " " not in owner for owner in owners)
    assert len(owners) == len(names)


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("  \n**Über Zeit**\nand more", "Über Zeit"),
        ('"A  quoted\ttitle"', "A quoted title"),
        ("x" * 400, "x" * 255),
    ],
)
def test_the_model_names_a_session(
    chat: Chat, engine: OllamaServer, written: str, title: str
) -> None:
    chat("PATCH", "", {"model": "smollm2:135m", "parameters": {"options": {"num_ctx": 2048}}})
    chat.keep("What is time?")
    before = chat.shown
    engine.reply(Answer([written]))
    answer = chat("POST", "title/", {})
    assert answer.status == 200
    assert answer.body == chat.shown
    assert answer.body["title"] == title
    assert (answer.body["message_count"], len(engine.chats())) == (before["message_count"], 1)
    sent = engine.chats()[0].body
    assert sent["options"]["num_ctx"] == 2048
    assert "What is time?" in sent["messages"][1]["content"]


def test_a_title_is_given_or_refused(chat: Chat, engine: OllamaServer) -> None:
    assert chat("POST", "title/", {"title": "Mine"}).body["title"] == "Mine"
    assert not engine.chats()
    for body, param in (({"title": "x" * 256}, "title"), ({"name": "x"}, "name"), ({}, None)):
        answer = chat("POST", "title/", body)
        assert (answer.status, answer.error["param"]) == (400, param)
    chat.keep("Hello")
    engine.reply(Answer([" \n "]))
    assert chat("POST", "title/", {}).status == 502
    assert chat.shown["title"] == "Mine"


def test_the_deletion_of_a_session_leaves_nothing(chat: Chat, engine: OllamaServer) -> None:
    chat.post("one")
    chat.post("two", parent_id=None)
    other = Chat(chat.caller)
    other.keep("stays")
    deleted = chat("DELETE")
    assert deleted.body == {"id": chat.id, "object": "chat.session.deleted", "deleted": True}
    assert chat("GET").status == chat("DELETE").status == 404
    assert [item.text for item in Item.objects.all()] == ["stays"]
    assert not Run.objects.exists()


def test_what_cannot_be_stored_is_replaced(chat: Chat) -> None:
    nul = "a\x00b"
    fields = {
        "title": nul,
        "instructions": nul,
        "model": nul,
        "parameters": {"user": nul},
        "tools": [{**TOOL, "k\x00": nul}],
        "metadata": {nul: nul},
    }
    changed = chat("PATCH", "", fields)
    assert changed.status == 200, changed.body
    assert changed.body == chat.shown
    assert "\x00" not in str(changed.body)
    assert changed.body["metadata"] == {"a\ufffdb": "a\ufffdb"}
    chat("PATCH", "", {"model": None, "tools": []})
    calls = [{"id": nul, "type": "function", "function": {"name": nul, "arguments": nul}}]
    for body in (
        {"content": nul, "metadata": {nul: nul}},
        {"content": [{"type": "text", "text": nul}, {"type": "text", "text": nul}]},
        {"content": nul, "role": "assistant", "reasoning_content": nul, "tool_calls": calls},
        {"content": nul, "role": "tool", "tool_call_id": nul},
    ):
        kept = chat("POST", "messages/", {**body, "reply": False})
        assert kept.status == 201, kept.body
        assert "\ufffd" in str(kept.body)
        assert "\x00" not in str(kept.body)
        path = f"messages/{kept.body['id']}/"
        assert chat("GET", path).body == kept.body
        assert chat("PATCH", path, {"content": nul, "metadata": {nul: nul}}).status == 201
        assert chat("PATCH", path, {"metadata": {nul: nul}}).status == 200
        assert chat.post(nul, user=nul).status == 200
        assert chat("POST", f"{path}regenerate/", {"user": nul}).status == 200
    for path in ("?q=%00", "?workspace=%00", "?after=%00", "%00/", "?q=%ED%A0%80"):
        assert chat.caller("GET", SESSIONS + path).status in (200, 400, 404), path
    assert chat("POST", "title/", {"title": nul}).body["title"] == "a\ufffdb"


def test_the_model_may_write_what_cannot_be_stored(chat: Chat, settings: Settings) -> None:
    replies = [{"content": "a\x00b", "reasoning": "\x00"}]
    settings.OLLAMA_OPENAI = {
        "DEFAULT_MODEL": "m",
        "BACKENDS": {
            "default": {
                "BACKEND": "django_ollama_openai.backends.DummyBackend",
                "OPTIONS": {"replies": replies},
            }
        },
    }
    chat.post("Hello")
    last = chat("GET", "messages/").body["data"][-1]
    assert (last["content"], last["reasoning_content"]) == ("a\ufffdb", "\ufffd")


@pytest.mark.parametrize("character", ["a", "é", "\U0001f600"])
def test_a_message_of_five_megabytes(chat: Chat, settings: Settings, character: str) -> None:
    text = character * (5_000_000 // len(character.encode()))
    kept = chat.keep(text)
    assert chat("GET", f"messages/{kept}/").body["content"] == text


def test_a_page_of_a_hundred_thousand_sessions_is_read_by_the_index(ada: Caller) -> None:
    """The list and its next page stop at the limit: no row is sorted."""
    Chat(ada)
    owner = Conversation.objects.get().owner
    # If all rows had one owner, no index would have to begin with it.
    owners = [owner, *(f"user:other-{number}" for number in range(9))]
    rows = [Conversation(owner=each) for each in owners for _ in range(500)]
    Conversation.objects.bulk_create(rows, batch_size=500)
    if KIND != "mariadb":
        # MariaDB would commit the test's transaction, and keeps its statistics up to date.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as queries:
        first = ada("GET", SESSIONS).body
        ada("GET", f"{SESSIONS}?archived=all&after={first['last_id']}")
    pages = [
        each["sql"] for each in queries if "ORDER BY" in each["sql"] and "LIMIT 21" in each["sql"]
    ]
    assert len(pages) == 3
    for sql in pages:
        plan = explained(sql)
        assert "ollama_openai_chat_activity" in plan
        assert not [word for word in ("Sort", "TEMP B-TREE", "filesort") if word in plan], plan


def explained(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if KIND == 'sqlite' else ''}{sql}")
        return "\n".join(str(row) for row in cursor.fetchall())
