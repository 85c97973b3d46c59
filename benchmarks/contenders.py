"""The contenders: each is one process between the load generator and the engine.

All of them run in uvicorn with one worker, and its default HTTP parser and event loop. LiteLLM
starts its own server, in an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .load import Dialect
from .processes import Served, free_port, module, serving

__all__ = ["KEY", "Contender", "contenders"]

KEY = "sk-benchmark"


@dataclass(frozen=True)
class Contender:
    """A server between the load generator and the engine, or the engine itself."""

    name: str
    path: str
    dialect: Dialect = "openai"

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
        """Run it in front of ``upstream`` until the end of the block."""
        yield upstream

    def version(self) -> str | None:
        """What is not installed where this runs, and its version."""
        return None


@dataclass(frozen=True)
class Application(Contender):
    """An ASGI application in this directory; ``options`` are those of the gateway's backend."""

    application: str = ""
    options: str = "{}"

    @contextmanager
    def serving(self, upstream: Served) -> Iterator[Served]:
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
    completions = "v1/chat/completions"
    site = "benchmarks.site.asgi:application"
    everybody = [
        Contender("direct", "/api/chat", "ollama"),
        Application(
            "pass-through", f"/{completions}", application="benchmarks.pass_through:application"
        ),
        Application("handwritten", f"/handwritten/{completions}", application=site),
        Application("ours", f"/ai/{completions}", application=site),
        Application(
            "fast-lane", f"/ai/{completions}", application="benchmarks.site.asgi:with_fast_lane"
        ),
        Application(
            "ours-plain", f"/ai/{completions}", application=site, options='{"fast": false}'
        ),
    ]
    if litellm is not None:
        everybody.append(LiteLLM("litellm", f"/{completions}", command=litellm))
    return {contender.name: contender for contender in everybody}
