"""The admin: operators see whose conversations there are, and their text only with a permission."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import include, path, reverse
from pytest_django import DjangoAssertNumQueries, Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib import chat
from django_ollama_openai.contrib.chat._store.files import Media, stored
from django_ollama_openai.contrib.chat._store.items import new_rows
from django_ollama_openai.contrib.chat._store.tree import append, set_leaf
from django_ollama_openai.contrib.chat.models import (
    Attachment,
    Branch,
    Completion,
    Conversation,
    Item,
    Kind,
    Piece,
    Response,
    Run,
)
from tests.contrib.access.conftest import World
from tests.contrib.access.test_admin import gettext_tool
from tests.contrib.chat.common import PNG, files_in_storage, media_site, raw_rows, uri

__all__ = ["media_site"]

urlpatterns = [
    path("admin/", admin.site.urls),
    path("ai/", include("django_ollama_openai.urls")),
]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls(__name__),
    pytest.mark.any_database,
]

APP = "ollama_openai_chat"
MODELS = [Conversation, Response, Completion]
SECRET = "the secret of the teapot"


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:{name}", args=args)


def page(model: Any, kind: str, *args: Any) -> str:
    return url(f"{APP}_{model._meta.model_name}_{kind}", *args)


def client_of(*permissions: str, **fields: Any) -> Client:
    user = World().user("staff", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def lead() -> Client:
    return client_of(is_superuser=True)


def everything_of(user: Any) -> Conversation:
    """Store one row of every table for ``user``, and return the conversation."""
    owner = f"user:{user.pk}"
    row = Conversation.objects.create(
        owner=owner, user=user, title=SECRET, instructions=SECRET, model="m", metadata={"a": SECRET}
    )
    media = Media()
    items: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "input_image", "image_url": uri(PNG)}]},
        {"type": "reasoning", "summary": []},
        {"role": "assistant", "content": SECRET},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": SECRET},
    ]
    rows = new_rows(items, media)
    with stored(media):
        append(row, rows, None)
        set_leaf(row, rows[2])
        row.save()
    edit = new_rows([{"role": "user", "content": SECRET}], Media())
    append(row, edit, None)
    run = Run.objects.create(item=rows[2], locks=row)
    Piece.objects.create(run=run, first=0, count=1, data=SECRET)
    thread = Conversation.objects.create(owner=owner, user=user, kind=Kind.THREAD)
    answer = new_rows([{"role": "assistant", "content": SECRET}], Media())
    append(thread, answer, None)
    body = {"model": "m", "instructions": SECRET}
    response = Response.objects.create(
        conversation=thread, body=body, status="completed", leaf=answer[0]
    )
    Item.objects.filter(pk=answer[0].pk).update(response=response)
    Run.objects.create(response=response)
    completion = Completion(
        owner=owner, user=user, model="m", body={"a": SECRET}, messages=[SECRET]
    )
    media = Media()
    media.take_image(uri(PNG), "p", completion=completion)
    with stored(media):
        completion.save(force_insert=True)
    assert Branch.objects.exists()
    return row


@pytest.mark.parametrize("model", MODELS)
def test_texts_are_for_those_with_the_permission(model: Any) -> None:
    everything_of(World().user("ada"))
    row = model.objects.order_by("pk")[0]
    staff = client_of("view_conversation", "view_response", "view_completion")
    html = staff.get(page(model, "changelist")).content.decode()
    assert row.public_id in html and "ada" in html and SECRET not in html
    html = staff.get(page(model, "change", row.pk)).content.decode()
    assert row.public_id in html and SECRET not in html
    found = staff.get(page(model, "changelist"), {"q": "teapot"})
    assert not found.context["cl"].result_list


def test_the_permission_shows_the_current_branch() -> None:
    row = everything_of(World().user("ada"))
    staff = client_of("view_conversation", "view_text")
    html = staff.get(page(Conversation, "change", row.pk)).content.decode()
    assert html.count(SECRET) >= 5 and "[1 file]" in html and f"f({SECRET})" in html
    found = staff.get(page(Conversation, "changelist"), {"q": "teapot"})
    assert [each.pk for each in found.context["cl"].result_list] == [row.pk]
    # An edit is another branch.
    leaf = Item.objects.get(conversation=row, role="user", text=SECRET)
    Conversation.objects.filter(pk=row.pk).update(leaf=leaf)
    assert "f(" not in staff.get(page(Conversation, "change", row.pk)).content.decode()


def test_texts_are_escaped_and_read_in_pages(lead: Client) -> None:
    row = Conversation.objects.create(owner="user:1", title="<script>alert(1)</script>")
    texts = [f"<b>number {number}</b>" for number in range(120)]
    rows = new_rows([{"role": "user", "content": text} for text in texts], Media())
    append(row, rows, None)
    set_leaf(row, rows[-1])
    row.save()
    base = page(Conversation, "change", row.pk)
    html = lead.get(base).content.decode()
    assert "<script>alert" not in html and "<b>number" not in html
    seen: list[str] = []
    query = ""
    for expected in (50, 50, 20):
        html = lead.get(base + query).content.decode()
        shown = [text for text in range(120) if f"number {text}&lt;" in html]
        assert len(shown) == expected
        seen = [*map(str, shown), *seen]
        _, _, rest = html.partition('href="?below=')
        query = f"?below={rest.partition(chr(34))[0]}" if rest else ""
    assert seen == list(map(str, range(120))) and not query
    assert lead.get(f"{base}?below=x").status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_added_or_changed(lead: Client, model: Any) -> None:
    everything_of(World().user("ada"))
    row = model.objects.order_by("pk")[0]
    assert lead.get(page(model, "add")).status_code == 403
    before = raw_rows()
    assert lead.post(page(model, "change", row.pk), {"owner": "user:9"}).status_code == 403
    assert raw_rows() == before


def test_threads_are_not_conversations(lead: Client) -> None:
    everything_of(World().user("ada"))
    (row,) = lead.get(page(Conversation, "changelist")).context["cl"].result_list
    assert row.kind == Kind.CONVERSATION
    thread = Conversation.objects.get(kind=Kind.THREAD)
    assert lead.get(page(Conversation, "change", thread.pk)).status_code == 302


@pytest.mark.parametrize("model", MODELS)
def test_search_finds_rows_by_id_owner_and_user(lead: Client, model: Any) -> None:
    ada = World().user("ada")
    everything_of(ada)
    everything_of(World().user("bob"))
    row = model.objects.order_by("pk").filter(**of(model, ada))[0]
    for term in (row.public_id, f"user:{ada.pk}", "ada"):
        (found,) = lead.get(page(model, "changelist"), {"q": term}).context["cl"].result_list
        assert found.pk == row.pk
    assert not lead.get(page(model, "changelist"), {"q": "key:x"}).context["cl"].result_list


def of(model: Any, user: Any) -> dict[str, Any]:
    if model is Response:
        return {"conversation__user": user}
    return {"user": user} | ({"kind": Kind.CONVERSATION} if model is Conversation else {})


# Deletion


@pytest.mark.parametrize("how", ["page", "list"])
@pytest.mark.parametrize("model", MODELS)
def test_rows_are_deleted_with_all_that_is_theirs(lead: Client, model: Any, how: str) -> None:
    everything_of(World().user("ada"))
    row = model.objects.order_by("pk")[0]
    if how == "page":
        target = page(model, "delete", row.pk)
        form: dict[str, Any] = {"post": "yes"}
        asked = lead.get(target)
    else:
        target = page(model, "changelist")
        form = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
        asked = lead.post(target, form | {"post": ""})
    html = asked.content.decode()
    assert row.public_id in html and SECRET not in html
    if model is Conversation:
        assert "Items: 5" in html
    done = lead.post(target, form)
    assert done.status_code == 302, done.content
    left = {each: each._default_manager.count() for each in (*MODELS, Item, Run, Attachment)}
    expected = {
        Conversation: {Conversation: 1, Response: 1, Completion: 1, Item: 1, Run: 1, Attachment: 1},
        Response: {Conversation: 1, Response: 0, Completion: 1, Item: 5, Run: 1, Attachment: 2},
        Completion: {Conversation: 2, Response: 1, Completion: 0, Item: 6, Run: 2, Attachment: 1},
    }[model]
    assert left == expected
    assert len(files_in_storage()) == expected[Attachment]
    assert SECRET not in str(list(LogEntry.objects.values()))


def test_many_are_deleted_in_batches(lead: Client) -> None:
    Conversation.objects.bulk_create(Conversation(owner="key:a") for _ in range(700))
    keys = list(map(str, Conversation.objects.values_list("pk", flat=True)))
    form = {"action": "delete_selected", "_selected_action": keys, "post": "yes"}
    asked = lead.post(page(Conversation, "changelist"), form | {"post": ""}).content.decode()
    assert "and 600 more" in asked
    assert lead.post(page(Conversation, "changelist"), form).status_code == 302
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("how", ["orm", "bulk", "admin page", "admin list"])
def test_a_user_is_deleted_with_all_that_is_theirs(lead: Client, how: str) -> None:
    ada, bob = World().user("ada"), World().user("bob")
    everything_of(bob)
    other = raw_rows()
    everything_of(ada)
    Conversation.objects.bulk_create(
        Conversation(owner=f"user:{ada.pk}", user=ada) for _ in range(600)
    )
    match how:
        case "orm":
            ada.delete()
        case "bulk":
            type(ada).objects.filter(pk=ada.pk).delete()
        case "admin page":
            target = url("auth_user_delete", ada.pk)
            asked = lead.get(target).content.decode()
            assert "Conversations: 602" in asked and "Stored completion: 1" in asked
            assert asked.count("conv_") == 0
            assert lead.post(target, {"post": "yes"}).status_code == 302
        case "admin list":
            target = url("auth_user_changelist")
            form: dict[str, Any] = {"action": "delete_selected", "_selected_action": [ada.pk]}
            form["post"] = "yes"
            assert "Conversations: 602" in lead.post(target, form | {"post": ""}).content.decode()
            assert lead.post(target, form).status_code == 302
    assert not type(ada).objects.filter(pk=ada.pk).exists()
    assert raw_rows() == other
    assert len(files_in_storage()) == Attachment.objects.count() == 2


def test_who_may_not_delete_conversations_may_not_delete_their_user() -> None:
    ada = World().user("ada")
    everything_of(ada)
    staff = client_of("view_user", "change_user", "delete_user")
    target = url("auth_user_delete", ada.pk)
    assert "conversation" in str(staff.get(target).context["perms_lacking"])
    assert staff.post(target, {"post": "yes"}).status_code == 403
    assert Conversation.objects.exists()


# Lists


@pytest.mark.parametrize("model", MODELS)
def test_lists_take_as_many_queries_for_many_rows(
    lead: Client, model: Any, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    everything_of(World().user("user0"))
    with django_assert_max_num_queries(30) as few:
        lead.get(page(model, "changelist"))
    for number in range(1, 6):
        everything_of(World().user(f"user{number}"))
    with django_assert_max_num_queries(len(few)):
        assert lead.get(page(model, "changelist")).status_code == 200


def test_a_list_of_many_conversations_is_fast(lead: Client) -> None:
    lead.get(page(Conversation, "changelist"))
    for _ in range(10):
        Conversation.objects.bulk_create(
            (Conversation(owner=f"key:{uuid7().hex}") for _ in range(2_000)), 1_000
        )
    began = time.perf_counter()
    assert lead.get(page(Conversation, "changelist")).status_code == 200
    assert time.perf_counter() - began < 2


# Translations


LOCALE = Path(chat.__file__).parent / "locale" / "de" / "LC_MESSAGES"


def test_german_is_complete(tmp_path: Path) -> None:
    shutil.copytree(LOCALE.parents[2], tmp_path / "chat")
    command = [sys.executable, "-m", "django", "makemessages", "--locale", "de", "--no-location"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    subprocess.run(command, cwd=tmp_path / "chat", env=env, check=True, capture_output=True)
    made = tmp_path / "chat" / LOCALE.relative_to(LOCALE.parents[2]) / "django.po"
    for missing in ("--untranslated", "--only-fuzzy", "--only-obsolete"):
        assert gettext_tool("msgattrib", missing, made) == ""
    compiled = tmp_path / "django.mo"
    gettext_tool("msgfmt", "--check-format", "-o", compiled, LOCALE / "django.po")
    assert gettext_tool("msgunfmt", compiled) == gettext_tool("msgunfmt", LOCALE / "django.mo")


def test_the_admin_speaks_german(lead: Client, settings: Settings) -> None:
    settings.LANGUAGE_CODE = "de"
    row = everything_of(World().user("ada"))
    assert "Nachrichten" in lead.get(page(Conversation, "changelist")).content.decode()
    html = lead.get(page(Conversation, "delete", row.pk)).content.decode()
    assert "Elemente: 5" in html
