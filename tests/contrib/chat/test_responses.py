"""Stored responses: what they continue, who may use them, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings
from pytest_django import Settings

from django_ollama_openai.contrib.chat._store.compaction import seal, unseal
from django_ollama_openai.contrib.chat.models import Conversation, Item, Kind, Response, Run
from tests.contrib.chat.responses_site import Api, api, last_event, stateful
from tests.ollama_server import Answer, Close, OllamaServer, Reply, error
from tests.site.test_streaming import part

__all__ = ["api", "stateful"]

HI = {"role": "user", "content": "Hi"}
CALL = {"index": 0, "name": "f", "arguments": {"a_b": 1}}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def contents(engine: OllamaServer, number: int) -> list[str]:
    return [message["content"] for message in engine.chats()[number].body["messages"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_stored_as_it_was_sent(
    api: Api, stateful: OllamaServer, stream: bool
) -> None:
    stateful.reply(
        Answer(["It is ", "\x00"], thinking=["Hm."], tool_calls=[{"id": "c", "function": CALL}])
    )
    sent: dict[str, Any] = {
        "model": "smollm2-tools:135m",
        "input": [HI, {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}}],
        "metadata": {"a_b": "c"},
        "tools": [TOOL],
        "stream": stream,
    }
    answer = api.ask(**sent)
    made = last_event(answer)["response"] if stream else answer
    assert (made["status"], made["store"]) == ("completed", True)
    assert [item["type"] for item in made["output"]] == ["reasoning", "message", "function_call"]
    kept = api("GET", f"responses/{made['id']}")
    # PostgreSQL has no NUL.
    made["output"][1]["content"][0]["text"] = "It is \ufffd"
    assert kept == made
    items = api("GET", f"responses/{made['id']}/input_items?order=asc")["data"]
    assert [item["type"] for item in items] == ["message", "web_search_call"]
    assert items[1]["action"] == {"query": "x"}
    assert all(len(item["id"].partition("_")[2]) == 32 for item in items)
    # They are no session.
    assert Conversation.objects.get().kind == Kind.THREAD
    assert api.raw("GET", "ai/api/chat/sessions/").json()["data"] == []
    result = {"type": "function_call_output", "call_id": "c", "output": "ok"}
    api.ask(input=[result], previous_response_id=made["id"], model="smollm2-tools:135m")
    roles = [message["role"] for message in stateful.chats()[1].body["messages"]]
    assert roles == ["user", "assistant", "tool"]


def test_a_response_in_both_spellings(api: Api, stateful: OllamaServer) -> None:
    made = api("POST", "responses", {"input": "Hi", "metadata": {"a_b": "c"}}, mount="camel")
    kept = api("GET", f"responses/{made['id']}", mount="camel")
    assert kept == made
    assert kept["metadata"] == {"a_b": "c"}
    assert "previousResponseId" in kept
    both = api("GET", f"responses/{made['id']}")["usage"]
    assert both["promptTokens"] == both["input_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_is_a_status(
    api: Api, stateful: OllamaServer, stream: bool
) -> None:
    session = api.session()
    stateful.reply(error(500, "boom"))
    api.ask(input="Hi", conversation=session, stream=stream, status=502)
    assert Response.objects.get().status == "failed"
    api.ask(input="Hi", conversation=session)


def test_a_failed_response_adds_nothing_to_its_conversation(
    api: Api, stateful: OllamaServer
) -> None:
    session = api.session()
    stateful.reply(Reply([part("one"), Close()]), Answer(["two"]))
    failed = last_event(api.ask(input="Hi", conversation=session, stream=True))["response"]
    kept = api("GET", f"responses/{failed['id']}")
    assert (kept["status"], kept["output"][0]["content"][0]["text"]) == ("failed", "one")
    assert kept["conversation"] == {"id": session}
    assert api("GET", f"conversations/{session}/items")["data"] == []
    # It can be continued all the same.
    api.ask(input="And?", previous_response_id=failed["id"])
    assert contents(stateful, 1) == ["Hi", "one", "And?"]


def test_a_response_that_reached_its_maximum_can_be_continued(
    api: Api, stateful: OllamaServer
) -> None:
    session = api.session()
    stateful.reply(Answer(["one"], done_reason="length"), Answer(["two"]))
    cut = api.ask(input="Hi", conversation=session, max_output_tokens=1)
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    api.ask(input="Go on", conversation=session)
    assert contents(stateful, 1) == ["Hi", "one", "Go on"]


def test_images_that_cannot_be_fetched(
    api: Api, stateful: OllamaServer, settings: Settings
) -> None:
    """The request is refused, and nothing is stored."""
    session = api.session()
    image = {"type": "input_image", "image_url": "http://127.0.0.1:9/a.png"}
    sent: Any = {"input": [{"role": "user", "content": [image]}], "conversation": session}
    assert api.ask(**sent, status=400)["param"] == "input[0].content[0].image_url"
    assert not Response.objects.exists()
    assert not Run.objects.exists()
    api.ask(input="Hi", conversation=session)


def test_a_conversation_that_is_answering_is_locked(api: Api, stateful: OllamaServer) -> None:
    session = api.session()
    conversation = Conversation.objects.get()
    thread = Conversation.objects.create(kind=Kind.THREAD, owner=conversation.owner)
    other = Response.objects.create(conversation=thread, status="in_progress", body={})
    run = Run.objects.create(response=other, locks=conversation)
    for body in ({"input": "Hi", "conversation": session}, {"conversation": {"id": session}}):
        refused = api.ask(**body, status=400)
        assert (refused["code"], refused["param"]) == ("conversation_locked", "conversation")
    path = f"conversations/{session}"
    refused = api("POST", f"{path}/items", {"items": [HI]}, status=400)
    assert refused["code"] == "conversation_locked"
    assert stateful.chats() == []
    run.delete()
    api.ask(input="Hi", conversation=session)


def test_what_is_deleted_is_in_no_row(api: Api, stateful: OllamaServer) -> None:
    stateful.reply(Answer(["secret answer"]), Answer(["second"]), Answer(["other"]))
    first = api.ask(input="secret question", instructions="secret")
    second = api.ask(input="And?", previous_response_id=first["id"])
    other = api.ask(input="Another branch", previous_response_id=first["id"])
    assert api("DELETE", f"responses/{other['id']}") == {
        "id": other["id"],
        "object": "response",
        "deleted": True,
    }
    assert "nother" not in str([*Item.objects.values(), *Response.objects.values()])
    # What another response continues is a part of that one.
    api("DELETE", f"responses/{first['id']}")
    api("GET", f"responses/{first['id']}", status=404)
    api.ask(input="Go on", previous_response_id=second["id"], store=False)
    assert contents(stateful, 3)[:2] == ["secret question", "secret answer"]
    api("DELETE", f"responses/{second['id']}")
    assert not Item.objects.exists()
    assert not Conversation.objects.exists()


def test_a_response_in_a_conversation_is_deleted_and_its_items_stay(
    api: Api, stateful: OllamaServer
) -> None:
    session = api.session()
    made = api.ask(input="Hi", conversation=session)
    api("DELETE", f"responses/{made['id']}")
    assert len(api("GET", f"conversations/{session}/items")["data"]) == 2


def test_the_oldest_turns_are_dropped_if_the_request_says_so(
    api: Api, stateful: OllamaServer, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "MAX_PROMPT_CHARACTERS": 1_000}
    last = api.ask(input="x" * 400)["id"]
    last = api.ask(input="y" * 400, previous_response_id=last)["id"]
    refused = api.ask(input="z" * 400, previous_response_id=last, status=400)
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "input")
    answer = api.ask(input="z" * 400, previous_response_id=last, truncation="auto")
    assert answer["truncation"] == "auto"
    assert [content[:1] for content in contents(stateful, 2)] == ["y", "H", "z"]


def test_anonymous_callers_get_answers_that_are_not_stored(
    api: Api, stateful: OllamaServer
) -> None:
    made = api.ask(None, input="Hi")
    assert made["store"] is False
    refused = api.ask(None, input="Hi", previous_response_id=made["id"], status=400)
    assert refused["code"] == "previous_response_not_found"
    assert api.ask(None, input=[{"id": "msg_1"}], status=404)["param"] == "input[0]"
    assert api.ask(None, input="Hi", conversation="conv_1", status=404)["param"] == "conversation"
    assert api.ask(None, input="Hi", background=True, status=400)["param"] == "background"
    assert not Response.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"conversation": "conv_x", "input": "Hi"}, 404, "conversation"),
        ({"conversation": {"id": "resp_x"}, "input": "Hi"}, 404, "conversation"),
        ({"conversation": {}, "input": "Hi"}, 400, "conversation.id"),
        ({"previous_response_id": "resp_x", "input": "Hi"}, 400, "previous_response_id"),
        ({"previous_response_id": "x" * 9_999, "input": "Hi"}, 400, "previous_response_id"),
        ({"input": [HI, {"type": "item_reference", "id": "msg_x"}]}, 404, "input[1]"),
        ({"input": "Hi", "background": True, "store": False}, 400, "background"),
        ({"input": "Hi", "metadata": {"a": "x" * 1_000_000}}, 400, "metadata.a"),
        (
            {"input": "Hi", "conversation": "conv_1", "previous_response_id": "resp_1"},
            400,
            "previous_response_id",
        ),
    ],
)
def test_a_wrong_request(
    api: Api, stateful: OllamaServer, body: dict[str, Any], status: int, param: str
) -> None:
    for path in ("responses", "responses/input_tokens", "responses/compact"):
        if path == "responses" or param not in ("background",):
            refused = api("POST", path, body, status=status)
            assert refused["param"] == param
            assert len(refused["message"]) < 500
    assert stateful.chats() == []
    assert not Response.objects.exists()


@pytest.mark.parametrize(
    ("method", "path", "param"),
    [
        ("GET", "?stream=true", "stream"),
        ("GET", "?stream=maybe", "stream"),
        ("GET", "?stream=true&starting_after=-1", "starting_after"),
        ("POST", "/cancel", None),
    ],
)
def test_what_a_response_cannot_do(
    api: Api, stateful: OllamaServer, method: str, path: str, param: str | None
) -> None:
    made = api.ask(input="Hi")
    assert api(method, f"responses/{made['id']}{path}", status=400)["param"] == param


def test_a_compaction_is_the_owners_own(api: Api, stateful: OllamaServer) -> None:
    stateful.reply(Answer(["All about Rome."]))
    found = api("POST", "responses/compact", {"input": [HI, {**HI, "content": "Rome?"}]})
    *messages, item = found["output"]
    assert [message["content"][0]["text"] for message in messages] == ["Hi", "Rome?"]
    assert found["object"] == "response.compaction"
    assert contents(stateful, 0)[:2] == ["Hi", "Rome?"]
    # Another cannot read it, nor can anybody read one that was changed or made elsewhere.
    changed = {**item, "encrypted_content": item["encrypted_content"][:-4] + "AAAA"}
    elsewhere = {**item, "encrypted_content": "gAAAAABo"}
    for caller, sent in (("bob", item), ("ada", changed), ("ada", elsewhere), (None, item)):
        response = api.raw("POST", "ai/v1/responses", {"input": [HI, sent]}, caller)
        assert response.headers["x-ignored-parameters"] == "input.compaction"
    assert all("Rome" not in str(chat.body) for chat in stateful.chats()[1:])
    api.ask(input=[HI, item])
    assert contents(stateful, 5)[1].endswith("All about Rome.")
    assert not Response.objects.filter(pk=found["id"].partition("_")[2]).exists()


def test_a_compaction_is_read_after_the_key_was_changed() -> None:
    sealed = seal("été", "user:1")
    assert "été" not in sealed
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
        assert unseal(sealed, "user:1") is None
        assert unseal("", "user:1") is None
        assert unseal("é", "user:1") is None
    from django.conf import settings

    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert unseal(sealed, "user:1") == "été"
        assert unseal(sealed, "user:2") is None


def test_a_summary_that_a_model_did_not_write(api: Api, stateful: OllamaServer) -> None:
    stateful.reply(Answer([""]))
    refused = api("POST", "responses/compact", {"input": "Hi"}, status=502)
    assert "no summary" in refused["message"]
