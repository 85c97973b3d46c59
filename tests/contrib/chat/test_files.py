"""Images and audio of messages: in the storage, for their owner, and gone with the message."""

from __future__ import annotations

import asyncio
import base64
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.files.storage import default_storage
from django.db import transaction
from pytest_django import Settings

from django_ollama_openai.asgi import fast_lane
from django_ollama_openai.backends import backends
from django_ollama_openai.contrib.chat._store.files import Media, stored
from django_ollama_openai.contrib.chat.models import Attachment, Completion, Conversation, Item
from tests.contrib.access.conftest import Caller, World
from tests.contrib.chat.common import (
    AUDIO,
    GIF,
    JPEG,
    PNG,
    WAV,
    WEBP,
    ask,
    caller_of,
    files_in_storage,
    media_site,
    picture,
    raw_rows,
    uri,
)

__all__ = ["media_site"]

pytestmark = pytest.mark.django_db(transaction=True)

SESSIONS = "api/chat/sessions/"


def new_session(caller: Caller, **fields: Any) -> str:
    answer = caller("POST", SESSIONS, fields)
    assert answer.status == 201, answer.body
    return str(answer.body["id"])


def with_picture(caller: Caller, data: bytes = PNG, **fields: Any) -> tuple[str, str]:
    """Return the id of a new session with a picture, and the picture's path below the mount."""
    session = new_session(caller)
    content = [{"type": "text", "text": "Look"}, picture(uri(data))]
    message = ask(caller, session, content, reply=False, **fields)
    return session, path_of(message["content"][1]["image_url"]["url"])


def path_of(url: str) -> str:
    assert url.startswith("http://testserver/ai/api/chat/files/file_")
    return url.removeprefix("http://testserver/ai/")


def get(caller: Caller, path: str, method: str = "GET") -> Any:
    headers = {} if caller.key is None else {"Authorization": f"Bearer {caller.key}"}
    return caller.client.generic(method, f"/ai/{path}", headers=headers)


@pytest.mark.parametrize(
    ("data", "kind", "extension"),
    [
        (PNG, "image/png", "png"),
        (JPEG, "image/jpeg", "jpg"),
        (GIF, "image/gif", "gif"),
        (WEBP, "image/webp", "webp"),
    ],
)
def test_a_picture_is_read_back_by_its_owner(data: bytes, kind: str, extension: str) -> None:
    caller = caller_of("ada")
    _, path = with_picture(caller, data)
    response = get(caller, path)
    assert (response.status_code, response.content) == (200, data)
    headers = response.headers
    # The client's data URI called each of them a PNG.
    assert headers["Content-Type"] == kind
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == f'inline; filename="{path[-37:]}.{extension}"'
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cache-Control"] == "private"
    head = get(caller, path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))
    assert get(caller, f"{path}/").status_code == 200


@pytest.mark.parametrize("is_audio_known", [True, False])
def test_audio_is_read_back_and_sent_to_the_engine(is_audio_known: bool) -> None:
    caller = caller_of("ada")
    data = WAV if is_audio_known else b"<script>alert(1)</script>"
    audio = {"data": base64.b64encode(data).decode(), "format": "wav"}
    content = [{"type": "input_audio", "input_audio": audio}]
    message = ask(caller, new_session(caller), content, reply=False)
    (part,) = message["content"]
    response = get(caller, path_of(part["input_audio"]["data"]))
    assert response.content == data
    kind, disposition = response.headers["Content-Type"], response.headers["Content-Disposition"]
    if is_audio_known:
        assert (kind, disposition[:6]) == ("audio/wav", "inline")
    else:
        assert (kind, disposition[:10]) == ("application/octet-stream", "attachment")


def test_no_row_has_base64() -> None:
    caller = caller_of("ada")
    session = new_session(
        caller, messages=[{"role": "user", "content": [picture(uri(PNG)), picture(uri(GIF))]}]
    )
    ask(caller, session, [{"type": "text", "text": "Look"}, picture(uri(JPEG))])
    ask(caller, session, [{"type": "input_audio", "input_audio": AUDIO}])
    conversation = caller("POST", SESSIONS, {}).body["id"]
    assert conversation
    rows = raw_rows()
    for data in (PNG, GIF, JPEG, WAV):
        assert base64.b64encode(data).decode()[8:60] not in rows
    assert "base64" not in rows
    assert len(files_in_storage()) == Attachment.objects.count() == 4


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ([picture("data:image/png;base64,bm8gaW1hZ2U=")], "content[0].image_url.url"),
        ([picture("data:image/svg+xml,<svg/>")], "content[0].image_url.url"),
        ([picture("data:image/png;base64,%%%")], "content[0].image_url"),
        (
            [{"type": "text", "text": "a"}, picture(uri(b"%PDF-1.7 no picture"))],
            "content[1].image_url.url",
        ),
    ],
)
def test_what_is_no_picture_is_an_error_of_its_field(
    content: list[dict[str, Any]], field: str
) -> None:
    caller = caller_of("ada")
    session = new_session(caller)
    for fields in ({"reply": False}, {}):
        body = {"model": "m", "content": content, **fields}
        answer = caller("POST", f"{SESSIONS}{session}/messages/", body)
        assert answer.status == 400, answer.body
        assert answer.error["param"] == field
    answer = caller("POST", SESSIONS, {"messages": [{"role": "user", "content": content}]})
    assert answer.error["param"] == f"messages[0].{field}"
    assert not Item.objects.exists() and not files_in_storage()


@pytest.mark.parametrize("who", ["another", "colleague", "nobody", "invented", "no scope"])
def test_files_of_others_do_not_exist(who: str) -> None:
    world = World()
    ada, grace = world.user("ada"), world.user("grace")
    workspace = world.workspace("Research", member=ada)
    workspace.memberships.create(user=grace)
    caller = world.key(ada, workspace)
    session = new_session(caller, visibility="workspace")
    content = [picture(uri(PNG))]
    message = ask(caller, session, content, reply=False)
    path = path_of(message["content"][0]["image_url"]["url"])
    other, status = world.session(world.user("eve")), 404
    if who == "colleague":
        other = world.key(grace, workspace)
        assert other("GET", f"{SESSIONS}{session}/messages/").body["data"]
    elif who == "nobody":
        other, status = Caller(), 401
    elif who == "invented":
        other, path = caller, f"api/chat/files/file_{uuid.uuid4().hex}"
    elif who == "no scope":
        other, status = world.key(ada, workspace, scopes=["chat"]), 403
    for method in ("GET", "HEAD"):
        assert get(other, path, method).status_code == status
    assert get(caller, path.replace("file_", "../file_")).status_code == 404


@pytest.mark.parametrize("lane", ["asgi", "fast"])
def test_files_under_asgi(lane: str) -> None:
    caller = World().key(World().user("ada"))
    _, path = with_picture(caller)
    application = get_asgi_application()
    app: Any = fast_lane(application) if lane == "fast" else application

    async def fetch() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {caller.key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return [
                await client.request(method, f"/ai/{path}", headers=headers)
                for method in ("GET", "HEAD")
            ]

    found, head = asyncio.run(fetch())
    assert (found.status_code, found.content) == (200, PNG)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(PNG))


# Deletion


@pytest.mark.parametrize("what", ["message", "session", "user", "completion"])
def test_files_go_with_what_they_belong_to(what: str) -> None:
    caller = caller_of("ada")
    session, _ = with_picture(caller)
    row = Conversation.objects.get()
    if what == "completion":
        row.delete()
        completion = Completion(owner=row.owner, model="m", body={}, messages=[])
        media = Media()
        media.take_image(uri(PNG), "messages", completion=completion)
        with stored(media):
            completion.save(force_insert=True)
    assert len(files_in_storage()) == 1
    with pytest.raises(RuntimeError), transaction.atomic():
        delete(what, caller, session)
        assert not Attachment.objects.exists()
        raise RuntimeError
    # The transaction was rolled back.
    assert len(files_in_storage()) == Attachment.objects.count() == 1
    delete(what, caller, session)
    assert not files_in_storage() and not Attachment.objects.exists()


def delete(what: str, caller: Caller, session: str) -> None:
    match what:
        case "message":
            head = Item.objects.get()
            path = f"{SESSIONS}{session}/messages/{head.public_id}/"
            assert caller("DELETE", path).status == 200
        case "session":
            assert caller("DELETE", f"{SESSIONS}{session}/").status == 200
        case "user":
            user = Conversation.objects.get().user
            assert user is not None
            user.delete()
        case "completion":
            Completion.objects.all().delete()


def test_a_file_that_cannot_be_deleted_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caller = caller_of("ada")
    session = new_session(caller)
    ask(caller, session, [picture(uri(PNG)), picture(uri(GIF))], reply=False)
    broken = Attachment.objects.order_by("pk")[0]
    default_storage.delete(str(broken.file.name))
    Attachment.objects.filter(pk=broken.pk).update(file="../outside")
    assert caller("DELETE", f"{SESSIONS}{session}/").status == 200
    assert not files_in_storage()
    assert "on_commit" in caplog.text


def test_rows_that_cannot_be_inserted_leave_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = caller_of("ada")
    session = new_session(caller)

    def fail(*args: Any, **kwargs: Any) -> Any:
        # The files are saved before the rows.
        assert len(files_in_storage()) == 1
        raise RuntimeError

    monkeypatch.setattr("django_ollama_openai.contrib.chat._views.messages.append", fail)
    body = {"content": [picture(uri(PNG))], "reply": False}
    with pytest.raises(RuntimeError):
        caller("POST", f"{SESSIONS}{session}/messages/", body)
    assert not files_in_storage() and not Attachment.objects.exists()


# Missing files


def test_a_conversation_goes_on_without_a_file_that_the_storage_has_lost() -> None:
    caller = caller_of("ada")
    session, path = with_picture(caller)
    default_storage.delete(files_in_storage()[0])
    assert get(caller, path).status_code == 404
    (message,) = caller("GET", f"{SESSIONS}{session}/messages/").body["data"]
    assert message["content"][1]["image_url"]["url"].endswith(path)
    assert ask(caller, session, "What was it?")["choices"][0]["message"]["content"]
    sent = backends["default"].requests[-1].messages[0].model_dump(exclude_unset=True)  # type: ignore[attr-defined]  # a DummyBackend
    lost = {"type": "text", "text": "[The file no longer exists.]"}
    assert sent["content"][1] == lost


# Addresses of a client's own files


def test_a_client_sends_the_address_of_its_own_file() -> None:
    caller = caller_of("ada")
    session, path = with_picture(caller)
    audio = ask(caller, session, [{"type": "input_audio", "input_audio": AUDIO}], reply=False)
    sound = audio["content"][0]["input_audio"]["data"]
    for url in (f"http://testserver/ai/{path}", f"/ai/{path}/"):
        content = [picture(url), {"type": "input_audio", "input_audio": {**AUDIO, "data": sound}}]
        message = ask(caller, session, content, reply=False)
        copy = path_of(message["content"][0]["image_url"]["url"])
        assert copy != path and get(caller, copy).content == PNG
        copy = path_of(message["content"][1]["input_audio"]["data"])
        assert get(caller, copy).content == WAV
    # A copy has a life of its own.
    first = Item.objects.order_by("pk")[0]
    caller("DELETE", f"{SESSIONS}{session}/messages/{first.public_id}/")
    assert get(caller, path).status_code == 404
    assert get(caller, copy).status_code == 200


@pytest.mark.parametrize("whose", ["another", "invented", "lost"])
def test_addresses_of_other_files_are_refused(whose: str) -> None:
    ada, eve = caller_of("ada"), caller_of("eve")
    _session, path = with_picture(ada)
    caller = ada if whose == "lost" else eve
    if whose == "invented":
        path = f"api/chat/files/file_{uuid.uuid4().hex}"
    elif whose == "lost":
        default_storage.delete(files_in_storage()[0])
    content = [picture(f"http://testserver/ai/{path}")]
    target = new_session(caller)
    answer = caller("POST", f"{SESSIONS}{target}/messages/", {"content": content, "reply": False})
    assert answer.status == 400
    assert answer.error["param"] == "content[0].image_url"
    assert "no such file" in answer.error["message"]


def test_a_file_system_as_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path)},
        },
    }
    caller = caller_of("ada")
    session, path = with_picture(caller)
    (kept,) = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert kept.read_bytes() == PNG
    # A storage may serve all its files: those who see a message cannot derive the name.
    assert path[-32:] not in str(kept)
    assert get(caller, path).content == PNG
    caller("DELETE", f"{SESSIONS}{session}/")
    assert not kept.exists()
