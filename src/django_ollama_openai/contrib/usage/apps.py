"""The config of the app."""

from __future__ import annotations

from typing import ClassVar

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

__all__ = ["UsageConfig"]

PACKAGE = "django_ollama_openai.contrib.usage"


class UsageConfig(AppConfig):
    """Usage records, sums, prices, budgets and invoices."""

    name = PACKAGE
    label = "ollama_openai_usage"
    verbose_name = _("AI usage")
    default_auto_field = "django.db.models.BigAutoField"

    ollama_openai_urls = f"{PACKAGE}.urls"
    ollama_openai_policies: ClassVar = [f"{PACKAGE}.policies.UsagePolicy"]
    ollama_openai_pruners: ClassVar = [f"{PACKAGE}.retention.UsagePruner"]
    ollama_openai_pricer = f"{PACKAGE}.pricing.Pricer"
    ollama_openai_settings: ClassVar = {"USAGE": f"{PACKAGE}.conf.UsageSettings"}
    ollama_openai_commands: ClassVar = {
        "bill": f"{PACKAGE}._commands.billing.Bill",
        "deliver": f"{PACKAGE}._commands.billing.Deliver",
        "prices": f"{PACKAGE}._commands.prices.Prices",
        "usage": f"{PACKAGE}._commands.usage.Usage",
    }

    def ready(self) -> None:
        from . import checks, pricing
        from ._recording import deletions

        checks.connect()
        deletions.connect()
        pricing.connect()
