"""The app config, which connects the receiver and adds the endpoint."""

from __future__ import annotations

from django.apps import AppConfig

from ...signals import completion_recorded
from .._extras import require

__all__ = ["PrometheusConfig"]


class PrometheusConfig(AppConfig):
    name = "django_ollama_openai.contrib.prometheus"
    label = "ollama_openai_prometheus"
    verbose_name = "Ollama OpenAI gateway: metrics"

    ollama_openai_urls = "django_ollama_openai.contrib.prometheus.urls"

    def ready(self) -> None:
        require("prometheus_client", app=self.name, extra="metrics")
        from .metrics import count

        completion_recorded.connect(count, dispatch_uid=self.name)
