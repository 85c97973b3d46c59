"""The scripted Ollama is held against what a real one was recorded to say."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.ollama_server import Answer, OllamaServer, recorded
from tests.recordings import Recording, load, names


def ask(ollama: OllamaServer, recording: Recording) -> httpx.Response:
    request = recording.request
    content = request["raw"].encode() if "raw" in request else json.dumps(request.get("json"))
    return httpx.request(
        request["method"],
        ollama.url + request["path"],
        content=None if request["method"] == "GET" else content,
        trust_env=False,
    )


@pytest.mark.parametrize(
    "name",
    [
        "chat_404",
        "chat_badjson",
        "chat_embedmodel",
        "chat_nomodel",
        "chat_think_unsupported",
        "chat_tools_unsupported",
        "embed_404",
        "embed_chatmodel",
        "embed_empty",
        "embed_long_notruncate",
        "generate_suffix_unsupported",
        "method_405",
        "ps",
        "pull_nohost_missing",
        "pull_stream",
        "root",
        "route_404",
        "show",
        "show_embed",
        "tags",
        "version",
    ],
)
def test_it_says_the_same_byte_for_byte(ollama: OllamaServer, name: str) -> None:
    recording = load(name)
    response = ask(ollama, recording)
    assert response.status_code == recording.status
    assert response.headers["content-type"] == recording.headers["Content-Type"]
    assert response.content == recording.body


def shape(value: Any) -> Any:
    """What kind of value this is: keys in their order, and types."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


CALL = {
    "id": "call_9mth0lrj",
    "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("chat", Answer(["Hello", "!"])),
        ("chat_think", Answer(["6"], thinking=["I add."])),
        ("chat_tools", Answer([], tool_calls=[CALL])),
        ("chat_stream", Answer(["Hello", "!"])),
        ("chat_think_stream", Answer(["6"], thinking=["I add."])),
        ("chat_tools_stream", Answer([], tool_calls=[CALL])),
        ("embed", Answer()),
        ("embed_dims", Answer()),
        ("embed_long", Answer()),
        ("embed_single", Answer()),
        ("embed_truncate_false_ok", Answer()),
        ("generate", Answer(["Hello", "!"])),
        ("generate_raw", Answer(["Hello", "!"])),
        ("generate_stream", Answer(["Hello", "!"])),
    ],
)
def test_its_answers_have_the_recorded_shape(
    ollama: OllamaServer, name: str, answer: Answer
) -> None:
    recording = load(name)
    ollama.reply(answer)
    response = ask(ollama, recording)
    assert response.headers["content-type"] == recording.headers["Content-Type"]
    lines = [line for line in response.content.split(b"\n") if line]
    assert response.content.endswith(b"\n") is recording.body.endswith(b"\n")
    for mine, real in ((lines[0], recording.lines[0]), (lines[-1], recording.lines[-1])):
        assert shape(json.loads(mine)) == shape(json.loads(real))
        assert list(json.loads(mine)) == list(json.loads(real))


@pytest.mark.parametrize("name", ["embed", "embed_dims", "embed_long", "embed_single"])
def test_its_embeddings_have_the_recorded_numbers_of_things(
    ollama: OllamaServer, name: str
) -> None:
    mine, real = ask(ollama, load(name)).json(), load(name).json()
    assert [len(vector) for vector in mine["embeddings"]] == [
        len(vector) for vector in real["embeddings"]
    ]
    assert mine["prompt_eval_count"] == real["prompt_eval_count"]
    for vector in mine["embeddings"]:
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


def test_a_prompt_that_is_empty_just_loads_the_model(ollama: OllamaServer) -> None:
    body = {"model": "smollm2:135m", "prompt": ""}
    answer = httpx.post(f"{ollama.url}/api/generate", json=body, trust_env=False).json()
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")


@pytest.mark.parametrize("name", names("chat"))
def test_it_replays_recordings_byte_for_byte(ollama: OllamaServer, name: str) -> None:
    recording = load(name)
    ollama.routes["/api/chat"] = recorded(recording)
    response = ask(ollama, recording)
    assert (response.status_code, response.content) == (recording.status, recording.body)


def test_a_connection_that_is_accepted_while_the_server_dies_is_reset() -> None:
    blocked, connected = threading.Event(), threading.Event()
    dying: list[Future[None]] = []
    with OllamaServer() as server, ThreadPoolExecutor(1) as threads:

        def block() -> None:
            server._loop.call_soon(die)
            blocked.set()
            connected.wait(60)

        def die() -> None:
            # The event loop has seen the connection: it accepts it next, and then calls what
            # die() schedules meanwhile.
            dying.append(threads.submit(server.die))
            time.sleep(0.3)

        server._loop.call_soon_threadsafe(block)
        assert blocked.wait(60)
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            connected.set()
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        dying[0].result(60)
