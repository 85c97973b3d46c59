"""The config of the app."""

from __future__ import annotations

from typing import ClassVar

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _

__all__ = ["ChatConfig"]

PACKAGE = "django_ollama_openai.contrib.chat"


class ChatConfig(AppConfig):
    """Sessions, conversations, stored responses and chat completions."""

    name = PACKAGE
    label = "ollama_openai_chat"
    verbose_name = _("AI conversations")
    default_auto_field = "django.db.models.BigAutoField"

    ollama_openai_urls = f"{PACKAGE}.urls"
    ollama_openai_settings: ClassVar = {"CHAT": f"{PACKAGE}.conf.ChatSettings"}
    ollama_openai_commands: ClassVar = {"erase": f"{PACKAGE}.commands.Erase"}
    ollama_openai_pruners: ClassVar = [f"{PACKAGE}._store.retention.ChatPruner"]

    def ready(self) -> None:
        from . import checks
        from ._store import files, retention

        files.connect()
        retention.connect()
        checks.connect()
        if apps.is_installed("django.contrib.admin"):
            from ._admin.users import extend_user_admin

            extend_user_admin()
