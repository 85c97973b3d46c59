"""Receivers that write what the signals say to a file, where a test in another process reads it,
and one that notes the connections to the database."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any
from weakref import WeakSet

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_ollama_openai.signals import (
    completion_failed,
    completion_finished,
    completion_started,
)

LOG = os.environ.get("SITE_SIGNAL_LOG", "")


class SiteConfig(AppConfig):
    name = "tests.project"
    label = "site_under_test"

    def ready(self) -> None:
        connection_created.connect(_connected)
        if LOG:
            completion_started.connect(_started)
            completion_finished.connect(_finished)
            completion_failed.connect(_failed)


connected: WeakSet[BaseDatabaseWrapper] = WeakSet()


def _connected(connection: BaseDatabaseWrapper, **facts: Any) -> None:
    connected.add(connection)


def _started(**facts: Any) -> None:
    _write("started", facts)


def _finished(**facts: Any) -> None:
    _write(
        "finished",
        facts,
        finish_reason=facts["finish_reason"],
        content=facts["messages"][0]["content"] if facts["messages"] else None,
    )


def _failed(**facts: Any) -> None:
    _write("failed", facts, code=facts["error"].code)


def _write(event: str, facts: dict[str, Any], **more: Any) -> None:
    entry = {
        "event": event,
        "request_id": facts["request_id"],
        "caller": facts["caller"].key_name,
        "model": facts["model"],
        "backend": facts["backend"],
        "sender": facts["sender"].__name__,
        **more,
    }
    for name in ("usage", "timings"):
        if name in facts:
            entry[name] = dataclasses.asdict(facts[name])
    with open(LOG, "a") as log:
        log.write(json.dumps(entry) + "\n")
