"""Users, workspaces and keys of the tests, and a client that calls the site with a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from pytest_django import Settings

from django_ollama_openai.contrib.access import _key_cache, _last_used
from django_ollama_openai.contrib.access.models import APIKey, Membership, Workspace

DUMMY = {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}}


@dataclass
class Answer:
    """An answer. Its body is that of JSON, or the bytes of a stream or file; ``None`` if empty."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def error(self) -> Any:
        return self.body["error"]


@dataclass
class Caller:
    """Send requests to the site with a key, or as the logged-in user."""

    key: str | None = None
    client: Client = field(default_factory=Client)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = "" if body is None else json.dumps(body)
        response: Any = self.client.generic(
            method,
            f"/ai/{path}",
            data,
            content_type="application/json",
            headers=headers,
        )
        content = response.getvalue()
        is_json = response.headers.get("Content-Type") == "application/json"
        parsed = json.loads(content) if content and is_json else content or None
        return Answer(response.status_code, parsed, dict(response.headers))

    def chat(self, model: str = "m", **headers: str) -> Answer:
        messages = [{"role": "user", "content": "Hello there"}]
        body = {"model": model, "messages": messages}
        return self("POST", "v1/chat/completions", body, **headers)


class World:
    """Create users, workspaces and keys for a test."""

    def user(self, name: str, **fields: Any) -> Any:
        return get_user_model()._default_manager.create(username=name, **fields)

    def workspace(self, name: str, **members: Any) -> Workspace:
        """Create a workspace; ``members`` maps roles to users."""
        made = Workspace.objects.create(name=name, slug=name.lower())
        for role, user in members.items():
            Membership.objects.create(workspace=made, user=user, role=role)
        return made

    def key(self, user: Any = None, workspace: Workspace | None = None, **fields: Any) -> Caller:
        made = APIKey.objects.create(
            **{"name": "test", "user": user, "workspace": workspace, **fields}
        )
        caller = Caller(made.new_secret("site"))
        caller.row = made  # type: ignore[attr-defined]  # for tests that change it
        return caller

    def session(self, user: Any) -> Caller:
        caller = Caller()
        caller.client.force_login(user)
        return caller


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture(autouse=True)
def configured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY}
    # Its thread would wait for the transaction of the test.
    monkeypatch.setattr(_last_used, "note", lambda key_id: None)
    _key_cache.cache.clear()
    yield
    _key_cache.cache.clear()
