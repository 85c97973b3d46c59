"""Parts of the tests of files, items, exports, retention and the admin: media and their callers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core.files.storage import default_storage
from pytest_django import Settings

from tests.contrib.access.conftest import DUMMY, Caller, World

__all__ = [
    "AUDIO",
    "GIF",
    "JPEG",
    "PNG",
    "STORAGES",
    "WAV",
    "WEBP",
    "ask",
    "caller_of",
    "files_in_storage",
    "media_site",
    "picture",
    "raw_rows",
    "uri",
]

PNG = b"\x89PNG\r\n\x1a\n" + b"picture of a teapot" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"\x00\x10JFIF" * 20
GIF = b"GIF89a" + b"\x01\x00" * 30
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\x02" * 40
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x03" * 40
AUDIO = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


@pytest.fixture(autouse=True)
def media_site(settings: Settings) -> Iterator[None]:
    """A site whose storage is no file system."""
    settings.STORAGES = STORAGES
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY}
    yield


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def caller_of(name: str) -> Caller:
    """Return a caller that is logged in as the new user ``name``."""
    return World().session(World().user(name))


def ask(caller: Caller, session: str, content: Any, **fields: Any) -> Any:
    """Post a message to a session, and return the answer's body."""
    body = {"model": "m", "content": content, **fields}
    answer = caller("POST", f"api/chat/sessions/{session}/messages/", body)
    assert answer.status in (200, 201), answer.body
    return answer.body


def files_in_storage() -> list[str]:
    """Return the names of all files in the storage."""
    found: list[str] = []
    directories = ["ollama_openai_chat"]
    while directories:
        directory = directories.pop()
        try:
            below, files = default_storage.listdir(directory)
        except FileNotFoundError:
            continue
        directories += [f"{directory}/{name}" for name in below]
        found += [f"{directory}/{name}" for name in files]
    return found


def raw_rows() -> str:
    """Return all rows of the app's tables, as text."""
    return json.dumps(
        [
            [str(value) for value in row]
            for model in apps.get_app_config("ollama_openai_chat").get_models()
            for row in model._default_manager.values_list()
        ]
    )
