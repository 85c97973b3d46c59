"""The exact shapes of the app's endpoints: bodies, statuses, errors, and what a key may give."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.access.models import APIKey, Membership, ServiceAccount, Workspace
from tests.contrib.access.conftest import DUMMY, Answer, Caller, World
from tests.fast_lane import CLIENTS, IDS, sender

KEY = [
    "id",
    "object",
    "name",
    "workspace",
    "user",
    "redacted_value",
    "scopes",
    "models",
    "networks",
    "created_at",
    "expires_at",
    "last_used_at",
    "revoked_at",
]
WORKSPACE = ["id", "object", "name", "slug", "models", "is_active", "role", "created_at"]
MEMBER = ["user", "username", "role", "object"]
LIST = ["object", "data", "first_id", "last_id", "has_more"]
ME = ["object", "user", "key", "workspace", "workspaces", "scopes", "models"]
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SOON = "2999-01-01T00:00:00+02:00"


class Site:
    """ada owns Lab, whose admin is bob and whose member is cy; dan is a member by group."""

    def __init__(self, world: World) -> None:
        self.users = {name: world.user(name) for name in ("ada", "bob", "cy")}
        self.lab = world.workspace(
            "Lab", owner=self.users["ada"], admin=self.users["bob"], member=self.users["cy"]
        )
        self.ada = world.key(self.users["ada"])
        self.bob = world.key(self.users["bob"])
        self.cy = world.key(self.users["cy"])
        self.world = world

    def path(self, caller: Caller) -> str:
        return f"api/keys/{caller.row.public_id}/"  # type: ignore[attr-defined]

    @property
    def members(self) -> str:
        return f"api/workspaces/{self.lab.public_id}/members/"


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_bodies_have_these_keys_in_this_order(site: Site) -> None:
    made = site.ada("POST", "api/keys/", {"name": "ci", "expires_at": SOON})
    assert (made.status, list(made.body)) == (201, [*KEY, "value"])
    assert made.body["expires_at"] == "2998-12-31T22:00:00Z"
    assert UTC_TIME.fullmatch(made.body["created_at"])
    assert made.body["redacted_value"] == f"{made.body['value'][:12]}…{made.body['value'][-4:]}"
    path = f"api/keys/{made.body['id']}/"
    assert site.ada("GET", path).body == {
        name: value for name, value in made.body.items() if name != "value"
    }
    rotated = site.ada("POST", f"{path}rotate/", {})
    assert (rotated.status, list(rotated.body)) == (201, [*KEY, "value"])
    deleted = site.ada("DELETE", path)
    assert (deleted.status, list(deleted.body.items())) == (
        200,
        [("id", made.body["id"]), ("object", "api_key.deleted"), ("deleted", True)],
    )
    listed = site.ada("GET", "api/keys/").body
    assert list(listed) == LIST
    assert listed["data"][0]["id"] == made.body["id"]
    assert UTC_TIME.fullmatch(listed["data"][0]["revoked_at"])

    (workspace,) = site.ada("GET", "api/workspaces/").body["data"]
    assert list(workspace) == WORKSPACE
    assert (workspace["role"], workspace["is_active"], workspace["models"]) == ("owner", True, None)
    members = site.ada("GET", site.members).body
    assert list(members) == LIST
    assert [list(each) for each in members["data"]] == [MEMBER] * 3
    assert (members["first_id"], members["last_id"]) == (site.users["cy"].pk, site.users["ada"].pk)
    assert site.ada("DELETE", f"{site.members}{site.users['cy'].pk}/").body == {
        "id": site.users["cy"].pk,
        "object": "workspace.member.deleted",
        "deleted": True,
    }
    assert list(site.ada("GET", "api/me/").body) == ME
    assert list(site.ada("GET", "api/limits/").body) == ["object", "data"]
    empty = site.world.session(site.world.user("new"))("GET", "api/keys/").body
    assert (empty["data"], empty["first_id"], empty["last_id"], empty["has_more"]) == (
        [],
        None,
        None,
        False,
    )


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("kind", CLIENTS, ids=IDS)
def test_both_spellings_and_no_slash_are_accepted(
    world: World, kind: Any, slash: str, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": {**DUMMY, "second": DUMMY["default"]}}
    key = world.key(world.user("ada")).key
    send = sender(kind)
    body = {"name": "ci", "expiresAt": SOON}
    headers = {"headers": {"Authorization": f"Bearer {key}"}}
    made = send("POST", f"/camel/api/keys{slash}", body, **headers)
    assert made.status_code == 201
    assert {"redactedValue", "createdAt", "lastUsedAt", "value"} < set(made.json())
    assert made.json()["expiresAt"] == "2998-12-31T22:00:00Z"
    for case, names in (("camel", ["firstId", "hasMore"]), ("snake", ["first_id", "has_more"])):
        page = send("GET", f"/{case}/api/keys{slash}", **headers).json()
        assert set(names) < set(page)


#: Requests of ada that are refused: the status, and the parameter at fault.
WRONG: list[tuple[str, str, Any, int, str | None]] = [
    ("POST", "api/keys/", {}, 400, "name"),
    ("POST", "api/keys/", {"name": ""}, 400, "name"),
    ("POST", "api/keys/", {"name": "  "}, 400, "name"),
    ("POST", "api/keys/", {"name": "a\0b"}, 400, "name"),
    ("POST", "api/keys/", {"name": "a\x1b[2Jb"}, 400, "name"),
    ("POST", "api/keys/", {"name": "\u200b"}, 400, "name"),
    ("POST", "api/keys/", {"name": None}, 400, "name"),
    ("POST", "api/keys/", {"name": "x" * 101}, 400, "name"),
    ("POST", "api/keys/", {"name": "a", "colour": 1}, 400, "colour"),
    ("POST", "api/keys/", {"name": "a", "models": "m"}, 400, "models"),
    ("POST", "api/keys/", {"name": "a", "models": [""]}, 400, "models"),
    ("POST", "api/keys/", {"name": "a", "models": ["a\0"]}, 400, "models"),
    ("POST", "api/keys/", {"name": "a", "models": ["m"] * 101}, 400, "models"),
    ("POST", "api/keys/", {"name": "a", "models": [1]}, 400, "models[0]"),
    ("POST", "api/keys/", {"name": "a", "scopes": ["all"]}, 400, "scopes"),
    ("POST", "api/keys/", {"name": "a", "scopes": ["admin"]}, 403, None),
    ("POST", "api/keys/", {"name": "a", "networks": ["10.0.0.1/8"]}, 400, "networks"),
    ("POST", "api/keys/", {"name": "a", "networks": ["here"]}, 400, "networks"),
    ("POST", "api/keys/", {"name": "a", "expires_at": "2001-01-01T00:00:00Z"}, 400, "expires_at"),
    ("POST", "api/keys/", {"name": "a", "expires_at": "2999-01-01T00:00:00"}, 400, "expires_at"),
    ("POST", "api/keys/", {"name": "a", "expires_at": "soon"}, 400, "expires_at"),
    ("POST", "api/keys/", {"name": "a", "expires_at": 4102444800}, 400, "expires_at"),
    ("POST", "api/keys/", {"name": "a", "expires_at": "9999-12-31T23:59:59-09:00"}, 400,
     "expires_at"),
    ("POST", "api/keys/", {"name": "a", "workspace": "ws_0"}, 404, "workspace"),
    ("POST", "api/keys/", {"name": "a", "workspace": "{other}"}, 404, "workspace"),
    ("POST", "api/keys/", {"name": "a", "user": 10**30}, 404, "user"),
    ("POST", "api/keys/", {"name": "a", "workspace": "{lab}", "user": 10**30}, 404, "user"),
    ("POST", "api/keys/", {"name": "a", "workspace": "{lab}", "user": "{stranger}"}, 404, "user"),
    ("POST", "{key}rotate/", {"overlap_seconds": -1}, 400, "overlap_seconds"),
    ("POST", "{key}rotate/", {"overlap_seconds": 10**12}, 400, "overlap_seconds"),
    ("POST", "{key}rotate/", {"overlap_seconds": "1"}, 400, "overlap_seconds"),
    ("POST", "{key}rotate/", {"overlap": 1}, 400, "overlap"),
    ("PATCH", "{key}", {"workspace": None}, 400, "workspace"),
    ("PATCH", "{key}", {"user": 1}, 400, "user"),
    ("PATCH", "{key}", {"name": None}, 400, "name"),
    ("PATCH", "{key}", {"expires_at": "2001-01-01T00:00:00Z"}, 400, "expires_at"),
    ("PATCH", "api/keys/key_0/", {"name": "a"}, 404, None),
    ("PUT", "{key}", {"name": "a"}, 405, None),
    ("GET", "api/keys/?limit=0", None, 400, "limit"),
    ("GET", "api/workspaces/?limit=101", None, 400, "limit"),
    ("GET", "api/workspaces/?after=ws_0", None, 400, "after"),
    ("GET", "{members}?limit=x", None, 400, "limit"),
    ("GET", "{members}?after=nobody", None, 400, "after"),
    ("GET", "{members}?after={stranger}", None, 400, "after"),
    ("POST", "{members}", {}, 400, "user"),
    ("POST", "{members}", {"user": 1, "username": "bob"}, 400, "user"),
    ("POST", "{members}", {"username": "bob"}, 400, "username"),
    ("POST", "{members}", {"username": "nobody"}, 404, "username"),
    ("POST", "{members}", {"username": "a\0b"}, 404, "username"),
    ("POST", "{members}", {"user": 10**30}, 404, "user"),
    ("POST", "{members}", {"username": "stranger", "role": "king"}, 400, "role"),
    ("PATCH", "{members}{stranger}/", {"role": "admin"}, 404, None),
    ("PATCH", "{members}nobody/", {"role": "admin"}, 404, None),
    ("PATCH", "{members}{ada}/", {"role": "admin"}, 400, None),
    ("DELETE", "{members}{ada}/", None, 400, None),
    ("DELETE", "{members}{dan}/", None, 400, None),
    ("PATCH", "{workspace}", {"slug": "a b"}, 400, "slug"),
    ("PATCH", "{workspace}", {"slug": "taken"}, 400, "slug"),
    ("PATCH", "{workspace}", {"is_active": "no"}, 400, "is_active"),
    ("PATCH", "{workspace}", {"models": [""]}, 400, "models"),
    ("PATCH", "{workspace}", {"owner": 1}, 400, "owner"),
    ("POST", "api/workspaces/", {"name": "New"}, 403, None),
]  # fmt: skip


def test_mistakes_are_refused_with_the_parameter(site: Site) -> None:
    world, group = site.world, Group.objects.create(name="readers")
    stranger, dan = world.user("stranger"), world.user("dan")
    dan.groups.add(group)
    site.lab.group = group
    site.lab.save()
    values = {
        "key": site.path(site.ada),
        "members": site.members,
        "workspace": f"api/workspaces/{site.lab.public_id}/",
        "lab": site.lab.public_id,
        "other": world.workspace("Taken").public_id,
        "stranger": stranger.pk,
        "dan": dan.pk,
        "ada": site.users["ada"].pk,
    }
    for method, path, body, status, param in WRONG:
        filled = body and {
            name: value.format(**values) if isinstance(value, str) else value
            for name, value in body.items()
        }
        answer = site.ada(method, path.format(**values), filled)
        assert (answer.status, answer.error["param"]) == (status, param), (method, path, body)
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert answer.error["type"] == (
            "permission_error" if status == 403 else "invalid_request_error"
        )


def test_patch_changes_only_the_fields_in_the_body(site: Site) -> None:
    restricted = {
        "name": "a",
        "scopes": ["chat"],
        "models": ["m*"],
        "networks": ["10.0.0.0/8"],
        "expires_at": "2999-01-01T00:00:00Z",
    }
    made = site.ada("POST", "api/keys/", restricted).body
    path = f"api/keys/{made['id']}/"
    expected = {name: value for name, value in made.items() if name != "value"}
    for change in (
        {"name": "b"},
        {"scopes": None},
        {"models": ["x"]},
        {"networks": None},
        {"expires_at": None},
        {},
    ):
        expected = {**expected, **change}
        assert site.ada("PATCH", path, change).body == expected
    workspace = f"api/workspaces/{site.lab.public_id}/"
    before = site.ada("GET", workspace).body
    for change in ({"name": "B"}, {"models": ["m"]}, {"models": None}, {"slug": "b"}):
        before = {**before, **change}
        assert site.ada("PATCH", workspace, change).body == before


def test_rotation(site: Site) -> None:
    first = site.ada("POST", "api/keys/", {"name": "ci"}).body
    path = f"api/keys/{first['id']}/"
    second = site.ada("POST", f"{path}rotate/", {"overlapSeconds": 60}).body["value"]
    assert [Caller(each).chat().status for each in (first["value"], second)] == [200, 200]
    assert site.ada("POST", f"{path}rotate/").status == 201
    third = site.ada("POST", f"{path}rotate/", {"overlap_seconds": 0}).body["value"]
    assert [Caller(each).chat().status for each in (first["value"], second, third)] == [
        401,
        401,
        200,
    ]
    assert site.ada("DELETE", path).status == site.ada("DELETE", path).status == 200
    assert Caller(third).chat().status == 401
    for method, suffix, body in (("PATCH", "", {"name": "x"}), ("POST", "rotate/", {})):
        answer = site.ada(method, path + suffix, body)
        assert (answer.status, answer.error["code"]) == (400, "api_key_revoked")


LAST = datetime(2999, 1, 1, tzinfo=UTC)
#: What a key has, and what it asks for another: allowed, refused.
GIVEN: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"scopes": ["keys", "chat"]}, {"scopes": ["chat"]}, True),
    ({"scopes": ["keys", "chat"]}, {"scopes": []}, True),
    ({"scopes": ["keys", "chat"]}, {"scopes": ["usage"]}, False),
    ({"models": ["llama*"]}, {"models": ["llama3"]}, True),
    ({"models": ["llama*"]}, {"models": ["llama3*", "llama*"]}, True),
    ({"models": ["llama*"]}, {"models": ["*llama"]}, False),
    ({"models": ["llama?"]}, {"models": ["llama*"]}, False),
    ({"models": ["llama?"]}, {"models": ["llama3"]}, True),
    ({"models": ["*l*"]}, {"models": ["[al]"]}, False),
    ({"models": ["m"]}, {"models": ["m", "n"]}, False),
    ({"networks": ["127.0.0.0/8"]}, {"networks": ["127.0.0.1"]}, True),
    ({"networks": ["127.0.0.0/8"]}, {"networks": ["0.0.0.0/0"]}, False),
    ({"networks": ["127.0.0.0/8"]}, {"networks": ["::/0"]}, False),
]


@pytest.mark.parametrize(("has", "asked", "is_allowed"), GIVEN)
def test_a_key_gives_no_more_than_it_has(
    world: World, has: dict[str, Any], asked: dict[str, Any], is_allowed: bool
) -> None:
    ada = world.user("ada")
    caller, other = world.key(ada, **has), world.key(ada)
    (name,) = has
    path = f"api/keys/{other.row.public_id}/"  # type: ignore[attr-defined]
    for method, where, status in (("POST", "api/keys/", 201), ("PATCH", path, 200)):
        answer = caller(method, where, {"name": "new", **asked})
        if is_allowed:
            assert (answer.status, answer.body[name]) == (status, asked[name])
        else:
            assert (answer.status, answer.error["code"]) == (403, "exceeds_own_key")
    for unnamed in ({}, {name: None}):
        assert caller("POST", "api/keys/", {"name": "n", **unnamed}).body[name] == has[name]


@pytest.mark.parametrize(
    "has",
    [{"scopes": ["keys"]}, {"models": ["m"]}, {"networks": ["127.0.0.0/8"]}, {"expires_at": LAST}],
)
def test_a_key_does_not_rotate_one_that_has_more(world: World, has: dict[str, Any]) -> None:
    ada = world.user("ada")
    caller, equal, more = world.key(ada, **has), world.key(ada, **has), world.key(ada)
    # Itself last: its secret ends then.
    for target, status in ((equal, 201), (more, 403), (caller, 201)):
        path = f"api/keys/{target.row.public_id}/rotate/"  # type: ignore[attr-defined]
        assert caller("POST", path, {}).status == status
    assert world.session(ada)("POST", path, {}).status == 201


def test_a_key_does_not_outlive_its_maker(world: World) -> None:
    end = now() + timedelta(days=1)
    ada = world.user("ada")
    caller, other = world.key(ada, expires_at=end), world.key(ada)
    for asked in ({}, {"expires_at": None}, {"expires_at": SOON}):
        made = caller("POST", "api/keys/", {"name": "n", **asked})
        assert datetime.fromisoformat(made.body["expires_at"]) == end
    path = f"api/keys/{other.row.public_id}/"  # type: ignore[attr-defined]
    assert caller("PATCH", path, {"name": "renamed"}).body["expires_at"] is None


def test_a_key_of_a_workspace_stays_in_it(world: World) -> None:
    ada = world.user("ada")
    lab, shop = world.workspace("Lab", owner=ada), world.workspace("Shop", owner=ada)
    caller = world.key(ada, lab)
    for asked in ({}, {"workspace": None}, {"workspace": lab.public_id}):
        assert (
            caller("POST", "api/keys/", {"name": "n", **asked}).body["workspace"] == lab.public_id
        )
    assert caller("POST", "api/keys/", {"name": "n", "workspace": shop.public_id}).status == 404
    for other in (world.key(ada), world.key(ada, shop)):
        path = f"api/keys/{other.row.public_id}/"  # type: ignore[attr-defined]
        assert caller("GET", path).status == caller("POST", f"{path}rotate/", {}).status == 404
    assert [each["id"] for each in caller("GET", "api/workspaces/").body["data"]] == [lab.public_id]


@pytest.mark.parametrize(
    ("maker", "status"),
    [("session", 201), ("admin key", 201), ("plain key", 403), ("no superuser", 403)],
)
def test_only_superusers_make_and_change_admin_keys(world: World, maker: str, status: int) -> None:
    root, bob = world.user("root", is_superuser=True), world.user("bob")
    lab = world.workspace("Lab", member=root, admin=bob)
    admin = world.key(root, lab, scopes=["admin", "keys"])
    caller = {
        "session": world.session(root),
        "admin key": admin,
        "plain key": world.key(root),
        "no superuser": world.session(bob),
    }[maker]
    assert caller("POST", "api/keys/", {"name": "n", "scopes": ["admin"]}).status == status
    path = f"api/keys/{admin.row.public_id}/"  # type: ignore[attr-defined]
    assert caller("POST", f"{path}rotate/", {}).status == status
    for change in ({"models": ["m"]}, {"scopes": ["keys"]}):
        assert caller("PATCH", path, change).status == (200 if status == 201 else 403)


@pytest.mark.parametrize(("maker", "status"), [("root", 201), ("bob", 403)])
def test_only_superusers_make_and_change_keys_of_superusers(
    world: World, maker: str, status: int
) -> None:
    root, bob = world.user("root", is_superuser=True), world.user("bob")
    lab = world.workspace("Lab", member=root, admin=bob)
    caller = world.session({"root": root, "bob": bob}[maker])
    new = {"name": "n", "workspace": lab.public_id, "user": root.pk}
    assert caller("POST", "api/keys/", new).status == status
    path = f"api/keys/{world.key(root, lab).row.public_id}/"  # type: ignore[attr-defined]
    assert caller("POST", f"{path}rotate/", {}).status == status
    assert caller("PATCH", path, {"name": "m"}).status == (200 if status == 201 else 403)
    assert caller("DELETE", path).status == 200


def test_a_replaced_secret_does_not_outlive_itself(world: World) -> None:
    replaced = world.key(world.user("ada"))
    path = f"api/keys/{replaced.row.public_id}/"  # type: ignore[attr-defined]
    assert replaced("POST", f"{path}rotate/", {"overlap_seconds": 3600}).status == 201
    again = replaced("POST", f"{path}rotate/", {"overlap_seconds": 0})
    assert (again.status, again.error["code"]) == (403, "exceeds_own_key")
    made = replaced("POST", "api/keys/", {"name": "n"}).body
    assert datetime.fromisoformat(made["expires_at"]) <= now() + timedelta(hours=1)


#: What the roles may do with members: the caller, the request, its body, its status.
ROLES: list[tuple[str, str, str, Any, int]] = [
    ("bob", "POST", "", {"username": "new", "role": "owner"}, 403),
    ("bob", "POST", "", {"username": "new", "role": "admin"}, 201),
    ("bob", "PATCH", "cy", {"role": "owner"}, 403),
    ("bob", "PATCH", "ada", {"role": "member"}, 403),
    ("bob", "DELETE", "ada", None, 403),
    ("bob", "DELETE", "cy", None, 200),
    ("bob", "PATCH", "dan", {"role": "admin"}, 200),
    ("cy", "POST", "", {"username": "new"}, 403),
    ("cy", "DELETE", "cy", None, 403),
    ("ada", "PATCH", "bob", {"role": "owner"}, 200),
    ("ada", "DELETE", "bob", None, 200),
]


@pytest.mark.parametrize(("name", "method", "whom", "body", "status"), ROLES)
def test_roles(site: Site, name: str, method: str, whom: str, body: Any, status: int) -> None:
    site.world.user("new")
    dan, group = site.world.user("dan"), Group.objects.create(name="readers")
    dan.groups.add(group)
    site.lab.group = group
    site.lab.save()
    users = {**site.users, "dan": dan}
    path = f"{site.members}{users[whom].pk}/" if whom else site.members
    caller: Caller = getattr(site, name)
    answer = caller(method, path, body)
    assert answer.status == status, answer.body
    if status < 300 and body:
        assert answer.body["role"] == body["role"]
    rows = {each["username"]: each["role"] for each in site.ada("GET", site.members).body["data"]}
    assert rows["dan"] == ("admin" if whom == "dan" else "member")


def test_an_owner_who_leaves_keeps_another(site: Site) -> None:
    bob = site.users["bob"]
    site.ada("PATCH", f"{site.members}{bob.pk}/", {"role": "owner"})
    assert site.bob("DELETE", f"{site.members}{site.users['ada'].pk}/").status == 200
    answer = site.bob("DELETE", f"{site.members}{bob.pk}/")
    assert (answer.status, answer.error["code"]) == (400, "last_owner")


def test_an_inactive_workspace_can_be_made_active_again(site: Site) -> None:
    key = site.world.key(None, site.lab)
    path = f"api/workspaces/{site.lab.public_id}/"
    assert site.ada("PATCH", path, {"is_active": False}).body["is_active"] is False
    assert (key.chat().status, site.ada("GET", "api/me/").body["workspaces"]) == (401, [])
    assert site.ada("GET", path).body["role"] == "owner"
    assert site.ada("PATCH", path, {"is_active": True}).body["is_active"] is True
    assert key.chat().status == 200


def test_a_workspace_by_its_maker(world: World) -> None:
    root = world.session(world.user("root", is_superuser=True))
    made = root("POST", "api/workspaces/", {"name": "Neu", "models": ["m"], "isActive": False})
    assert (made.status, made.body["slug"], made.body["role"]) == (201, "neu", "owner")
    assert (made.body["models"], made.body["is_active"]) == (["m"], False)
    assert root("POST", "api/workspaces/", {"name": "Neu"}).body["slug"] == "neu-2"
    answer = root("POST", "api/workspaces/", {"name": "X", "slug": "neu"})
    assert (answer.status, answer.error["param"]) == (400, "slug")
    path = f"api/workspaces/{made.body['id']}/"
    assert root("DELETE", path).body == {
        "id": made.body["id"],
        "object": "workspace.deleted",
        "deleted": True,
    }
    assert root("GET", path).status == 404


def test_models_of_workspaces_hold_for_keys_and_sessions(site: Site) -> None:
    site.lab.models = ["only"]
    site.lab.save()
    for caller in (site.world.key(None, site.lab), site.cy, site.world.session(site.users["cy"])):
        assert (caller.chat("only").status, caller.chat("other").status) == (200, 404)
        assert caller("GET", "api/me/").body["models"] == ["only"]


@pytest.mark.parametrize("name", ["session", "key"])
def test_a_project_that_does_not_exist_for_the_caller(site: Site, name: str) -> None:
    other = site.world.workspace("Other", owner=site.users["ada"])
    caller = site.world.session(site.users["cy"]) if name == "session" else site.cy
    headers = {"OpenAI-Project": other.public_id}
    for answer in (caller("GET", "api/me/", **headers), caller.chat(**headers)):
        assert (answer.status, answer.error["code"]) == (404, "project_not_found")
    site.lab.is_active = False
    site.lab.save()
    assert caller.chat(**{"OpenAI-Project": site.lab.public_id}).status == 404


UNSAFE = [
    ("POST", "api/keys/", {"name": "a"}),
    ("PATCH", "{key}", {"name": "a"}),
    ("POST", "{key}rotate/", {}),
    ("DELETE", "{key}", None),
    ("PATCH", "{workspace}", {"name": "a"}),
    ("POST", "{workspace}members/", {"username": "x"}),
    ("DELETE", "{workspace}members/1/", None),
    ("DELETE", "{workspace}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), UNSAFE)
def test_sessions_need_the_csrf_token(site: Site, method: str, path: str, body: Any) -> None:
    caller = Caller(client=Client(enforce_csrf_checks=True))
    caller.client.force_login(site.users["ada"])
    filled = path.format(key=site.path(site.ada), workspace=f"api/workspaces/{site.lab.public_id}/")
    answer = caller(method, filled, body)
    assert (answer.status, answer.error["code"]) == (403, "csrf_failed")
    assert caller("GET", "api/keys/").status == 200
    caller.client.cookies["csrftoken"] = token = "a" * 32
    assert caller(method, filled, body, **{"X-CSRFToken": token}).status != 403


def test_an_account_deleted_in_the_admin_takes_its_keys(world: World) -> None:
    lab = world.workspace("Lab")
    account = ServiceAccount.objects.create(workspace=lab, name="bot")
    caller = world.key(None, lab, service_account=account)
    assert caller.chat().status == 200
    ServiceAccount.objects.all().delete()
    assert caller.chat().status == 401


def test_a_key_of_an_account_deleted_over_http_stays_listed(site: Site) -> None:
    root = site.world.key(site.world.user("root"), scopes=["admin"])
    project = f"v1/organization/projects/{site.lab.public_id}"
    made: Answer = root("POST", f"{project}/service_accounts", {"name": "bot"})
    assert root("DELETE", f"{project}/service_accounts/{made.body['id']}").status == 200
    row = APIKey.objects.get(name="bot")
    (listed,) = [
        each for each in site.ada("GET", "api/keys/").body["data"] if each["id"] == row.public_id
    ]
    assert listed["revoked_at"]


def test_users_with_one_address_are_not_guessed(site: Site) -> None:
    for name in ("one", "two"):
        site.world.user(name, email="same@site.example")
    root = site.world.key(site.world.user("root"), scopes=["admin"])
    path = f"v1/organization/projects/{site.lab.public_id}/users"
    answer = root("POST", path, {"role": "member", "email": "same@site.example"})
    assert (answer.status, answer.error["param"]) == (400, "email")
    assert Membership.objects.count() == 3


def test_a_project_made_active_again_is_not_archived(world: World) -> None:
    root = world.key(world.user("root"), scopes=["admin"])
    made = root("POST", "v1/organization/projects", {"name": "P"}).body
    root("POST", f"v1/organization/projects/{made['id']}/archive", {})
    assert Workspace.objects.get().archived_at
    root("PATCH", f"api/workspaces/{made['id']}/", {"is_active": True})
    assert root("GET", f"v1/organization/projects/{made['id']}").body == made


def test_a_text_with_a_nul_names_nothing(world: World) -> None:
    root = world.key(world.user("root"), scopes=["admin"])
    project = f"v1/organization/projects/{world.workspace('Lab').public_id}"
    for path, body in (
        ("rate_limits/rl-%00", {"max_requests_per_1_minute": 1}),
        ("users", {"email": "a\0b", "role": "owner"}),
    ):
        assert root("POST", f"{project}/{path}", body).status == 404


def test_a_member_by_group_is_not_half_removed(world: World) -> None:
    group, ada = Group.objects.create(name="readers"), world.user("ada")
    ada.groups.add(group)
    lab = world.workspace("Lab", owner=ada)
    lab.group = group
    lab.save()
    root = world.key(world.user("root"), scopes=["admin"])
    path = f"v1/organization/projects/{lab.public_id}/users/{ada.pk}"
    assert root("DELETE", path).status == 400
    assert root("GET", path).body["role"] == "owner"
