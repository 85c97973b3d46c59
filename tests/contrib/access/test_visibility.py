"""Every endpoint of the app, for every kind of caller: rows of others do not exist."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_django import Settings

from django_ollama_openai.contrib.access.models import APIKey, Limit, ServiceAccount
from django_ollama_openai.contrib.access.urls import urlpatterns
from tests.contrib.access.conftest import DUMMY, Caller, World

pytestmark = pytest.mark.any_database

STATIC: Final = "a-static-key"
EMAIL: Final = "new@site.example"

CALLERS: Final = (
    "nobody",
    "static key",
    "stranger",
    "member",
    "admin",
    "owner",
    "superuser",
    "key of the workspace",
    "key with few scopes",
    "admin key",
)

#: For each request the statuses of all callers, in their order. The things are those of the
#: workspace "Lab" and of its member.
TABLE: Final[dict[str, str]] = {
    "GET api/me/": "401 200 200 200 200 200 200 200 200 200",
    "GET api/limits/": "401 200 200 200 200 200 200 200 200 200",
    "GET api/keys/": "401 403 200 200 200 200 200 200 403 403",
    "POST api/keys/": "401 403 201 201 201 201 201 403 403 403",
    "GET api/keys/{key}/": "401 403 404 200 200 200 404 404 403 403",
    "PATCH api/keys/{key}/": "401 403 404 200 200 200 404 404 403 403",
    "DELETE api/keys/{key}/": "401 403 404 200 200 200 404 404 403 403",
    "POST api/keys/{key}/rotate/": "401 403 404 201 201 201 404 404 403 403",
    "GET api/keys/{private}/": "401 403 404 200 404 404 404 404 403 403",
    "GET api/workspaces/": "401 403 200 200 200 200 200 200 403 200",
    "POST api/workspaces/": "401 403 403 403 403 403 201 403 403 201",
    "GET api/workspaces/{workspace}/": "401 403 404 200 200 200 404 200 403 200",
    "PATCH api/workspaces/{workspace}/": "401 403 404 403 200 200 404 403 403 200",
    "DELETE api/workspaces/{workspace}/": "401 403 404 403 403 200 404 403 403 200",
    "GET api/workspaces/{workspace}/members/": "401 403 404 200 200 200 404 200 403 200",
    "POST api/workspaces/{workspace}/members/": "401 403 404 403 201 201 404 403 403 201",
    "PATCH api/workspaces/{workspace}/members/{user}/": "401 403 404 403 200 200 404 403 403 200",
    "DELETE api/workspaces/{workspace}/members/{user}/": "401 403 404 403 200 200 404 403 403 200",
}
ADMIN_ONLY: Final = (
    "GET v1/organization/projects",
    "POST v1/organization/projects",
    "GET v1/organization/projects/{workspace}",
    "POST v1/organization/projects/{workspace}",
    "POST v1/organization/projects/{workspace}/archive",
    "GET v1/organization/projects/{workspace}/api_keys",
    "GET v1/organization/projects/{workspace}/api_keys/{key}",
    "POST v1/organization/projects/{workspace}/api_keys/{key}",
    "DELETE v1/organization/projects/{workspace}/api_keys/{key}",
    "GET v1/organization/projects/{workspace}/service_accounts",
    "POST v1/organization/projects/{workspace}/service_accounts",
    "GET v1/organization/projects/{workspace}/service_accounts/{account}",
    "POST v1/organization/projects/{workspace}/service_accounts/{account}",
    "DELETE v1/organization/projects/{workspace}/service_accounts/{account}",
    "POST v1/organization/projects/{workspace}/service_accounts/{account}/api_keys",
    "GET v1/organization/projects/{workspace}/rate_limits",
    "POST v1/organization/projects/{workspace}/rate_limits/rl-m",
    "GET v1/organization/projects/{workspace}/users",
    "POST v1/organization/projects/{workspace}/users",
    "GET v1/organization/projects/{workspace}/users/{user}",
    "POST v1/organization/projects/{workspace}/users/{user}",
    "DELETE v1/organization/projects/{workspace}/users/{user}",
)
STATUSES: Final = {
    **{request: [int(each) for each in row.split()] for request, row in TABLE.items()},
    **{request: [401, *[403] * 8, 200] for request in ADMIN_ONLY},
}

BODIES: Final[dict[str, Any]] = {
    "POST api/keys/": {"name": "new"},
    "PATCH api/keys/{key}/": {"name": "new"},
    "POST api/keys/{key}/rotate/": {},
    "POST api/workspaces/": {"name": "New"},
    "PATCH api/workspaces/{workspace}/": {"name": "New"},
    "POST api/workspaces/{workspace}/members/": {"username": "new"},
    "PATCH api/workspaces/{workspace}/members/{user}/": {"role": "member"},
    "POST v1/organization/projects": {"name": "New"},
    "POST v1/organization/projects/{workspace}": {"name": "New"},
    "POST v1/organization/projects/{workspace}/archive": {},
    "POST v1/organization/projects/{workspace}/api_keys/{key}": {"scopes": ["chat"]},
    "POST v1/organization/projects/{workspace}/service_accounts": {"name": "bot"},
    "POST v1/organization/projects/{workspace}/service_accounts/{account}": {"name": "bot"},
    "POST v1/organization/projects/{workspace}/service_accounts/{account}/api_keys": {},
    "POST v1/organization/projects/{workspace}/rate_limits/rl-m": {"max_requests_per_1_minute": 5},
    "POST v1/organization/projects/{workspace}/users": {
        "role": "member",
        "email": "new@site.example",
    },
    "POST v1/organization/projects/{workspace}/users/{user}": {"role": "owner"},
}


class Site:
    def __init__(self, world: World) -> None:
        self.people = {name: world.user(name) for name in ("member", "admin", "owner", "stranger")}
        world.user("new", email=EMAIL)
        root = world.user("superuser", is_superuser=True, is_staff=True)
        lab = world.workspace("Lab", **{name: self.people[name] for name in ("member", "admin")})
        lab.memberships.create(user=self.people["owner"], role="owner")
        member = self.people["member"]
        key = world.key(member, lab).row  # type: ignore[attr-defined]
        private = world.key(member).row  # type: ignore[attr-defined]
        self.account = ServiceAccount.objects.create(workspace=lab, name="bot")
        self.ids = {
            "key": key.public_id,
            "private": private.public_id,
            "workspace": lab.public_id,
            "user": member.pk,
            "account": self.account.public_id,
        }
        self.callers: dict[str, Caller] = {
            "nobody": Caller(),
            "static key": Caller(STATIC),
            **{name: world.session(user) for name, user in self.people.items()},
            "superuser": world.session(root),
            "key of the workspace": world.key(None, lab),
            "key with few scopes": world.key(self.people["owner"], lab, scopes=["chat"]),
            "admin key": world.key(root, scopes=["admin"]),
        }


@pytest.fixture
def site(world: World, settings: Settings) -> Site:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "API_KEYS": [STATIC]}
    return Site(world)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("request_line", STATUSES)
def test_every_endpoint_by_every_caller(site: Site, request_line: str, caller: str) -> None:
    method, path = request_line.split()
    expected = STATUSES[request_line][CALLERS.index(caller)]
    answer = site.callers[caller](method, path.format(**site.ids), BODIES.get(request_line))
    assert answer.status == expected, answer.body
    if expected >= 400:
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert "Lab" not in str(answer.body)


def test_the_table_has_every_endpoint() -> None:
    listed = {
        (line.split()[0], _shape(line.split()[1])) for line in STATUSES if "{private}" not in line
    }
    declared = {
        (method, _shape(pattern.route))
        for pattern in urlpatterns
        for method in pattern.endpoint.operations
    }
    assert listed == declared


def _shape(path: str) -> list[str] | tuple[str, ...]:
    parts = path.strip("/").split("/")
    return tuple("*" if part[:1] in ("{", "<") or part == "rl-m" else part for part in parts)


@pytest.mark.parametrize("caller", ["stranger", "superuser", "key of the workspace"])
def test_another_s_things_are_in_no_list(site: Site, caller: str) -> None:
    found = site.callers[caller]("GET", "api/keys/").body
    assert site.ids["key"] not in str(found)
    assert site.ids["private"] not in str(found)


def test_a_list_is_walked_to_its_end(site: Site) -> None:
    member = site.callers["member"]
    for number in range(4):
        member("POST", "api/keys/", {"name": f"key {number}"})
    seen: list[str] = []
    after = ""
    while True:
        page = member("GET", f"api/keys/?limit=2{after}").body
        seen += [row["id"] for row in page["data"]]
        assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert len(seen) == len(set(seen)) == 6
    assert seen == sorted(seen, reverse=True)
    for wrong in (
        "limit=0",
        "limit=101",
        "limit=x",
        "after=key_0",
        f"after={site.ids['workspace']}",
    ):
        answer = member("GET", f"api/keys/?{wrong}")
        assert (answer.status, answer.error["param"]) == (400, wrong.partition("=")[0])


@pytest.mark.parametrize("field", ["scopes", "models", "networks"])
def test_a_key_gives_no_more_than_it_has(world: World, field: str) -> None:
    few = {"scopes": ["keys", "chat"], "models": ["llama*"], "networks": ["127.0.0.0/8"]}[field]
    more = {"scopes": ["models"], "models": ["*"], "networks": ["0.0.0.0/0"]}[field]
    restricted: dict[str, Any] = {field: few}
    caller = world.key(world.user("ada"), **restricted)
    assert caller("POST", "api/keys/", {"name": "new", field: more}).status == 403
    made = caller("POST", "api/keys/", {"name": "new"})
    assert made.status == 201
    assert made.body[field] == few
    row = APIKey.objects.get(name="new")
    assert caller("PATCH", f"api/keys/{row.public_id}/", {field: None}).body[field] == few


def test_limits_of_others_are_not_shown(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    Limit.objects.create(target="user", user=bob, unit="requests", amount=1, per="minute")
    assert world.key(ada)("GET", "api/limits/").body["data"] == []
