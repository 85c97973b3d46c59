"""Messages: their fields, what an engine gets of them, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pytest_django import Settings

from django_ollama_openai._remote_images import fetch
from django_ollama_openai._remote_images.rules import FetchRules
from django_ollama_openai.contrib.chat._store.files import Media
from django_ollama_openai.contrib.chat._store.messages import message_rows
from django_ollama_openai.contrib.chat._store.tree import append, set_leaf
from django_ollama_openai.contrib.chat.models import Attachment, Item, Run, Status
from django_ollama_openai.exceptions import RateLimited
from django_ollama_openai.policies import BasePolicy
from tests.contrib.access.conftest import Caller, World
from tests.contrib.chat.conftest import PNG, Chat, messages_of, walk
from tests.ollama_server import Answer, OllamaServer, error, recorded
from tests.recordings import load

KEYS = {
    *("id", "object", "session_id", "parent_id", "role", "content", "reasoning_content"),
    *("tool_calls", "tool_call_id", "status", "finish_reason", "finishReason", "model", "usage"),
    *("error", "created_at", "sibling_ids", "metadata"),
}
IDS = {"session_id", "message_id", "user_message_id"}
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
TOOL = {"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "count", "arguments": '{"of": "x"}'},
}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def test_a_whole_answer_and_its_messages(chat: Chat, engine: OllamaServer) -> None:
    engine.reply(Answer(["Hi", " there"], thinking=["hm"]))
    answer = chat.post("Hello", metadata={"k": "v"}).body
    ChatCompletion.model_validate(answer)
    assert answer.keys() == IDS | {
        *("id", "object", "created", "model", "system_fingerprint", "choices", "usage")
    }
    question, reply = chat("GET", "messages/").body["data"]
    assert question.keys() == reply.keys() == KEYS
    assert {name: answer[name] for name in IDS} == {
        "session_id": chat.id,
        "message_id": reply["id"],
        "user_message_id": question["id"],
    }
    assert question | {"created_at": 0} == {
        "id": question["id"],
        "object": "chat.message",
        "session_id": chat.id,
        "parent_id": None,
        "role": "user",
        "content": "Hello",
        "reasoning_content": None,
        "tool_calls": None,
        "tool_call_id": None,
        "status": "completed",
        "finish_reason": None,
        "finishReason": None,
        "model": None,
        "usage": None,
        "error": None,
        "created_at": 0,
        "sibling_ids": [question["id"]],
        "metadata": {"k": "v"},
    }
    assert reply["parent_id"] == question["id"]
    assert (reply["role"], reply["content"], reply["reasoning_content"]) == (
        "assistant",
        "Hi there",
        "hm",
    )
    assert (reply["status"], reply["finish_reason"], reply["model"]) == (
        "completed",
        "stop",
        "smollm2:135m",
    )
    assert reply["usage"]["prompt_tokens"] == 33
    assert chat("GET", f"messages/{reply['id']}/").body == reply
    assert (chat.shown["current_message_id"], chat.shown["message_count"]) == (reply["id"], 2)


def test_a_stream_says_its_ids_before_the_engine_says_anything(
    chat: Chat, engine: OllamaServer
) -> None:
    events = chat.events("messages/", content="Hello")
    for event in events:
        ChatCompletionChunk.model_validate(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    question, reply = chat("GET", "messages/").body["data"]
    assert {name: events[0][name] for name in IDS} == {
        "session_id": chat.id,
        "message_id": reply["id"],
        "user_message_id": question["id"],
    }
    assert not [event for event in events[1:] if IDS & event.keys()]
    engine.reply(error(500, "broken"))
    first, last = chat.events("messages/", content="again")
    assert first["message_id"] == chat.shown["current_message_id"]
    assert last["error"]["code"] == "bad_upstream"
    failed = chat("GET", f"messages/{first['message_id']}/").body
    assert (failed["status"], failed["content"]) == ("failed", "")
    assert failed["error"] == last["error"]


def test_the_engine_gets_the_visible_branch_after_the_instructions(
    chat: Chat, engine: OllamaServer
) -> None:
    chat("PATCH", "", {"instructions": "Be brief."})
    engine.reply(Answer(["one"]), Answer(["two"]), Answer(["other"]), Answer(["three"]))
    first = chat.post("A").body
    second = chat.post("B").body
    other = chat("POST", f"messages/{second['message_id']}/regenerate/", {}).body
    system = {"role": "system", "content": "Be brief."}
    before = [system, user("A"), assistant("one"), user("B")]
    assert messages_of(engine) == before
    chat.post("C")
    assert messages_of(engine) == [*before, assistant("other"), user("C")]
    # The branch of an edit, of another leaf, of a parent.
    edited = chat("PATCH", f"messages/{second['user_message_id']}/", {"content": "B2"}).body
    engine.reply(Answer(["four"]))
    chat("POST", f"messages/{edited['id']}/regenerate/", {})
    assert messages_of(engine) == [system, user("A"), assistant("one"), user("B2")]
    chat("PATCH", "", {"current_message_id": second["message_id"]})
    chat.post("D")
    assert messages_of(engine) == [*before, assistant("two"), user("D")]
    chat.post("E", parent_id=other["message_id"])
    assert messages_of(engine) == [*before, assistant("other"), user("E")]
    chat.post("F", parent_id=None)
    assert messages_of(engine) == [system, user("F")]
    chat("DELETE", f"messages/{first['message_id']}/")
    chat.post("G", parent_id=second["message_id"])
    assert messages_of(engine) == [system, user("A"), user("B"), assistant("two"), user("G")]


def test_all_kinds_of_messages_reach_the_engine(chat: Chat, engine: OllamaServer) -> None:
    chat("PATCH", "", {"tools": [TOOL], "model": "smollm2-tools:135m"})
    engine.reply(
        Answer(
            [],
            thinking=["hm"],
            tool_calls=[{"function": {"name": "count", "arguments": {"of": "x"}}}],
        ),
        Answer(["One."]),
    )
    called = chat.post([{"type": "text", "text": "Count"}, IMAGE]).body
    call = called["choices"][0]["message"]["tool_calls"][0]
    shown = chat("GET", f"messages/{called['message_id']}/").body
    assert (shown["tool_calls"], shown["reasoning_content"], shown["content"]) == ([call], "hm", "")
    assert shown["finish_reason"] == "tool_calls"
    answered = chat(
        "POST", "messages/", {"role": "tool", "tool_call_id": call["id"], "content": "1"}
    )
    assert answered.body["choices"][0]["message"]["content"] == "One."
    asked, result = messages_of(engine)[0], messages_of(engine)[2]
    assert (asked["content"], asked["images"]) == ("Count", [PNG.partition(",")[2]])
    assert messages_of(engine)[1] == {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": [
            {"id": call["id"], "function": {"index": 0, "name": "count", "arguments": {"of": "x"}}}
        ],
    }
    assert result == {
        "role": "tool",
        "content": "1",
        "tool_call_id": call["id"],
        "tool_name": "count",
    }
    chat.keep("Mind the time.", role="developer")
    chat.keep("Sure.", role="assistant", reasoning_content="ok")
    chat.post("Next")
    assert messages_of(engine)[3:] == [
        assistant("One."),
        {"role": "system", "content": "Mind the time."},
        {"role": "assistant", "content": "Sure.", "thinking": "ok"},
        user("Next"),
    ]
    # The edit of a message with calls keeps them, so that their results still fit.
    edited = chat("PATCH", f"messages/{called['message_id']}/", {"content": "Wait"}).body
    assert (edited["tool_calls"], edited["content"]) == ([call], "Wait")
    assert Attachment.objects.count() == 1
    assert PNG[30:] not in json.dumps(list(Item.objects.values_list("data", flat=True)))


def test_failed_answers_without_text_are_left_out(chat: Chat, engine: OllamaServer) -> None:
    broken = Answer(["half"]).reply({"model": "m", "messages": []})
    engine.reply(error(500, "broken"), type(broken)([broken.steps[0]]), Answer(["whole"]))
    assert chat.post("A").status == 502
    assert chat.post("B").status == 502
    chat.post("C")
    assert messages_of(engine) == [user("A"), user("B"), assistant("half"), user("C")]
    statuses = [each["status"] for each in chat("GET", "messages/").body["data"]]
    assert statuses == ["completed", "failed", "completed", "failed", "completed", "completed"]


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer", "tool"])
def test_a_message_of_any_role_is_kept_without_an_answer(
    chat: Chat, engine: OllamaServer, role: str
) -> None:
    extra = {"tool_call_id": "c"} if role == "tool" else {}
    kept = chat("POST", "messages/", {"role": role, "content": "x", "reply": False, **extra})
    assert kept.status == 201
    assert kept.body.keys() == KEYS
    assert (kept.body["role"], kept.body["tool_call_id"]) == (role, extra.get("tool_call_id"))
    edited = chat("PATCH", f"messages/{kept.body['id']}/", {"content": "y"})
    assert (edited.status, edited.body["role"], edited.body["content"]) == (201, role, "y")
    assert edited.body["tool_call_id"] == kept.body["tool_call_id"]
    assert edited.body["sibling_ids"] == [kept.body["id"], edited.body["id"]]
    assert chat.shown["current_message_id"] == edited.body["id"]
    assert chat.shown["message_count"] == 1
    assert not engine.chats()


def test_metadata_alone_makes_no_sibling(chat: Chat) -> None:
    kept = chat.keep("x", metadata={"a": "1"})
    changed = chat("PATCH", f"messages/{kept}/", {"metadata": {"b": "2"}})
    assert (changed.status, changed.body["metadata"]) == (200, {"b": "2"})
    assert changed.body["sibling_ids"] == [kept]
    assert chat("PATCH", f"messages/{kept}/", {}).body == changed.body
    edited = chat("PATCH", f"messages/{kept}/", {"content": "y"}).body
    assert edited["metadata"] == {"b": "2"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"content": 5}, "content"),
        ({"content": None}, "content"),
        ({"content": [{"type": "text"}]}, "content[0].text"),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]},
            "content[0].image_url",
        ),
        ({"content": "x", "role": "system"}, "role"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"content": "x", "metadata": {"k" * 65: "1"}}, "metadata"),
    ],
)
def test_a_wrong_change_is_named(chat: Chat, body: dict[str, Any], param: str) -> None:
    kept = chat.keep("x")
    answer = chat("PATCH", f"messages/{kept}/", body)
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    assert Item.objects.count() == 1


def test_camel_case_in_requests_and_answers(chat: Chat, ada: Caller) -> None:
    first = chat.keep(
        [{"type": "text", "text": "x"}, {"type": "image_url", "imageUrl": {"url": PNG}}]
    )
    body = {"content": "y", "parentId": first, "reply": False, "metadata": {"snake_key": "1"}}
    second = chat("POST", "messages/", body).body
    assert second["parent_id"] == first
    listed = ada.client.get(f"/camel/{chat.path}messages/").json()["data"]
    assert [name for each in listed for name in each if "_" in name] == []
    assert listed[0]["content"][1]["imageUrl"]["url"].startswith("http")
    assert listed[1]["metadata"] == {"snake_key": "1"}
    answer = ada.client.post(
        f"/camel/{chat.path}messages/", {"content": "z", "maxTokens": 5}, "application/json"
    ).json()
    assert answer.keys() >= {"sessionId", "messageId", "userMessageId"}
    assert not [name for name in answer if "_" in name]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"content": None}, "content"),
        ({"content": 5}, "content"),
        ({"role": "critic"}, "role"),
        ({"role": "function", "name": "f"}, "role"),
        ({"role": "tool"}, "tool_call_id"),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]},
            "content[0].image_url",
        ),
        (
            {
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                ]
            },
            "content[0].image_url.url",
        ),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]},
            "content[0].image_url.url",
        ),
        ({"content": [{"type": "text", "text": "x"}, {"type": "text"}]}, "content[1].text"),
        ({"temperature": 9}, "temperature"),
        ({"maxTokens": 0}, "maxTokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 2}, "n"),
        ({"messages": [user("x")], "content": None}, "messages"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"parent_id": "msg_" + "0" * 32}, "parent_id"),
        ({"parent_id": 5}, "parent_id"),
        ({"reply": "no"}, "reply"),
        ({"stream": "yes"}, "stream"),
        ({"background": 1}, "background"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"audio": {}, "modalities": ["audio"]}, "audio"),
    ],
)
def test_what_is_wrong_is_named_as_the_client_does_and_stores_nothing(
    chat: Chat, engine: OllamaServer, fields: dict[str, Any], param: str
) -> None:
    chat.keep("before")
    before = chat.shown
    answer = chat("POST", "messages/", {"content": "x", **fields})
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    assert "messages[" not in answer.error["message"]
    assert (chat.shown, Item.objects.count(), Run.objects.count()) == (before, 1, 0)
    assert not Attachment.objects.exists()
    assert not engine.chats()


class Refusing(BasePolicy):
    def admit(self, admission: Any) -> None:
        if admission.engine_request is not None:
            raise RateLimited("Too many.")


@pytest.mark.parametrize(
    ("options", "body", "status"),
    [
        ({"POLICIES": [f"{__name__}.Refusing"]}, {}, 429),
        ({"ALLOWED_MODELS": ["llama*"]}, {"model": "smollm2:135m"}, 404),
        ({"DEFAULT_MODEL": None}, {}, 400),
        ({"MAX_PROMPT_CHARACTERS": 10}, {"content": "x" * 11}, 400),
    ],
)
def test_a_refused_request_stores_nothing(
    chat: Chat, settings: Settings, options: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    kept = chat.keep("A")
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, **options}
    image = {"content": [{"type": "text", "text": "x"}, IMAGE]}
    answer = chat("POST", "messages/", {**image, **body})
    assert answer.status == status, answer.body
    if status != 400 or "content" not in body:
        again = {name: value for name, value in body.items() if name != "content"}
        assert chat("POST", f"messages/{kept}/regenerate/", again).status == status
    assert (Item.objects.count(), Run.objects.count(), Attachment.objects.count()) == (1, 0, 0)
    assert chat.shown["current_message_id"] == kept


def test_parameters_come_from_the_session_and_then_from_the_message(
    chat: Chat, engine: OllamaServer
) -> None:
    parameters = {"temperature": 0.2, "maxTokens": 5, "options": {"num_ctx": 1024}, "seed": 1}
    chat("PATCH", "", {"model": "smollm2-tools:135m", "parameters": parameters, "tools": [TOOL]})
    chat.post("A")
    sent = engine.chats()[-1].body
    assert sent["model"] == "smollm2-tools:135m"
    assert sent["tools"][0]["function"]["name"] == "count"
    assert sent["options"] | {"shift": 0} == {
        "temperature": 0.2,
        "num_predict": 5,
        "num_ctx": 1024,
        "seed": 1,
        "shift": 0,
    }
    chat.post("B", temperature=0.5, max_tokens=7, tools=None, model="smollm2:135m", seed=None)
    sent = engine.chats()[-1].body
    assert sent["model"] == "smollm2:135m"
    assert "tools" not in sent
    assert (sent["options"]["temperature"], sent["options"]["num_predict"]) == (0.5, 7)
    assert "seed" not in sent["options"]
    refused = chat.post("C", tool_choice={"type": "function", "function": {"name": "other"}})
    assert (refused.status, refused.error["param"]) == (400, "tool_choice")


def test_an_error_of_a_parameter_of_the_session_says_so(chat: Chat, settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {
        "HOST": "http://127.0.0.1:9",
        "DEFAULT_MODEL": "m",
        "UNSUPPORTED_PARAMETERS": "reject",
    }
    assert chat("PATCH", "", {"parameters": {"logitBias": {"1": 5}}}).status == 200
    for answer in (chat.post("A"), chat("POST", f"messages/{chat.keep('B')}/regenerate/", {})):
        assert (answer.status, answer.error["param"]) == (400, "parameters.logitBias")
    assert chat.post("A", logit_bias={"1": 5}).error["param"] == "logit_bias"


def test_a_model_that_vanished(chat: Chat, engine: OllamaServer) -> None:
    chat("PATCH", "", {"model": "gone"})
    answer = chat.post("A")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    last = chat("GET", f"messages/{chat.shown['current_message_id']}/").body
    assert (last["status"], last["error"]["code"]) == ("failed", "model_not_found")
    # The next post is answered.
    assert chat.post("B", model="smollm2:135m").status == 200
    assert messages_of(engine) == [user("A"), user("B")]


def test_what_a_caller_may_not_use_does_not_exist(world: World) -> None:
    key = world.key(world.user("bob"), models=["llama*"])
    chat = Chat(key, model="m")
    kept = chat.keep("x")
    assert chat.post("A").status == 404
    assert chat("POST", f"messages/{kept}/regenerate/", {}).status == 404
    assert chat("POST", "title/", {}).status == 404
    assert chat.post("A", model="llama3").status == 200


def test_messages_of_others_do_not_exist(chat: Chat, ada: Caller) -> None:
    other = Chat(ada)
    mine, foreign = chat.keep("x"), other.keep("y")
    assert (
        chat("POST", "messages/", {"content": "x", "parent_id": foreign}).error["param"]
        == "parent_id"
    )
    for wrong in (
        foreign,
        chat.id,
        mine.replace("msg_", "rs_"),
        mine.upper(),
        "msg_",
        "msg_%00",
        "x",
    ):
        for method, path, body in (
            ("GET", "", None),
            ("PATCH", "", {"content": "x"}),
            ("DELETE", "", None),
            ("POST", "regenerate/", {}),
        ):
            assert chat(method, f"messages/{wrong}/{path}", body).status == 404
        after = chat("GET", f"messages/?after={wrong}")
        assert (after.status, after.error["param"]) == (400, "after")
    assert other.texts() == ["y"]


def test_an_empty_session_has_nothing_to_answer(chat: Chat, engine: OllamaServer) -> None:
    kept = chat.keep("Hello", role="assistant")
    answer = chat("POST", f"messages/{kept}/regenerate/", {})
    assert (answer.status, answer.error["param"]) == (400, None)
    chat("PATCH", "", {"instructions": "Greet."})
    assert chat("POST", f"messages/{kept}/regenerate/", {}).status == 200
    assert messages_of(engine) == [{"role": "system", "content": "Greet."}]


# Truncation


def long_chat(ada: Caller, turns: int = 6, size: int = 400, **fields: Any) -> Chat:
    """Return a session with instructions and long turns, the first with a call of a tool."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Leading"},
        user("0" * size),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "r" * size},
        assistant("a" * size),
    ]
    for number in range(1, turns):
        messages += [user(str(number) * size), assistant("a" * size)]
    return Chat(ada, instructions="Rules", messages=messages, **fields)


def starts(received: OllamaServer, number: int = -1) -> list[str]:
    return [each["content"][:7] for each in received.chats()[number].body["messages"]]


TOO_LONG = recorded(load("chat_long_notruncate"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_whole_turns_go_when_the_engine_has_no_room(
    ada: Caller, engine: OllamaServer, is_stream: bool
) -> None:
    chat = long_chat(ada)
    engine.reply(TOO_LONG, TOO_LONG, Answer(["fine"]))
    if is_stream:
        events = chat.events("messages/", content="now")
        told = events[-1]["truncated_messages"]
        assert not [event for event in events[:-1] if "truncated_messages" in event]
    else:
        answer = chat.post("now")
        told = answer.body["truncated_messages"]
        assert answer.headers["x-truncated-messages"] == str(told)
    assert starts(engine, 0)[:4] == ["Rules", "Leading", "0" * 7, ""]
    sent = starts(engine)
    assert sent[:2] == ["Rules", "Leading"]
    # A turn begins with its user's message: no result of a tool is left without its call.
    assert messages_of(engine)[2]["role"] == "user"
    assert sent[-1] == "now"
    assert len(starts(engine, 0)) - len(sent) == told > 3
    last = chat("GET", f"messages/{chat.shown['current_message_id']}/").body
    assert last["truncated_messages"] == told
    assert (last["content"], chat.shown["message_count"]) == ("fine", 17)
    engine.reply(Answer(["short"]))
    assert "truncated_messages" not in chat.post("next").body
    assert (
        "truncated_messages"
        not in chat("GET", f"messages/{chat.shown['current_message_id']}/").body
    )


def test_the_counts_of_an_engine_say_how_many_go(ada: Caller, engine: OllamaServer) -> None:
    chat = long_chat(ada)
    body = json.loads(load("chat_long_notruncate").body)
    assert "error" in body
    engine.reply(TOO_LONG, Answer(["fine"]))
    chat.post("now")
    assert len(engine.chats()) == 2


def test_the_last_turn_is_an_error_of_its_own(ada: Caller, engine: OllamaServer) -> None:
    chat = long_chat(ada)
    engine.reply(*[TOO_LONG] * 20)
    answer = chat.post("now")
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] in (None, "content")
    assert starts(engine) == ["Rules", "Leading", "now"]
    last = chat("GET", f"messages/{chat.shown['current_message_id']}/").body
    assert (last["status"], last["error"]["code"]) == ("failed", "context_length_exceeded")


def test_a_greeting_goes_first(ada: Caller, engine: OllamaServer) -> None:
    chat = Chat(ada, messages=[assistant("greeting" * 50), user("a"), assistant("b")])
    engine.reply(TOO_LONG, Answer(["fine"]))
    assert chat.post("now").body["truncated_messages"] in (1, 3)
    assert "greetin" not in starts(engine)


@pytest.mark.parametrize("where", ["session", "message", "site"])
def test_a_known_context_cuts_in_advance(
    ada: Caller, engine: OllamaServer, settings: Settings, where: str
) -> None:
    options = {"options": {"num_ctx": 256}}
    chat = long_chat(ada, parameters=options if where == "session" else {})
    if where == "site":
        models = {"small": {"MODEL": "smollm2:135m", "OPTIONS": {"num_ctx": 256}}}
        settings.OLLAMA_OPENAI = {
            **settings.OLLAMA_OPENAI,
            "MODELS": models,
            "DEFAULT_MODEL": "small",
        }
    answer = chat.post("now", **(options if where == "message" else {}))
    assert len(engine.chats()) == 1
    sent = starts(engine)
    assert sent[:2] == ["Rules", "Leading"]
    assert sent[2][0] in "2345"
    assert sent[-1] == "now"
    assert 1 + chat.shown["message_count"] - 1 - len(sent) == answer.body["truncated_messages"]


def test_the_site_s_limit_counts_reasoning_and_calls(ada: Caller, settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "MAX_PROMPT_CHARACTERS": 1_000}
    chat = Chat(ada)
    for _ in range(5):
        chat.keep("q")
        calls = [{**CALL, "function": {"name": "f", "arguments": "x" * 200}}]
        chat.keep("a", role="assistant", reasoning_content="r" * 200, tool_calls=calls)
    answer = chat.post("now")
    assert answer.status == 200, answer.body
    assert answer.body["truncated_messages"] >= 6
    # A last turn of many rounds is read whole.
    for _ in range(100):
        chat.keep("", role="assistant", tool_calls=[CALL])
        chat.keep("ok", role="tool", tool_call_id="call_1")
    answer = chat("POST", "messages/", {"role": "tool", "tool_call_id": "call_1", "content": "z"})
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] == "content"


# Lists


def test_pages_of_messages_take_a_constant_number_of_queries(ada: Caller) -> None:
    counts = set()
    for turns in (2, 12, 40):
        chat = long_chat(ada, turns=turns)
        with CaptureQueriesContext(connection) as queries:
            page = chat("GET", "messages/?limit=100").body
        assert len(page["data"]) == 5 + 2 * (turns - 1)
        counts.add(len(queries))
    assert len(counts) == 1


@pytest.mark.parametrize("lengths", [(2, 12, 25), (70, 400)])
def test_a_post_takes_a_constant_number_of_statements(
    ada: Caller, lengths: tuple[int, ...]
) -> None:
    counts = set()
    for length in lengths:
        chat = lengthened(ada, length)
        chat.post()
        with CaptureQueriesContext(connection) as queries:
            assert chat.post().status == 200
        counts.add(sum("ollama_openai_chat" in query["sql"] for query in queries))
    assert len(counts) == 1 and counts <= {10, 11}, counts


def lengthened(caller: Caller, messages: int) -> Chat:
    """Return a session with ``messages`` messages."""
    chat = Chat(caller)
    row, items = chat.row, []
    for number in range(messages):
        sent = {"role": ("user", "assistant")[number % 2], "content": f"Text {number}"}
        items += message_rows(sent, Media())
    append(row, items, None)
    set_leaf(row, items[-1], count=messages)
    row.save()
    return chat


def test_the_engine_gets_a_long_session_as_it_is_now(ada: Caller, engine: OllamaServer) -> None:
    """Whatever happens to it between two answers, and although its messages are kept in memory."""
    chat = lengthened(ada, 80)

    def check() -> list[str]:
        assert chat.post("Next").status == 200
        shown: list[str] = chat.texts()
        assert [message["content"] for message in messages_of(engine)] == shown[:-1]
        return [message["id"] for message in chat("GET", "messages/?limit=100").body["data"]]

    check()
    ids = check()
    for deleted in (ids[40], ids[-1]):
        assert chat("DELETE", f"messages/{deleted}/").status == 200
        check()
    assert chat("PATCH", f"messages/{ids[2]}/", {"content": "Changed"}).status == 201
    assert len(check()) == 5
    assert chat("PATCH", "", {"current_message_id": ids[60]}).status == 200
    check()
    assert chat.post("Beside", parent_id=ids[60]).status == 200
    check()


def test_messages_are_walked_in_the_order_of_the_branch(ada: Caller) -> None:
    chat = Chat(ada)
    a, b = chat.keep("a"), chat.keep("b")
    chat.keep("c", parent_id=a)
    chat.keep("d")
    chat.keep("root", parent_id=None)
    chat.keep("e", parent_id=chat("GET", "messages/?all=true").body["data"][3]["id"])
    path = f"{chat.path}messages/"
    assert walk(ada, name="content", path=path) == ["a", "c", "d", "e"]
    assert walk(ada, "all=true", "content", path) == ["a", "b", "c", "d", "root", "e"]
    assert walk(ada, "all=1", "content", path) == ["a", "b", "c", "d", "root", "e"]
    assert chat("GET", f"messages/?after={b}").error["param"] == "after"
    assert chat.texts(f"all=true&after={b}") == ["c", "d", "root", "e"]
    assert chat("GET", "messages/?all=perhaps").error["param"] == "all"


# Running answers


def answering(chat: Chat, **fields: Any) -> tuple[str, Run]:
    """Return the id of an answer that another process writes in ``chat``."""
    kept = chat.keep("question")
    parent = Item.objects.get(pk=kept.removeprefix("msg_"))
    head = Item(
        conversation=chat.row,
        branch=parent.branch,
        sequence=parent.sequence + 5,
        parent=parent,
        type="message",
        role="assistant",
        status=Status.IN_PROGRESS,
        data={"content": []},
    )
    head.save(force_insert=True)
    row = chat.row
    row.leaf, row.sequence, row.message_count = head, head.sequence, row.message_count + 1
    row.save()
    run = Run.objects.create(item=head, locks=row, lease_until=now() + timedelta(seconds=60))
    return f"msg_{head.pk.hex}", run


def test_a_session_that_is_answering_refuses_changes_of_its_branch(chat: Chat) -> None:
    running, _ = answering(chat)
    first = chat("GET", "messages/").body["data"][0]["id"]
    for method, path, body in (
        ("POST", "messages/", {"content": "x"}),
        ("POST", "messages/", {"content": "x", "reply": False}),
        ("POST", "messages/", {"content": "x", "parent_id": None}),
        ("POST", f"messages/{first}/regenerate/", {}),
        ("PATCH", f"messages/{first}/", {"content": "x"}),
        ("PATCH", "", {"current_message_id": first}),
    ):
        answer = chat(method, path, body)
        assert (answer.status, answer.error["code"]) == (400, "conversation_locked"), (method, path)
        assert answer.error["param"] is None
    assert chat("PATCH", "", {"title": "meanwhile"}).status == 200
    assert chat.shown["current_message_id"] == running
    assert Item.objects.count() == 2


@pytest.mark.parametrize("what", ["message", "session"])
def test_a_running_answer_is_deleted(chat: Chat, what: str) -> None:
    running, run = answering(chat)
    assert chat("DELETE", f"messages/{running}/" if what == "message" else "").status == 200
    assert not Run.objects.filter(pk=run.pk).exists()
    if what == "message":
        assert chat.texts() == ["question"]
        assert (chat.shown["message_count"], chat.post("next").status) == (1, 200)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["message", "session"])
def test_the_deletion_of_a_running_answer_frees_the_engine(
    chat: Chat, engine: OllamaServer, what: str
) -> None:
    engine.reply(Answer(["word "] * 2_000, pause=0.05))
    begun = chat("POST", "messages/", {"content": "Hello", "background": True})
    assert (begun.status, begun.body["status"]) == (202, "in_progress")
    received = engine.wait_for_chat()
    path = f"messages/{begun.body['id']}/" if what == "message" else ""
    assert chat("DELETE", path).status == 200
    assert received.hung_up.wait(10)
    for thread in threading.enumerate():
        if thread.name.startswith("ollama-openai-answer"):
            thread.join(10)
    assert Item.objects.count() == (1 if what == "message" else 0)
    assert not Run.objects.exists()


class Pictures(BaseHTTPRequestHandler):
    """Serves a pixel."""

    def do_GET(self) -> None:
        body = base64.b64decode(PNG.partition(",")[2])
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_fetched_image_is_kept(
    chat: Chat, engine: OllamaServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "REMOTE_IMAGES": True}
    monkeypatch.setattr(fetch, "DEFAULT_RULES", FetchRules(is_allowed=lambda address: True))
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/pixel.png"
        image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
        first = chat.post([{"type": "text", "text": "See"}, image])
        server.shutdown()
        thread.join()
    assert first.status == 200, first.body
    # Its server is gone.
    assert chat.post("And?").status == 200
    assert messages_of(engine)[0]["images"] == [PNG.partition(",")[2]]
    shown = chat("GET", "messages/").body["data"][0]["content"][1]
    assert shown["image_url"]["detail"] == "low"
    assert "/ai/api/chat/files/file_" in shown["image_url"]["url"]
    refused = chat.post([image])
    assert (refused.status, refused.error["param"]) == (400, "content[0].image_url.url")
    assert not Run.objects.filter(ended_at=None).exists()
