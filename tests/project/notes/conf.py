from __future__ import annotations

from pydantic import Field

from django_ollama_openai.apps import Section, section

__all__ = ["NotesSettings", "notes_settings"]


class NotesSettings(Section):
    """``OLLAMA_OPENAI["NOTES"]``."""

    TOKENS: dict[str, str] = Field(
        default_factory=dict, description="Bearer tokens → names of their owners.", repr=False
    )
    MAX_NOTES: int = Field(100, ge=0, description="Maximum number of notes of an owner.")
    MAX_RUNNING: int = Field(10, ge=1, description="Maximum number of an owner's requests at once.")


def notes_settings() -> NotesSettings:
    """Return the current settings of the app."""
    settings: NotesSettings = section("NOTES")
    return settings
