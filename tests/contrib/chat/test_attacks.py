"""Hostile clients and bad luck, on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.utils.timezone import now

from django_ollama_openai.contrib.chat.models import Conversation, Item, Response, Run
from tests.contrib.access.conftest import World
from tests.contrib.chat.sites import END, eventually, sites_fixture, tokens
from tests.ollama_server import DEFAULT_MODEL, Hold, OllamaServer, Reply
from tests.servers import KEY, NO_TLS, Server, Site

SERVERS: tuple[Server, ...] = ("uvicorn+fast-lane", "gunicorn")

all_sites = sites_fixture(SERVERS)


@pytest.fixture(params=SERVERS)
def site(
    request: pytest.FixtureRequest,
    all_sites: dict[str, Site],
    ollama: OllamaServer,
    transactional_db: None,
) -> Iterator[Site]:
    yield all_sites[request.param]
    ollama.close_connections(reset=True)
    eventually(lambda: not Run.objects.filter(ended_at=None).exists())


class Posted(threading.Thread):
    """Creates a response in a thread."""

    status = 0
    content = ""

    def __init__(self, site: Site, key: str | None, **fields: Any) -> None:
        super().__init__()
        self._arguments = (site, key, fields)
        self.start()

    def run(self) -> None:
        site, key, fields = self._arguments
        answer = create(site, key, **fields)
        self.status, self.content = answer.status_code, answer.text


def create(site: Site, key: str | None, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{site.base_url}/responses",
        json={"model": DEFAULT_MODEL, "input": "Hello", **fields},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        verify=NO_TLS,
    )


@pytest.mark.parametrize("pause", [0, 2.5])
def test_the_user_of_a_response_that_is_not_stored_yet_is_deleted(
    site: Site, ollama: OllamaServer, pause: float
) -> None:
    """Nothing of it remains, and the other answers of the process are stored as ever."""
    user = World().user("ada")
    key = World().key(user).key
    gate, other_gate = threading.Event(), threading.Event()
    ollama.reply(Reply([*tokens("Other"), Hold(other_gate), *tokens(" two"), Hold()]))
    other = create(site, KEY, background=True).json()["id"]
    ollama.wait_for_chat()
    time.sleep(1)
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    posted = Posted(site, key)
    ollama.wait_for_chat(2)
    printed = len(site.log())
    user.delete()
    other_gate.set()
    time.sleep(pause)
    if pause:
        (output,) = Run.objects.filter(response_id=other.removeprefix("resp_")).values_list(
            "output", flat=True
        )
        assert "Other two" in json.dumps(output)
    gate.set()
    posted.join(10)
    assert posted.status == 200, posted.content
    assert Response.objects.count() == Conversation.objects.count() == 1
    assert Item.objects.count() == 1
    time.sleep(1.5)
    assert site.log()[printed:].count("could not be stored") == 0


def test_a_response_that_is_not_to_be_kept_is_not_even_if_its_process_is_killed(
    site: Site, ollama: OllamaServer
) -> None:
    """Nor can it be read while it is written."""
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{site.base_url}/conversations"
    made = httpx.post(url, json={}, headers=headers, verify=NO_TLS).json()["id"]
    ollama.reply(Reply([*tokens("One"), Hold()]))
    posted = Posted(site, KEY, store=False, conversation=made)
    ollama.wait_for_chat()
    found = Response.objects.get()
    address = f"{site.base_url}/responses/{found.public_id}"
    assert httpx.get(address, headers=headers, verify=NO_TLS).status_code == 404
    # As if the lease of a minute were over.
    Run.objects.update(lease_until=now())
    assert create(site, KEY, store=False, conversation=made).status_code == 200
    assert not Response.objects.exists()
    items = httpx.get(f"{url}/{made}/items", headers=headers, verify=NO_TLS).json()["data"]
    assert [item["role"] for item in items] == ["assistant", "user"]
    posted.join(10)
    assert not posted.is_alive()
