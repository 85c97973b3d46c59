from __future__ import annotations

from typing import ClassVar

from django.apps import AppConfig


class NotesConfig(AppConfig):
    name = "tests.project.notes"
    label = "notes"
    default_auto_field = "django.db.models.BigAutoField"

    ollama_openai_urls = "tests.project.notes.urls"
    ollama_openai_authenticators: ClassVar = ["tests.project.notes.auth.TokenAuthenticator"]
    ollama_openai_policies: ClassVar = ["tests.project.notes.policy.RunningPolicy"]
    ollama_openai_settings: ClassVar = {"NOTES": "tests.project.notes.conf.NotesSettings"}
