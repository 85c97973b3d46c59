"""The config of the app."""

from __future__ import annotations

from typing import ClassVar

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _

__all__ = ["AccessConfig"]

PACKAGE = "django_ollama_openai.contrib.access"


class AccessConfig(AppConfig):
    """Workspaces, API keys and limits."""

    name = PACKAGE
    label = "ollama_openai_access"
    verbose_name = _("AI access")
    default_auto_field = "django.db.models.BigAutoField"

    ollama_openai_urls = f"{PACKAGE}.urls"
    ollama_openai_authenticators: ClassVar = [
        f"{PACKAGE}.authentication.APIKeyAuthenticator",
        f"{PACKAGE}.authentication.MemberAuthenticator",
    ]
    ollama_openai_policies: ClassVar = [f"{PACKAGE}.policies.LimitPolicy"]
    ollama_openai_pruners: ClassVar = [f"{PACKAGE}._limits.pruning.LimitPruner"]
    ollama_openai_settings: ClassVar = {"ACCESS": f"{PACKAGE}.conf.AccessSettings"}
    ollama_openai_commands: ClassVar = {
        "keys": f"{PACKAGE}.commands.Keys",
        "limits": f"{PACKAGE}.commands.Limits",
        "workspaces": f"{PACKAGE}.commands.Workspaces",
    }

    def ready(self) -> None:
        from . import _invalidation, checks

        _invalidation.connect()
        checks.connect()
        if apps.is_installed("django.contrib.admin"):
            from ._admin.users import extend_user_admin

            extend_user_admin()
