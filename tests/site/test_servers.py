"""What a site relies on, in the servers that the other tests do not run: all of them ASGI."""

from __future__ import annotations

import json
import signal
import threading
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
import httpx
import pytest

from tests.conftest import site_fixture, site_options
from tests.ollama_server import Hold, OllamaServer, Reply, line
from tests.servers import OTHER_SERVERS, Server, Site, serve
from tests.site.test_shutdown import Asked
from tests.site.test_streaming import (
    DONE,
    HEADERS,
    body,
    check_that_a_hang_up_frees_the_engine,
    check_that_tokens_leave_when_they_arrive,
    frames,
    part,
)

pytestmark = pytest.mark.once


running_site = site_fixture(OTHER_SERVERS)


def test_every_token_leaves_when_it_arrives(site: Site, ollama: OllamaServer) -> None:
    check_that_tokens_leave_when_they_arrive(site, ollama)


def test_a_client_that_hangs_up_frees_the_engine(site: Site, ollama: OllamaServer) -> None:
    check_that_a_hang_up_frees_the_engine(site, ollama, Reply([part("one "), Hold()]))


def test_a_client_that_hangs_up_before_the_answer_frees_the_engine(
    site: Site, ollama: OllamaServer
) -> None:
    silent = Reply([], before=[Hold()])
    check_that_a_hang_up_frees_the_engine(site, ollama, silent, stream=False, wait_for=b"")


def test_a_connection_is_kept_for_answers_and_errors(site: Site, ollama: OllamaServer) -> None:
    connection = HTTPConnection(urlsplit(site.url).netloc, timeout=60)

    def ask(**changes: Any) -> tuple[int, Any]:
        content = json.dumps(body(**changes))
        connection.request("POST", "/ai/v1/chat/completions", content, HEADERS)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    status, answer = ask()
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")
    sock = connection.sock
    status, answer = ask(messages=[])
    assert (status, answer["error"]["param"]) == (400, "messages")
    status, answer = ask(model="gone")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert ask()[0] == 200
    assert connection.sock is sock
    connection.close()


def test_a_body_of_three_megabytes(site: Site, ollama: OllamaServer) -> None:
    text = "x" * (3 * 2**20)
    messages = [{"role": "user", "content": text}]
    response = httpx.post(
        f"{site.base_url}/chat/completions",
        headers=HEADERS,
        json=body(messages=messages),
        timeout=60,
    )
    assert response.status_code == 200
    assert ollama.chats()[0].body["messages"] == messages


@pytest.mark.parametrize("server", OTHER_SERVERS)
def test_a_server_that_is_told_to_stop(
    server: Server, ollama: OllamaServer, tmp_path: Path
) -> None:
    gate = threading.Event()
    reply = Reply([part("one "), Hold(gate), line(DONE)])
    with serve(server, tmp_path, site_options(ollama), grace=30) as site:
        asked = Asked(site, ollama, reply, stream=True).begun()
        site.process.send_signal(signal.SIGTERM)
        if server.startswith("daphne"):
            with pytest.raises(IncompleteRead):
                asked.response.read()
            assert asked.received[0].hung_up.wait(60)
            # Before, Django leaves the task to a loop that has stopped.
            if django.VERSION >= (6, 1):
                assert site.signals(asked.id, 2)[1]["finish_reason"] == "cancelled"
        else:
            gate.set()
            assert frames(asked.response.read().decode())[-1] == "data: [DONE]"
        asked.close()
        assert site.process.wait(timeout=60) == 0
