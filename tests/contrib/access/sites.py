"""Run a site with the app in real servers, with a database in a file, and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.servers import ROOT, Server, Site, serve

__all__ = ["AccessSite", "Database", "access_site"]

DUMMY: Final = {"BACKEND": "django_ollama_openai.backends.DummyBackend"}
OPTIONS: Final[dict[str, Any]] = {"BACKENDS": {"default": DUMMY, "second": DUMMY}}
APP: Final = "django_ollama_openai.contrib.access"


@dataclass
class Database:
    """A migrated database in ``directory``, and the commands of a site that uses it."""

    directory: Path
    options: Mapping[str, Any]
    more: Mapping[str, str]

    @property
    def path(self) -> Path:
        return self.directory / "db.sqlite3"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of the site's processes."""
        return {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "SITE_APPS": APP,
            "SITE_DATABASE": str(self.path),
            "SITE_OLLAMA_OPENAI": json.dumps(self.options),
            **self.more,
        }

    def command(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py`` with ``arguments``, which exits with ``code``."""
        return self.process([sys.executable, "-m", "django", *arguments], code)

    def run(self, script: str) -> Any:
        """Run ``script`` and return the value that it assigns to ``answer``."""
        around = (
            "import django, json, sys; django.setup(); answer = None\n"
            f"{script}\nprint(json.dumps(answer))"
        )
        return json.loads(self.process([sys.executable, "-c", around], 0).stdout)

    def process(self, command: list[str], code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@dataclass
class AccessSite:
    """A running site, and its database."""

    site: Site
    database: Database

    @property
    def base_url(self) -> str:
        return self.site.base_url


def migrated(directory: Path, environment: Mapping[str, str], **options: Any) -> Database:
    """Return a database with the tables of the app, and the users ada, bob and root, of whom the
    last is a superuser."""
    database = Database(directory, {**OPTIONS, **options}, environment)
    database.run(
        "from django.core.management import call_command\n"
        "from django.contrib.auth.models import User\n"
        "call_command('migrate', verbosity=0)\n"
        "for name in ('ada', 'bob'):\n"
        "    User.objects.create_user(name, f'{name}@site.example')\n"
        "User.objects.create_superuser('root')\n"
    )
    return database


@contextmanager
def access_site(
    server: Server, directory: Path, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[AccessSite]:
    """Run a site with ``options`` in its settings, and in ``environment``, in ``server``."""
    database = migrated(directory, environment or {}, **options)
    variables: dict[str, Any] = database.environment
    with serve(server, directory, dict(database.options), **variables) as site:
        yield AccessSite(site, database)
