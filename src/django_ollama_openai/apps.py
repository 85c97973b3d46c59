"""The app: checks, and nothing else. It has no models."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["OllamaOpenAIConfig"]


class OllamaOpenAIConfig(AppConfig):
    name = "django_ollama_openai"
    label = "ollama_openai"
    verbose_name = "Ollama OpenAI gateway"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers them)
