"""The same site with keys and limits in a database, and the limits' accounts in a store."""

from __future__ import annotations

import json
import os

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS as CORE_APPS
from .settings import OLLAMA_OPENAI as CORE

INSTALLED_APPS = [*CORE_APPS, "django_ollama_openai.contrib.access"]
DATABASES = {"default": json.loads(os.environ["BENCHMARK_DATABASE"])}
OLLAMA_OPENAI = {
    "BACKENDS": CORE["BACKENDS"],
    "ACCESS": {"LIMIT_STORE": json.loads(os.environ["BENCHMARK_STORE"])},
}
