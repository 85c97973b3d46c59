"""Exports and imports of sessions, and the export of all that is a caller's."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai.asgi import fast_lane
from django_ollama_openai.contrib.chat._store.completions import (
    add_completion,
    complete,
    message_rows,
    repeated_fields,
)
from django_ollama_openai.contrib.chat._store.files import Media, stored
from django_ollama_openai.contrib.chat._store.items import new_rows
from django_ollama_openai.contrib.chat._store.runs import begin_message, lock_row
from django_ollama_openai.contrib.chat._store.tree import append, set_leaf
from django_ollama_openai.contrib.chat.models import (
    Attachment,
    Completion,
    Conversation,
    Item,
    Kind,
    Response,
)
from tests.contrib.access.conftest import DUMMY, Answer, Caller, World
from tests.contrib.chat.common import (
    AUDIO,
    GIF,
    PNG,
    ask,
    caller_of,
    files_in_storage,
    media_site,
    picture,
    uri,
)

__all__ = ["media_site"]

pytestmark = pytest.mark.django_db(transaction=True)

SESSIONS = "api/chat/sessions/"


def export(caller: Caller, session: str, query: str = "") -> Any:
    headers = {} if caller.key is None else {"Authorization": f"Bearer {caller.key}"}
    response = caller.client.get(f"/ai/{SESSIONS}{session}/export/{query}", headers=headers)
    assert response.status_code == 200
    return response


def exported(caller: Caller, session: str) -> Any:
    return json.loads(b"".join(export(caller, session).streaming_content))


def everything(caller: Caller) -> Any:
    headers = {} if caller.key is None else {"Authorization": f"Bearer {caller.key}"}
    response: Any = caller.client.get("/ai/api/chat/export/", headers=headers)
    return json.loads(b"".join(response.streaming_content))


def restore(caller: Caller, body: Any) -> Answer:
    return caller("POST", f"{SESSIONS}import/", body)


def without_ids(export: Any) -> Any:
    """Return ``export`` with the number of its place in place of each id."""
    text = json.dumps(export)
    places: dict[str, str] = {}
    for id_ in re.findall(r"(?:conv|msg)_[0-9a-f]{32}", text):
        places.setdefault(id_, f"<{len(places)}>")
    return json.loads(re.sub(r"(?:conv|msg)_[0-9a-f]{32}", lambda found: places[found[0]], text))


def rich_session(caller: Caller) -> str:
    """Return the id of a session with branches, files, calls, items of all kinds, failures."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {
        "title": "Teapots",
        "model": "m",
        "instructions": "Be brief",
        "parameters": {"temperature": 0.5},
        "tools": [tool],
        "metadata": {"userId": "7"},
        "pinned": True,
        "archived": True,
        "messages": [
            {"role": "system", "content": "You are a potter"},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, picture(uri(PNG))]},
            {
                "role": "assistant",
                "content": "I call",
                "reasoning_content": "Hm",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "assistant", "refusal": "I will not"},
        ],
    }
    session: str = caller("POST", SESSIONS, body).body["id"]
    first = ask(
        caller, session, [{"type": "input_audio", "input_audio": AUDIO}], metadata={"a": "b"}
    )
    path = f"{SESSIONS}{session}/messages/"
    # Siblings of an answer, of a question, and of the first message.
    assert caller("POST", f"{path}{first['message_id']}/regenerate/", {}).status == 200
    edit = {"content": [{"type": "text", "text": "again"}, picture(uri(GIF))]}
    assert caller("PATCH", f"{path}{first['user_message_id']}/", edit).status == 201
    ask(caller, session, "And a new beginning", parent_id=None)
    row = Conversation.objects.select_related("leaf").get()
    items: list[dict[str, Any]] = [
        {"type": "web_search_call", "status": "searching", "action": {"type": "search"}},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "in short"}],
            "encrypted_content": "opaque",
        },
        {
            "role": "assistant",
            "status": "incomplete",
            "content": [
                {"type": "output_text", "text": "said", "annotations": [{"type": "x"}]},
                {"type": "output_text", "text": "twice", "annotations": []},
            ],
        },
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "input_image", "image_url": uri(GIF)}],
        },
        {"type": "custom_tool_call", "call_id": "3", "name": "h", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "3", "output": "y"},
        {"type": "image_generation_call", "status": "completed", "result": uri(PNG)[22:]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.test/a.png"}]},
    ]
    media = Media()
    rows = new_rows(items, media)
    with stored(media):
        append(row, rows, row.leaf)
        failed = Item(id=uuid7(), type="message", role="assistant", status="failed")
        failed.data = {"content": []}
        failed.answer = {"model": "m", "error": {"message": "No", "type": "t"} | NONES}
        append(row, [failed], rows[-1])
        set_leaf(row, Item.objects.get(pk=rows[0].pk))
        row.created_at = row.updated_at = row.active_at = now() - timedelta(days=3)
        row.save()
        Item.objects.filter(pk=rows[0].pk).update(created_at=row.created_at)
    return session


NONES = {"param": None, "code": None}


@pytest.mark.parametrize("case", ["snake", "camel", "both"])
def test_an_export_that_is_imported_is_exported_alike(case: str, settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "RESPONSE_CASE": case}
    if case == "camel":
        settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "RESPONSE_CASE": "snake"}
    caller = caller_of("ada")
    session = rich_session(caller)
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "RESPONSE_CASE": case}
    first = exported(caller, session)
    assert (first["object"], first["version"]) == ("chat.session.export", 1)
    assert len(first["messages"]) == Item.objects.filter(head=None).count() == 19
    assert "user:" not in json.dumps(first)
    assert json.dumps(first).count(uri(PNG)[22:]) == 2
    other = caller_of("grace")
    made = restore(other, first)
    assert made.status == 201, made.body
    again = exported(other, made.body["id"])
    assert without_ids(again) == without_ids(first)
    assert made.body == again["session"]
    assert not {each["id"] for each in first["messages"]} & {
        each["id"] for each in again["messages"]
    }
    # The copy has files and a tree of its own, which goes on.
    caller("DELETE", f"{SESSIONS}{session}/")
    assert without_ids(exported(other, made.body["id"])) == without_ids(first)
    assert len(files_in_storage()) == Attachment.objects.count() == 5
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY}
    answer = ask(other, made.body["id"], "Go on")
    assert answer["choices"][0]["message"]["content"]


def test_the_branch_that_an_import_shows_is_the_same() -> None:
    caller = caller_of("ada")
    session = rich_session(caller)
    shown = caller("GET", f"{SESSIONS}{session}/messages/?limit=100").body["data"]
    made = restore(caller, exported(caller, session)).body
    again = caller("GET", f"{SESSIONS}{made['id']}/messages/?limit=100").body["data"]
    names = ("role", "content", "tool_calls", "reasoning_content", "created_at", "status")
    for one, two in zip(shown, again, strict=True):
        for name in names:
            if "files/" not in str(one[name]):
                assert one[name] == two[name]
    assert [len(each["sibling_ids"]) for each in shown] == [
        len(each["sibling_ids"]) for each in again
    ]
    # Every branch can be shown.
    for each in exported(caller, made["id"])["messages"]:
        change = {"current_message_id": each["id"]}
        assert caller("PATCH", f"{SESSIONS}{made['id']}/", change).status == 200
        page = caller("GET", f"{SESSIONS}{made['id']}/messages/?limit=100").body["data"]
        assert page[-1]["id"] == each["id"]


def test_an_answer_that_runs_is_exported_as_far_as_it_is() -> None:
    caller = caller_of("ada")
    session = caller("POST", SESSIONS, {}).body["id"]
    ask(caller, session, "Hi", reply=False)
    row = Conversation.objects.get()
    with transaction.atomic():
        row = lock_row(row.pk, row.owner)
        run = begin_message(
            row, [], row.leaf, answer_id=uuid7(), is_background=True, answer={"model": "m"}
        )
    head = run.item
    assert head is not None
    text = {"type": "output_text", "text": "So far", "annotations": []}
    message = {"id": head.public_id, "type": "message", "role": "assistant", "content": [text]}
    run.output = [message]
    run.save()
    answer = exported(caller, session)["messages"][1]
    assert (answer["content"], answer["status"]) == ("So far", "incomplete")


def export_of(*messages: dict[str, Any], **session: Any) -> dict[str, Any]:
    return {
        "object": "chat.session.export",
        "version": 1,
        "session": session,
        "messages": [{"role": "user", "content": "Hi", **message} for message in messages],
    }


def test_a_short_import() -> None:
    caller = caller_of("ada")
    messages = [{"id": "a"}, {"id": "b", "parent_id": "a"}, {"id": "c", "parentId": "a"}]
    made = restore(caller, export_of(*messages, title="T", current_message_id="b"))
    assert made.status == 201, made.body
    assert made.body["message_count"] == 2
    page = caller("GET", f"{SESSIONS}{made.body['id']}/messages/").body["data"]
    assert len(page[1]["sibling_ids"]) == 2 and page[1]["id"] == made.body["current_message_id"]
    assert restore(caller, export_of()).body["current_message_id"] is None
    assert (
        restore(caller, export_of({"id": "a"}, current_message_id=None)).body["message_count"] == 0
    )


BAD: list[tuple[Any, str | None]] = [
    ([], None),
    ({}, "object"),
    ({"hello": "world"}, "object"),
    (export_of() | {"object": "chat.session"}, "object"),
    (export_of() | {"version": 2}, "version"),
    (export_of() | {"version": "1"}, "version"),
    (export_of() | {"owner": "user:1"}, "owner"),
    (export_of() | {"messages": None}, "messages"),
    (export_of() | {"messages": {}}, "messages"),
    (export_of() | {"messages": [1]}, "messages[0]"),
    (export_of() | {"session": None}, "session"),
    (export_of(owner="user:1"), "session.owner"),
    (export_of(title=7), "session.title"),
    (export_of(title="x" * 256), "session.title"),
    (export_of(parameters={"temperature": "hot"}), "session.parameters.temperature"),
    (export_of(created_at="yesterday"), "session.created_at"),
    (export_of(created_at="2026-01-01T00:00:00"), "session.created_at"),
    (export_of(current_message_id="a"), "session.current_message_id"),
    (export_of({"id": "a"}, current_message_id=5), "session.current_message_id"),
    (export_of({}), "messages[0].id"),
    (export_of({"id": "a"}, {"id": "a"}), "messages[1].id"),
    (export_of({"id": "a", "parent_id": "a"}), "messages[0].parent_id"),
    (
        export_of({"id": "a", "parent_id": "b"}, {"id": "b", "parent_id": "a"}),
        "messages[0].parent_id",
    ),
    (export_of({"id": "a"}, {"id": "b", "parent_id": "z"}), "messages[1].parent_id"),
    (export_of({"id": "a", "role": "pope"}), "messages[0].role"),
    (export_of({"id": "a", "content": 5}), "messages[0].content"),
    (export_of({"id": "a", "status": "dreaming"}), "messages[0].status"),
    (export_of({"id": "a", "surprise": 1}), "messages[0].surprise"),
    (export_of({"id": "a", "created_at": "0001-01-01T00:00:00+14:00"}), "messages[0].created_at"),
    (export_of({"id": "a", "usage": {"prompt_tokens": "many"}}), "messages[0].usage"),
    (export_of({"id": "a", "error": {"message": 5}}), "messages[0].error.message"),
    (export_of({"id": "a", "metadata": {"k": 5}}), "messages[0].metadata.k"),
    (
        export_of({"id": "a", "content": [picture(uri(b"nothing"))]}),
        "messages[0].content[0].image_url.url",
    ),
    (
        export_of({"id": "a", "content": [picture(f"/ai/api/chat/files/file_{'0' * 32}")]}),
        "messages[0].content[0].image_url",
    ),
    *(
        (export_of({"id": "a", "items": items}), "messages[0].items")
        for items in (
            [],
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
            [{"role": "user", "content": [5]}],
            [{"role": "user", "content": [{"type": "input_text", "text": 5}]}],
            [{"type": "function_call"}],
            [{"type": "function_call", "call_id": "c", "name": 5, "arguments": {}}],
            [{"type": 5}],
            [{"type": "reasoning", "content": [5]}],
            [{"role": "r" * 50, "content": "a"}],
            [{"role": {"a": 1}, "content": "a"}],
            [{"role": "user", "content": {"a": 1}}],
            [{"role": "user", "content": [{"type": "input_image", "image_url": 5}]}],
            [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "http://u", "detail": 5}],
                }
            ],
            [{"type": "function_call_output", "call_id": 5, "output": "a"}],
        )
    ),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_what_is_no_export_is_refused_and_leaves_nothing(body: Any, field: str | None) -> None:
    caller = caller_of("ada")
    if isinstance(body, dict) and body.get("messages") and isinstance(body["messages"][0], dict):
        # A picture before the fault.
        first = {"id": "first", "role": "user", "content": [picture(uri(PNG))]}
        body = {**body, "messages": [*body["messages"], first]}
    answer = restore(caller, body)
    assert answer.status == 400, answer.body
    param = answer.error["param"]
    assert param == field or str(param).startswith(f"{field}."), answer.error
    assert not Conversation.objects.exists()
    assert not Item.objects.exists() and not files_in_storage()


def test_huge_imports_are_refused(settings: Settings) -> None:
    caller = caller_of("ada")
    answer = restore(caller, export_of(*({"id": str(number)} for number in range(20_001))))
    assert (answer.status, answer.error["param"]) == (400, "messages")
    deep: dict[str, Any] = export_of({"id": "a"})
    deep["session"]["parameters"] = [{} for _ in range(400_001)]
    answer = restore(caller, deep)
    assert answer.status == 400 and "too complex" in answer.error["message"]
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "MAX_BODY_BYTES": 1_000}
    assert restore(caller, export_of({"id": "a", "content": "x" * 2_000})).status == 413
    assert not Conversation.objects.exists()


def test_an_import_is_the_callers_own(settings: Settings) -> None:
    world = World()
    ada = world.user("ada")
    member = world.key(ada, world.workspace("Research", member=ada))
    made = restore(member, export_of({"id": "a"}, visibility="workspace", workspace="ws_x")).body
    assert made["visibility"] == "workspace" and made["workspace"] != "ws_x"
    eve = caller_of("eve")
    other = restore(eve, export_of({"id": "a"}, visibility="workspace", workspace="ws_x")).body
    assert (other["visibility"], other["workspace"]) == ("private", None)
    future = restore(eve, export_of(updated_at="2999-01-01T00:00:00Z")).body
    assert future["updated_at"] < "2999"


@pytest.mark.parametrize("who", ["another", "colleague", "nobody", "no scope"])
def test_exports_are_for_owners(who: str) -> None:
    world = World()
    ada, grace = world.user("ada"), world.user("grace")
    workspace = world.workspace("Research", member=ada)
    workspace.memberships.create(user=grace)
    caller = world.key(ada, workspace)
    session = caller("POST", SESSIONS, {"visibility": "workspace", "title": "Secret"}).body["id"]
    other, status = {
        "another": (caller_of("eve"), 404),
        "colleague": (world.key(grace, workspace), 403),
        "nobody": (Caller(), 401),
        "no scope": (world.key(ada, workspace, scopes=["chat"]), 403),
    }[who]
    assert other("GET", f"{SESSIONS}{session}/export/").status == status
    if who in ("another", "colleague"):
        assert "Secret" not in json.dumps(everything(other))
    else:
        assert other("GET", "api/chat/export/").status == status
        assert restore(other, export_of()).status == status


# Markdown


def test_markdown_is_the_current_branch_for_people() -> None:
    caller = caller_of("ada")
    session = rich_session(caller)
    shown = export(caller, session, "?format=markdown")
    assert shown.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert shown.headers["Content-Disposition"] == 'attachment; filename="teapots.md"'
    text = b"".join(shown.streaming_content).decode()
    assert text.startswith("# Teapots\n\n## User\n\nAnd a new beginning\n\n## Assistant\n\n")
    # Not of other branches.
    assert "potter" not in text
    first = exported(caller, session)["messages"][4]["id"]
    caller("PATCH", f"{SESSIONS}{session}/", {"current_message_id": first})
    text = b"".join(export(caller, session, "?format=markdown").streaming_content).decode()
    expected = [
        "## System\n\nYou are a potter\n",
        "## User\n\nLook\n\n*[image]*\n",
        "## Assistant\n\n> Hm\n\nI call\n\nCall of `f`:\n\n```\n{}\n```\n",
        "## Tool\n\n```\n42\n```\n",
        "## Assistant\n\nI will not\n",
    ]
    assert text == "# Teapots\n\n" + "\n".join(expected)


@pytest.mark.parametrize("title", ["../../etc/passwd", 'a"; filename="b.exe', "日本", "x\r\ny: z"])
def test_the_name_of_the_file_is_safe(title: str) -> None:
    caller = caller_of("ada")
    session = caller("POST", SESSIONS, {"title": title}).body["id"]
    name = export(caller, session, "?format=markdown").headers["Content-Disposition"]
    assert re.fullmatch(r'attachment; filename="[a-z0-9_-]+\.md"', name)
    answer = caller("GET", f"{SESSIONS}{session}/export/?format=pdf")
    assert (answer.status, answer.error["param"]) == (400, "format")


# All that is the caller's


def test_everything_of_a_caller_is_in_one_file() -> None:
    caller, eve = caller_of("ada"), caller_of("eve")
    session = rich_session(caller)
    caller("POST", SESSIONS, {"title": "Empty"})
    owner = Conversation.objects.exclude(title="").values_list("owner", flat=True)[0]
    thread = Conversation.objects.create(kind=Kind.THREAD, owner=owner)
    media = Media()
    rows = new_rows(
        [
            {"role": "user", "content": [{"type": "input_image", "image_url": uri(GIF)}]},
            {"role": "assistant", "content": "Nice"},
        ],
        media,
    )
    with stored(media):
        append(thread, rows, None)
    response = Response.objects.create(
        conversation=thread,
        status="completed",
        body={"id": "resp_1", "object": "response", "status": "completed"},
        input_ids=[rows[0].pk.hex],
        output_ids=[rows[1].pk.hex],
    )
    completion = Completion(owner=owner, model="m", metadata={"k": "v"})
    media = Media()
    tool = {"type": "function", "function": {"name": "brew"}}
    image = {"type": "image_url", "image_url": {"url": uri(GIF)}}
    request = ChatCompletionRequest.from_dict(
        {"messages": [{"role": "user", "content": [image]}], "tools": [tool]}
    )
    completion.body = repeated_fields(request, "request")
    completion.messages = message_rows(request, completion, media)
    complete(completion, {"id": completion.public_id, "object": "chat.completion"})
    add_completion(completion, media)
    found = everything(caller)
    assert (found["object"], found["version"]) == ("chat.export", 1)
    assert {each["session"]["title"] for each in found["sessions"]} == {"Teapots", "Empty"}
    assert exported(caller, session) in found["sessions"]
    (one,) = found["responses"]
    assert one["id"] == response.body["id"]
    assert one["input"][0]["content"][0]["image_url"] == uri(GIF, "image/gif")
    assert one["output"][0]["content"][0]["text"] == "Nice"
    (two,) = found["completions"]
    assert two["id"] == completion.public_id and two["metadata"] == {"k": "v"}
    assert two["tools"] == [tool]
    (part,) = two["messages"][0]["content_parts"]
    assert part["image_url"]["url"] == uri(GIF, "image/gif")
    # Each session of it can be imported.
    for each in found["sessions"]:
        assert restore(eve, each).status == 201
    other = everything(caller_of("bob"))
    assert (other["sessions"], other["responses"], other["completions"]) == ([], [], [])


@pytest.mark.parametrize("lane", ["asgi", "fast"])
def test_exports_under_asgi(lane: str) -> None:
    caller = World().key(World().user("ada"))
    session = rich_session(caller)
    application = get_asgi_application()
    app: Any = fast_lane(application) if lane == "fast" else application

    async def fetch() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {caller.key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return [
                await client.request(method, f"/ai/{path}", headers=headers)
                for method in ("GET", "HEAD")
                for path in (f"{SESSIONS}{session}/export/", "api/chat/export/")
            ]

    one, complete, *heads = asyncio.run(fetch())
    assert one.json() == exported(caller, session)
    assert complete.json()["sessions"] == [one.json()]
    assert [(head.status_code, head.content) for head in heads] == [(200, b"")] * 2


def test_an_export_of_many_pictures_takes_little_memory() -> None:
    caller = caller_of("ada")
    session = caller("POST", SESSIONS, {}).body["id"]
    row = Conversation.objects.get()
    picture_ = PNG + b"x" * 2**20
    media = Media()
    rows = new_rows([{"role": "user", "content": "x" * 1_000} for _ in range(2_000)], Media())
    append(row, rows, None)
    for item in rows[::50]:
        digits = media.take_image(uri(picture_), "p", item=item)["file"]
        item.data = {"content": [{"type": "input_image", "file": digits}]}
        item.save()
    with stored(media):
        row.save()
    media.found.clear()
    response = export(caller, session)
    size = 0
    tracemalloc.start()
    for piece in response.streaming_content:
        size += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 40 * 1.3 * 2**20 + 1_900 * 1_000
    assert peak < 30 * 2**20


def test_a_lost_file_does_not_end_an_export() -> None:
    caller = caller_of("ada")
    session = rich_session(caller)
    for name in files_in_storage():
        default_storage.delete(name)
    found = exported(caller, session)
    assert "no longer exists" in json.dumps(found)
    assert restore(caller, found).status == 201
