from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ollama_server import OllamaServer
from tests.servers import KEY, SERVERS, Site, serve

DEAD_HOST = "http://127.0.0.1:9"  # the discard port: nothing listens there


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the live tests out where there is no Ollama for them."""
    if os.environ.get("OLLAMA_LIVE_HOST"):
        return
    live = [item for item in items if item.get_closest_marker("live")]
    if live:
        items[:] = [item for item in items if item not in live]
        config.hook.pytest_deselected(items=live)


def site_options(ollama: OllamaServer) -> dict[str, Any]:
    """The ``OLLAMA_OPENAI`` of most tests that run a server."""
    return {
        "HOST": ollama.url,
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
        "BACKENDS": {
            "second": {
                "BACKEND": "django_ollama_openai.backends.OllamaBackend",
                "HOST": DEAD_HOST,
            },
            "impatient": {
                "BACKEND": "django_ollama_openai.backends.OllamaBackend",
                "HOST": ollama.url,
                "OPTIONS": {"timeout": 0.3},
            },
        },
        "MODELS": {
            "gpt-4o-mini": {"MODEL": "smollm2:135m", "OPTIONS": {"num_ctx": 8192}},
            "team/tools:small": {"MODEL": "smollm2-tools:135m"},
            "thinker": {"MODEL": "smollm2-think:135m"},
            "gone": {"MODEL": "nope"},
            "dead": {"MODEL": "smollm2:135m", "BACKEND": "second"},
            "impatient": {"MODEL": "smollm2:135m", "BACKEND": "impatient"},
        },
        "STREAM_KEEPALIVE_SECONDS": 0.5,
    }


@pytest.fixture(scope="session")
def ollama_server() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture
def ollama(ollama_server: OllamaServer) -> OllamaServer:
    """A scripted Ollama without a script."""
    ollama_server.reset()
    return ollama_server


@pytest.fixture(scope="session", params=SERVERS)
def running_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp(request.param)
    with serve(request.param, directory, site_options(ollama_server)) as site:
        yield site


@pytest.fixture
def site(running_site: Site, ollama: OllamaServer) -> Site:
    """The site in uvicorn, then in gunicorn, in front of a scripted Ollama."""
    return running_site
