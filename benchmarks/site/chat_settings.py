"""The same site with conversations in a database."""

from __future__ import annotations

import json
import os

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS as CORE_APPS

INSTALLED_APPS = [*CORE_APPS, "django_ollama_openai.contrib.chat"]
DATABASES = {"default": json.loads(os.environ["BENCHMARK_DATABASE"])}
