"""Callers and records of the tests of usage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_django import Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.access import _key_cache, _last_used
from django_ollama_openai.contrib.usage import _budgets, pricing
from django_ollama_openai.contrib.usage._recording import writer
from django_ollama_openai.contrib.usage._recording.record import Draft, User
from django_ollama_openai.contrib.usage.models import Source, Status, UsageRecord
from tests.contrib.access.conftest import DUMMY, World
from tests.ollama_server import OllamaServer

__all__ = ["MOMENT", "made", "stored"]

MOMENT = datetime(2026, 11, 5, 12, 7, tzinfo=UTC)


def made(**facts: Any) -> Draft:
    """Return a draft of a record."""
    defaults: dict[str, Any] = {
        "id": uuid7(),
        "request_id": "req_1",
        "started_at": MOMENT,
        "user": User(),
        "endpoint": "chat.completions",
        "model": "llama3.2",
        "answered_by": facts.get("model", "llama3.2"),
        "backend": "default",
        "prompt_tokens": 100,
        "cached_tokens": 0,
        "completion_tokens": 10,
        "reasoning_tokens": 0,
        "source": Source.REPORTED,
        "status": Status.OK,
        "error": "",
        "duration": 1_500,
        "queued": 500,
        "time_to_first_token": 700,
        "tags": None,
    }
    return Draft(**{**defaults, **facts})


def stored(*drafts: Draft) -> list[UsageRecord]:
    """Store the records of ``drafts`` with their sums."""
    writer.write(drafts)
    ids = [draft.id for draft in drafts]
    return list(UsageRecord.objects.filter(pk__in=ids).order_by("pk"))


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture(autouse=True)
def configured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY}
    # Their threads would wait for the transaction of the test.
    monkeypatch.setattr(_last_used, "note", lambda key_id: None)
    monkeypatch.setattr(writer, "put", writer.commit)
    monkeypatch.setattr(_budgets._queue, "put", lambda spending: True)
    _key_cache.cache.clear()
    pricing._cache.clear()
    yield
    _key_cache.cache.clear()


@pytest.fixture
def engine(ollama: OllamaServer, settings: Settings) -> OllamaServer:
    """The scripted engine as the backend of the site."""
    settings.OLLAMA_OPENAI = {"HOST": ollama.url, "DEFAULT_MODEL": "smollm2:135m"}
    return ollama
