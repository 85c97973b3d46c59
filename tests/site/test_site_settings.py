"""What a site has in its settings and around itself: middleware, transactions, connections to the
database that are kept, a path of its own below a proxy, several mounts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import openai
import pytest

from tests.conftest import site_options
from tests.ollama_server import Answer, Hold, OllamaServer, Reply
from tests.servers import KEY, ROOT, SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import (
    HEADERS,
    MODEL,
    body,
    check_that_a_hang_up_frees_the_engine,
    check_that_tokens_leave_when_they_arrive,
    part,
    streaming,
)

PREFIX = "/sub/path"
CSRF_TOKEN = "c" * 32
LOG_IN = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client()
client.force_login(User.objects.create_user("ada"))
print(client.cookies["sessionid"].value)
"""


@dataclass
class Settled:
    site: Site
    session: str


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def settled(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settled]:
    """A site with all of it at once, and the session of a user."""
    directory = tmp_path_factory.mktemp(f"settled-{request.param}")
    options = site_options(ollama_server)
    dummy = "django_ollama_openai.backends.DummyBackend"
    options["BACKENDS"]["second"] = {"BACKEND": dummy, "OPTIONS": {"replies": ["from second"]}}
    options["AUTHENTICATION"] = [
        "django_ollama_openai.auth.StaticKeyAuthenticator",
        "django_ollama_openai.auth.SessionAuthenticator",
    ]
    options["RESPONSE_STORE"] = "tests.project.store.MemoryStore"
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "SITE_DATABASE": str(directory / "db.sqlite3"),
    }
    session = subprocess.run(
        [sys.executable, "-c", LOG_IN],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    with serve(
        request.param,
        directory,
        options,
        prefix=PREFIX,
        SITE_ATOMIC_REQUESTS="1",
        SITE_CONN_MAX_AGE="600",
        SITE_MIDDLEWARE="django.middleware.gzip.GZipMiddleware tests.project.middleware.sync_only",
    ) as site:
        yield Settled(site, session)


@pytest.fixture
def running_site(settled: Settled) -> Site:
    return settled.site


def test_streams_pass_through_middleware_token_by_token(site: Site, ollama: OllamaServer) -> None:
    headers = {**HEADERS, "Accept-Encoding": "gzip"}
    answered = check_that_tokens_leave_when_they_arrive(site, ollama, headers)
    # The fast lane passes the middleware by.
    assert answered.get("x-sync-only") == (None if site.has_fast_lane else "passed")
    assert answered["content-encoding"] == "identity"


def test_answers_in_one_piece_are_compressed(site: Site) -> None:
    response = httpx.post(f"{site.base_url}/chat/completions", headers=HEADERS, json=body())
    coding = response.headers.get("content-encoding")
    assert coding == (None if site.has_fast_lane else "gzip")
    assert response.json()["choices"][0]["message"]["content"] == "Hello!"


@pytest.mark.parametrize("pause", [0, 0.2], ids=["at once", "slowly"])
def test_a_streamed_response_is_kept_by_a_store_that_knows_no_async(
    site: Site, ollama: OllamaServer, pause: float
) -> None:
    client = openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0)
    ollama.reply(Answer(["It", " is", " 42."], pause=pause))
    *_, last = client.responses.create(model=MODEL, input="What is it?", stream=True)
    assert last.type == "response.completed"
    client.responses.create(model=MODEL, input="Why?", previous_response_id=last.response.id)
    texts = [message["content"] for message in ollama.chats()[-1].body["messages"]]
    assert texts == ["What is it?", "It is 42.", "Why?"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_the_engine(
    site: Site, ollama: OllamaServer, stream: bool
) -> None:
    reply = Reply([part("one "), Hold()]) if stream else Reply([], before=[Hold()])
    wait_for = b"one " if stream else b""
    check_that_a_hang_up_frees_the_engine(site, ollama, reply, stream, wait_for)


def test_the_site_below_a_path(site: Site) -> None:
    document = httpx.get(f"{site.url}/ai/openapi.json").json()
    assert document["servers"] == [{"url": f"{PREFIX}/ai"}]


def test_two_mounts_at_once(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one "), Hold()]))
    with streaming(site) as response:
        assert "one " in next(text for text in response.iter_text() if "one " in text)
        second = httpx.post(
            f"{site.url}/second/v1/chat/completions", headers=HEADERS, json=body(model="any")
        )
    assert second.json()["choices"][0]["message"]["content"] == "from second"


def test_streams_of_users_hold_no_connection_to_the_database(
    settled: Settled, ollama: OllamaServer
) -> None:
    site = settled.site
    headers = {
        "Cookie": f"sessionid={settled.session}; csrftoken={CSRF_TOKEN}",
        "X-CSRFToken": CSRF_TOKEN,
        "Content-Type": "application/json",
    }

    def open_connections() -> int:
        answer: dict[str, int] = httpx.get(f"{site.url}/database-connections/").json()
        return answer["open"]

    before = open_connections()
    counts = []
    with ExitStack() as stack:
        for _ in range(4):
            ollama.reply(Reply([part("one "), Hold()]))
            response = stack.enter_context(streaming(site, headers))
            assert response.status_code == 200, response.read()
            counts.append(open_connections() - before)
    if site.server == "gunicorn":
        # CONN_MAX_AGE keeps one for each thread, and no more.
        assert max(counts) <= 16
    else:
        assert counts == [0] * 4
