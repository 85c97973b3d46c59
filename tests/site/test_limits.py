"""How much text a request may have, and how deep what it holds may be nested."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
import pytest
from pytest_django.fixtures import Settings

from django_ollama_openai.auth import Caller
from django_ollama_openai.response_store import BaseResponseStore
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, Site

pytestmark = pytest.mark.lane

Post = Callable[[str, dict[str, Any]], Any]

# How much text


class Kept(BaseResponseStore):
    """Keeps one conversation."""

    items: ClassVar[list[dict[str, Any]]] = [
        {"type": "message", "role": "user", "content": "x" * 6}
    ]

    def load(self, response_id: str, caller: Caller) -> list[dict[str, Any]]:
        return self.items


@pytest.fixture(params=CLIENTS, ids=IDS)
def post(request: pytest.FixtureRequest, settings: Settings) -> Post:
    settings.OLLAMA_OPENAI = {
        "ALLOW_ANONYMOUS": True,
        "MAX_PROMPT_CHARACTERS": 10,
        "RESPONSE_STORE": f"{__name__}.Kept",
        "BACKENDS": {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}},
    }
    send = sender(request.param)
    return lambda path, body: send("POST", f"/ai/v1/{path}", {"model": "dummy", **body})


def says(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def text(length: int, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": "é" * length}


CALLED = {"name": "f", "arguments": '{"a":1}'}
CALL = {"id": "c", "type": "function", "function": CALLED}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

CHAT: list[list[dict[str, Any]]] = [
    [says("\U0001f600" * 10)],
    [says("x" * 6, "system"), says("x" * 4)],
    # Parts are joined by a line break.
    [says([text(4), PICTURE, text(5)])],
    [says("xxx"), says(None, "assistant", tool_calls=[CALL])],
    [says("xxx"), says(None, "assistant", function_call=CALLED)],
    [says("xxx"), says("xx", "assistant", reasoning="xxxxx")],
    [says("xxx"), says("xx", "assistant", reasoning_content="xxxxx")],
    [says("xxx"), says(None, "assistant", refusal="xxxxxxx")],
    [says("xxxxxxxxxx", "tool", tool_call_id="c")],
]
REASONED = {"type": "reasoning", "summary": [], "content": [text(5, "reasoning_text")]}
INPUTS: list[Any] = [
    "x" * 10,
    [says([text(4, "input_text"), text(5, "input_text")])],
    [says("xxx"), {"type": "function_call", "call_id": "c", **CALLED}],
    [says("xxx"), REASONED, says("xx", "assistant")],
]
FULL: list[tuple[str, str, dict[str, Any]]] = [
    # the endpoint, the field that is named, and a body with 10 characters in all
    *(("chat/completions", "messages", {"messages": messages}) for messages in CHAT),
    ("completions", "prompt", {"prompt": "x" * 10}),
    ("completions", "prompt", {"prompt": ["xxxx", "xxxxxx"]}),
    ("completions", "prompt", {"prompt": "xxxx", "suffix": "xxxxxx"}),
    ("embeddings", "input", {"input": "x" * 10}),
    ("embeddings", "input", {"input": ["x"] * 10}),
    *(("responses", "input", {"input": items, "store": False}) for items in INPUTS),
    ("responses", "input", {"input": "xxxx", "instructions": "xxxxxx", "store": False}),
    ("responses", "input", {"input": "xxxx", "previous_response_id": "r", "store": False}),
]


@pytest.mark.parametrize(
    ("path", "param", "body"), FULL, ids=[str(number) for number in range(len(FULL))]
)
def test_all_text_together_may_be_as_long_as_the_limit_and_not_longer(
    post: Post, path: str, param: str, body: dict[str, Any]
) -> None:
    assert post(path, body).status_code == 200
    field = "messages" if "messages" in body else "prompt" if "prompt" in body else "input"
    more: Any = body[field]
    if isinstance(more, str):
        more += "x"
    else:
        more = [*more, "x" if isinstance(more[0], str) else says("x")]
    response = post(path, {**body, field: more})
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "The text of this request has 11 characters; this site allows 10.",
        "type": "invalid_request_error",
        "param": param,
        "code": "context_length_exceeded",
    }


def test_tokens_are_no_text(post: Post) -> None:
    assert post("embeddings", {"input": [5] * 100}).status_code == 200


# How deep


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


MODEL = "team/tools:small"
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def ask(site: Site, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.post(f"{site.base_url}/{path}", headers=headers, json=body, timeout=60)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_nested_to_the_limit_goes_to_the_engine_and_comes_back(
    site: Site, ollama: OllamaServer, stream: bool
) -> None:
    # With what is around them 200 levels in the body, in arguments and in the engine's answer.
    schema, earlier, later = nested(196), nested(200), nested(195)
    ollama.reply(Answer(tool_calls=[{"function": {"name": "f", "arguments": later}}]))
    call = {"id": "c", "function": {"name": "f", "arguments": json.dumps(earlier)}}
    body = {
        "model": MODEL,
        "messages": [
            says("Hi"),
            says(None, "assistant", tool_calls=[call]),
            says("done", "tool", tool_call_id="c"),
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "stream": stream,
    }
    response = ask(site, "chat/completions", body)
    assert response.status_code == 200
    sent = ollama.chats()[0].body
    assert sent["tools"][0]["function"]["parameters"] == {**NO_PARAMETERS, **schema}
    assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == earlier
    told = [response.text]
    if stream:
        told = [
            frame.removeprefix("data: ") for frame in response.text.split("\n\n") if "{" in frame
        ]
    (answered,) = (found for one in told for found in find_arguments(json.loads(one)))
    assert json.loads(answered) == later


def find_arguments(completion: dict[str, Any]) -> list[str]:
    messages = [
        choice.get("message") or choice.get("delta") for choice in completion.get("choices", ())
    ]
    return [
        call["function"]["arguments"]
        for message in messages
        for call in message.get("tool_calls") or ()
        if call["function"].get("arguments")
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_tells_again_what_is_nested_to_the_limit(
    site: Site, ollama: OllamaServer, stream: bool
) -> None:
    # A function has its parameters in itself here: there is one level less around them.
    schema, later = nested(197), nested(195)
    ollama.reply(Answer(tool_calls=[{"function": {"name": "f", "arguments": later}}]))
    body = {
        "model": MODEL,
        "input": "Hi",
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "stream": stream,
    }
    response = ask(site, "responses", body)
    assert response.status_code == 200
    (tool,) = ollama.chats()[0].body["tools"]
    assert tool["function"]["parameters"] == {**NO_PARAMETERS, **schema}
    events = [frame.partition("data: ")[2] for frame in response.text.split("\n\n") if frame]
    told = json.loads(events[-1])["response"] if stream else response.json()
    assert told["tools"][0]["parameters"] == schema
    assert told["status"] == "completed"
    (call,) = (item for item in told["output"] if item["type"] == "function_call")
    assert json.loads(call["arguments"]) == later


@pytest.mark.parametrize("depth", [202, 1000, 99_000])
def test_a_body_that_is_nested_more_deeply_is_refused(site: Site, depth: int) -> None:
    content = b'{"x":%b%b}' % (b"[" * depth, b"]" * depth)
    response = httpx.post(
        f"{site.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {KEY}"},
        content=content,
        timeout=60,
    )
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "The request body is nested too deeply: it may have at most 200 levels."
    )


def test_an_answer_that_is_nested_more_deeply_is_a_failure_of_the_engine(
    site: Site, ollama: OllamaServer
) -> None:
    ollama.reply(Answer(tool_calls=[{"function": {"name": "f", "arguments": nested(250)}}]))
    body = {
        "model": MODEL,
        "messages": [says("Hi")],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    assert ask(site, "chat/completions", body).status_code == 502


# Bodies of undeclared length


def in_pieces(body: bytes) -> Iterator[bytes]:
    size = 2**20
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize(
    ("size", "coding", "status"),
    [(0, "identity", 200), (3 * 2**20, "identity", 200), (0, "gzip", 200), (2**25, "gzip", 413)],
)
def test_a_chunked_body(
    site: Site, ollama: OllamaServer, size: int, coding: str, status: int
) -> None:
    body = json.dumps({"model": "smollm2:135m", "messages": [says("Hi")]}).encode() + b" " * size
    encoded = gzip.compress(body) if coding == "gzip" else body
    headers = {"Authorization": f"Bearer {KEY}", "Content-Encoding": coding}
    url = f"{site.base_url}/chat/completions"
    response = httpx.post(url, headers=headers, content=in_pieces(encoded), timeout=30)
    assert response.status_code == status
    assert len(ollama.chats()) == (status == 200)


def test_a_chunked_body_may_not_be_larger_than_the_limit(site: Site, ollama: OllamaServer) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{site.base_url}/chat/completions"
    body = in_pieces(b" " * (2**25 + 1))
    response = httpx.post(url, headers=headers, content=body, timeout=30)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_chunk_that_makes_no_sense_is_the_clients_mistake(site: Site) -> None:
    with site.connect() as sock:
        head = "POST /ai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        sock.sendall(f"{head}Authorization: Bearer {KEY}\r\n\r\n2\r\n{{}}\r\nzz\r\n".encode())
        assert sock.recv(2**16).startswith(b"HTTP/1.1 400 ")
