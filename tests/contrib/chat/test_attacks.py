"""Hostile clients and bad luck, on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils.timezone import now

from django_ollama_openai.contrib.access.models import Limit, Target
from django_ollama_openai.contrib.chat.models import Completion, Conversation, Item, Response, Run
from tests.contrib.access.conftest import World
from tests.contrib.chat.sites import END, eventually, sites_fixture, tokens
from tests.ollama_server import DEFAULT_MODEL, Answer, Hold, OllamaServer, Reply
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
    """Creates a response, or what is at ``path``, in a thread."""

    status = 0
    content = ""

    def __init__(self, site: Site, key: str | None, path: str = "responses", **fields: Any) -> None:
        super().__init__()
        self._arguments = (site, key, path, fields)
        self.start()

    def run(self) -> None:
        site, key, path, fields = self._arguments
        answer = create(site, key, path, **fields)
        self.status, self.content = answer.status_code, answer.text


def create(site: Site, key: str | None, path: str = "responses", **fields: Any) -> httpx.Response:
    content = {"input": "Hello"} if path == "responses" else {}
    return httpx.post(
        f"{site.base_url}/{path}",
        json={"model": DEFAULT_MODEL, **content, **fields},
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


def test_the_user_of_a_completion_that_is_not_stored_yet_is_deleted(
    site: Site, ollama: OllamaServer
) -> None:
    user = World().user("ada")
    key = World().key(user).key
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    messages = [{"role": "user", "content": "Hello"}]
    posted = Posted(site, key, "chat/completions", store=True, stream=True, messages=messages)
    ollama.wait_for_chat()
    user.delete()
    gate.set()
    posted.join(10)
    assert posted.content.endswith("data: [DONE]\n\n"), posted.content
    assert not Completion.objects.exists()


def test_a_response_is_deleted_several_times_while_it_ends(
    site: Site, ollama: OllamaServer
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for _ in range(5):
        gate = threading.Event()
        ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
        posted = Posted(site, KEY)
        eventually(lambda: Response.objects.exists())
        url = f"{site.base_url}/responses/{Response.objects.get().public_id}"
        statuses: list[int] = []

        def delete(url: str = url, statuses: list[int] = statuses) -> None:
            answer = httpx.delete(url, headers=headers, verify=NO_TLS, timeout=30)
            statuses.append(answer.status_code)

        deleting = [threading.Thread(target=delete) for _ in range(4)]
        for thread in deleting:
            thread.start()
        gate.set()
        for thread in [*deleting, posted]:
            thread.join(30)
        assert posted.status == 200, posted.content
        assert len(statuses) == 4
        assert set(statuses) <= {200, 404}, site.log()
        assert 200 in statuses
        assert not Conversation.objects.exists()


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


# Limits


class Limited:
    """A user with a key, and limits on requests, tokens and concurrent requests."""

    def __init__(self, site: Site, requests: int = 100, concurrent: int = 1) -> None:
        self.site = site
        self.key = World().key(World().user("ada")).key or ""
        every = {"target": Target.EACH_USER, "per": "day"}
        Limit.objects.create(**every, unit="requests", amount=requests)
        Limit.objects.create(**every, unit="tokens", amount=100_000)
        Limit.objects.create(**{**every, "per": ""}, unit="concurrent", amount=concurrent)

    def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(
            method,
            f"{self.site.url}/ai/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            verify=NO_TLS,
        )

    @property
    def used(self) -> dict[str, int]:
        return {row["unit"]: row["used"] for row in self("GET", "api/limits/").json()["data"]}


MESSAGES = "api/chat/sessions/{session}/messages/"
ASK = {"content": "Hello"}
INPUT = {"input": "Hello"}
#: Requests, each with the number of engine requests that it makes.
COSTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", MESSAGES, ASK, 1),
    ("POST", MESSAGES, {**ASK, "stream": True}, 1),
    ("POST", MESSAGES, {**ASK, "background": True}, 1),
    ("POST", MESSAGES, {**ASK, "background": True, "stream": True}, 1),
    ("POST", MESSAGES, {**ASK, "reply": False}, 0),
    ("POST", MESSAGES + "{message}/regenerate/", {}, 1),
    ("POST", MESSAGES + "{message}/regenerate/", {"stream": True}, 1),
    ("PATCH", MESSAGES + "{message}/", ASK, 0),
    ("POST", "api/chat/sessions/{session}/title/", {}, 1),
    ("POST", "api/chat/sessions/{session}/title/", {"title": "One"}, 0),
    ("POST", "v1/responses/compact", INPUT, 1),
    ("POST", "v1/responses/input_tokens", INPUT, 0),
    ("POST", "v1/responses", INPUT, 1),
    ("POST", "v1/responses", {**INPUT, "conversation": "{session}"}, 1),
    ("POST", "v1/responses", {**INPUT, "stream": True}, 1),
    ("POST", "v1/responses", {**INPUT, "background": True}, 1),
    ("POST", "v1/responses", {**INPUT, "background": True, "stream": True}, 1),
    ("POST", "v1/chat/completions", {"messages": [{"role": "user", **ASK}], "store": True}, 1),
]


def test_each_answer_is_charged_once_and_a_refused_one_leaves_nothing(
    site: Site, ollama: OllamaServer
) -> None:
    tokens_of_one = 26 + 2
    caller = Limited(site)
    made = caller("POST", "api/chat/sessions/", {"model": DEFAULT_MODEL}).json()["id"]
    kept = caller("POST", MESSAGES.format(session=made), {**ASK, "reply": False}).json()["id"]

    def send(method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        named = {**body, "model": DEFAULT_MODEL} if path.startswith("v1") else body
        if "conversation" in body:
            named["conversation"] = made
        answer = caller(method, path.format(session=made, message=kept), named)
        eventually(lambda: not Run.objects.filter(ended_at=None).exists())
        return answer

    requests = 0
    for method, path, body, cost in COSTS:
        before = caller.used
        ollama.reply(*[Answer(["One", " two"], prompt_tokens=26)] * cost)
        answer = send(method, path, body)
        assert answer.status_code < 300, (path, body, answer.text)
        eventually(lambda: caller.used["concurrent"] == 0)
        grown = {unit: value - before[unit] for unit, value in caller.used.items()}
        expected = {"requests": cost, "tokens": cost * tokens_of_one, "concurrent": 0}
        assert grown == expected, (path, body)
        requests += cost
    Limit.objects.filter(unit="requests").update(amount=requests)
    rows = [model.objects.count() for model in (Conversation, Item, Response, Run, Completion)]
    for method, path, body, cost in COSTS:
        if cost:
            answer = send(method, path, body)
            assert answer.status_code == 429, (path, body, answer.text)
            now_there = (Conversation, Item, Response, Run, Completion)
            assert [model.objects.count() for model in now_there] == rows, (path, body)
    assert not Run.objects.exclude(locks=None).exists()
    assert caller.used == {**caller.used, "requests": requests, "concurrent": 0}


@pytest.mark.parametrize("how", ["end", "stop", "delete", "leave"])
@pytest.mark.parametrize("kind", ["session", "response"])
def test_a_place_is_free_when_the_answer_in_the_background_is_over(
    site: Site, ollama: OllamaServer, how: str, kind: str
) -> None:
    """And no earlier: though its client goes, which is no end."""
    caller = Limited(site)
    gate = threading.Event()
    ollama.reply(Reply([*tokens("One"), Hold(gate), END]))
    made = caller("POST", "api/chat/sessions/", {"model": DEFAULT_MODEL}).json()["id"]
    path, body = MESSAGES.format(session=made), {**ASK, "background": True}
    if kind == "response":
        path, body = "v1/responses", {**INPUT, "model": DEFAULT_MODEL, "background": True}
    if how == "leave":
        client = httpx.Client(verify=NO_TLS, timeout=60)
        headers = {"Authorization": f"Bearer {caller.key}"}
        url = f"{site.url}/ai/{path}"
        request = client.build_request("POST", url, json={**body, "stream": True}, headers=headers)
        next(client.send(request, stream=True).iter_raw())
        client.close()
        address = path
    else:
        made_id = caller("POST", path, body).json()["id"]
        address = f"v1/responses/{made_id}" if kind == "response" else f"api/chat/sessions/{made}/"
    ollama.wait_for_chat()
    time.sleep(0.5)
    assert caller.used["concurrent"] == 1
    assert caller("POST", path, body).status_code in (400, 429)
    if how in ("end", "leave"):
        gate.set()
    elif how == "delete":
        assert caller("DELETE", address).status_code == 200
    else:
        verb = "/cancel" if kind == "response" else "stop/"
        assert caller("POST", address + verb, {}).status_code == 200
    eventually(lambda: caller.used["concurrent"] == 0)
    assert caller.used["requests"] == 1


@pytest.mark.parametrize(("many", "is_long"), [(1, True), (5, False)])
def test_a_response_whose_end_cannot_be_stored_is_stored_later(
    site: Site, ollama: OllamaServer, many: int, is_long: bool
) -> None:
    """Its client gets an error; the database has it as soon as there is a database."""
    key = World().key(World().user("ada")).key
    gate = threading.Event()
    ollama.reply(*[Reply([*tokens("One"), Hold(gate), *tokens(" two"), END])] * many)
    posts = [Posted(site, key) for _ in range(many)]
    ollama.wait_for_chat(many)
    if is_long:
        eventually(lambda: Run.objects.count() == many)
    table = connection.ops.quote_name(Item._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO gone")
        try:
            gate.set()
            for posted in posts:
                posted.join(20)
        finally:
            cursor.execute(f"ALTER TABLE gone RENAME TO {table}")
    assert [posted.status for posted in posts] == [500] * many, posts[0].content
    assert all("could not be stored" in posted.content for posted in posts)
    eventually(lambda: Response.objects.count() == many)
    eventually(lambda: not Run.objects.filter(ended_at=None).exists())
    assert list(Response.objects.values_list("status", flat=True)) == ["incomplete"] * many
    assert Item.objects.filter(text="One two").count() == many
    assert Conversation.objects.count() == many
