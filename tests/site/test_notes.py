"""An optional app, ``tests.project.notes``, which uses each seam of the gateway, over real servers.

How endpoints read and write in general is in ``tests/unit/test_endpoints.py``.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

import httpx
import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.conftest import site_options
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply
from tests.servers import KEY, ROOT, SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import MODEL, part

APP = "tests.project.notes"
ADA, BOB = "token-of-ada", "token-of-bob"
MAX_NOTES, MAX_RUNNING = 5, 2


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def running_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp(request.param)
    options = site_options(ollama_server)
    options["NOTES"] = {"TOKENS": {ADA: "ada", BOB: "bob"}, "MAX_NOTES": MAX_NOTES}
    options["NOTES"]["MAX_RUNNING"] = MAX_RUNNING
    environment: Any = {
        "SITE_APPS": APP,
        "SITE_DATABASE": str(directory / "db.sqlite3"),
        # Connections are closed where they would be of no further use.
        "SITE_CONN_MAX_AGE": "600",
    }
    settings = {"DJANGO_SETTINGS_MODULE": "tests.project.settings"}
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--skip-checks", "--verbosity=0"],
        cwd=ROOT,
        env={**os.environ, **settings, **environment},
        check=True,
    )
    with serve(request.param, directory, options, **environment) as site:
        yield site


class Client:
    """Requests of one owner, below one mount."""

    def __init__(self, site: Site, token: str, mount: str = "ai") -> None:
        self._url = f"{site.url}/{mount}/api/notes"
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str = "/", **options: Any) -> httpx.Response:
        response = httpx.request(
            method, self._url + path, headers=self._headers, timeout=60, **options
        )
        assert "x-request-id" in response.headers
        return response

    def stream(self, path: str, **fields: Any) -> AbstractContextManager[httpx.Response]:
        return httpx.stream(
            "POST", self._url + path, headers=self._headers, json=fields, timeout=60
        )

    def create(self, **fields: Any) -> dict[str, Any]:
        response = self("POST", json={"title": "A note", **fields})
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made


@pytest.fixture
def ada(site: Site) -> Iterator[Client]:
    client = Client(site, ADA)
    yield client
    for note in client("GET").json()["data"]:
        assert client("DELETE", f"/{note['id']}/").status_code == 200


@pytest.fixture
def bob(site: Site) -> Client:
    return Client(site, BOB)


def rows(site: Site, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(site.output.parent / "db.sqlite3")) as database:
        return database.execute(query, parameters).fetchall()


def test_a_note_is_made_read_listed_and_deleted(ada: Client) -> None:
    made = ada.create(text="Hi", metadata={"some_key": "x"})
    assert made["created_at"].endswith("Z")
    for path in (f"/{made['id']}/", f"/{made['id']}"):
        response = ada("GET", path)
        assert (response.status_code, response.json()) == (200, made)
    assert ada("GET", "").json() == {"object": "list", "data": [made], "has_more": False}
    response = ada("DELETE", f"/{made['id']}/")
    assert response.json() == {"id": made["id"], "object": "note.deleted", "deleted": True}
    assert ada("GET", f"/{made['id']}/").status_code == 404


def test_notes_of_others_do_not_exist(ada: Client, bob: Client) -> None:
    made = ada.create()
    absent = bob("GET", "/999999999/")
    for method in ("GET", "DELETE"):
        response = bob(method, f"/{made['id']}/")
        assert response.status_code == 404
        error, expected = response.json()["error"], absent.json()["error"]
        assert error["code"] == expected["code"] == "not_found"
    assert bob("GET").json()["data"] == []


def test_pages(ada: Client) -> None:
    ids = [ada.create(title=f"note {number}")["id"] for number in range(3)]
    page = ada("GET", params={"limit": 2}).json()
    assert ([note["id"] for note in page["data"]], page["has_more"]) == (ids[:2], True)
    page = ada("GET", params={"limit": 2, "after": ids[1]}).json()
    assert ([note["id"] for note in page["data"]], page["has_more"]) == (ids[2:], False)
    found = ada("GET", params={"titleContains": ["note", "1"]}).json()["data"]
    assert [note["id"] for note in found] == ids[1:2]


def test_the_settings_of_the_app(ada: Client) -> None:
    for _ in range(MAX_NOTES):
        ada.create()
    error = ada("POST", json={"title": "one more"}).json()["error"]
    assert error["code"] == "too_many_notes"
    assert str(MAX_NOTES) in error["message"]


def test_who_may(site: Site) -> None:
    assert Client(site, "wrong")("GET").status_code == 401
    assert Client(site, KEY)("GET").status_code == 200
    models = f"{site.url}/ai/v1/models"
    response = httpx.get(models, headers={"Authorization": f"Bearer {ADA}"}, timeout=60)
    assert response.status_code == 403
    assert "'models'" in response.json()["error"]["message"]


def test_views_are_counted_off_the_request(site: Site, ada: Client) -> None:
    made = ada.create()
    seen = {ada("GET", f"/{made['id']}/").headers["x-request-id"] for _ in range(3)}
    deadline = time.monotonic() + 30
    query = "SELECT request_id FROM notes_view WHERE note_id = ?"
    while {row[0] for row in rows(site, query, made["id"])} != seen:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def results(site: Site, request_id: str) -> tuple[Any, ...]:
    """What the policy has written down of a request, once."""
    query = "SELECT endpoint, owner, result, tokens FROM notes_use WHERE request_id = ?"
    deadline = time.monotonic() + 30
    while not (found := rows(site, query, request_id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (use,) = found
    return use


def said(response: httpx.Response) -> str:
    """The text of an answer, whole or streamed."""
    assert response.status_code == 200, response.text
    if "text/event-stream" not in response.headers["content-type"]:
        content: str = response.json()["choices"][0]["message"]["content"]
        return content
    *parts, done = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    choices = [choice for part in parts for choice in json.loads(part)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("stream", [False, True])
def test_questions_about_a_note(
    site: Site, ada: Client, ollama: OllamaServer, stream: bool
) -> None:
    path = f"/{ada.create(text='The cat is black.')['id']}/answer/"
    ollama.reply(Answer(["Bla", "ck."], prompt_tokens=9), Answer(["Yes."]))
    first = ada("POST", path, json={"question": "Colour?", "model": MODEL, "stream": stream})
    assert said(first) == "Black."
    assert first.headers["x-notes-running"] == "1"
    # The answer is kept, and what is held is released, before the client gets the end.
    second = ada("POST", path, json={"question": "Sure?", "model": MODEL, "stream": stream})
    assert said(second) == "Yes."
    assert second.headers["x-notes-running"] == "1"
    sent = [(each["role"], each["content"]) for each in ollama.chats()[1].body["messages"]]
    assert sent == [
        ("system", "The cat is black."),
        ("user", "Colour?"),
        ("assistant", "Black."),
        ("user", "Sure?"),
    ]
    assert results(site, first.headers["x-request-id"]) == ("answer_note", "key:ada", "stop", 11)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stage_reads_another_note_between_two_requests(
    site: Site, ada: Client, ollama: OllamaServer, stream: bool
) -> None:
    ada.create(title="cats", text="The cat is black.")
    path = f"/{ada.create(text='About animals.')['id']}/answer/"
    ollama.reply(
        Answer(["LOOK", "UP ", "cats"], prompt_tokens=9), Answer(["Bla", "ck."], prompt_tokens=20)
    )
    response = ada("POST", path, json={"question": "Colour?", "model": MODEL, "stream": stream})
    assert said(response) == "Black."
    first, second = (chat.body["messages"] for chat in ollama.chats())
    assert [each["content"] for each in second[len(first) :]] == [
        "LOOKUP cats",
        "The cat is black.",
    ]
    assert results(site, response.headers["x-request-id"]) == (
        *("answer_note", "key:ada", "stop"),
        9 + 3 + 20 + 2,
    )


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_begins_like_a_command(
    site: Site, ada: Client, ollama: OllamaServer, stream: bool
) -> None:
    path = f"/{ada.create()['id']}/answer/"
    ollama.reply(Answer(["LO", "OK", " here."]), Answer(["LOOK"]))
    for text in ("LOOK here.", "LOOK"):
        response = ada("POST", path, json={"question": "?", "model": MODEL, "stream": stream})
        assert said(response) == text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fails(site: Site, ada: Client, ollama: OllamaServer, stream: bool) -> None:
    path = f"/{ada.create()['id']}/answer/"
    ollama.reply(Reply([part("Bl"), Close()]))
    failed = ada("POST", path, json={"question": "Colour?", "model": MODEL, "stream": stream})
    assert "bad_upstream" in failed.text
    assert results(site, failed.headers["x-request-id"])[2] == "bad_upstream"
    again = ada("POST", path, json={"question": "Sure?", "model": MODEL})
    assert again.headers["x-notes-running"] == "1"
    assert len(ollama.chats()[1].body["messages"]) == 2


def test_an_answer_whose_client_goes(site: Site, ada: Client, ollama: OllamaServer) -> None:
    path = f"/{ada.create()['id']}/answer/"
    ollama.reply(Reply([part("Bl"), Hold()]))
    with ada.stream(path, question="Colour?", model=MODEL, stream=True) as response:
        next(response.iter_bytes())
        request_id = response.headers["x-request-id"]
    assert results(site, request_id)[2] == "cancelled"
    assert ollama.wait_for_released()
    kept = rows(site, "SELECT messages FROM notes_note")
    assert "Bl" in kept[0][0]


def test_an_answer_that_is_refused(site: Site, ada: Client, bob: Client) -> None:
    path = f"/{ada.create()['id']}/answer/"
    for client, body, status in (
        (ada, {"question": "Colour?", "model": "gone"}, 404),
        (ada, {"question": "Colour?"}, 400),
        (ada, {"question": 5, "model": MODEL}, 400),
        (bob, {"question": "Colour?", "model": MODEL}, 404),
    ):
        response = client("POST", path, json=body)
        assert response.status_code == status, response.text
    assert ada("GET").headers["x-notes-running"] == "1"


def test_no_more_requests_run_than_may(site: Site, ada: Client, ollama: OllamaServer) -> None:
    path = f"/{ada.create()['id']}/answer/"
    ollama.reply(*(Reply([part("Bl"), Hold()]) for _ in range(MAX_RUNNING)))
    parts: list[Iterator[bytes]] = []
    with ExitStack() as running:
        for _ in range(MAX_RUNNING):
            fields = {"question": "Colour?", "model": MODEL, "stream": True}
            parts.append(running.enter_context(ada.stream(path, **fields)).iter_bytes())
            next(parts[-1])
        refused = ada("GET")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert Client(site, BOB)("GET").status_code == 200
    deadline = time.monotonic() + 60
    while ada("GET").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_mount_has_its_own_spelling(site: Site, ada: Client) -> None:
    made = ada.create(metadata={"some_key": "x"})
    camel = Client(site, ADA, "camel")("GET", f"/{made['id']}/").json()
    assert camel.pop("createdAt") == made.pop("created_at")
    assert camel == made
    assert camel["metadata"] == {"some_key": "x"}


@pytest.mark.parametrize("mount", ["ai", "camel"])
def test_the_app_is_in_the_document(site: Site, ada: Client, mount: str) -> None:
    document = httpx.get(f"{site.url}/{mount}/openapi.json", timeout=60).json()
    OpenAPIV31SpecValidator(document).validate()
    paths = document["paths"]
    assert set(paths["/api/notes/"]) == {"get", "post"}
    assert set(paths["/api/notes/{note_id}/"]) == {"get", "delete"}
    answered = paths["/api/notes/{note_id}/answer/"]["post"]["responses"]
    assert set(answered["200"]["content"]) == {"application/json", "text/event-stream"}
    parameters = {each.get("name"): each for each in paths["/api/notes/"]["get"]["parameters"]}
    assert parameters["limit"]["schema"]["maximum"] == 100
    (argument, _) = paths["/api/notes/{note_id}/"]["get"]["parameters"]
    assert (argument["in"], argument["schema"]["type"]) == ("path", "integer")
    assert {"name": "Notes", "description": "Notes of callers"} in document["tags"]
    created = paths["/api/notes/"]["post"]["responses"]["201"]["content"]["application/json"]
    schema = {**created["schema"], "components": document["components"]}
    client = Client(site, ADA, mount)
    ada.create(metadata={"some_key": "x"})
    jsonschema_rs.validate(schema, client.create())


def test_no_connection_to_the_database_is_left(site: Site, ada: Client) -> None:
    made = ada.create()
    for _ in range(20):
        ada("GET", f"/{made['id']}/")
    deadline = time.monotonic() + 60
    # Under WSGI a thread keeps its own; and the writer's goes when it is idle.
    most = 16 if site.server == "gunicorn" else 0
    while httpx.get(f"{site.url}/database-connections/", timeout=60).json()["open"] > most:
        assert time.monotonic() < deadline
        time.sleep(0.2)
