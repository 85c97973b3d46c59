"""How streams leave the server, and what becomes of them when somebody hangs up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.ollama_server import Answer, Hold, OllamaServer, Reply, Reset, Send, Step, Wait, line
from tests.servers import KEY, Site
from tests.wire import events

pytestmark = pytest.mark.lane

MODEL = "smollm2:135m"
HEADERS = {"Authorization": f"Bearer {KEY}"}
WITHIN = 60.0
"""Seconds after which an engine that is still at work will not be freed any more."""
DONE = {"model": MODEL, "message": {"content": ""}, "done": True, "done_reason": "stop"}


def part(content: str) -> Send:
    message = {"role": "assistant", "content": content}
    return line({"model": MODEL, "message": message, "done": False})


def body(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **changes}


@contextmanager
def streaming(
    site: Site, headers: dict[str, str] = HEADERS, **changes: Any
) -> Iterator[httpx.Response]:
    with (
        httpx.Client(timeout=60) as client,
        client.stream(
            "POST",
            f"{site.base_url}/chat/completions",
            headers=headers,
            json=body(stream=True, **changes),
        ) as response,
    ):
        yield response


def frames(text: str) -> list[str]:
    """The events of a stream; a comment is none."""
    lines = [line for line in text.split("\n") if not line.startswith(":")]
    return [frame for frame in "\n".join(lines).split("\n\n") if frame]


@pytest.mark.compat(
    "http.header.Content-Type",
    "http.header.Cache-Control",
    "http.header.X-Accel-Buffering",
    "http.header.Content-Encoding",
)
def test_headers(site: Site) -> None:
    with streaming(site) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["content-encoding"] == "identity"
        assert response.headers["x-request-id"].startswith("req_")
        response.read()
        assert frames(response.text)[-1] == "data: [DONE]"


def test_every_token_leaves_when_it_arrives(site: Site, ollama: OllamaServer) -> None:
    check_that_tokens_leave_when_they_arrive(site, ollama)


def check_that_tokens_leave_when_they_arrive(
    site: Site, ollama: OllamaServer, headers: dict[str, str] = HEADERS
) -> httpx.Headers:
    gates = [threading.Event() for _ in range(3)]
    steps: list[Step] = []
    for number, gate in enumerate(gates):
        steps += [part(f"token {number}"), Hold(gate)]
    ollama.reply(Reply([*steps, line(DONE)]))
    with streaming(site, headers) as response:
        chunks = response.iter_text()
        text = ""
        for number, gate in enumerate(gates):
            # The engine says no more until this has been read here.
            while f"token {number}" not in text:
                text += next(chunks)
            gate.set()
        text += "".join(chunks)
    assert text.endswith("data: [DONE]\n\n")
    return response.headers


@pytest.mark.compat("chat.stream.keep-alive")
def test_a_silent_stream_is_kept_alive(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["a", "b"], pause=1.3))
    with streaming(site) as response:
        text = response.read().decode()
    between = text[text.index('"a"') : text.index('"b"')]
    assert between.count(": ping\n") == 2
    assert events(text.encode())[-1] == "[DONE]"


def test_a_stream_is_kept_alive_while_what_arrives_is_held_back(
    site: Site, ollama: OllamaServer
) -> None:
    call = '{"name": "f", "arguments": {}}'
    ollama.reply(Answer(["no"] * 32, pause=0.05), Answer([call]))
    tools = [{"type": "function", "function": {"name": "f"}}]
    with streaming(site, model="team/tools:small", tools=tools, tool_choice="required") as response:
        text = response.read().decode()
    assert text[: text.index('"call_')].count(": ping\n") >= 2
    assert frames(text)[-1] == "data: [DONE]"


def test_the_wait_for_the_first_token_is_bounded(site: Site, ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([line({"error": "too late for a status"})], before=[Hold(gate)]))
    started = time.monotonic()
    with streaming(site) as response:
        # STREAM_KEEPALIVE_SECONDS is 0.5 here, and the engine has not said anything.
        assert time.monotonic() - started > 0.4
        assert response.status_code == 200
        chunks = response.iter_text()
        assert next(chunks) == ": ping\n"
        gate.set()
        text = "".join(chunks)
    error, done = frames(text)
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "bad_upstream"
    assert done == "data: [DONE]"


@pytest.mark.compat("chat.stream.failure in mid-stream")
def test_a_reset_upstream_is_an_error_frame(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("a"), Wait(0.2), Reset()]))
    with streaming(site) as response:
        *_, error, done = frames(response.read().decode())
    assert json.loads(error.removeprefix("data: "))["error"]["message"] == (
        "The connection to the engine was lost."
    )
    assert done == "data: [DONE]"


FOREVER: list[Step] = [step for number in range(10000) for step in (part(f"{number} "), Wait(0.02))]


@pytest.mark.compat("chat.stream.a client that hangs up")
@pytest.mark.parametrize(
    ("reply", "stream", "wait_for"),
    [
        (Reply([part("one "), Hold()]), True, b"one "),
        (Reply(FOREVER), True, b"5 "),
        (Reply([Hold()]), True, b""),
        (Reply([], before=[Hold()]), True, b""),
        (Reply([], before=[Hold()]), True, b": ping"),
        (Reply([], before=[Hold()]), False, b""),
        (Reply([Send(b'{"model":'), Hold()]), False, b""),
    ],
    ids=[
        "between tokens",
        "while tokens flow",
        "before the first token",
        "before the engine's headers",
        "after a keep-alive",
        "one piece",
        "one piece, half of it there",
    ],
)
def test_a_client_that_hangs_up_frees_the_engine(
    site: Site, ollama: OllamaServer, reply: Reply, stream: bool, wait_for: bytes
) -> None:
    finished = check_that_a_hang_up_frees_the_engine(site, ollama, reply, stream, wait_for)
    assert finished["usage"]["estimated"] is True
    assert finished["timings"]["total"] > 0
    if wait_for in (b"one ", b"5 "):
        assert wait_for.decode() in finished["content"]
        assert finished["usage"]["completion_tokens"] >= 1
        assert finished["timings"]["time_to_first_token"] > 0
    assert "Traceback" not in site.log()


def check_that_a_hang_up_frees_the_engine(
    site: Site, ollama: OllamaServer, reply: Reply, stream: bool = True, wait_for: bytes = b"one "
) -> dict[str, Any]:
    ollama.reply(reply)
    request_id = f"hang-up-{time.monotonic_ns()}"
    connection = site.send(body(stream=stream), request_id)
    received = ollama.wait_for_chat()
    got = b""
    # Not in the head: on some days "5 " stands in its date.
    while wait_for not in got.partition(b"\r\n\r\n")[2]:
        got += connection.recv(65536)
    time.sleep(0.1)
    assert not received.hung_up.is_set()
    connection.close()
    assert received.hung_up.wait(WITHIN), "the engine is still at work"
    started, finished = site.signals(request_id, 2)
    assert started["event"] == "started"
    assert finished["event"] == "finished"
    assert finished["finish_reason"] == "cancelled"
    return finished


def test_a_client_that_stops_reading_and_hangs_up_frees_the_engine(
    site: Site, ollama: OllamaServer
) -> None:
    flood = [part("x" * 100_000) for _ in range(1000)]
    ollama.reply(Reply([*flood, Hold()]))
    request_id = f"slow-reader-{time.monotonic_ns()}"
    connection = site.send(body(stream=True), request_id)
    received = ollama.wait_for_chat()
    connection.recv(1000)
    time.sleep(1)
    # A hundred megabytes wait in the engine, not in the site.
    assert not received.answered.is_set()
    connection.close()
    assert received.hung_up.wait(WITHIN), "the engine is still at work"
    assert site.signals(request_id, 2)[1]["finish_reason"] == "cancelled"


def test_signals_of_a_stream(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["a", "b"], prompt_tokens=9, pause=0.1))
    with streaming(site) as response:
        response.read()
        request_id = response.headers["x-request-id"]
    started, finished = site.signals(request_id, 2)
    assert started == {
        "event": "started",
        "request_id": request_id,
        "caller": "tester",
        "model": MODEL,
        "backend": "default",
        "sender": "OllamaBackend",
    }
    assert finished["finish_reason"] == "stop"
    assert finished["content"] == "ab"
    assert finished["usage"]["prompt_tokens"] == 9
    assert finished["usage"]["completion_tokens"] == 2
    assert finished["usage"]["estimated"] is False
    assert 0 < finished["timings"]["time_to_first_token"] < finished["timings"]["total"]
    assert finished["timings"]["total"] >= 0.2


def test_signals_of_a_failure(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("half"), Wait(0.1)]))
    with streaming(site) as response:
        response.read()
        request_id = response.headers["x-request-id"]
    _, failed = site.signals(request_id, 2)
    assert failed["event"] == "failed"
    assert failed["code"] == "bad_upstream"
    assert failed["usage"]["completion_tokens"] == 1
