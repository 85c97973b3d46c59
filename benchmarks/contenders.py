"""The contenders: each is one process between the load generator and the engine.

All of them run in uvicorn with one worker, and its default HTTP parser and event loop. LiteLLM
starts its own server, in an environment of its own. Servers of databases, and Redis, run beside
those that need them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from django_ollama_openai.contrib.access._keys import new_key
from tests.database_servers import Kind, running_server
from tests.run import SEARCHED

from .load import Dialect
from .processes import Served, free_port, module, run_module, serving

__all__ = ["KEY", "Contender", "WithAccess", "contenders"]

KEY = new_key("benchmark")


@dataclass(frozen=True)
class Contender:
    """A server between the load generator and the engine, or the engine itself."""

    name: str
    path: str
    dialect: Dialect = "openai"
    #: Further fields of each request.
    fields: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        """Run it in front of ``upstream`` until the end of the block."""
        yield upstream

    def version(self) -> str | None:
        """What is not installed where this runs, and its version."""
        return None

    def missing(self) -> list[str]:
        """Return the names of programs and packages that it needs and that are not installed."""
        return []


@dataclass(frozen=True)
class Application(Contender):
    """An ASGI application in this directory; ``options`` are those of the gateway's backend."""

    application: str = ""
    options: str = "{}"

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        with self._serving(
            upstream, {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings"}
        ) as site:
            yield site

    @contextmanager
    def _serving(self, upstream: Served, settings: dict[str, str]) -> Iterator[Served]:
        port = free_port()
        command = module(
            "uvicorn",
            self.application,
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--lifespan", "off", "--no-access-log", "--log-level", "warning"),
        )
        environment = {
            **settings,
            "BENCHMARK_UPSTREAM": f"http://127.0.0.1:{upstream.port}",
            "BENCHMARK_KEY": KEY,
            "BENCHMARK_OPTIONS": self.options,
        }
        with serving(command, port, environment) as served:
            yield served


STORES = "django_ollama_openai.contrib.access.stores"
SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
    },
    "CONN_MAX_AGE": 60,
}
POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "USER": "test",
    "HOST": "127.0.0.1",
    "CONN_MAX_AGE": 60,
}
KINDS: Final[tuple[Kind | Literal["sqlite"], ...]] = ("redis", "sqlite", "postgresql")
PROGRAMS = {"redis": "redis-server", "postgresql": "postgres"}
PACKAGES = {"redis": "redis", "postgresql": "psycopg"}


@dataclass(frozen=True)
class WithAccess(Application):
    """The site with ``contrib.access``, whose accounts of limits are in ``kind``. What is in the
    database is in PostgreSQL if that is ``kind``, else in SQLite."""

    kind: Kind | Literal["sqlite"] = "sqlite"
    #: Whether usage is recorded, too, with the rows in PostgreSQL.
    has_usage: bool = False

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        with self.settings() as (settings, store):
            environment = {"BENCHMARK_UPSTREAM": "", "BENCHMARK_KEY": KEY, **settings}
            run_module("benchmarks.site.prepare", environment)
            with self._serving(upstream, settings) as served:
                yield replace(served, store=store)

    @contextmanager
    def settings(self) -> Iterator[tuple[dict[str, str], int | None]]:
        """Start the servers, and return the environment variables of the site's settings, and the
        process id of the server that has the accounts."""
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            database: dict[str, Any] = {**SQLITE, "NAME": str(Path(directory, "database"))}
            store = {"STORE": f"{STORES}.DatabaseStore", "OPTIONS": {}}
            pid = None
            if self.kind != "sqlite":
                server = stack.enter_context(running_server(self.kind))
                pid = server.pid
                if self.kind == "postgresql":
                    database = {**POSTGRESQL, "PORT": server.port}
                else:
                    store = {"STORE": f"{STORES}.RedisStore", "OPTIONS": {"url": server.url}}
            if self.has_usage and self.kind != "postgresql":
                rows = stack.enter_context(running_server("postgresql"))
                database = {**POSTGRESQL, "PORT": rows.port}
            name = "usage_settings" if self.has_usage else "access_settings"
            yield (
                {
                    "DJANGO_SETTINGS_MODULE": f"benchmarks.site.{name}",
                    "BENCHMARK_DATABASE": json.dumps(database),
                    "BENCHMARK_STORE": json.dumps(store),
                },
                pid,
            )

    def missing(self) -> list[str]:
        if self.kind == "sqlite":
            return []
        kinds = {self.kind, *(["postgresql"] if self.has_usage else [])}
        programs = [PROGRAMS[kind] for kind in sorted(kinds)]
        packages = [PACKAGES[kind] for kind in sorted(kinds)]
        without = [name for name in programs if shutil.which(name, path=SEARCHED) is None]
        return [*without, *(name for name in packages if find_spec(name) is None)]


@dataclass(frozen=True)
class WithChat(Application):
    """The site with ``contrib.chat``, in SQLite."""

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        with tempfile.TemporaryDirectory() as directory:
            database = {**SQLITE, "NAME": str(Path(directory, "database"))}
            settings = {
                "DJANGO_SETTINGS_MODULE": "benchmarks.site.chat_settings",
                "BENCHMARK_DATABASE": json.dumps(database),
            }
            environment = {"BENCHMARK_UPSTREAM": "", "BENCHMARK_KEY": KEY, **settings}
            run_module("benchmarks.site.prepare_chat", environment)
            with self._serving(upstream, settings) as served:
                yield served


@dataclass(frozen=True)
class LiteLLM(Contender):
    """LiteLLM's proxy, with an API key like the gateway, without its database and downloads."""

    command: str = ""

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        port = free_port()
        model = {"model": "ollama_chat/*", "api_base": f"http://127.0.0.1:{upstream.port}"}
        config = {
            "model_list": [{"model_name": "*", "litellm_params": model}],
            "general_settings": {"master_key": KEY},
        }
        environment = {
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            # The source under test is of no concern to it.
            "PYTHONPATH": "",
        }
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "config.yaml")
            # JSON is YAML, too.
            path.write_text(json.dumps(config))
            command = [self.command, "--config", str(path), "--num_workers", "1"]
            command += ["--host", "127.0.0.1", "--port", str(port)]
            with serving(command, port, environment, within_seconds=180) as served:
                yield served

    def version(self) -> str | None:
        code = "import importlib.metadata as m; print(m.version('litellm'))"
        python = str(Path(self.command).with_name("python"))
        found = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        return f"litellm {found.stdout.strip()}"


def contenders(litellm: str | None) -> dict[str, Contender]:
    """Return all contenders, including LiteLLM if ``litellm`` is the path of its command."""
    completions, responses = "v1/chat/completions", "v1/responses"
    site, lane = "benchmarks.site.asgi:application", "benchmarks.site.asgi:with_fast_lane"
    everybody = [
        Contender("direct", "/api/chat", "ollama"),
        Application(
            "pass-through", f"/{completions}", application="benchmarks.pass_through:application"
        ),
        Application("handwritten", f"/handwritten/{completions}", application=site),
        Application("ours", f"/ai/{completions}", application=site),
        Application("fast-lane", f"/ai/{completions}", application=lane),
        *(
            WithAccess(f"fast-lane-{kind}", f"/ai/{completions}", application=lane, kind=kind)
            for kind in KINDS
        ),
        WithAccess(
            "fast-lane-usage",
            f"/ai/{completions}",
            application=lane,
            kind="redis",
            has_usage=True,
        ),
        WithChat(
            "completions-stored", f"/ai/{completions}", fields={"store": True}, application=site
        ),
        *(
            WithChat(
                name, f"/ai/{responses}", "responses", fields={"store": store}, application=site
            )
            for name, store in (("responses", False), ("responses-stored", True))
        ),
        WithChat(
            "session",
            "/ai/api/chat/sessions/conv_{number:032x}/messages/",
            "session",
            application=site,
        ),
        Application(
            "ours-plain", f"/ai/{completions}", application=site, options='{"fast": false}'
        ),
    ]
    if litellm is not None:
        everybody.append(LiteLLM("litellm", f"/{completions}", command=litellm))
    return {contender.name: contender for contender in everybody}
