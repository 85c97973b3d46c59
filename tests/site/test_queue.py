"""``MAX_CONCURRENCY``, ``QUEUE_TIMEOUT`` and ``MAX_QUEUE`` over real servers: who waits, who is
refused, and what frees a place."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.test import AsyncClient, Client
from pytest_django.fixtures import Settings

from django_ollama_openai.backends import backends
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.signals import completion_started
from tests.conftest import site_fixture
from tests.ollama_server import (
    Answer,
    Close,
    Hold,
    OllamaServer,
    Reply,
    Send,
    error,
    line,
)
from tests.servers import KEY, SERVERS_AND_LANE, Site
from tests.site.test_streaming import frames

MODEL = "smollm2:135m"
HEADERS = {"Authorization": f"Bearer {KEY}"}
HI = [{"role": "user", "content": "Hi"}]
WITHIN = 60.0
OVERLOADED = {
    "error": {
        "message": "The backend of this model is busy. Try again in a moment.",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }
}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat/completions", {"model": "narrow", "messages": HI}),
    "stream": ("chat/completions", {"model": "narrow", "messages": HI, "stream": True}),
    "responses": ("responses", {"model": "narrow", "input": "Hi"}),
    "completions": ("completions", {"model": "narrow", "prompt": "Hi"}),
    "embeddings": ("embeddings", {"model": "embedder", "input": "Hi"}),
}


def options(ollama: OllamaServer) -> dict[str, Any]:
    host = {"HOST": ollama.url}
    return {
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
        "MAX_CONCURRENCY": 1,
        "QUEUE_TIMEOUT": 20,
        "BACKENDS": {
            "default": {**host, "MAX_QUEUE": 1},
            "hasty": {**host, "QUEUE_TIMEOUT": 0.3},
        },
        "MODELS": {
            "narrow": {"MODEL": MODEL, "BACKEND": "default"},
            "embedder": {"MODEL": "all-minilm:22m", "BACKEND": "default"},
            "hasty": {"MODEL": MODEL, "BACKEND": "hasty"},
        },
        "STREAM_KEEPALIVE_SECONDS": 30,
        "CLIENT_TIMEOUT": 1,
    }


queueing_site = site_fixture(SERVERS_AND_LANE, options)


@pytest.fixture
def site(queueing_site: Site, ollama: OllamaServer) -> Iterator[Site]:
    yield queueing_site
    wait_for_counts(queueing_site, 0, 0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(site: Site, path: str, body: dict[str, Any], request_id: str = "") -> httpx.Response:
    headers = {**HEADERS, "x-request-id": request_id}
    return httpx.post(f"{site.base_url}/{path}", headers=headers, json=body, timeout=60)


def counts(site: Site, alias: str) -> tuple[int, int]:
    """How many run and how many wait."""
    entry = httpx.get(f"{site.url}/ai/health", headers=HEADERS, timeout=60).json()["backends"]
    return entry[alias]["running"], entry[alias]["queued"]


def wait_for_counts(site: Site, running: int, queued: int, alias: str = "default") -> None:
    deadline = time.monotonic() + WITHIN
    while (found := counts(site, alias)) != (running, queued):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@contextmanager
def busy(site: Site, ollama: OllamaServer, model: str = "narrow") -> Iterator[Callable[[], None]]:
    """A stream that has the one slot until it is let go."""
    gate = threading.Event()
    part = {"model": MODEL, "message": {"content": "first"}, "done": False}
    done = {"model": MODEL, "message": {"content": ""}, "done": True, "done_reason": "stop"}
    ollama.reply(Reply([line(part), Hold(gate), line(done)]))
    body = {"model": model, "messages": HI, "stream": True}
    url = f"{site.base_url}/chat/completions"
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", url, headers=HEADERS, json=body) as response,
    ):
        chunks = response.iter_text()
        text = ""
        while "first" not in text:
            text += next(chunks)

        def let_go() -> None:
            nonlocal text
            gate.set()
            text += "".join(chunks)

        try:
            yield let_go
        finally:
            gate.set()
        assert text.endswith("[DONE]\n\n")


def refused(response: httpx.Response) -> bool:
    assert response.headers["retry-after"] == "5"
    assert response.headers["content-type"] == "application/json"
    return (response.status_code, response.json()) == (503, OVERLOADED)


# Waiting


@pytest.mark.parametrize("kind", KINDS)
def test_over_the_limit_one_waits_and_is_answered(
    site: Site, ollama: OllamaServer, pool: ThreadPoolExecutor, kind: str
) -> None:
    request_id = f"waits-{site.server}-{kind}"
    with busy(site, ollama) as let_go:
        waiting = pool.submit(ask, site, *KINDS[kind], request_id)
        wait_for_counts(site, 1, 1)
        assert [request.path for request in asked(ollama)] == ["/api/chat"]
        let_go()
        response = waiting.result(60)
    assert response.status_code == 200
    assert len(asked(ollama)) == 2
    _, ended = site.signals(request_id, 2)
    assert ended["event"] == "finished"
    assert 0 < ended["timings"]["queued"] <= ended["timings"]["total"]


def asked(ollama: OllamaServer) -> list[Any]:
    paths = ("/api/chat", "/api/generate", "/api/embed")
    return [request for request in ollama.requests if request.path in paths]


@pytest.mark.compat("errors.status.502, 503, 504")
@pytest.mark.parametrize("kind", KINDS)
def test_when_the_queue_is_full_one_is_refused_at_once(
    site: Site, ollama: OllamaServer, pool: ThreadPoolExecutor, kind: str
) -> None:
    with busy(site, ollama) as let_go:
        waiting = pool.submit(ask, site, *KINDS["chat"])
        wait_for_counts(site, 1, 1)
        # QUEUE_TIMEOUT is as long as a test may be.
        assert refused(ask(site, *KINDS[kind]))
        let_go()
        assert waiting.result(60).status_code == 200


@pytest.mark.parametrize("kind", ["chat", "stream", "responses", "completions"])
def test_who_has_waited_long_enough_is_refused(site: Site, ollama: OllamaServer, kind: str) -> None:
    path, body = KINDS[kind]
    request_id = f"late-{site.server}-{kind}"
    with busy(site, ollama, "hasty") as let_go:
        assert refused(ask(site, path, {**body, "model": "hasty"}, request_id))
        let_go()
    assert len(asked(ollama)) == 1
    _, ended = site.signals(request_id, 2)
    assert (ended["event"], ended["code"]) == ("failed", "overloaded")
    assert 0.29 < ended["timings"]["queued"] <= ended["timings"]["total"]


def test_other_backends_and_what_is_not_an_answer_do_not_wait(
    site: Site, ollama: OllamaServer
) -> None:
    with busy(site, ollama) as let_go:
        assert ask(site, "chat/completions", {"model": "hasty", "messages": HI}).status_code == 200
        models = httpx.get(f"{site.base_url}/models", headers=HEADERS, timeout=60)
        assert models.status_code == 200
        assert counts(site, "default") == (1, 0)
        let_go()


def test_only_known_callers_see_the_counts(site: Site, ollama: OllamaServer) -> None:
    with busy(site, ollama) as let_go:
        assert counts(site, "default") == (1, 0)
        assert httpx.get(f"{site.url}/ai/health", timeout=60).json() == {"status": "ok"}
        let_go()


# Several choices


@pytest.mark.parametrize("model", ["narrow", "hasty"])
def test_several_choices_come_one_after_the_other(
    site: Site, ollama: OllamaServer, model: str
) -> None:
    # Together they take longer than the one backend lets others wait, and are more than may wait
    # for the other.
    ollama.reply(*[Answer(["a", "b", "c"], pause=0.06)] * 4)
    body = {"model": model, "messages": HI, "n": 4, "stream": True}
    response = ask(site, "chat/completions", body)
    chunks = [
        json.loads(frame.removeprefix("data: "))
        for frame in response.text.split("\n\n")
        if frame.startswith("data: {")
    ]
    arrived = [
        choice["index"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["delta"].get("content")
    ]
    assert sorted(arrived) == [number for number in range(4) for _ in "abc"]
    assert arrived == [index for index in dict.fromkeys(arrived) for _ in "abc"]


def test_several_choices_in_one_piece(site: Site, ollama: OllamaServer) -> None:
    body = {"model": "narrow", "messages": HI, "n": 3}
    response = ask(site, "chat/completions", body)
    assert [choice["index"] for choice in response.json()["choices"]] == [0, 1, 2]


# What frees a place


def send(site: Site, kind: str, request_id: str, **changes: Any) -> socket.socket:
    """A request on a connection of its own, which nobody reads from."""
    path, body = KINDS[kind]
    return site.send({**body, **changes}, request_id, path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_hangs_up_while_it_waits_makes_room(
    site: Site, ollama: OllamaServer, pool: ThreadPoolExecutor, kind: str
) -> None:
    request_id = f"gone-{site.server}-{kind}"
    with busy(site, ollama) as let_go:
        with send(site, kind, request_id):
            wait_for_counts(site, 1, 1)
        wait_for_counts(site, 1, 0)
        waiting: Future[httpx.Response] = pool.submit(ask, site, *KINDS["chat"])
        wait_for_counts(site, 1, 1)
        let_go()
        assert waiting.result(60).status_code == 200
    assert [request.path for request in asked(ollama)] == ["/api/chat"] * 2
    _, ended = site.signals(request_id, 2)
    assert (ended["event"], ended["finish_reason"]) == ("finished", "cancelled")
    assert ended["timings"]["queued"] > 0


def test_a_client_that_hangs_up_while_it_is_answered_frees_its_slot(
    site: Site, ollama: OllamaServer, pool: ThreadPoolExecutor
) -> None:
    ollama.reply(Reply([], before=[Hold()]))
    with send(site, "chat", f"hangs-up-{site.server}"):
        ollama.wait_for_chat()
        waiting = pool.submit(ask, site, *KINDS["chat"])
        wait_for_counts(site, 1, 1)
    assert waiting.result(60).status_code == 200


FLOOD = Reply(
    [*[line({"model": MODEL, "message": {"content": "x" * 100_000}, "done": False})] * 1000, Hold()]
)


def test_a_client_that_stops_reading_loses_its_slot(site: Site, ollama: OllamaServer) -> None:
    request_id = f"stops-reading-{site.server}"
    ollama.reply(FLOOD)
    with send(site, "stream", request_id) as connection:
        received = ollama.wait_for_chat()
        connection.recv(1000)
        assert ask(site, *KINDS["chat"]).status_code == 200
        assert received.hung_up.wait(WITHIN)
        # What was on its way can still be read, and why there is no more of it.
        end = b""
        while b"[DONE]" not in end:
            end = end[-1000:] + connection.recv(2**20)
    _, frame, _ = end.decode().rsplit("data: ", 2)
    # The frame is followed by the marks of HTTP's chunks.
    assert json.JSONDecoder().raw_decode(frame)[0]["error"]["code"] == "client_timeout"
    _, failed = site.signals(request_id, 2)
    assert (failed["event"], failed["code"]) == ("failed", "client_timeout")


def test_a_client_that_stops_reading_gets_no_slot_for_its_other_choices(
    site: Site, ollama: OllamaServer
) -> None:
    request_id = f"stops-reading-choices-{site.server}"
    ollama.reply(*[FLOOD] * 4)
    with send(site, "stream", request_id, n=4) as connection:
        ollama.wait_for_chat()
        connection.recv(1000)
        wait_for_counts(site, 0, 0)
        assert len(ollama.chats()) == 1
    # It has hung up by now, and was given up before.
    _, failed = site.signals(request_id, 2)
    assert (failed["event"], failed["code"]) == ("failed", "client_timeout")


@pytest.mark.parametrize("kind", ["chat", "stream"])
@pytest.mark.parametrize(
    "reply", [error(500, "boom"), Reply([Send(b'{"mess'), Close()])], ids=["refuses", "breaks-off"]
)
def test_a_failure_frees_its_slot(
    site: Site, ollama: OllamaServer, kind: str, reply: Reply
) -> None:
    ollama.reply(reply)
    assert ask(site, *KINDS[kind]).status_code == 502
    assert ask(site, *KINDS[kind]).status_code == 200


# In this process


@pytest.fixture
def canned(settings: Settings) -> Callable[..., None]:
    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "ALLOW_ANONYMOUS": True,
            "MAX_CONCURRENCY": 1,
            "BACKENDS": {
                "default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"},
            },
            **options,
        }

    return configure


URL = "/ai/v1/chat/completions"
STREAM = json.dumps({"model": "m", "messages": HI, "stream": True})


def sync_stream() -> tuple[int, bytes]:
    response: Any = Client().post(URL, STREAM, content_type="application/json")
    return response.status_code, response.getvalue()


def async_stream() -> tuple[int, bytes]:
    async def read() -> tuple[int, bytes]:
        response: Any = await AsyncClient().post(URL, STREAM, content_type="application/json")
        content = b"".join([part async for part in response.streaming_content])
        return response.status_code, content

    return asyncio.run(read())


STREAMS = pytest.mark.parametrize("stream", [sync_stream, async_stream])


@STREAMS
def test_a_stream_that_has_begun_gets_an_error_event(
    canned: Callable[..., None], stream: Callable[[], tuple[int, bytes]]
) -> None:
    canned(QUEUE_TIMEOUT=0.3, STREAM_KEEPALIVE_SECONDS=0.1)
    with backends["default"].slots.acquire(QueueTicket()):
        status, content = stream()
    assert status == 200
    pings = content.decode().partition("data: ")[0]
    told, end = frames(content.decode())
    assert pings
    assert set(pings.split("\n")) == {": ping", ""}
    assert json.loads(told.removeprefix("data: ")) == OVERLOADED
    assert end == "data: [DONE]"


@STREAMS
def test_the_signal_has_the_number_of_waiting_requests(
    canned: Callable[..., None],
    pool: ThreadPoolExecutor,
    stream: Callable[[], tuple[int, bytes]],
) -> None:
    canned(MAX_QUEUE=2)
    told: list[int] = []

    def receiver(queued: int, **kwargs: Any) -> None:
        told.append(queued)

    completion_started.connect(receiver)
    slots = backends["default"].slots
    try:
        with slots.acquire(QueueTicket()):
            waiting = []
            for number in (1, 2):
                waiting.append(pool.submit(stream))
                deadline = time.monotonic() + WITHIN
                while slots.queued < number:
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
        assert [one.result(60)[0] for one in waiting] == [200, 200]
    finally:
        completion_started.disconnect(receiver)
    assert told == [0, 1]
