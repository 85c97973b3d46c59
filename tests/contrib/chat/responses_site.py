"""Callers of the tests of responses and conversations, by Django's clients and the fast lane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from pytest_django import Settings

from django_ollama_openai.contrib.access import _key_cache, _last_used
from tests.contrib.access.conftest import World
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import OllamaServer

__all__ = ["MODEL", "Api", "api", "last_event", "stateful"]

MODEL: Final = "smollm2:135m"


class Api:
    """Send requests with the key of a caller: ``ada`` or ``bob``, or one of ada's with the scope
    ``chat`` or ``sessions`` only; ``None`` is anonymous."""

    def __init__(self, kind: Any) -> None:
        self._send = sender(kind)
        world = World()
        self.users = {name: world.user(name) for name in ("ada", "bob")}
        self.keys = {name: world.key(user).key for name, user in self.users.items()}
        for scope in ("chat", "sessions"):
            self.keys[scope] = world.key(self.users["ada"], scopes=[scope]).key

    def raw(self, method: str, path: str, body: Any = "", key: str | None = "ada") -> Any:
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys[key]}"}
        return self._send(method, f"/{path}", body, headers=headers)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = "",
        key: str | None = "ada",
        status: int = 200,
        mount: str = "ai",
    ) -> Any:
        """Return the body of the answer, which has ``status``, or the error of one that fails."""
        response = self.raw(method, f"{mount}/v1/{path}", body, key)
        content = response.getvalue()
        assert response.status_code == status, content
        if response.headers["Content-Type"].startswith("text/event-stream"):
            return content.decode()
        parsed = json.loads(content)
        return parsed["error"] if status >= 400 else parsed

    def ask(self, key: str | None = "ada", status: int = 200, **body: Any) -> Any:
        """Create a response."""
        return self("POST", "responses", body, key, status)

    def session(self, **fields: Any) -> str:
        """Create a session of ada's, and return its id."""
        response = self.raw("POST", "ai/api/chat/sessions/", fields)
        assert response.status_code == 201, response.content
        id: str = response.json()["id"]
        return id

    def post(self, session: str, content: str, **fields: Any) -> Any:
        """Post a message to a session of ada's, and return the answer's text."""
        path = f"ai/api/chat/sessions/{session}/messages/"
        response = self.raw("POST", path, {"content": content, **fields})
        assert response.status_code == 200, response.content
        return response.json()["choices"][0]["message"]["content"]


def last_event(stream: str) -> Any:
    """Return the last event of ``stream``."""
    *_, data = stream.strip().split("\ndata: ")
    return json.loads(data)


@pytest.fixture(params=CLIENTS, ids=IDS)
def api(request: pytest.FixtureRequest, transactional_db: None) -> Api:
    return Api(request.param)


@pytest.fixture
def stateful(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ollama: OllamaServer, tmp_path: Any
) -> Iterator[OllamaServer]:
    """A scripted Ollama behind a site with the callers of :class:`Api`."""
    settings.OLLAMA_OPENAI = {
        "HOST": ollama.url,
        "ALLOW_ANONYMOUS": True,
        "DEFAULT_MODEL": MODEL,
    }
    settings.MEDIA_ROOT = str(tmp_path)
    monkeypatch.setattr(_last_used, "note", lambda key_id: None)
    _key_cache.cache.clear()
    yield ollama
    _key_cache.cache.clear()
