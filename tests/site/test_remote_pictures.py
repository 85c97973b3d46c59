"""``image_url`` with an address, on a site that fetches pictures."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from django_ollama_openai._gateway import remote_images
from tests.fast_lane import CLIENTS, IDS
from tests.ollama_server import OllamaServer

PNG = b"\x89PNG\r\n\x1a\n"


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/a.png" else 404)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(PNG)))
        self.end_headers()
        self.wfile.write(PNG)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the output of the tests clean."""


@pytest.fixture
def pictures() -> Iterator[str]:
    """The address of a server with a picture."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=CLIENTS, ids=IDS)
def ask(request: pytest.FixtureRequest, settings: Settings, ollama: OllamaServer) -> Any:
    """A chat completion with a picture, or a response, by either of Django's clients."""
    settings.OLLAMA_OPENAI = {
        "HOST": ollama.url,
        "ALLOW_ANONYMOUS": True,
        "DEFAULT_MODEL": "smollm2:135m",
        "REMOTE_IMAGES": True,
    }
    client = request.param(raise_request_exception=False)

    def post(path: str, body: Any) -> Any:
        return client.post(f"/ai/v1/{path}", json.dumps(body), content_type="application/json")

    async def apost(path: str, body: Any) -> Any:
        return await post(path, body)

    return async_to_sync(apost) if issubclass(request.param, AsyncClient) else post


def chat(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": parts}]}


def response(url: str) -> dict[str, Any]:
    part = {"type": "input_image", "image_url": url}
    return {"input": [{"role": "user", "content": [part]}]}


@pytest.mark.compat("chat.request.messages[].content[].image_url.url")
def test_a_picture_is_fetched(
    ask: Any, pictures: str, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: True)
    url = f"{pictures}/a.png"
    inline = "data:image/gif;base64,R0lG"
    assert ask("chat/completions", chat(url, inline, url)).status_code == 200
    assert ask("responses", response(url)).status_code == 200
    png = base64.b64encode(PNG).decode()
    first, second = (request.body["messages"][-1]["images"] for request in ollama.chats())
    assert first == [png, "R0lG", png]
    assert second == [png]


def test_a_picture_that_is_not_there_is_named(
    ask: Any, pictures: str, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: True)
    answer = ask("chat/completions", chat(f"{pictures}/a.png", f"{pictures}/b.png"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_image_url")
    assert error["param"] == "messages[1].content[1].image_url.url"
    assert "404" in error["message"]
    error = ask("responses", response(f"{pictures}/b.png")).json()["error"]
    assert error["param"] == "input[0].content[0].image_url"
    assert ollama.requests == []


def test_an_address_of_the_sites_own_network_is_refused(
    ask: Any, pictures: str, ollama: OllamaServer
) -> None:
    answer = ask("chat/completions", chat(f"{pictures}/a.png"))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_image_url"
    assert ollama.requests == []
