"""System checks of the app.

======================  ==========================================================
``ollama_openai.E014``  a value in ``USAGE`` cannot be used
======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ._billing.receivers import problem_of
from ._billing.webhook import secret_of
from ._recording.record import billing_zone
from .conf import UsageSettings, usage_settings

__all__ = ["check_usage", "connect"]


def connect() -> None:
    """Register the checks."""
    register(check_usage)


def check_usage(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the time zone and the receivers of events."""
    try:
        settings = usage_settings()
    except ImproperlyConfigured:
        # The check of the settings reports it.
        return []
    return [
        Error(message, id="ollama_openai.E014", hint=hint) for message, hint in _problems(settings)
    ]


def _problems(settings: UsageSettings) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    try:
        billing_zone()
    except (KeyError, ValueError, OSError):
        found.append((f"USAGE TIME_ZONE: there is no time zone {settings.TIME_ZONE!r}.", None))
    webhook = settings.WEBHOOK
    if webhook is not None:
        if problem := problem_of(webhook.URL, is_private=webhook.ALLOW_PRIVATE):
            hint = "ALLOW_PRIVATE allows receivers of the site's own network, and http."
            found.append((f"USAGE WEBHOOK: the URL cannot be used: {problem}.", hint))
        try:
            secret_of(webhook.SECRET.get_secret_value())
        except ValueError as error:
            found.append((f"USAGE WEBHOOK: {error}", "Such a secret begins with whsec_."))
    meter = settings.OPENMETER
    if meter is not None and (problem := problem_of(meter.URL, is_private=True)):
        found.append((f"USAGE OPENMETER: the URL cannot be used: {problem}.", None))
    if settings.STRIPE is not None:
        if find_spec("stripe") is None:
            found.append(
                (
                    "USAGE STRIPE: the package stripe is not installed.",
                    "pip install django-ollama-openai[stripe]",
                )
            )
        try:
            customer = import_string(settings.STRIPE.CUSTOMER)
        except ImportError as error:
            found.append((f"USAGE STRIPE: CUSTOMER cannot be imported: {error}", None))
        else:
            if not callable(customer):
                found.append(("USAGE STRIPE: CUSTOMER is no function.", None))
    return found
