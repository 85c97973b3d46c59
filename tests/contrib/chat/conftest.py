"""Callers and engines of the tests of sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from django_ollama_openai.contrib.access import _key_cache, _last_used
from django_ollama_openai.contrib.chat.models import Conversation
from tests.contrib.access.conftest import DUMMY, Answer, Caller, World
from tests.ollama_server import OllamaServer

__all__ = ["PNG", "SESSIONS", "Chat", "messages_of", "walk"]

SESSIONS = "api/chat/sessions/"
#: A pixel.
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY"
    "42YAAAAASUVORK5CYII="
)


class Chat:
    """A session of ``caller``."""

    def __init__(self, caller: Caller, **fields: Any) -> None:
        self.caller = caller
        made = caller("POST", SESSIONS, fields)
        assert made.status == 201, made.body
        self.id: str = made.body["id"]
        self.path = f"{SESSIONS}{self.id}/"

    def __call__(self, method: str, path: str = "", body: Any = None, **headers: str) -> Answer:
        return self.caller(method, f"{self.path}{path}", body, **headers)

    @property
    def row(self) -> Conversation:
        return Conversation.objects.get(pk=self.id.removeprefix("conv_"))

    @property
    def shown(self) -> Any:
        return self("GET").body

    def keep(self, content: Any, role: str = "user", **fields: Any) -> str:
        """Add a message without an answer, and return its id."""
        body = {"role": role, "content": content, "reply": False, **fields}
        made = self("POST", "messages/", body)
        assert made.status == 201, made.body
        id_: str = made.body["id"]
        return id_

    def post(self, content: Any = "Hello", **fields: Any) -> Answer:
        return self("POST", "messages/", {"content": content, **fields})

    def texts(self, query: str = "limit=100") -> list[str]:
        return [each["content"] for each in self("GET", f"messages/?{query}").body["data"]]

    def events(self, path: str, **fields: Any) -> list[Any]:
        """Return the chunks of a stream, which ends with ``[DONE]``."""
        headers = {"Authorization": f"Bearer {self.caller.key}"} if self.caller.key else {}
        response: Any = self.caller.client.post(
            f"/ai/{self.path}{path}",
            json.dumps({**fields, "stream": True}),
            content_type="application/json",
            headers=headers,
        )
        assert response.status_code == 200, response.content
        frames = b"".join(response.streaming_content).decode().split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture(autouse=True)
def configured(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[None]:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "DEFAULT_MODEL": "m"}
    settings.MEDIA_ROOT = str(tmp_path)
    # Its thread would wait for the transaction of the test.
    monkeypatch.setattr(_last_used, "note", lambda key_id: None)
    _key_cache.cache.clear()
    yield
    _key_cache.cache.clear()


@pytest.fixture
def engine(ollama: OllamaServer, settings: Settings) -> OllamaServer:
    """A scripted Ollama that the site uses."""
    settings.OLLAMA_OPENAI = {"HOST": ollama.url, "DEFAULT_MODEL": "smollm2:135m"}
    return ollama


@pytest.fixture
def ada(world: World) -> Caller:
    return world.session(world.user("ada"))


@pytest.fixture
def chat(ada: Caller) -> Chat:
    return Chat(ada)


def walk(caller: Caller, query: str = "", name: str = "title", path: str = SESSIONS) -> list[Any]:
    """Return a field of all rows of a list, by pages of two."""
    seen: list[Any] = []
    after = ""
    while True:
        page = caller("GET", f"{path}?limit=2&{query}{after}").body
        assert (page["first_id"], page["last_id"]) == (
            (page["data"][0]["id"], page["data"][-1]["id"]) if page["data"] else (None, None)
        )
        seen += [row[name] for row in page["data"]]
        if not page["has_more"]:
            return seen
        assert len(page["data"]) == 2
        after = f"&after={page['last_id']}"


def messages_of(received: OllamaServer) -> list[Any]:
    """Return the messages of the last request to the engine."""
    found: list[Any] = received.chats()[-1].body["messages"]
    return found
