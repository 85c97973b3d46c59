"""The admin: what staff see, make and may not do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import include, path, reverse
from django.utils.timezone import now
from django.utils.translation import override
from pytest_django import DjangoAssertNumQueries, Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib import access
from django_ollama_openai.contrib.access.admin import AccessUserAdmin
from django_ollama_openai.contrib.access.models import (
    APIKey,
    APIKeySecret,
    Limit,
    Membership,
    ServiceAccount,
    Workspace,
)
from tests.contrib.access.conftest import Caller, World

urlpatterns = [
    path("admin/", admin.site.urls),
    path("ai/", include("django_ollama_openai.urls")),
]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

VALUE = re.compile(r"sk-site_[0-9A-Za-z]{46}")
KEYS = "ollama_openai_access_apikey"


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:{name}", args=args)


@pytest.fixture
def lead(world: World) -> Client:
    client = Client()
    client.force_login(world.user("lead", is_staff=True, is_superuser=True))
    return client


def staff(world: World, *permissions: str) -> Client:
    """Return a client logged in as staff with these permissions and ``view_user``."""
    user = world.user("staff", is_staff=True)
    named = Permission.objects.filter(codename__in=[*permissions, "view_user"])
    user.user_permissions.set(named)
    client = Client()
    client.force_login(user)
    return client


def new_keys(**fields: Any) -> dict[str, Any]:
    return {"name": "laptop", "first_id": str(uuid7()), **fields}


def add(client: Client, form: dict[str, Any]) -> Any:
    return client.post(url(f"{KEYS}_add"), form)


def errors(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.context["adminform"].form.errors
    return found


def inline(prefix: str, *rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    """Return the fields of an inline formset."""
    form: dict[str, Any] = {f"{prefix}-TOTAL_FORMS": len(rows), f"{prefix}-INITIAL_FORMS": initial}
    for number, row in enumerate(rows):
        form |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
    return form


DAILY = {"amount": "50", "unit": "requests", "per": "day", "model": "*", "timezone": "UTC"}


# Values


def test_one_form_gives_each_of_ten_colleagues_a_key(lead: Client, world: World) -> None:
    group = Group.objects.create(name="engineers")
    workspace = world.workspace("Research")
    workspace.group = group
    workspace.save()
    users = [world.user(f"user{number}") for number in range(10)]
    group.user_set.add(*users)
    form = new_keys(users=[user.pk for user in users], workspace=workspace.pk, scopes=["chat"])
    page = add(lead, form)
    assert page.status_code == 200
    assert "no-store" in page.headers["Cache-Control"]
    values = dict.fromkeys(VALUE.findall(page.content.decode()))
    assert len(values) == 10
    for user, value in zip(users, values, strict=True):
        me = lead.get("/ai/api/me/", headers={"Authorization": f"Bearer {value}"}).json()
        assert (me["user"]["username"], me["workspace"]["name"]) == (user.username, "Research")
    assert LogEntry.objects.count() == 10


def test_a_value_is_nowhere_but_on_its_page(lead: Client, world: World) -> None:
    page = add(lead, new_keys(users=[world.user("ada").pk]))
    (value,) = set(VALUE.findall(page.content.decode()))
    kept = [str(dict(lead.session)), str(lead.cookies), str(list(LogEntry.objects.values()))]
    kept += [str(list(APIKeySecret.objects.values())), str(list(APIKey.objects.values()))]
    secret = APIKeySecret.objects.get()
    kept += [
        lead.get(url(f"{KEYS}_{name}", *args)).content.decode()
        for name, args in [("changelist", ()), ("change", (secret.key_id,))]
    ]
    assert not [text for text in kept if value[12:-4] in text]
    assert str(secret) in kept[-1]


def test_a_form_that_is_sent_twice_makes_its_keys_once(lead: Client, world: World) -> None:
    form = new_keys(users=[world.user("ada").pk, world.user("grace").pk])
    add(lead, form)
    again = add(lead, form)
    assert list(errors(again)) == ["first_id"]
    assert "cannot be shown again" in again.content.decode()
    assert not VALUE.search(again.content.decode())
    assert APIKeySecret.objects.count() == 2


@pytest.mark.parametrize("page", ["values", "rotate", "revoke", "add", "changelist", "change"])
def test_pages_obey_a_strict_policy_for_content(lead: Client, world: World, page: str) -> None:
    key = world.key(world.user("ada")).row  # type: ignore[attr-defined]  # of the world
    if page == "values":
        html = add(lead, new_keys(users=[key.user_id])).content.decode()
    else:
        html = lead.get(
            url(f"{KEYS}_{page}", *([] if page in ("add", "changelist") else [key.pk]))
        ).content.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*type=\"application/json\")|<style", html)
    assert not re.search(r"\s(style|on[a-z]+)=\"", html)


# Forms


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "users"),
        ({"workspace": "other"}, "users"),
        ({"users": "ada", "models": "x" * 201}, "models"),
        ({"users": "ada", "networks": "10.0.0.0/8\n10.0.0.0/99"}, "networks"),
        ({"users": "ada", "scopes": ["everything"]}, "scopes"),
        ({"users": "ada", "first_id": "x"}, "first_id"),
    ],
)
def test_errors_are_shown_at_their_fields(
    lead: Client, world: World, fields: dict[str, Any], field: str
) -> None:
    ada = world.user("ada")
    if fields.get("workspace"):
        fields = {"users": [ada.pk], "workspace": world.workspace("Other").pk}
    elif fields.get("users"):
        fields = {**fields, "users": [ada.pk]}
    assert list(errors(add(lead, new_keys(**fields)))) == [field]
    assert not APIKey.objects.exists()


def test_lists_are_written_one_entry_a_line(lead: Client, world: World) -> None:
    form = new_keys(
        users=[world.user("ada").pk],
        models=" llama3*\n\nqwen*\n",
        networks="10.0.0.0/8",
        scopes=["chat", "models"],
    )
    add(lead, form)
    key = APIKey.objects.get()
    assert (key.models, key.networks) == (["llama3*", "qwen*"], ["10.0.0.0/8"])
    assert key.scopes == ["chat", "models"]
    page = lead.get(url(f"{KEYS}_change", key.pk)).content.decode()
    assert "llama3*\nqwen*</textarea>" in page


def test_an_empty_list_that_allows_nothing_stays_when_a_form_is_saved(
    lead: Client, world: World
) -> None:
    lists: dict[str, Any] = {"scopes": [], "models": [], "networks": []}
    key = world.key(world.user("ada"), **lists).row  # type: ignore[attr-defined]  # of the world
    form = {"name": "renamed", "scopes": [], "models": "", "networks": "", **inline("limits")}
    assert lead.post(url(f"{KEYS}_change", key.pk), form).status_code == 302
    key.refresh_from_db()
    assert {name: getattr(key, name) for name in lists} == lists
    assert key.name == "renamed"


# Rotating and revoking


def act(client: Client, action: str, *keys: Any, **fields: Any) -> Any:
    form = {"action": action, "_selected_action": [key.pk for key in keys], **fields}
    return client.post(url(f"{KEYS}_changelist"), form)


@pytest.mark.parametrize(("overlap", "is_accepted"), [(24, True), (0, False)])
def test_rotating_shows_new_values_once(
    lead: Client, world: World, overlap: int, is_accepted: bool
) -> None:
    callers = [world.key(world.user(name)) for name in ("ada", "grace")]
    keys = [caller.row for caller in callers]  # type: ignore[attr-defined]  # of the world
    asked = act(lead, "rotate", *keys)
    assert not VALUE.search(asked.content.decode())
    assert APIKeySecret.objects.count() == 2
    fields = {"confirmed": "1", "first_id": str(uuid7()), "overlap": overlap}
    page = act(lead, "rotate", *keys, **fields)
    assert "no-store" in page.headers["Cache-Control"]
    values = list(dict.fromkeys(VALUE.findall(page.content.decode())))
    assert [Caller(value)("GET", "api/me/").status for value in values] == [200, 200]
    assert (callers[0]("GET", "api/me/").status == 200) is is_accepted
    again = act(lead, "rotate", *keys, **fields)
    assert again.status_code == 302
    assert APIKeySecret.objects.count() == 4


def test_revoking_needs_confirmation(lead: Client, world: World) -> None:
    caller = world.key(world.user("ada"))
    key = caller.row  # type: ignore[attr-defined]  # of the world
    assert lead.get(url(f"{KEYS}_revoke", key.pk)).status_code == 200
    act(lead, "revoke", key)
    assert caller("GET", "api/me/").status == 200
    assert act(lead, "revoke", key, confirmed="1").status_code == 302
    assert caller("GET", "api/me/").status == 401


# Permissions


def test_staff_who_only_view_change_nothing(world: World) -> None:
    client = staff(world, "view_apikey", "view_workspace", "view_limit")
    key = world.key(world.user("ada")).row  # type: ignore[attr-defined]  # of the world
    page = client.get(url(f"{KEYS}_changelist")).content.decode()
    assert str(key.secrets.get()) in page
    assert 'value="rotate"' not in page and 'value="revoke"' not in page
    assert url(f"{KEYS}_add") not in page
    page = client.get(url(f"{KEYS}_change", key.pk)).content.decode()
    assert url(f"{KEYS}_rotate", key.pk) not in page
    assert client.get(url(f"{KEYS}_add")).status_code == 403
    for action in ("rotate", "revoke"):
        assert client.get(url(f"{KEYS}_{action}", key.pk)).status_code == 403
        act(client, action, key, confirmed="1", overlap=24, first_id=str(uuid7()))
    key.refresh_from_db()
    assert (key.revoked_at, key.secrets.count()) == (None, 1)
    users = client.get(url("auth_user_changelist")).content.decode()
    assert "create_api_keys" not in users


def test_only_superusers_give_the_scope_admin(lead: Client, world: World) -> None:
    ada = world.user("ada")
    client = staff(world, "view_apikey", "add_apikey", "change_apikey")
    form = new_keys(users=[ada.pk], scopes=["admin"])
    assert list(errors(add(client, form))) == ["scopes"]
    assert add(lead, form).status_code == 200
    key = APIKey.objects.get()
    # The value of such a key would be as good.
    act(client, "rotate", key, confirmed="1", overlap=24, first_id=str(uuid7()))
    client.post(url(f"{KEYS}_change", key.pk), {"name": "mine", **inline("limits")})
    key.refresh_from_db()
    assert (key.name, key.secrets.count()) == ("laptop", 1)


def test_only_superusers_make_and_rotate_keys_of_superusers(lead: Client, world: World) -> None:
    client = staff(world, "view_apikey", "add_apikey", "change_apikey")
    root = world.user("root", is_superuser=True)
    assert list(errors(add(client, new_keys(users=[root.pk])))) == ["users"]
    add(lead, new_keys(users=[root.pk]))
    key = APIKey.objects.get()
    act(client, "rotate", key, confirmed="1", overlap=24, first_id=str(uuid7()))
    assert key.secrets.count() == 1


# Limits


@pytest.mark.parametrize("page", ["workspace", "key", "user"])
def test_limits_are_on_the_page_of_their_target(lead: Client, world: World, page: str) -> None:
    ada = world.user("ada")
    workspace = world.workspace("Research", member=ada)
    caller = world.key(ada, workspace)
    row = {"workspace": workspace, "key": caller.row, "user": ada}[page]  # type: ignore[attr-defined]  # of the world
    Limit.objects.create(target=f"each_{page}", amount=70, unit="requests", per="week")
    Limit.objects.create(target="everybody", amount=900, unit="requests", per="month")
    name = {"workspace": "ollama_openai_access_workspace", "key": KEYS, "user": "auth_user"}[page]
    forms: dict[str, dict[str, Any]] = {
        "workspace": {
            "name": "Research",
            "slug": "research",
            "is_active": "on",
            **inline("memberships", initial=0),
        },
        "key": {"name": "test"},
        "user": {
            "username": "ada",
            "is_active": "on",
            "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00",
        },
    }
    prefix = {"workspace": "limits", "key": "limits", "user": "ollama_limits"}[page]
    form = {**forms[page], **inline(prefix, DAILY)}
    response = lead.post(url(f"{name}_change", row.pk), form)
    assert response.status_code == 302, response.context["errors"]
    limit = Limit.objects.get(target=page)
    assert limit.subject
    assert caller.chat().status == 200
    html = lead.get(url(f"{name}_change", row.pk)).content.decode()
    for use in ("1 of 50", "1 of 70", "1 of 900"):
        assert use in html
    # The same again is an error of the form.
    form |= inline(prefix, DAILY)
    assert "Change that one" in lead.post(url(f"{name}_change", row.pk), form).content.decode()


@pytest.mark.parametrize("name", ["ollama_openai_access_workspace", KEYS, "auth_user"])
def test_pages_that_add_rows(lead: Client, name: str) -> None:
    Limit.objects.create(target="everybody", amount=900, unit="requests", per="month")
    assert lead.get(url(f"{name}_add")).status_code == 200
    form = {**inline("memberships", initial=0), **inline("limits", DAILY)}
    response = lead.post(url(f"{name}_add"), form)
    assert "This field is required" in response.content.decode()


def test_the_list_of_limits_shows_their_use_in_words(lead: Client, world: World) -> None:
    Limit.objects.create(target="everybody", amount=1000, unit="requests", per="day")
    workspace = world.workspace("Research")
    Limit.objects.create(
        target="workspace", workspace=workspace, amount="12.5", unit="cost", per="month"
    )
    html = lead.get(url("ollama_openai_access_limit_changelist")).content.decode()
    for text in (
        "1,000 requests per day",
        "0 of 1,000",
        "12.5 cost per month",
        "workspace Research",
    ):
        assert text in html


def test_two_equal_limits_are_an_error_of_the_form(lead: Client) -> None:
    form = {"target": "everybody", **DAILY}
    add_url = url("ollama_openai_access_limit_add")
    assert lead.post(add_url, form).status_code == 302
    assert "Change that one" in lead.post(add_url, form).content.decode()
    form = {**form, "unit": "cost"}
    assert "has no effect" in lead.post(add_url, form, follow=True).content.decode()


def test_a_store_that_is_down_leaves_the_pages_up(
    lead: Client, world: World, settings: Settings
) -> None:
    store = {
        "STORE": "django_ollama_openai.contrib.access.stores.RedisStore",
        "OPTIONS": {"url": "redis://127.0.0.1:1"},
    }
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "ACCESS": {"LIMIT_STORE": store}}
    ada = world.user("ada")
    Limit.objects.create(target="user", user=ada, amount=1, unit="requests", per="day")
    for page in (url("ollama_openai_access_limit_changelist"), url("auth_user_change", ada.pk)):
        response = lead.get(page)
        assert response.status_code == 200
        assert "unknown" in response.content.decode()


# Lists


@pytest.mark.parametrize("model", [APIKey, Limit, ServiceAccount, Workspace])
def test_lists_take_as_many_queries_for_many_rows(
    lead: Client, world: World, model: Any, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def fill(count: int) -> None:
        for _number in range(count):
            name = uuid7().hex
            user, workspace = world.user(name), world.workspace(name)
            world.key(user, workspace)
            ServiceAccount.objects.create(name=name, workspace=workspace)
            Limit.objects.create(
                target="user", user=user, amount=5, unit="requests", per="day", model=name
            )

    page = url(f"{model._meta.app_label}_{model._meta.model_name}_changelist")
    fill(2)
    with django_assert_max_num_queries(30) as few:
        lead.get(page)
    fill(10)
    with django_assert_max_num_queries(len(few)):
        assert lead.get(page).status_code == 200


def test_search_finds_keys(lead: Client, world: World) -> None:
    ada, research = world.user("ada"), world.workspace("Research")
    wanted = world.key(ada, research, name="laptop", scopes=["chat"]).row  # type: ignore[attr-defined]  # of the world
    past = now() - timedelta(days=1)
    expired = world.key(world.user("bob"), name="ci", expires_at=past).row  # type: ignore[attr-defined]  # of the world
    revoked = world.key(workspace=world.workspace("Other"), name="wiki").row  # type: ignore[attr-defined]  # of the world
    revoked.revoke()
    secret = wanted.secrets.get()

    def found(**query: Any) -> set[str]:
        page = lead.get(url(f"{KEYS}_changelist"), query)
        return {key.name for key in page.context["cl"].result_list}

    for text in ("laptop", "ada", "research", str(secret), secret.start, secret.last_four):
        assert found(q=text) == {"laptop"}
    assert found(state="valid") == {"laptop"}
    assert found(state="expired") == {expired.name}
    assert found(state="revoked") == {"wiki"}
    assert found(scope="chat") == {"laptop", "ci", "wiki"}
    assert found(scope="admin") == set()
    assert found(workspace__id__exact=research.pk) == {"laptop"}
    assert found(workspace__id__exact="x") == set()


def test_a_filter_does_not_list_thousands_of_workspaces(lead: Client, world: World) -> None:
    Workspace.objects.bulk_create(Workspace(name=f"Team{n}", slug=f"team{n}") for n in range(200))
    chosen = Workspace.objects.get(name="Team150")
    html = lead.get(url(f"{KEYS}_changelist")).content.decode()
    assert "Team" not in html
    html = lead.get(
        url(f"{KEYS}_changelist"), {"workspace__id__exact": str(chosen.pk)}
    ).content.decode()
    assert set(re.findall(r"Team\d+", html)) == {"Team150"}


# The site's own admin of users


def test_users_are_given_keys_from_their_list(lead: Client, world: World) -> None:
    users = [world.user(name) for name in ("ada", "grace")]
    form = {"action": "create_api_keys", "_selected_action": [user.pk for user in users]}
    page = lead.post(url("auth_user_changelist"), form, follow=True)
    chosen = page.context["adminform"].form.initial["users"]
    assert {int(pk) for pk in chosen} == {user.pk for user in users}


def test_the_admin_of_users_is_extended_once() -> None:
    made = type(admin.site.get_model_admin(get_user_model()))
    assert [base for base in made.__mro__ if base is AccessUserAdmin] == [AccessUserAdmin]


def test_a_workspace_leads_to_a_key_for_each_member(lead: Client, world: World) -> None:
    ada = world.user("ada")
    workspace = world.workspace("Research", member=ada)
    Membership.objects.create(workspace=workspace, user=world.user("grace"))
    html = lead.get(url("ollama_openai_access_workspace_change", workspace.pk)).content.decode()
    (link,) = re.findall(r'href="([^"]+users=[^"]+)"', html)
    assert lead.get(f"{url(f'{KEYS}_add')}?users=nobody").status_code == 200
    form = lead.get(link.replace("&amp;", "&")).context["adminform"].form
    assert form.initial["workspace"] == str(workspace.pk)
    assert len(form.initial["users"]) == 2


# Translations


LOCALE = Path(access.__file__).parent / "locale" / "de" / "LC_MESSAGES"


def gettext_tool(name: str, *arguments: str | Path) -> str:
    """Return what a program of gettext prints."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: install gettext"
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_german_is_complete(tmp_path: Path) -> None:
    shutil.copytree(LOCALE.parents[2], tmp_path / "access")
    command = [sys.executable, "-m", "django", "makemessages", "--locale", "de", "--no-location"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    subprocess.run(command, cwd=tmp_path / "access", env=env, check=True, capture_output=True)
    made = tmp_path / "access" / LOCALE.relative_to(LOCALE.parents[2]) / "django.po"
    for missing in ("--untranslated", "--only-fuzzy", "--only-obsolete"):
        assert gettext_tool("msgattrib", missing, made) == ""
    compiled = tmp_path / "django.mo"
    gettext_tool("msgfmt", "--check-format", "-o", compiled, LOCALE / "django.po")
    assert gettext_tool("msgunfmt", compiled) == gettext_tool("msgunfmt", LOCALE / "django.mo")


def test_the_admin_speaks_german_and_clients_get_english(
    lead: Client, world: World, settings: Settings
) -> None:
    settings.LANGUAGE_CODE = "de"
    caller = world.key(world.user("ada"))
    Limit.objects.create(target="everybody", amount=0, unit="requests", per="day")
    html = lead.get(url("ollama_openai_access_limit_changelist")).content.decode()
    assert "0 Anfragen pro Tag" in html
    assert "0 von 0" in html
    with override("de"):
        answer = caller.chat()
    assert answer.status == 429
    assert "requests per day" in answer.error["message"]
