"""Two modes, one logic: what is synchronous and what is asynchronous do the same."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import AsyncClient, Client
from pytest_django.fixtures import Settings

from django_ollama_openai import backends, response_store
from django_ollama_openai._gateway.accounting import Account
from django_ollama_openai._gateway.work import Work
from django_ollama_openai._translation import ollama_chunks, tool_choice
from django_ollama_openai.auth import (
    BaseAuthenticator,
    SessionAuthenticator,
    StaticKeyAuthenticator,
)
from django_ollama_openai.backends import BaseBackend
from tests.ollama_server import Answer, Close, OllamaServer, Reply, error, line, recorded
from tests.recordings import load

pytestmark = pytest.mark.once

TWINS: list[type] = [
    *(one for name in backends.__all__ if inspect.isclass(one := getattr(backends, name))),
    BaseAuthenticator,
    SessionAuthenticator,
    StaticKeyAuthenticator,
    response_store.BaseResponseStore,
    Account,
    Work,
]
FIRST_LETTER = "a"


def pairs() -> Iterator[tuple[type, str, str]]:
    """Every method that has a twin: the class, its name and that of the twin."""
    for one in TWINS:
        names = {name for name in dir(one) if callable(getattr(one, name))}
        for name in sorted(names):
            twin = f"get_async_{name[4:]}" if name.startswith("get_") else FIRST_LETTER + name
            for candidate in (FIRST_LETTER + name, twin):
                if candidate in names and name not in ("get_client",):
                    yield one, name, candidate
                    break


@pytest.mark.parametrize(("one", "name", "twin"), list(pairs()))
def test_twins_have_the_same_signature(one: type, name: str, twin: str) -> None:
    sync, async_ = (inspect.signature(getattr(one, each)) for each in (name, twin))
    assert list(sync.parameters.values()) == list(async_.parameters.values())


def test_every_asynchronous_method_of_a_backend_has_a_twin() -> None:
    for one in TWINS:
        if not issubclass(one, BaseBackend):
            continue
        for name, method in inspect.getmembers(one, inspect.isfunction):
            is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
            if is_async and not name.startswith("_"):
                assert hasattr(one, name.removeprefix(FIRST_LETTER)), name


# The same script

MODEL, TOOLS_MODEL = "smollm2:135m", "smollm2-tools:135m"
HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FLAT = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CALL = {"function": {"name": "f", "arguments": {"a": 1}}}
HALF = Reply([line({"model": MODEL, "message": {"content": "He"}, "done": False}), Close()])
TEXT = Answer(["Hel", "lo\x85\u2028"], thinking=["Hm"])

Script = tuple[str, dict[str, Any], list[Reply | Answer]]


def script(path: str, *replies: Reply | Answer, **body: Any) -> Script:
    return path, body, list(replies)


CHAT: list[Script] = [
    script("chat/completions", TEXT, model=MODEL, messages=HI),
    script("chat/completions", Answer(["x"], done_reason="length"), model=MODEL, messages=HI),
    script(
        "chat/completions",
        Answer(["Well."], tool_calls=[CALL, CALL]),
        model=TOOLS_MODEL,
        messages=HI,
        tools=[TOOL],
    ),
    script(
        "chat/completions",
        Answer(["No."]),
        Answer(['{"name": "f", "arguments": {}}']),
        model=TOOLS_MODEL,
        messages=HI,
        tools=[TOOL],
        tool_choice="required",
    ),
    script(
        "chat/completions",
        Answer(["{}"]),
        model=TOOLS_MODEL,
        messages=HI,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "f"}},
    ),
    script("chat/completions", HALF, model=MODEL, messages=HI),
    script("chat/completions", error(500, "boom"), model=MODEL, messages=HI),
    script("chat/completions", model="gone", messages=HI),
    script("chat/completions", model=MODEL, messages=[]),
    script("chat/completions", recorded(load("chat_long_notruncate")), model=MODEL, messages=HI),
]
RESPONSES: list[Script] = [
    script("responses", TEXT, model=MODEL, input="Hi"),
    script("responses", Answer(tool_calls=[CALL]), model=TOOLS_MODEL, input="Hi", tools=[FLAT]),
    script("responses", Answer(["x"], done_reason="length"), model=MODEL, input="Hi"),
    script("responses", HALF, model=MODEL, input="Hi"),
    script("responses", model=MODEL, input="Hi", previous_response_id="resp_1"),
]
COMPLETIONS: list[Script] = [
    script("completions", Answer(["on", "ce"]), model=MODEL, prompt="Once", echo=True),
    script("completions", model=MODEL, prompt="a", suffix="b"),
    script("completions", model=MODEL, prompt=""),
]
EMBEDDINGS: list[Script] = [
    script("embeddings", model="all-minilm:22m", input="hello"),
    script("embeddings", model="all-minilm:22m", input=["hello"], encoding_format="base64"),
    script("embeddings", model=MODEL, input="hello"),
    script("embeddings", model="all-minilm:22m", input=[]),
]
STREAMED = [
    (path, {**body, "stream": True}, replies)
    for path, body, replies in [*CHAT, *RESPONSES, *COMPLETIONS]
]
SCRIPTS: list[Script] = [*CHAT, *RESPONSES, *COMPLETIONS, *EMBEDDINGS, *STREAMED]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stops time and chance; each call of it begins them anew."""
    counter = calls = itertools.count()

    def begin() -> None:
        nonlocal counter, calls
        counter, calls = itertools.count(), itertools.count()

    monkeypatch.setattr(secrets, "token_hex", lambda size=16: f"{next(counter):0{2 * size}x}")
    # Tool calls get theirs where the backend runs, which is beside the rest.
    for module in (ollama_chunks, tool_choice):
        monkeypatch.setattr(module, "new_tool_call_id", lambda: f"call_{next(calls)}")
    monkeypatch.setattr(secrets, "randbits", lambda bits: next(counter))
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(counter)))
    return begin


@pytest.mark.parametrize("mount", ["ai", "snake", "camel"])
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_the_same_script_gives_the_same_bytes(
    number: int,
    mount: str,
    settings: Settings,
    ollama: OllamaServer,
    still: Callable[[], None],
) -> None:
    settings.OLLAMA_OPENAI = {"HOST": ollama.url, "ALLOW_ANONYMOUS": True}
    path, body, replies = SCRIPTS[number]
    url = f"/{mount}/v1/{path}"

    def sync() -> Any:
        response = Client(raise_request_exception=False).post(
            url, json.dumps(body), content_type="application/json"
        )
        return response, response.getvalue()

    async def async_() -> Any:
        response: Any = await AsyncClient(raise_request_exception=False).post(
            url, json.dumps(body), content_type="application/json"
        )
        if response.streaming:
            return response, b"".join([part async for part in response.streaming_content])
        return response, response.content

    answers, asked = [], []
    for drive in (sync, lambda: asyncio.run(async_())):
        ollama.reset()
        ollama.reply(*replies)
        still()
        response, content = drive()
        answers.append((response.status_code, dict(response.headers), content))
        asked.append([(request.path, request.content) for request in ollama.requests])
    assert answers[0] == answers[1]
    assert answers[0][2]
    assert asked[0] == asked[1]
