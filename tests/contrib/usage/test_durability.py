"""Records in real servers: nothing is lost, counted twice or made up."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import site_options
from tests.contrib.access.sites import Database
from tests.ollama_server import DEFAULT_MODEL, Answer, Close, OllamaServer, Reply, error
from tests.servers import KEY, NO_TLS, Server, Site, serve
from tests.site.test_streaming import part

APPS = "django_ollama_openai.contrib.access django_ollama_openai.contrib.usage"
pytestmark = pytest.mark.any_database
#: The requests of the test that adds them up, a hundredth of them with each fault.
REQUESTS = int(os.environ.get("TEST_USAGE_REQUESTS", "2000"))
WORKERS = 12


def database(directory: Path, engine: OllamaServer, durability: str) -> Database:
    options = {
        **site_options(engine),
        "DEFAULT_MODEL": DEFAULT_MODEL,
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
        "USAGE": {"DURABILITY": durability},
    }
    made = Database(directory, options, {"SITE_APPS": APPS})
    made.command("migrate", "-v", "0")
    return made


def site(server: Server, shared: Database, directory: Path) -> Any:
    directory.mkdir(exist_ok=True)
    variables: dict[str, Any] = shared.environment
    return serve(server, directory, dict(shared.options), threads=16, **variables)


def select(shared: Database, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(shared.path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def recorded(shared: Database) -> list[str]:
    rows = select(shared, "SELECT request_id FROM ollama_openai_usage_usagerecord")
    return [row[0] for row in rows]


class Client:
    """Sends requests to sites in turn, from several threads, and keeps the ids of those whose end
    it has seen."""

    def __init__(self, sites: list[Site]) -> None:
        self._sites = sites
        self._number = iter(range(10**9))
        self.lock = threading.Lock()
        self.ended: Counter[str] = Counter()
        self.seen: list[str] = []
        self.tokens = [0, 0]
        self.is_over = threading.Event()

    def run(self, count: int | None = None) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._work, args=(count,)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, count: int | None) -> None:
        with httpx.Client(verify=NO_TLS, timeout=30) as client:
            while not self.is_over.is_set():
                with self.lock:
                    number = next(self._number)
                if count is not None and number >= count:
                    return
                try:
                    self._send(client, number)
                except httpx.TransportError:
                    # The server was killed.
                    time.sleep(0.01)

    def _send(self, client: httpx.Client, number: int) -> None:
        site = self._sites[number % len(self._sites)]
        stream, id = number % 3 != 0, f"request-{number}"
        body: dict[str, Any] = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {"Authorization": f"Bearer {KEY}", "x-request-id": id}
        address = f"{site.base_url}/chat/completions"
        with client.stream("POST", address, json=body, headers=headers) as answer:
            if number % 100 == 7:
                # Disconnects at once.
                self._note("left", id)
                return
            text = answer.read().decode()
        if answer.status_code != 200:
            self._note("failed", id)
        elif not stream:
            self._note("ok", id, json.loads(text)["usage"])
        elif text.endswith("data: [DONE]\n\n") and '"error"' not in text:
            # There are comments, too, while the server waits.
            data = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
            events = [json.loads(line) for line in data]
            self._note("ok", id, events[-1]["usage"])
        elif '"error"' in text:
            self._note("failed", id)

    def _note(self, how: str, id: str, usage: dict[str, int] | None = None) -> None:
        with self.lock:
            self.ended[how] += 1
            if how != "left":
                self.seen.append(id)
            if usage is not None:
                self.tokens[0] += usage["prompt_tokens"]
                self.tokens[1] += usage["completion_tokens"]


@pytest.fixture
def shared(
    request: pytest.FixtureRequest, ollama: OllamaServer, tmp_path: Path
) -> Iterator[Database]:
    yield database(tmp_path, ollama, request.param)


@pytest.mark.parametrize("shared", ["queued", "committed"], indirect=True)
def test_requests_add_up(shared: Database, ollama: OllamaServer, tmp_path: Path) -> None:
    """To the engine's own count, over two processes, with faults and disconnects."""
    faults = REQUESTS // 100
    for number in range(REQUESTS):
        if number % 100 == 0:
            ollama.reply(error(500, "boom"))
        elif number % 100 == 50:
            ollama.reply(Reply([part("one"), Close()]))
        else:
            ollama.reply(Answer(["a"] * (number % 7 + 1), prompt_tokens=number % 50 + 1))
    with ExitStack() as stack:
        sites = [
            stack.enter_context(site(server, shared, tmp_path / server))
            for server in ("uvicorn+fast-lane", "gunicorn")
        ]
        client = Client(sites)
        for thread in client.run(REQUESTS):
            thread.join()
    rows = select(
        shared,
        "SELECT request_id, status, prompt_tokens, completion_tokens "
        "FROM ollama_openai_usage_usagerecord",
    )
    assert len(rows) == len({row[0] for row in rows}) == REQUESTS
    left = {f"request-{number}" for number in range(REQUESTS) if number % 100 == 7}
    # Those who left may have had all of their answer, or an error.
    whole = [row for row in rows if row[1] == "ok" and row[0] not in left]
    assert len(whole) == client.ended["ok"]
    assert [sum(row[2] for row in whole), sum(row[3] for row in whole)] == client.tokens
    failed = [row for row in rows if row[1] == "error"]
    assert client.ended["failed"] <= len(failed) <= 2 * faults
    assert {(row[2], row[3]) for row in failed} == {(0, 0)}
    expected = (
        REQUESTS,
        sum(row[2] for row in rows),
        sum(row[3] for row in rows),
        len(failed),
        sum(row[1] == "cancelled" for row in rows),
    )
    for query in (
        "SELECT requests, prompt_tokens, completion_tokens, errors, cancelled "
        "FROM ollama_openai_usage_usagebucket",
        "SELECT requests, prompt_tokens, completion_tokens, errors, cancelled "
        "FROM ollama_openai_usage_usageday WHERE dimension = 'all'",
    ):
        assert tuple(map(sum, zip(*select(shared, query), strict=True))) == expected


@pytest.mark.parametrize("server", ["uvicorn+fast-lane", "gunicorn"])
@pytest.mark.parametrize("shared", ["committed"], indirect=True)
def test_a_kill_loses_nothing_that_a_client_has_seen(
    shared: Database, tmp_path: Path, server: Server
) -> None:
    seen: list[str] = []
    for number in range(3):
        with site(server, shared, tmp_path / f"{server}-{number}") as running:
            client = Client([running])
            # Ids of their own.
            client._number = iter(range(10_000 * number, 10**9))
            threads = client.run()
            time.sleep(1 + 0.37 * number)
            os.killpg(running.process.pid, signal.SIGKILL)
            client.is_over.set()
            for thread in threads:
                thread.join()
            seen += client.seen
    found = Counter(recorded(shared))
    assert len(seen) > 20
    assert set(seen) <= set(found)
    assert max(found.values()) == 1


@pytest.mark.parametrize("server", ["uvicorn+fast-lane", "gunicorn"])
@pytest.mark.parametrize("shared", ["queued"], indirect=True)
def test_a_graceful_stop_loses_nothing(shared: Database, tmp_path: Path, server: Server) -> None:
    with site(server, shared, tmp_path / server) as running:
        client = Client([running])
        threads = client.run()
        time.sleep(1.5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        client.is_over.set()
        for thread in threads:
            thread.join()
        running.process.wait(20)
    found = Counter(recorded(shared))
    assert len(client.seen) > 20
    assert set(client.seen) <= set(found)
    assert max(found.values()) == 1
