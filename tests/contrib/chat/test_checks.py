"""The system checks of the app."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from tests.contrib.access.conftest import DUMMY
from tests.contrib.chat.common import STORAGES

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]

OWN = {"ollama_openai.E001", "ollama_openai.E013", "ollama_openai.W010", "ollama_openai.W011"}
STORE = "django_ollama_openai.response_store.CacheStore"
FILES = "django.core.files.storage.FileSystemStorage"


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("CHAT", {}, []),
        ("CHAT", {"RETENTION_DAYS": {"responses": 7, "conversations": None}}, []),
        ("CHAT", {"RETENTION_DAYS": {"messages": 7}}, ["ollama_openai.E001"]),
        ("CHAT", {"RETENTION_DAYS": {"responses": 0}}, ["ollama_openai.E001"]),
        ("CHAT", {"STREAM_RETENTION_SECONDS": -1}, ["ollama_openai.E001"]),
        ("CHAT", {"MAX_BACKROUND": 1}, ["ollama_openai.E001"]),
        ("RESPONSE_STORE", STORE, ["ollama_openai.W010"]),
        ("USE_TZ", False, ["ollama_openai.E013"]),
        ("MEDIA_ROOT", "", ["ollama_openai.W011"]),
        ("MEDIA_ROOT", "/srv/media", []),
    ],
)
def test_checks(settings: Settings, setting: str, value: Any, expected: list[str]) -> None:
    settings.STORAGES = STORAGES
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY}
    if setting.isupper() and setting in ("CHAT", "RESPONSE_STORE"):
        settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, setting: value}
    else:
        setattr(settings, setting, value)
        if setting == "MEDIA_ROOT":
            settings.STORAGES = {**STORAGES, "default": {"BACKEND": FILES}}
    found = [each for each in checks.run_checks() if each.id in OWN and "access" not in each.msg]
    assert [each.id for each in found] == expected
