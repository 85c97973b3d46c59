"""The section ``OLLAMA_OPENAI["CHAT"]``."""

from __future__ import annotations

from pydantic import Field

from ...apps import Section, section

__all__ = ["ChatSettings", "RetentionDays", "chat_settings"]


class RetentionDays(Section):
    """The days for which rows are kept, counted from their creation; ``None`` keeps them."""

    responses: int | None = Field(
        30, ge=1, description="Days for which responses outside conversations are kept."
    )
    completions: int | None = Field(
        30, ge=1, description="Days for which stored chat completions are kept."
    )
    conversations: int | None = Field(
        None, ge=1, description="Days for which sessions and conversations are kept."
    )


class ChatSettings(Section):
    """The keys of ``OLLAMA_OPENAI["CHAT"]``."""

    RETENTION_DAYS: RetentionDays = Field(
        default_factory=RetentionDays,
        description="The days after which ``manage.py ollama prune`` deletes what is stored.",
    )
    STREAM_RETENTION_SECONDS: float = Field(
        600,
        ge=0,
        description="Seconds for which the events of a stream can be read again after its end.",
    )
    MAX_BACKGROUND: int = Field(
        100,
        ge=1,
        description="Maximum number of answers that a process writes in the background at the same "
        "time. More are a 503.",
    )


def chat_settings() -> ChatSettings:
    """Return the current settings of the app."""
    settings: ChatSettings = section("CHAT")
    return settings
