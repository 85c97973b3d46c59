"""Stored chat completions: what is stored, who finds it, and what clients get back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from openai.types.chat import ChatCompletion, ChatCompletionDeleted, ChatCompletionStoreMessage
from pytest_django import Settings

from django_ollama_openai._views.engine import chat_completions
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.contrib.access import _last_used
from django_ollama_openai.contrib.access.models import APIKey
from django_ollama_openai.contrib.chat.models import Attachment, Completion
from django_ollama_openai.contrib.chat.urls import urlpatterns
from django_ollama_openai.exceptions import UpstreamError
from django_ollama_openai.testing import canned_replies, requests_to
from tests.fast_lane import CLIENTS, IDS, sender

PATH = "/ai/v1/chat/completions"
ADA, BOB = "sk-ada", "sk-bob"
ASK = [{"role": "user", "content": "Say hello."}]
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PNG = base64.b64encode(IMAGE).decode()
WAV = base64.b64encode(b"RIFF" + bytes(range(256))).decode()

# Under ASGI what is stored is committed by another thread.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def site(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    settings.OLLAMA_OPENAI = {
        "DEFAULT_MODEL": "m",
        "BACKENDS": {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}},
        "API_KEYS": [{"KEY": ADA, "NAME": "ada"}, {"KEY": BOB, "NAME": "bob"}],
    }


@pytest.fixture(params=CLIENTS, ids=IDS)
def send(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Send a request with a key; the answer is its status and its JSON, or its text."""
    sent = sender(request.param)

    def send(method: str, path: str = "", body: Any = "", key: str | None = ADA) -> Any:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        response = sent(method, PATH + path, body, headers=headers)
        content = b"".join(response) if response.streaming else response.content
        text = content.decode()
        return response.status_code, json.loads(text) if text.startswith("{") else text

    return send


def ask(send: Callable[..., Any], key: str | None = ADA, **fields: Any) -> dict[str, Any]:
    """Return the completion that a client gets; of a stream, its chunks in one."""
    body = {"model": "m", "messages": ASK, **fields}
    status, answer = send("POST", body=body, key=key)
    assert status == 200, answer
    if not fields.get("stream"):
        return answer  # type: ignore[no-any-return]
    chunks = [json.loads(frame[6:]) for frame in answer.split("\n\n")[:-2]]
    assert answer.endswith("data: [DONE]\n\n")
    return {**chunks[0], "chunks": chunks}


TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
    {
        "type": "custom",
        "custom": {
            "name": "run",
            "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": ".*"}},
        },
    },
]
CHOICE = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "custom", "custom": {"name": "run"}}]},
}
CALLS = [
    {"name": "look", "arguments": {"at": "the sea"}, "id": "call_1"},
    {"name": "run", "arguments": {"input": "ls"}, "id": "call_2"},
]


@pytest.mark.compat("chat.request.store", "chat.response.service_tier", "chat.response.metadata")
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_stored_is_the_whole_completion(send: Callable[..., Any], stream: bool) -> None:
    reply = {"reasoning": "Hm.", "content": "Hello there", "tool_calls": CALLS}
    fields: dict[str, Any] = {
        "n": 2,
        "tools": TOOLS,
        "tool_choice": CHOICE,
        "metadata": {"snake_case": "1"},
        "temperature": 0.5,
        "user": "someone",
    }
    with canned_replies(reply):
        sent = ask(send, store=True, stream=stream, **fields)
    status, stored = send("GET", f"/{sent['id']}")
    assert status == 200
    ChatCompletion.model_validate(stored)
    assert {name: stored[name] for name in ("id", "object", "created", "model")} == {
        "id": sent["id"],
        "object": "chat.completion",
        "created": sent["created"],
        "model": "m",
    }
    assert [choice["index"] for choice in stored["choices"]] == [0, 1]
    for choice in stored["choices"]:
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "Hello there"
        assert choice["message"]["reasoning_content"] == "Hm."
        function, custom = choice["message"]["tool_calls"]
        assert json.loads(function["function"]["arguments"]) == {"at": "the sea"}
        assert custom["custom"] == {"name": "run", "input": "ls"}
    assert stored["usage"]["completion_tokens"] == 10
    assert stored["tools"] == TOOLS
    assert stored["tool_choice"] == CHOICE
    assert stored["metadata"] == {"snake_case": "1"}
    assert (stored["temperature"], stored["seed"]) == (0.5, None)
    assert stored["input_user"] == "someone"
    assert stored["request_id"]
    if not stream:
        assert all(stored[name] == sent[name] for name in sent)


def test_a_deprecated_function_is_stored_as_it_was_answered(send: Callable[..., Any]) -> None:
    with canned_replies({"tool_calls": CALLS[:1]}):
        sent = ask(send, store=True, functions=[{"name": "look"}])
    stored = send("GET", f"/{sent['id']}")[1]
    assert stored["choices"] == sent["choices"]
    assert stored["choices"][0]["finish_reason"] == "function_call"
    assert (stored["tools"], stored["tool_choice"]) == (None, None)


@pytest.mark.compat("chat.request.store")
@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, ADA),
        ({"store": False}, ADA),
        ({"store": None}, ADA),
        ({"store": True}, None),
        ({"store": True, "metadata": {"a": 1}}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_stored(
    send: Callable[..., Any], settings: Settings, fields: dict[str, Any], key: str, stream: bool
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ALLOW_ANONYMOUS": True}
    assert ask(send, key, stream=stream, **fields)["id"]
    assert not Completion.objects.exists()


@pytest.mark.compat("chat.request.metadata")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"user": 1}, "user"),
        (
            {
                "messages": [
                    *ASK,
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image_url",
                                "image_url": {"url": "data:image/png;base64,AAAA"},
                            }
                        ],
                    },
                ]
            },
            "messages[1].content[0].image_url.url",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused(
    send: Callable[..., Any], fields: dict[str, Any], param: str
) -> None:
    body = {"model": "m", "messages": ASK, "store": True, **fields}
    with canned_replies("Hello"):
        status, answer = send("POST", body=body)
        assert (status, answer["error"]["param"]) == (400, param)
        assert not requests_to()


class FailingBackend(DummyBackend):
    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        yield Delta(content="Hel")
        raise UpstreamError("It broke.")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_failed_is_not_stored(
    send: Callable[..., Any], settings: Settings, stream: bool
) -> None:
    settings.OLLAMA_OPENAI["BACKENDS"]["default"]["BACKEND"] = f"{__name__}.FailingBackend"
    body = {"model": "m", "messages": ASK, "store": True, "stream": stream}
    status, answer = send("POST", body=body)
    assert "It broke." in str(answer)
    assert status == (200 if stream else 502)
    assert not Completion.objects.exists()


def test_an_answer_whose_client_left_is_not_stored() -> None:
    body = {"model": "m", "messages": ASK, "store": True, "stream": True}
    with canned_replies("one two three"):
        headers = {"Authorization": f"Bearer {ADA}"}
        response: Any = Client().post(PATH, body, "application/json", headers=headers)
        assert b"role" in next(iter(response))
        response.close()
    assert not Completion.objects.exists()


PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "name": "ada", "content": PARTS},
    {
        "role": "assistant",
        "content": None,
        "toolCalls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "the sea"},
    {"role": "tool", "toolCallId": "c2", "content": [{"type": "text", "text": "a file"}]},
]


def test_messages_come_back_as_they_were_sent(send: Callable[..., Any], tmp_path: Path) -> None:
    sent = ask(send, messages=MESSAGES, tools=TOOLS, store=True)
    row = Completion.objects.get()
    assert PNG[:40] not in json.dumps(row.messages)
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        map(base64.b64decode, (PNG, WAV))
    )
    status, page = send("GET", f"/{sent['id']}/messages")
    assert (status, page["object"], page["has_more"]) == (200, "list", False)
    for message in page["data"]:
        ChatCompletionStoreMessage.model_construct(**message)
    common = {"name": None, "content_parts": None}
    calls = MESSAGES[2]["toolCalls"]
    assert page["data"] == [
        {"id": f"{sent['id']}-{number}", **common, **message}
        for number, message in enumerate(
            [
                MESSAGES[0],
                {"role": "user", "name": "ada", "content": None, "content_parts": PARTS},
                {"role": "assistant", "content": None, "tool_calls": calls},
                MESSAGES[3],
                {
                    "role": "tool",
                    "tool_call_id": "c2",
                    "content": None,
                    "content_parts": [{"type": "text", "text": "a file"}],
                },
            ]
        )
    ]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    next(path for path in files if path.read_bytes() == IMAGE).unlink()
    lost = send("GET", f"/{sent['id']}/messages?after={sent['id']}-0&limit=1")[1]["data"][0]
    assert [part["type"] for part in lost["content_parts"]] == ["text", "text", "input_audio"]
    status, deleted = send("DELETE", f"/{sent['id']}")
    assert deleted == {"id": sent["id"], "object": "chat.completion.deleted", "deleted": True}
    ChatCompletionDeleted.model_validate(deleted)
    assert not Attachment.objects.exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert send("GET", f"/{sent['id']}/messages")[0] == 404


def test_pages_of_messages(send: Callable[..., Any]) -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(5)]
    path = f"/{ask(send, messages=messages, store=True)['id']}/messages"
    walked: dict[str, list[str]] = {}
    for order in ("asc", "desc"):
        after = ""
        while True:
            page = send("GET", f"{path}?limit=2&order={order}{after}")[1]
            walked.setdefault(order, []).extend(each["content"] for each in page["data"])
            if not page["has_more"]:
                break
            assert len(page["data"]) == 2
            after = f"&after={page['last_id']}"
    assert walked == {"asc": list("01234"), "desc": list("43210")}
    assert send("GET", path)[1]["first_id"].endswith("-0")
    for query in ("after=nope", "limit=0", "limit=101", "order=up"):
        status, answer = send("GET", f"{path}?{query}")
        assert (status, answer["error"]["param"]) == (400, query.partition("=")[0])


def test_lists(send: Callable[..., Any]) -> None:
    made = [
        ask(send, store=True, model="ab"[n % 2], metadata={"n": str(n % 3)})["id"] for n in range(6)
    ]
    ask(send, BOB, store=True)

    def ids(query: str, key: str = ADA) -> list[str]:
        status, page = send("GET", f"?{query}", key=key)
        assert status == 200, page
        found = [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == (
            (found[0], found[-1]) if found else (None, None)
        )
        return found

    assert ids("") == made
    assert ids("order=desc&limit=2") == [made[5], made[4]]
    assert ids(f"order=desc&after={made[4]}") == made[3::-1]
    assert ids("model=b") == made[1::2]
    assert ids("metadata[n]=1") == [made[1], made[4]]
    assert ids(f"metadata[n]=1&after={made[1]}&limit=1") == [made[4]]
    assert ids("metadata[n]=1&metadata[m]=1") == []
    assert ids("model=%00&metadata[%00]=%00") == []
    assert send("GET", "?limit=5")[1]["has_more"]
    foreign = ids("", BOB)
    assert len(foreign) == 1
    # A cursor of another list.
    for query in (f"after={foreign[0]}", f"model=b&after={made[0]}", "after=%00", "order=up"):
        status, answer = send("GET", f"?{query}")
        assert status == 400, query
        assert answer["error"]["param"] in ("after", "order")
    for query in ("metadata=x", f"metadata[{'k' * 65}]=x", f"metadata[k]={'v' * 513}"):
        assert send("GET", f"?{query}")[0] == 400, query


KEYS = [
    '"',
    "'",
    '"."',
    "a.b",
    "0",
    "-1",
    "$",
    "*",
    "[0]",
    "a]",
    "a__gt",
    "%s",
    "\\",
    "é\u2028",
    "A",
]
KEYS += [" ", "'); --", "a b", "🙂", ""]


@pytest.mark.compat("chat.request.metadata")
def test_any_key_of_metadata_can_be_looked_up(send: Callable[..., Any]) -> None:
    made = {
        key: ask(send, store=True, metadata={key: f"{key}1", "other": "2"})["id"] for key in KEYS
    }
    for key, id in made.items():

        def found(value: str, key: str = key) -> list[str]:
            page = send("GET", f"?metadata[{quote(key)}]={quote(value)}&metadata[other]=2")[1]
            return [each["id"] for each in page["data"]]

        assert found(f"{key}1") == [id], key
        assert found("2") == [], key
    assert send("GET", "?metadata[a]=A1")[1]["data"] == []
    assert send("GET", "?metadata[A]=a1")[1]["data"] == []


@pytest.mark.compat("chat.response.metadata")
def test_metadata_can_be_changed(send: Callable[..., Any]) -> None:
    path = f"/{ask(send, store=True, metadata={'a': '1'})['id']}"
    status, changed = send("POST", path, {"metadata": {"new_key": "2"}})
    assert (status, changed["metadata"]) == (200, {"new_key": "2"})
    assert send("GET", path)[1] == changed
    assert send("POST", path, {"metadata": None})[1]["metadata"] == {}
    for body, param in (
        ({}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {}, "model": "x"}, "model"),
    ):
        status, answer = send("POST", path, body)
        assert (status, answer["error"]["param"]) == (400, param)


def test_nul_is_replaced(send: Callable[..., Any]) -> None:
    nul = "a\x00b"
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {nul: {"enum": [nul]}}, "description": nul},
    }
    with canned_replies(nul):
        sent = ask(
            send,
            model=nul,
            messages=[{"role": "user", "content": nul, "name": nul}],
            tools=[tool],
            metadata={nul: nul},
            user=nul,
            store=True,
        )
    stored = send("GET", f"/{sent['id']}")[1]
    assert (stored["input_user"], stored["tools"]) == ("a\ufffdb", [tool])
    assert stored["choices"][0]["message"]["content"] == "a\ufffdb"
    assert send("POST", f"/{sent['id']}", {"metadata": {nul: nul}})[0] == 200
    page = send("GET", "?model=a%00b&metadata[a%00b]=a%00b")[1]
    assert [each["id"] for each in page["data"]] == [sent["id"]]


def test_a_deep_schema_can_be_stored(send: Callable[..., Any]) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"inner": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    sent = ask(send, tools=[tool], store=True)
    assert send("GET", f"/{sent['id']}")[1]["tools"] == [tool]


METHODS = [
    ("GET", "", ""),
    ("POST", "", {"metadata": {}}),
    ("DELETE", "", ""),
    ("GET", "/messages", ""),
]


@pytest.mark.parametrize(("method", "path", "body"), METHODS)
def test_what_is_of_others_does_not_exist(
    send: Callable[..., Any], settings: Settings, method: str, path: str, body: Any
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ALLOW_ANONYMOUS": True}
    id = ask(send, store=True)["id"]
    invented = f"chatcmpl-{'0' * 32}"
    for wrong in (id, invented, "x", "%00", id.upper(), id.replace("-", "_")):
        status, answer = send(method, f"/{wrong}{path}", body, key=BOB)
        assert (status, answer["error"]["code"]) == (404, "not_found")
    bob, other = (
        send(method, f"/{each}{path}", body, key=BOB)[1]["error"]["message"]
        for each in (id, invented)
    )
    assert bob.replace(id, "") == other.replace(invented, "")
    assert send(method, f"/{id}{path}", body, key=None)[0] == 403
    assert send(method, f"/{id}{path}", body)[0] == 200


@pytest.mark.parametrize(
    ("scopes", "makes", "reads"),
    [(["chat"], 200, 403), (["sessions"], 403, 200), (["chat", "sessions"], 200, 200)],
)
def test_scopes(monkeypatch: pytest.MonkeyPatch, scopes: list[str], makes: int, reads: int) -> None:
    # Its thread would write while the tables are emptied.
    monkeypatch.setattr(_last_used, "note", lambda key_id: None)
    user = get_user_model().objects.create(username="cy")
    key = APIKey.objects.create(name="k", user=user, scopes=scopes).new_secret("site")
    headers = {"Authorization": f"Bearer {key}"}
    client = Client(headers=headers)
    body = {"model": "m", "messages": ASK, "store": True}
    assert client.post(PATH, body, "application/json").status_code == makes
    assert client.get(PATH).status_code == reads
    assert Completion.objects.filter(owner=f"user:{user.pk}", user=user).exists() == (makes == 200)
    user.delete()
    assert not Completion.objects.exists()


def test_users_of_sessions_need_a_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    user = get_user_model().objects.create(username="cy")
    client.force_login(user)
    body = {"tools": "null", "response_format": "null"}
    row = Completion.objects.create(owner=f"user:{user.pk}", model="m", body=body, messages=[])
    path = f"{PATH}/{row.public_id}"
    assert client.get(path).status_code == 200
    for method in ("post", "delete"):
        answer = getattr(client, method)(path, {"metadata": {}}, "application/json")
        assert answer.status_code == 403
    ask = {"model": "m", "messages": ASK, "store": True}
    assert client.post(PATH, ask, "application/json").status_code == 403
    assert Completion.objects.get() == row


def test_keys_of_clients_are_not_respelled(send: Callable[..., Any]) -> None:
    sent = ask(send, store=True, metadata={"my_key": "1"}, tools=[TOOLS[0]], tool_choice="none")
    send_camel = sender(Client)
    headers = {"Authorization": f"Bearer {ADA}"}
    camel = "/camel/v1/chat/completions"
    stored = send_camel("GET", f"{camel}/{sent['id']}", headers=headers).json()
    assert stored["metadata"] == {"my_key": "1"}
    assert stored["tools"] == [TOOLS[0]]
    assert stored["toolChoice"] == "none"
    assert stored["choices"][0]["finishReason"] == "stop"
    page = send_camel("GET", f"{camel}?metadata[my_key]=1", headers=headers).json()
    assert page["data"] == [stored]
    assert page["firstId"] == sent["id"]


def test_completions_are_made_as_without_the_app() -> None:
    (pattern,) = (each for each in urlpatterns if str(each.pattern) == "v1/chat/completions")
    assert pattern.endpoint.operations["POST"] == chat_completions.operations["POST"]
