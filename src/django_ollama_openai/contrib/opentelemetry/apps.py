"""The app config, which connects the receiver. The site configures the exporters."""

from __future__ import annotations

from django.apps import AppConfig

from ...signals import completion_recorded
from .._extras import require

__all__ = ["OpenTelemetryConfig"]


class OpenTelemetryConfig(AppConfig):
    name = "django_ollama_openai.contrib.opentelemetry"
    label = "ollama_openai_opentelemetry"
    verbose_name = "Ollama OpenAI gateway: traces"

    def ready(self) -> None:
        require("opentelemetry.trace", app=self.name, extra="otel")
        from .telemetry import record

        completion_recorded.connect(record, dispatch_uid=self.name)
