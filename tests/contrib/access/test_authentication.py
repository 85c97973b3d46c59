"""Keys in the database: who they are, and what ends them at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.utils.timezone import now

from django_ollama_openai.contrib.access.models import APIKeySecret, Membership
from tests.contrib.access.conftest import Caller, World


def test_a_key_of_a_user(world: World) -> None:
    ada = world.user("ada")
    caller = world.key(ada)
    assert caller.chat().status == 200
    me = caller("GET", "api/me/").body
    assert me["user"] == {"id": ada.pk, "username": "ada"}
    assert me["key"]["name"] == "test"
    assert (me["workspace"], me["workspaces"], me["scopes"], me["models"]) == (None, [], None, None)


def test_no_secret_is_stored(world: World) -> None:
    caller = world.key(world.user("ada"))
    assert caller.key is not None
    stored = APIKeySecret.objects.values_list().get()
    assert not any(caller.key[12:-4] in str(value) for value in stored)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1],
        lambda key: key.swapcase(),
        lambda key: key + "x",
        lambda key: "sk-site_" + "A" * 46,
    ],
    ids=["truncated", "letter case", "longer", "invented"],
)
def test_another_key_is_refused(world: World, spoil: Callable[[str], str]) -> None:
    key = world.key(world.user("ada")).key
    assert key is not None
    answer = Caller(spoil(key)).chat()
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert key not in str(answer.body)


def _deactivate(thing: Any) -> None:
    thing.is_active = False
    thing.save()


def _expire(key: Any) -> None:
    key.expires_at = now() - timedelta(seconds=1)
    key.save()


ENDS: dict[str, Callable[[Any], None]] = {
    "revoked": lambda it: it.key.row.revoke(),
    "expired": lambda it: _expire(it.key.row),
    "the secret ended": lambda it: it.key.row.rotate("site", timedelta(0)) and None,
    "deleted": lambda it: it.key.row.delete(),
    "user deactivated": lambda it: _deactivate(it.user),
    "user deleted": lambda it: it.user.delete(),
    "workspace deactivated": lambda it: _deactivate(it.workspace),
    "workspace deleted": lambda it: it.workspace.delete(),
    "membership ended": lambda it: it.workspace.memberships.get(user=it.user).delete(),
}


class It:
    def __init__(self, world: World) -> None:
        self.user = world.user("ada")
        self.workspace = world.workspace("Lab", member=self.user)
        self.key = world.key(self.user, self.workspace)


@pytest.mark.parametrize("end", ENDS)
def test_a_key_ends_at_once(
    world: World, end: str, django_capture_on_commit_callbacks: Any
) -> None:
    it = It(world)
    assert it.key.chat().status == 200
    with django_capture_on_commit_callbacks(execute=True):
        ENDS[end](it)
    answer = it.key.chat()
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


def test_a_member_by_group(world: World) -> None:
    ada, group = world.user("ada"), Group.objects.create(name="lab")
    workspace = world.workspace("Lab")
    workspace.group = group
    workspace.save()
    caller = world.key(ada, workspace)
    assert caller.chat().status == 401
    ada.groups.add(group)
    assert caller.chat().status == 200
    ada.groups.remove(group)
    assert caller.chat().status == 401


def test_a_rotated_key(world: World) -> None:
    caller = world.key(world.user("ada"))
    new = Caller(caller.row.rotate("site"))  # type: ignore[attr-defined]
    assert (caller.chat().status, new.chat().status) == (200, 200)


@pytest.mark.parametrize(
    ("networks", "address", "status"),
    [
        (["127.0.0.0/8"], "127.0.0.1", 200),
        (["127.0.0.0/8"], "::ffff:127.0.0.1", 200),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", 200),
        (["10.0.0.0/8"], "127.0.0.1", 401),
        ([], "127.0.0.1", 401),
        (["10.0.0.0/8"], "unix:", 401),
    ],
)
def test_networks(world: World, networks: list[str], address: str, status: int) -> None:
    caller = world.key(world.user("ada"), networks=networks)
    caller.client.defaults["REMOTE_ADDR"] = address
    answer = caller.chat()
    assert answer.status == status
    if status == 401:
        assert answer.error["code"] == "ip_not_authorized"


def test_models_of_the_key_and_of_the_workspace(world: World) -> None:
    workspace = world.workspace("Lab")
    workspace.models = ["llama*", "qwen3"]
    workspace.save()
    caller = world.key(None, workspace, models=["*3"])
    assert [caller.chat(model).status for model in ("llama3", "qwen3", "llama2", "phi3")] == [
        200,
        200,
        404,
        404,
    ]


@pytest.mark.parametrize("scopes", [None, ["chat"], ["models"], []])
def test_scopes(world: World, scopes: list[str] | None) -> None:
    caller = world.key(world.user("ada"), scopes=scopes)
    for scope, path in (("chat", "v1/chat/completions"), ("models", "v1/models")):
        answer = caller.chat() if scope == "chat" else caller("GET", path)
        is_allowed = scopes is None or scope in scopes
        assert answer.status == (200 if is_allowed else 403)
    assert caller("GET", "v1/organization/projects").status == 403


@pytest.mark.parametrize("kind", ["key", "session"])
def test_the_workspace_of_a_request(world: World, kind: str) -> None:
    ada = world.user("ada")
    one = world.workspace("One", member=ada)
    caller = world.key(ada) if kind == "key" else world.session(ada)
    assert caller("GET", "api/me/").body["workspace"]["id"] == one.public_id
    two = world.workspace("Two", owner=ada)
    other = world.workspace("Other")
    assert caller("GET", "api/me/").body["workspace"] is None
    chosen = caller("GET", "api/me/", **{"OpenAI-Project": two.public_id})
    assert chosen.body["workspace"] == {"id": two.public_id, "name": "Two"}
    for wrong in (other.public_id, "ws_1", "Two"):
        answer = caller("GET", "api/me/", **{"OpenAI-Project": wrong})
        assert (answer.status, answer.error["code"]) == (404, "project_not_found")


def test_a_key_of_a_workspace_cannot_choose_another(world: World) -> None:
    ada = world.user("ada")
    one, two = world.workspace("One", owner=ada), world.workspace("Two", owner=ada)
    caller = world.key(ada, one)
    assert caller.chat(**{"OpenAI-Project": one.public_id}).status == 200
    assert caller.chat(**{"OpenAI-Project": two.public_id}).status == 404


@pytest.mark.parametrize("kind", ["key", "session"])
@pytest.mark.django_db(transaction=True)
def test_without_the_database_nobody_is_known(world: World, kind: str) -> None:
    ada = world.user("ada")
    caller = {"key": world.key, "session": world.session}[kind](ada)
    table = {"key": "apikeysecret", "session": "membership"}[kind]
    with connection.schema_editor() as editor:
        editor.alter_db_table(Membership, f"ollama_openai_access_{table}", "elsewhere")
    try:
        answer = caller.chat()
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Membership, "elsewhere", f"ollama_openai_access_{table}")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert caller.chat().status == 200
