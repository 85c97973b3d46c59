"""Sessions of sites in real servers, which share the database of the tests, and a scripted
engine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from django.db import connections

from django_ollama_openai.contrib.chat.models import Item, Run
from tests.contrib.settings import KIND
from tests.ollama_server import DEFAULT_MODEL, Answer, OllamaServer, Step
from tests.servers import KEY, NO_TLS, SERVERS_AND_LANE, Server, Site, serve

__all__ = [
    "END",
    "Reading",
    "Session",
    "chunks",
    "environment",
    "eventually",
    "options",
    "server",
    "session",
    "site",
    "sites_fixture",
    "text_of",
    "tokens",
    "within",
]

SLOW_MODEL: Final = "queued"
REQUEST: Final = {"model": DEFAULT_MODEL, "messages": [], "stream": True}


def tokens(*words: str) -> Sequence[Step]:
    """Return the steps of an engine that generates ``words``."""
    return Answer(words).reply(REQUEST).steps[:-1]


#: The last step of an engine's answer.
END: Final = Answer().reply(REQUEST).steps[-1]


def options(engine: OllamaServer) -> dict[str, Any]:
    """Return the ``OLLAMA_OPENAI`` of the sites. The model ``queued`` answers one at a time."""
    backend = "django_ollama_openai.backends.OllamaBackend"
    return {
        "HOST": engine.url,
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}, {"KEY": "sk-other", "NAME": "other"}],
        "BACKENDS": {"narrow": {"BACKEND": backend, "HOST": engine.url, "MAX_CONCURRENCY": 1}},
        "MODELS": {SLOW_MODEL: {"MODEL": DEFAULT_MODEL, "BACKEND": "narrow"}},
        "STREAM_KEEPALIVE_SECONDS": 0.5,
        "CHAT": {"MAX_BACKGROUND": 20},
    }


def environment() -> dict[str, Any]:
    """Return the environment of servers that use the database of the tests."""
    database = connections["default"].settings_dict
    return {
        "DJANGO_SETTINGS_MODULE": "tests.contrib.settings",
        "TEST_DATABASE": KIND,
        "TEST_DATABASE_NAME": str(database["NAME"]),
        "TEST_DATABASE_PORT": str(database["PORT"]),
    }


class Reading:
    """A stream that is read step by step."""

    def __init__(self, response: httpx.Response, client: httpx.Client) -> None:
        self._client, self._response = client, response
        self._pieces = response.iter_raw()
        self.status = response.status_code
        self.data = b""

    def until(self, text: bytes) -> bytes:
        """Read until ``text`` has come, and return all that has come."""
        while text not in self.data:
            self.data += next(self._pieces)
        return self.data

    def all(self) -> bytes:
        """Read to the end, and return all that has come, without comments."""
        self.data += b"".join(self._pieces)
        self.close()
        return self.data.replace(b": ping\n", b"")

    def close(self) -> None:
        self._response.close()
        self._client.close()


@dataclass(frozen=True)
class Session:
    """A session, as seen through ``site``."""

    site: Site
    id: str
    key: str = KEY
    mount: str = "ai"

    def at(self, site: Site) -> Session:
        return replace(self, site=site)

    def open(self, method: str, path: str = "", body: Any = None) -> Reading:
        """Send a request, and return its response as soon as it has begun."""
        client = httpx.Client(timeout=60, verify=NO_TLS)
        request = client.build_request(
            method,
            f"{self.site.url}/{self.mount}/api/chat/sessions/{self.id}/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
        )
        return Reading(client.send(request, stream=True), client)

    def __call__(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        """Return the status and the body of the response to a request."""
        reading = self.open(method, path, body)
        content = reading.all()
        return reading.status, json.loads(content) if content else None

    def post(self, content: str = "Hello", **fields: Any) -> tuple[int, Any]:
        return self("POST", "messages/", {"content": content, **self._model(fields)})

    def send(self, content: str = "Hello", **fields: Any) -> socket.socket:
        """Return a connection on which a message was sent."""
        body = json.dumps({"content": content, **self._model(fields)})
        head = (
            f"POST /ai/api/chat/sessions/{self.id}/messages/ HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        connection = self.site.connect()
        connection.sendall("\r\n".join([*head, "", body]).encode())
        return connection

    def stream(self, content: str = "Hello", **fields: Any) -> Reading:
        body = {"content": content, "stream": True, **self._model(fields)}
        return self.open("POST", "messages/", body)

    def _model(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"model": DEFAULT_MODEL, **fields}

    def follow(self, message_id: str, after: int | None = None) -> Reading:
        """Read the stream of an answer again."""
        query = "" if after is None else f"?after={after}"
        return self.open("GET", f"messages/{message_id}/stream/{query}")

    def messages(self) -> list[dict[str, Any]]:
        status, body = self("GET", "messages/?limit=100")
        assert status == 200, body
        found: list[dict[str, Any]] = body["data"]
        return found

    def answer(self) -> dict[str, Any]:
        """Return the last message."""
        return self.messages()[-1]

    def ended(self, seconds: float = 10) -> dict[str, Any]:
        """Return the last message as soon as it is no longer in progress."""
        eventually(lambda: self.answer()["status"] != "in_progress", seconds)
        return self.answer()

    def is_locked(self) -> bool:
        return Run.objects.filter(locks=UUID(self.id.removeprefix("conv_"))).exists()

    def rows(self) -> list[str]:
        """Return the texts of all messages in the database."""
        of = UUID(self.id.removeprefix("conv_"))
        rows = Item.objects.filter(conversation=of, head=None).order_by("sequence")
        return [row.text for row in rows]


def session(site: Site, key: str = KEY, **fields: Any) -> Session:
    """Create a session."""
    made = Session(site, "", key)
    answer = httpx.post(
        f"{site.url}/ai/api/chat/sessions/",
        json=fields,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        verify=NO_TLS,
    )
    assert answer.status_code == 201, answer.text
    return replace(made, id=answer.json()["id"])


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream, which has ended with ``[DONE]``."""
    *found, done, rest = stream.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", ""), stream
    return [json.loads(each.removeprefix("data: ")) for each in found]


def text_of(found: Sequence[dict[str, Any]]) -> str:
    """Return the content of chunks."""
    deltas = [choice["delta"] for chunk in found for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> float:
    """Wait until ``condition()`` holds, and return the seconds that has taken."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "It did not come to that."
        time.sleep(0.05)
    return time.monotonic() - begun


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes no longer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def sites_fixture(servers: Sequence[Server] = SERVERS_AND_LANE) -> Any:
    """Return a fixture for a module: a site in each of ``servers``, by the server's name."""

    @pytest.fixture(scope="module")
    def all_sites(
        ollama_server: OllamaServer,
        django_db_setup: None,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[dict[str, Site]]:
        with ExitStack() as stack:
            found: dict[str, Site] = {}
            for server in servers:
                site = serve(
                    server,
                    tmp_path_factory.mktemp(server),
                    options(ollama_server),
                    threads=64,
                    **environment(),
                )
                found[server] = stack.enter_context(site)
            yield found

    return all_sites


@pytest.fixture(params=SERVERS_AND_LANE)
def server(request: pytest.FixtureRequest) -> Server:
    name: Server = request.param
    return name


@pytest.fixture
def site(
    server: Server, all_sites: dict[str, Site], ollama: OllamaServer, transactional_db: None
) -> Iterator[Site]:
    """The site in ``server``, for modules that have ``all_sites``."""
    yield all_sites[server]
    # Nothing of this test is left for the next one.
    ollama.close_connections(reset=True)
    eventually(lambda: not Run.objects.filter(ended_at=None).exists())
