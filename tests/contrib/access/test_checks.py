"""The system checks of the app."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.db import connection
from pytest_django import Settings

from django_ollama_openai.contrib.access.models import Limit

# The checks of JSON fields ask the database.
pytestmark = pytest.mark.django_db

STORES = "django_ollama_openai.contrib.access.stores"


def ids(**options: Any) -> list[str | None]:
    own = [each for each in checks.run_checks(**options) if "LIMIT_STORE" in each.msg]
    return [each.id for each in own]


@pytest.mark.parametrize(
    ("store", "options", "expected"),
    [
        ("DatabaseStore", {}, []),
        ("RedisStore", {"url": "redis://127.0.0.1:1/0"}, []),
        ("RedisStore", {}, ["ollama_openai.E011"]),
        ("RedisStore", {"url": "redis://127.0.0.1:1/0", "prefx": "a"}, ["ollama_openai.E011"]),
        ("NoStore", {}, ["ollama_openai.E011"]),
        ("Claim", {}, ["ollama_openai.E011"]),
        ("BaseStore", {"unknown": 1}, ["ollama_openai.E011"]),
        ("MemoryStore", {}, ["ollama_openai.W007"]),
    ],
)
def test_the_store(
    settings: Settings, store: str, options: dict[str, Any], expected: list[str]
) -> None:
    config = {"STORE": f"{STORES}.{store}", "OPTIONS": options}
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ACCESS": {"LIMIT_STORE": config}}
    assert ids() == expected


def test_the_password_of_the_store_is_not_shown(settings: Settings) -> None:
    # A slash ends the host, so that the password is taken for a port.
    config = {"STORE": f"{STORES}.RedisStore", "OPTIONS": {"url": "redis://:secret/1@host/0"}}
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ACCESS": {"LIMIT_STORE": config}}
    (found,) = [each for each in checks.run_checks() if each.id == "ollama_openai.E011"]
    assert "secret" not in str(found)


def test_one_process_in_development_may_keep_limits_in_memory(settings: Settings) -> None:
    config = {"STORE": f"{STORES}.MemoryStore"}
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ACCESS": {"LIMIT_STORE": config}}
    settings.DEBUG = True
    assert ids() == []


def test_a_path_that_is_no_store_is_an_error(settings: Settings) -> None:
    config = {"STORE": "collections.OrderedDict"}
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ACCESS": {"LIMIT_STORE": config}}
    assert ids() == ["ollama_openai.E011"]


def test_times_have_to_have_zones(settings: Settings) -> None:
    settings.USE_TZ = False
    assert "ollama_openai.E012" in [each.id for each in checks.run_checks()]


def test_limits_without_effect(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ALLOWED_MODELS": ["llama3*"]}

    def found(**options: Any) -> dict[str | None, str]:
        messages = checks.run_checks(tags=[checks.Tags.database], **options)
        return {each.id: each.msg for each in messages}

    for model in ("*", "llama3:8b", "llama*"):
        Limit.objects.create(target="everybody", unit="requests", amount=1, per="day", model=model)
    assert not found(databases=["default"])
    Limit.objects.create(target="everybody", unit="cost", amount=1, per="day", model="qwen3")
    messages = found(databases=["default"])
    assert list(messages) == ["ollama_openai.W008", "ollama_openai.W009"]
    assert "'qwen3'" in messages["ollama_openai.W009"]
    # Only check --database reads the database.
    assert not messages.keys() & {each.id for each in checks.run_checks()}


@pytest.mark.parametrize("left_out", ["AUTHENTICATION", "POLICIES"])
def test_settings_that_leave_out_parts_of_the_app(settings: Settings, left_out: str) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, left_out: []}
    messages = {each.id: each.msg for each in checks.run_checks()}
    assert "contrib.access" in messages["ollama_openai.W006"]


@pytest.mark.django_db(transaction=True)
def test_the_checks_work_before_migrate() -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(Limit)
    try:
        assert not checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Limit)
