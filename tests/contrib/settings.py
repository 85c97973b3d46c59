"""The test site with the optional apps that have tables: ``pytest --ds tests.contrib.settings``.

``TEST_DATABASE`` is the kind of the database. Unlike that of the other tests it is never in memory,
where SQLite would neither wait for locks nor be shared by processes.
"""

from __future__ import annotations

import os
from typing import Any, Final

from tests.project.settings import *  # noqa: F403
from tests.project.settings import INSTALLED_APPS as CORE_APPS
from tests.project.settings import TEMPLATES as CORE_TEMPLATES

KIND: Final = os.environ.get("TEST_DATABASE", "sqlite")
NAME: Final = os.environ.get("TEST_DATABASE_NAME", "ollama_openai")

INSTALLED_APPS = [*CORE_APPS, "django_ollama_openai.contrib.access"]
TIME_ZONE = "Europe/Berlin"
STATIC_URL = "static/"
# Those of the admin.
TEMPLATES = [CORE_TEMPLATES[0] | {"APP_DIRS": True}]  # type: ignore[list-item]  # bool, too

ENGINES: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{NAME}.sqlite3",
        "TEST": {"NAME": f"{NAME}-test.sqlite3"},
        "OPTIONS": {"timeout": 30},
    },
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": NAME,
        "USER": "test",
        "HOST": os.environ.get("TEST_DATABASE_HOST", ""),
        "PORT": os.environ.get("TEST_DATABASE_PORT", ""),
    },
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": NAME,
        "USER": "test",
        "HOST": os.environ.get("TEST_DATABASE_HOST", ""),
        "PORT": os.environ.get("TEST_DATABASE_PORT", ""),
    },
}
DATABASES = {"default": ENGINES[KIND]}
