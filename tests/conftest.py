from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from hypothesis import HealthCheck, settings

from tests.ollama_server import OllamaServer
from tests.proxies import missing_proxies
from tests.servers import KEY, SERVERS, SERVERS_AND_LANE, Server, Site, serve

# How long an example takes says nothing where several environments share a machine.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# Tests connect to this machine only, also those in the processes that they start. Each HTTP client
# reads what it trusts; to read the system's hundreds of authorities takes longer than a request.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))

DEAD_HOST = "http://127.0.0.1:9"  # the discard port: nothing listens there

CLIENTS = ("langchain_openai", "llm", "openai", "pydantic_ai")
MISSING_CLIENTS = [name for name in CLIENTS if find_spec(name) is None]

LEFT_OUT = {}
if MISSING_CLIENTS:
    LEFT_OUT["clients"] = MISSING_CLIENTS
if missing_proxies():
    LEFT_OUT["site/test_proxies.py"] = missing_proxies()
if find_spec("schemathesis") is None:
    LEFT_OUT["endurance/test_schemathesis.py"] = ["schemathesis"]
collect_ignore = list(LEFT_OUT)
if not apps.is_installed("django_ollama_openai.contrib.access"):
    # They take the settings in tests/contrib/settings.py.
    collect_ignore.append("contrib")


def pytest_configure() -> None:
    """Refuse to run where something is missing that the environment requires."""
    for name, variable in (
        ("clients", "CLIENTS_REQUIRED"),
        ("site/test_proxies.py", "PROXIES_REQUIRED"),
    ):
        if name in LEFT_OUT and variable in os.environ:
            raise pytest.UsageError(f"tests/{name} needs {', '.join(LEFT_OUT[name])}")


def pytest_report_header() -> list[str]:
    return [f"left out: tests/{name}, without {missing}" for name, missing in LEFT_OUT.items()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shared_site" in metafunc.fixturenames:
        has_lane = metafunc.definition.get_closest_marker("lane") is not None
        servers = SERVERS_AND_LANE if has_lane else SERVERS
        metafunc.parametrize("shared_site", servers, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the live tests where there is no Ollama for them."""
    if os.environ.get("OLLAMA_LIVE_HOST"):
        return
    left_out = [item for item in items if item.get_closest_marker("live")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


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


def site_fixture(
    servers: Sequence[Server],
    options: Callable[[OllamaServer], dict[str, Any]] = site_options,
    **environment: Any,
) -> Any:
    """Return a fixture for a module: a site with ``options`` in each of ``servers``."""

    @pytest.fixture(scope="module", params=servers)
    def site(
        request: pytest.FixtureRequest,
        ollama_server: OllamaServer,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Site]:
        directory = tmp_path_factory.mktemp(request.param)
        with serve(request.param, directory, options(ollama_server), **environment) as running:
            yield running

    return site


@pytest.fixture(scope="session")
def ollama_server() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture
def ollama(ollama_server: OllamaServer) -> OllamaServer:
    """A scripted Ollama without a script."""
    ollama_server.reset()
    return ollama_server


@pytest.fixture(scope="session")
def shared_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp(request.param)
    with serve(request.param, directory, site_options(ollama_server)) as site:
        yield site


@pytest.fixture
def running_site(shared_site: Site) -> Site:
    """The site of most tests. Modules that need another one have a fixture of this name."""
    return shared_site


@pytest.fixture
def site(running_site: Site, ollama: OllamaServer) -> Site:
    """The site in each server, in front of a scripted Ollama."""
    return running_site
