"""OpenAI's conversations: the same as sessions, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from django_ollama_openai.contrib.chat.models import Attachment, Conversation, Item
from tests.contrib.chat.responses_site import Api, api, stateful
from tests.ollama_server import Answer, OllamaServer

__all__ = ["api", "stateful"]

HI = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY"
    "42YAAAAASUVORK5CYII="
)


def made(api: Api, *items: Any, **fields: Any) -> str:
    """Create a conversation and return its path."""
    found = api("POST", "conversations", {"items": list(items), **fields})
    return f"conversations/{found['id']}"


def listed(api: Api, path: str, query: str = "order=asc") -> list[Any]:
    found: list[Any] = api("GET", f"{path}/items?{query}")["data"]
    return found


def test_a_conversation_as_openai_has_it(api: Api, stateful: OllamaServer) -> None:
    found = api("POST", "conversations", {"items": [HI], "metadata": {"a_b": "c"}})
    assert found.keys() == {"id", "object", "created_at", "metadata"}
    assert (found["object"], found["metadata"]) == ("conversation", {"a_b": "c"})
    assert found["id"].startswith("conv_")
    path = f"conversations/{found['id']}"
    assert api("GET", path) == found
    assert api("POST", path, {"metadata": None}) == {**found, "metadata": {}}
    page = api("GET", f"{path}/items")
    (item,) = page["data"]
    assert page == {
        "object": "list",
        "data": [item],
        "first_id": item["id"],
        "last_id": item["id"],
        "has_more": False,
    }
    assert item == {
        "id": item["id"],
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    assert api("GET", f"{path}/items/{item['id']}") == item
    assert api("DELETE", f"{path}/items/{item['id']}") == {**found, "metadata": {}}
    assert api("GET", f"{path}/items") == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    assert api("DELETE", path) == {
        "id": found["id"],
        "object": "conversation.deleted",
        "deleted": True,
    }
    assert not Item.objects.exists()


def test_one_item_of_a_message_is_deleted_and_the_others_stay(
    api: Api, stateful: OllamaServer
) -> None:
    answer = {"role": "assistant", "content": "One moment."}
    path = made(api, HI, answer, CALL, OUTPUT)
    *_, message, call, output = listed(api, path)
    api("DELETE", f"{path}/items/{message['id']}")
    assert [item["type"] for item in listed(api, path)] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    api("DELETE", f"{path}/items/{output['id']}")
    api("DELETE", f"{path}/items/{call['id']}")
    api("POST", f"{path}/items", {"items": [answer]})
    assert [item["role"] for item in listed(api, path)] == ["user", "assistant"]
    row = Conversation.objects.get()
    assert row.message_count == 2
    assert row.leaf is not None
    assert row.leaf.parent is not None
    assert row.leaf.parent.role == "user"


def test_a_session_is_a_conversation(api: Api, stateful: OllamaServer) -> None:
    stateful.reply(Answer(["Rome."]), Answer(["Yes."]), Answer(["No."]))
    session = api.session(instructions="Be brief.")
    api.post(session, "Which city?")
    answer = api.ask(input="Sure?", conversation=session)
    assert (answer["conversation"], answer["instructions"]) == ({"id": session}, None)
    assert [message["content"] for message in stateful.chats()[1].body["messages"]] == [
        "Be brief.",
        "Which city?",
        "Rome.",
        "Sure?",
    ]
    path = f"conversations/{session}"
    texts = [item["content"][0]["text"] for item in listed(api, path)]
    assert texts == ["Which city?", "Rome.", "Sure?", "Yes."]
    # And on from there.
    api.post(session, "Really?")
    assert len(stateful.chats()[2].body["messages"]) == 6
    # The request's own instructions replace those of the session.
    api.ask(input="?", conversation=session, instructions="Be long.")
    assert stateful.chats()[3].body["messages"][0] == {"role": "system", "content": "Be long."}


def test_a_picture_is_a_file(api: Api, stateful: OllamaServer) -> None:
    picture = {"type": "input_image", "image_url": PIXEL, "detail": "low"}
    path = made(api, {"role": "user", "content": [picture]})
    (item,) = listed(api, path)
    (part,) = item["content"]
    assert part["detail"] == "low"
    assert "/ai/api/chat/files/file_" in part["image_url"]
    assert "base64" not in str(list(Item.objects.values()))
    # Sent back, it is the picture again.
    api.ask(input=[{"role": "user", "content": [part]}])
    (message,) = stateful.chats()[0].body["messages"]
    assert message["images"] == [PIXEL.partition(",")[2]]
    api("DELETE", f"{path}/items/{item['id']}")
    assert listed(api, path) == []
    path = made(api, {"role": "user", "content": [picture]})
    api("DELETE", path)
    api("GET", path, status=404)
    assert not Attachment.objects.exists()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [HI] * 21}, "items"),
        ({"items": "Hi"}, "items"),
        ({"items": [{"role": "nobody", "content": "Hi"}]}, "items[0].role"),
        ({"items": [HI, {"type": "function_call"}]}, "items[1].name"),
        ({"items": [{"role": "user", "content": [{"type": "input_file"}]}]}, "items[0].content[0]"),
        (
            {
                "items": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
                        ],
                    }
                ]
            },
            "items[0].content[0].image_url",
        ),
        ({"metadata": {"a": "x" * 1_000_000}}, "metadata.a"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_wrong_conversation(
    api: Api, stateful: OllamaServer, body: dict[str, Any], param: str
) -> None:
    error = api("POST", "conversations", body, status=400)
    assert error["param"] == param
    if "items" in body:
        path = made(api)
        assert api("POST", f"{path}/items", body, status=400)["param"] == param
        assert listed(api, path) == []
    assert not Item.objects.exists()


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
        ("after=msg_01a22e1fed187ab0adc17f67d2aebaff", "after"),
        ("after={other}", "after"),
    ],
)
def test_a_wrong_page(api: Api, stateful: OllamaServer, query: str, param: str) -> None:
    path = made(api, HI)
    (other,) = listed(api, made(api, HI))
    answer = api.ask(input="Hi")
    for place in (f"{path}/items", f"responses/{answer['id']}/input_items"):
        error = api("GET", f"{place}?{query.format(other=other['id'])}", status=400)
        assert error["param"] == param


def test_both_spellings(api: Api, stateful: OllamaServer) -> None:
    """A site may answer in camelCase; what belongs to a client stays as it is."""
    item = {**CALL, "arguments": '{"a_b": 1}'}
    camel = {("callId" if key == "call_id" else key): value for key, value in item.items()}
    made_ = api(
        "POST", "conversations", {"items": [camel], "metadata": {"a_b": "c"}}, mount="camel"
    )
    assert made_.keys() == {"id", "object", "createdAt", "metadata"}
    assert made_["metadata"] == {"a_b": "c"}
    page = api("GET", f"conversations/{made_['id']}/items", mount="camel")
    assert page.keys() == {"object", "data", "firstId", "lastId", "hasMore"}
    (shown,) = page["data"]
    assert shown == {"id": shown["id"], "status": "completed", **camel}


SCOPES = [
    ("POST", "conversations", "sessions"),
    ("GET", "{conversation}", "sessions"),
    ("POST", "{conversation}", "sessions"),
    ("GET", "{conversation}/items", "sessions"),
    ("POST", "{conversation}/items", "sessions"),
    ("GET", "{conversation}/items/{item}", "sessions"),
    ("GET", "{response}", "sessions"),
    ("GET", "{response}/input_items", "sessions"),
    ("POST", "responses", "chat"),
    ("POST", "responses/input_tokens", "chat"),
    ("POST", "responses/compact", "chat"),
    ("POST", "{response}/cancel", "sessions"),
    ("DELETE", "{response}", "sessions"),
    ("DELETE", "{conversation}/items/{item}", "sessions"),
    ("DELETE", "{conversation}", "sessions"),
]


def test_who_may_do_what(api: Api, stateful: OllamaServer) -> None:
    path = made(api, HI)
    (item,) = listed(api, path)
    names = {
        "conversation": path,
        "item": item["id"],
        "response": f"responses/{api.ask(input='Hi')['id']}",
    }
    body = {"items": [HI], "metadata": {}, "input": "Hi", "model": "smollm2:135m"}
    for method, route, scope in SCOPES:
        place = f"ai/v1/{route.format(**names)}"
        sent = body if method == "POST" else ""
        other = {"chat": "sessions", "sessions": "chat"}[scope]
        assert api.raw(method, place, sent, other).status_code == 403
        if scope == "sessions":
            # Callers who own nothing.
            assert api.raw(method, place, sent, None).status_code == 403
        if "{" in route:
            assert api.raw(method, place, sent, "bob").status_code == 404
        assert api.raw(method, place, sent, scope).status_code in (200, 400), place
