"""A site that counts its completions, as one that bills its users does."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.apps import AppConfig

from django_ollama_openai.signals import completion_finished, completion_started

started: Counter[str] = Counter()
tokens: Counter[str] = Counter()


class BenchmarkSiteConfig(AppConfig):
    name = "benchmarks.site"
    label = "site_under_load"

    def ready(self) -> None:
        completion_started.connect(_started)
        completion_finished.connect(_finished)


async def _started(**facts: Any) -> None:
    started[facts["caller"].key_name] += 1


async def _finished(**facts: Any) -> None:
    tokens[facts["caller"].key_name] += facts["usage"].completion_tokens
