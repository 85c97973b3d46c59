"""Who runs: each is one process that stands between the load and the same engine."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .load import Dialect
from .processes import Served, free_port, module, serving

__all__ = ["CONTENDERS", "KEY", "Contender"]

KEY = "sk-benchmark"


@dataclass(frozen=True)
class Contender:
    """A way from OpenAI's API to the engine."""

    name: str
    application: str
    path: str
    options: str = "{}"
    dialect: Dialect = "openai"

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        """Run it in front of ``upstream`` until the end of the block."""
        port = free_port()
        command = module(
            "uvicorn",
            self.application,
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--lifespan", "off", "--no-access-log", "--log-level", "warning"),
        )
        environment = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
            "BENCHMARK_UPSTREAM": f"http://127.0.0.1:{upstream.port}",
            "BENCHMARK_KEY": KEY,
            "BENCHMARK_OPTIONS": self.options,
        }
        with serving(command, port, environment) as served:
            yield served


class Direct(Contender):
    """The load goes straight to the engine."""

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        yield upstream


def _plain_options() -> str:
    from django_ollama_openai.backends.ollama import OllamaBackend

    parameters = inspect.signature(OllamaBackend).parameters
    return json.dumps({"fast": False} if "fast" in parameters else {})


_SITE = "benchmarks.site.asgi:application"
_COMPLETIONS = "v1/chat/completions"

CONTENDERS = {
    contender.name: contender
    for contender in (
        Direct("direct", "", "/api/chat", dialect="ollama"),
        Contender("pass-through", "benchmarks.pass_through:application", f"/{_COMPLETIONS}"),
        Contender("handwritten", _SITE, f"/handwritten/{_COMPLETIONS}"),
        Contender("ours", _SITE, f"/ai/{_COMPLETIONS}"),
        Contender("ours-plain", _SITE, f"/ai/{_COMPLETIONS}", _plain_options()),
    )
}
