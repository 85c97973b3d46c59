from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.clients.node_client import install
from tests.conftest import site_options
from tests.contrib.access.sites import Database
from tests.ollama_server import OllamaServer
from tests.servers import SERVERS, Server, Site, serve

TIMEOUT = 60
ENGINE_MODEL = "all:1b"
APPS: dict[str, Any] = {"SITE_APPS": "django_ollama_openai.contrib.chat"}


@contextmanager
def serve_stateful(server: Server, directory: Path, options: dict[str, Any]) -> Iterator[Site]:
    """Run a site that stores responses, conversations and chat completions."""
    database = Database(directory, options, APPS)
    database.command("migrate", "--verbosity", "0")
    with serve(server, directory, options, **APPS) as site:
        yield site


@pytest.fixture(scope="session")
def shared_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Overrides the fixture of most tests, whose site stores nothing."""
    directory = tmp_path_factory.mktemp(request.param)
    with serve_stateful(request.param, directory, site_options(ollama_server)) as site:
        yield site


@pytest.fixture
def sent() -> list[Any]:
    """The bodies that have left a client in Python, in order."""
    return []


@pytest.fixture
def http_client(sent: list[Any]) -> Iterator[httpx2.Client]:
    """The transport that the ``openai`` package makes for itself, with an ear at it."""

    def record(request: httpx2.Request) -> None:
        if request.content:
            sent.append(json.loads(request.content))

    with openai.DefaultHttpxClient(timeout=TIMEOUT, event_hooks={"request": [record]}) as client:
        yield client


@pytest.fixture
async def async_http_client(sent: list[Any]) -> AsyncIterator[httpx2.AsyncClient]:
    async def record(request: httpx2.Request) -> None:
        if request.content:
            sent.append(json.loads(request.content))

    client = openai.DefaultAsyncHttpxClient(timeout=TIMEOUT, event_hooks={"request": [record]})
    async with client:
        yield client


@pytest.fixture(scope="session")
def node_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts in ``node/`` beside the packages that they import."""
    return install(tmp_path_factory.mktemp("node"))


@pytest.fixture(params=SERVERS)
def any_model_site(
    request: pytest.FixtureRequest, ollama: OllamaServer, tmp_path: Path
) -> Iterator[Site]:
    """A site whose one model thinks and has tools, by whatever name a client asks for it."""
    tag = ollama.models["smollm2-tools:135m"]
    ollama.models[ENGINE_MODEL] = {
        **tag,
        "name": ENGINE_MODEL,
        "model": ENGINE_MODEL,
        "capabilities": [*tag["capabilities"], "thinking"],
    }
    options = site_options(ollama)
    options["MODELS"] = {"*": {"MODEL": ENGINE_MODEL}}
    with serve_stateful(request.param, tmp_path, options) as site:
        yield site
