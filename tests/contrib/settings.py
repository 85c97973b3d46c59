"""The test site with the optional apps that have tables: ``pytest --ds tests.contrib.settings``.

``TEST_DATABASE`` is the kind of the database: ``sqlite`` (default), ``postgresql`` or ``mariadb``,
whose server the tests start. Unlike that of the other tests it is never in memory, where SQLite
would neither wait for locks nor be shared by processes.
"""

from __future__ import annotations

import os
from typing import Any, Final

from tests.project.settings import *  # noqa: F403
from tests.project.settings import DATABASES as CORE_DATABASES
from tests.project.settings import INSTALLED_APPS as CORE_APPS
from tests.project.settings import TEMPLATES as CORE_TEMPLATES

KIND: Final = os.environ.get("TEST_DATABASE", "sqlite")
# Of the server processes that tests start. The tests' own database is Django's test database, which
# for SQLite is a file, too: see conftest.py.
NAME: Final = os.environ.get(
    "TEST_DATABASE_NAME", ":memory:" if KIND == "sqlite" else "ollama_openai"
)
PORT: Final = os.environ.get("TEST_DATABASE_PORT", "")

INSTALLED_APPS = [
    *CORE_APPS,
    "django_ollama_openai.contrib.access",
    "django_ollama_openai.contrib.chat",
]
TIME_ZONE = "Europe/Berlin"
STATIC_URL = "static/"
# Those of the admin.
TEMPLATES = [CORE_TEMPLATES[0] | {"APP_DIRS": True}]  # type: ignore[list-item]  # bool, too

ENGINES: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {
        "ENGINE": "django.db.backends.sqlite3",
        "OPTIONS": {"timeout": 30, "init_command": "PRAGMA synchronous = OFF"},
    },
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "USER": "test",
    },
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "USER": "root",
    },
}
DATABASES = {
    "default": {
        **CORE_DATABASES["default"],
        **ENGINES[KIND],
        "NAME": NAME,
        "HOST": "127.0.0.1",
        "PORT": PORT,
        "CONN_HEALTH_CHECKS": True,
    }
}
