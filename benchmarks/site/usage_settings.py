"""The same site with keys and limits, which records usage."""

from __future__ import annotations

from .access_settings import *  # noqa: F403
from .access_settings import INSTALLED_APPS as ACCESS_APPS

INSTALLED_APPS = [*ACCESS_APPS, "django_ollama_openai.contrib.usage"]
