"""The test site with the app that records usage: ``pytest --ds tests.contrib.usage.settings``."""

from __future__ import annotations

from tests.contrib.settings import *  # noqa: F403
from tests.contrib.settings import INSTALLED_APPS as OTHER_APPS

INSTALLED_APPS = [*OTHER_APPS, "django_ollama_openai.contrib.usage"]
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
