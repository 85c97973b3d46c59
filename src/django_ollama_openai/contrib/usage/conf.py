"""The section ``OLLAMA_OPENAI["USAGE"]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from ...apps import Section, section

__all__ = ["OpenMeterConfig", "StripeConfig", "UsageSettings", "WebhookConfig", "usage_settings"]


class WebhookConfig(Section):
    """A receiver of events, which are signed as Standard Webhooks says."""

    URL: str = Field(description="The address, with https.")
    SECRET: SecretStr = Field(description="The secret of the signature: ``whsec_…``.")
    ALLOW_PRIVATE: bool = Field(
        False,
        description="Whether the receiver may be in the site's own network, and without https.",
    )


class StripeConfig(Section):
    """A meter of Stripe."""

    API_KEY: SecretStr = Field(description="Stripe's secret key.")
    EVENT_NAME: str = Field(description="The name of the meter's events.")
    CUSTOMER: str = Field(
        description="Dotted path of a function that returns the id of Stripe's customer for a "
        "usage record, or ``None`` for a record that Stripe does not get."
    )


class OpenMeterConfig(Section):
    """A server of OpenMeter."""

    URL: str = Field(description="The address of the server.")
    TOKEN: SecretStr | None = Field(None, description="The token of its API.")


class UsageSettings(Section):
    """The keys of ``OLLAMA_OPENAI["USAGE"]``."""

    DURABILITY: Literal["queued", "committed"] = Field(
        "queued",
        description="``queued``: records are written in groups, at the latest a second after the "
        "end of their requests. ``committed``: before the client gets the end of its answer.",
    )
    TAGS: list[str] = Field(
        default_factory=list,
        description="The keys of a request's ``metadata`` that its record keeps.",
    )
    CURRENCY: str = Field(
        "USD",
        pattern=r"^[A-Z]{3}$",
        description="The currency of budgets, and of prices that name none.",
    )
    TIME_ZONE: str | None = Field(
        None,
        description="The time zone of billing months, and of days in the admin; ``None`` for "
        "Django's ``TIME_ZONE``.",
    )
    RETENTION_DAYS: int | None = Field(
        None, ge=1, description="The age at which ``prune`` deletes records; sums stay."
    )
    WEBHOOK: WebhookConfig | None = Field(None, description="Receives events.")
    STRIPE: StripeConfig | None = Field(None, description="Stripe's meters.")
    OPENMETER: OpenMeterConfig | None = Field(None, description="OpenMeter.")
    BUDGET_MAIL: list[str] = Field(
        default_factory=list,
        description="Addresses that get a mail when a budget reaches 50, 80 and 100 percent.",
    )


def usage_settings() -> UsageSettings:
    """Return the current settings of the app."""
    settings: UsageSettings = section("USAGE")
    return settings
