"""When changes take effect: at once in the same process, and after KEY_CACHE_SECONDS in others; and
when the last use of a key is stored."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.access import _keys, _last_used
from django_ollama_openai.contrib.access.models import APIKey, Workspace
from tests.contrib.access.conftest import DUMMY, Caller, World
from tests.contrib.access.sites import AccessSite, access_site
from tests.fast_lane import CLIENTS, IDS, sender
from tests.servers import NO_TLS, SERVERS_AND_LANE

SECONDS = 2


class It:
    """A key of ada in Lab, and other keys of users who may change it."""

    def __init__(self, world: World) -> None:
        self.user = world.user("ada")
        self.workspace = world.workspace("Lab", owner=world.user("bob"), member=self.user)
        caller = world.key(self.user, self.workspace)
        self.key: str = caller.key or ""
        self.row: APIKey = caller.row  # type: ignore[attr-defined]
        self.owner = world.session(world.user("cy"))
        self.workspace.memberships.create(user_id=self.owner("GET", "api/me/").body["user"]["id"],
                                          role="owner")  # fmt: skip
        self.admin = world.key(world.user("root", is_superuser=True), scopes=["admin"])

    def set(self, thing: Any, **values: Any) -> None:
        for name, value in values.items():
            setattr(thing, name, value)
        thing.save()

    def patch(self, **body: Any) -> None:
        assert self.owner("PATCH", f"api/keys/{self.row.public_id}/", body).status == 200

    def manage(self, method: str, path: str, body: Any = None) -> None:
        workspace = f"api/workspaces/{self.workspace.public_id}/"
        assert self.owner(method, workspace + path, body).status == 200

    def organize(self, method: str, path: str, body: Any = None) -> None:
        project = f"v1/organization/projects/{self.workspace.public_id}/"
        assert self.admin(method, project + path, body).status == 200


#: Changes, each with the status of the next chat.
CHANGES: dict[str, tuple[Callable[[It], Any], int]] = {
    "revoked": (lambda it: it.row.revoke(), 401),
    "revoked over HTTP": (lambda it: it.owner("DELETE", f"api/keys/{it.row.public_id}/"), 401),
    "revoked by the admin API": (
        lambda it: it.organize("DELETE", f"api_keys/{it.row.public_id}"),
        401,
    ),
    "expired": (lambda it: it.set(it.row, expires_at=now()), 401),
    "scopes": (lambda it: it.set(it.row, scopes=["models"]), 403),
    "scopes over HTTP": (lambda it: it.patch(scopes=[]), 403),
    "scopes by the admin API": (
        lambda it: it.organize("POST", f"api_keys/{it.row.public_id}", {"scopes": ["models"]}),
        403,
    ),
    "models": (lambda it: it.set(it.row, models=["x"]), 404),
    "models over HTTP": (lambda it: it.patch(models=["x"]), 404),
    "networks": (lambda it: it.set(it.row, networks=["10.0.0.0/8"]), 401),
    "networks over HTTP": (lambda it: it.patch(networks=[]), 401),
    "rotated over HTTP": (
        lambda it: it.owner("POST", f"api/keys/{it.row.public_id}/rotate/", {"overlap_seconds": 0}),
        401,
    ),
    "deleted": (lambda it: it.row.delete(), 401),
    "the keys of a queryset deleted": (lambda it: APIKey.objects.all().delete(), 401),
    "user deactivated": (lambda it: it.set(it.user, is_active=False), 401),
    "user deleted": (lambda it: it.user.delete(), 401),
    "workspace deactivated": (lambda it: it.set(it.workspace, is_active=False), 401),
    "workspace deactivated over HTTP": (
        lambda it: it.manage("PATCH", "", {"is_active": False}),
        401,
    ),
    "workspace archived": (lambda it: it.organize("POST", "archive", {}), 401),
    "models of the workspace": (lambda it: it.manage("PATCH", "", {"models": ["x"]}), 404),
    "workspace deleted": (lambda it: it.manage("DELETE", ""), 401),
    "membership deleted": (lambda it: it.workspace.memberships.filter(user=it.user).delete(), 401),
    "membership removed over HTTP": (lambda it: it.manage("DELETE", f"members/{it.user.pk}/"), 401),
    "membership removed by the admin API": (
        lambda it: it.organize("DELETE", f"users/{it.user.pk}"),
        401,
    ),
    "nothing": (lambda it: None, 200),
}


@pytest.mark.parametrize("kind", CLIENTS, ids=IDS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_holds_at_once(world: World, name: str, kind: Any) -> None:
    it, send = It(world), sender(kind)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"headers": {"Authorization": f"Bearer {it.key}"}}

    def chat() -> int:
        status: int = send("POST", "/ai/v1/chat/completions", body, **headers).status_code
        return status

    assert chat() == 200
    change, status = CHANGES[name]
    change(it)
    assert chat() == status


GROUPS: dict[str, Callable[[Any, Group, Workspace], Any]] = {
    "the user leaves": lambda user, group, lab: user.groups.remove(group),
    "the group loses the user": lambda user, group, lab: group.user_set.remove(user),
    "all leave": lambda user, group, lab: group.user_set.clear(),
    "the group is deleted": lambda user, group, lab: group.delete(),
    "the workspace loses the group": lambda user, group, lab: It.set(lab, lab, group=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_change_of_groups_holds_at_once(world: World, name: str) -> None:
    ada, group, lab = world.user("ada"), Group.objects.create(name="lab"), world.workspace("Lab")
    ada.groups.add(group)
    lab.group = group
    lab.save()
    caller = world.key(ada, lab)
    assert caller.chat().status == 200
    GROUPS[name](ada, group, lab)
    assert caller.chat().status == 401


@pytest.mark.parametrize("seconds", [0, 10])
def test_the_cache_can_be_turned_off(world: World, settings: Settings, seconds: float) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "ACCESS": {"KEY_CACHE_SECONDS": seconds}}
    caller = world.key(world.user("ada"))
    assert caller.chat().status == 200
    # This sends no signal, as a change in another process.
    APIKey.objects.update(revoked_at=now())
    assert caller.chat().status == (200 if seconds else 401)


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AccessSite]:
    directory: Path = tmp_path_factory.mktemp("site")
    access = {"KEY_CACHE_SECONDS": SECONDS}
    with access_site(request.param, directory, ACCESS=access) as running:
        yield running


#: Scripts of another process, and the code of the error that the key ends in.
ELSEWHERE = {
    "key.revoke()": "invalid_api_key",
    "key.user.is_active = False; key.user.save()": "invalid_api_key",
    "key.workspace.is_active = False; key.workspace.save()": "invalid_api_key",
    "key.workspace.memberships.all().delete()": "invalid_api_key",
    "rows.update(networks=['10.0.0.0/8'])": "ip_not_authorized",
}
MAKE = """
from django.contrib.auth.models import User
from django_ollama_openai.contrib.access.models import APIKey, Workspace
answer = {}
for number in range(%d):
    user = User.objects.create(username=f"user-{number}")
    lab = Workspace.objects.create(name="Lab", slug=f"lab-{number}")
    lab.memberships.create(user=user)
    key = APIKey.objects.create(name=str(number), user=user, workspace=lab)
    answer[key.new_secret("site")] = key.public_id
"""
CHANGE = """
from django_ollama_openai.contrib.access.models import APIKey
keys = {int(key.name): key for key in APIKey.objects.select_related("user", "workspace")}
"""


@pytest.mark.any_database
def test_other_processes_notice_in_time(site: AccessSite) -> None:
    made = site.database.run(MAKE % len(ELSEWHERE))
    with httpx.Client(base_url=site.site.url, verify=NO_TLS, timeout=60) as client:

        def codes() -> list[Any]:
            answers = [
                client.get("/ai/api/me/", headers={"Authorization": f"Bearer {key}"}).json()
                for key in made
            ]
            return [answer.get("error", {}).get("code") for answer in answers]

        assert codes() == [None] * len(made)
        scripts = (
            f"key = keys[{number}]; rows = APIKey.objects.filter(pk=key.pk); {each}"
            for number, each in enumerate(ELSEWHERE)
        )
        site.database.run(CHANGE + "\n".join(scripts))
        time.sleep(SECONDS)
        assert codes() == list(ELSEWHERE.values())
        deadline = time.monotonic() + 30
        while not all(_last_uses(site, made)) and time.monotonic() < deadline:
            time.sleep(0.2)
        # They were used once each, with success, and the writes did not wait for their end.
        first = _last_uses(site, made)
        assert all(first)
        codes()
        time.sleep(1.5)
        assert _last_uses(site, made) == first


def _last_uses(site: AccessSite, made: Any) -> list[str | None]:
    script = (
        "from django_ollama_openai.contrib.access.models import APIKey\n"
        "answer = [str(each or '') for each in "
        "APIKey.objects.order_by('name').values_list('last_used_at', flat=True)]"
    )
    uses: list[str | None] = site.database.run(script)
    assert len(uses) == len(made)
    return uses


@pytest.mark.django_db(transaction=True)
def test_the_last_use_is_stored_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    keys = [world.key(world.user(f"user {number}")).row for number in range(3)]  # type: ignore[attr-defined]
    monkeypatch.undo()
    threads = [threading.Thread(target=_last_used.note, args=[key.public_id]) for key in keys * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _last_used.writer.flush(30)

    def uses() -> list[Any]:
        return list(APIKey.objects.order_by("pk").values_list("last_used_at", flat=True))

    first = uses()
    assert all(first)
    # As another process would, which knows nothing of these.
    monkeypatch.setattr(_last_used, "_noted", type(_last_used._noted)())
    for key in keys:
        _last_used.note(key.public_id)
    assert _last_used.writer.flush(30)
    assert uses() == first


def test_unknown_keys_are_not_remembered(world: World) -> None:
    """Unknown keys would displace used ones, and one of them might be created in the meantime."""
    key = world.key(world.user("ada"))
    assert key.chat().status == 200
    for _ in range(50):
        assert Caller(_keys.new_key("site")).chat().status == 401
    with CaptureQueriesContext(connection) as queries:
        assert key.chat().status == 200
        # Without the form of a key, the database is not queried either.
        assert Caller(f"sk-site_{secrets.token_hex(23)}").chat().status == 401
    assert not [query for query in queries if "secret" in query["sql"]]
