"""The section ``OLLAMA_OPENAI["ACCESS"]``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ...apps import Section, section

__all__ = ["AccessSettings", "LimitStoreConfig", "access_settings"]

STORES = "django_ollama_openai.contrib.access.stores"


class LimitStoreConfig(Section):
    """The store of the current use of limits."""

    STORE: str = Field(
        f"{STORES}.DatabaseStore", description="Dotted path of a subclass of ``BaseStore``."
    )
    OPTIONS: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the store.", repr=False
    )


class AccessSettings(Section):
    """The keys of ``OLLAMA_OPENAI["ACCESS"]``."""

    KEY_PREFIX: str = Field(
        "site",
        pattern=r"^[a-z0-9-]{1,20}$",
        description="The site's name in new keys: ``sk-<KEY_PREFIX>_…``.",
    )
    KEY_CACHE_SECONDS: float = Field(
        10,
        ge=0,
        description="Seconds for which a process caches a key. Without Redis, other processes may "
        "accept a revoked key for as long.",
    )
    LIMIT_STORE: LimitStoreConfig = Field(
        default_factory=LimitStoreConfig, description="The store of the current use of limits."
    )
    WHEN_DOWN: Literal["refuse", "allow"] = Field(
        "refuse",
        description="Whether requests with limits are refused or admitted while the store cannot "
        "be reached.",
    )


def access_settings() -> AccessSettings:
    """Return the current settings of the app."""
    settings: AccessSettings = section("ACCESS")
    return settings
