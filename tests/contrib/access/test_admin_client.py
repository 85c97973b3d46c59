"""OpenAI's own client of the admin API, unmodified, on real servers."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.admin.organization.projects import ProjectRateLimit
from pydantic import BaseModel

from tests.contrib.access.sites import AccessSite, access_site
from tests.servers import SERVERS_AND_LANE

YEAR = 365 * 86400

pytestmark = pytest.mark.any_database


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AccessSite]:
    with access_site(request.param, tmp_path_factory.mktemp("site")) as running:
        yield running
        assert "Traceback" not in running.site.log()


@pytest.fixture(scope="module")
def admin_key(site: AccessSite) -> str:
    made = site.database.command(
        "ollama", "keys", "create", "admin", "--user", "root", "--scope", "admin"
    )
    return made.stdout.strip()


@pytest.fixture
async def client(site: AccessSite, admin_key: str) -> AsyncIterator[Any]:
    # Both have the same methods; what a server answers does not depend on the client.
    kind: Any = openai.AsyncOpenAI if site.site.server == "uvicorn" else openai.OpenAI
    made = kind(base_url=site.base_url, admin_api_key=admin_key, api_key="unused", max_retries=0)
    yield made
    await settled(made.close())


@pytest.fixture
def projects(client: Any) -> Any:
    return client.admin.organization.projects


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def items(pages: Any) -> list[Any]:
    """Return all items of all pages, which the client fetches by itself."""
    if hasattr(pages, "__aiter__"):
        return [item async for item in pages]
    return list(pages)


async def send(resource: Any, method: str, *arguments: Any, **options: Any) -> Any:
    """Call a method, and return its result, which has what its type declares and nothing else."""
    raw = await settled(getattr(resource.with_raw_response, method)(*arguments, **options))
    parsed, wire = raw.parse(), json.loads(raw.text)
    listed = wire.get("data", [wire])
    for value, sent in zip(getattr(parsed, "data", [parsed]), listed, strict=True):
        check(value, sent)
    return parsed


def check(value: BaseModel, sent: Any) -> None:
    missing = {name for name, given in sent.items() if given is None}
    if not isinstance(value, ProjectRateLimit) or not missing:
        # What is not limited is null, which this type has no word for.
        type(value).model_validate(sent, strict=True)
    assert value.model_dump(mode="json", exclude_unset=True) == sent
    assert_declared(value)


def assert_declared(value: BaseModel) -> None:
    assert not value.model_extra
    for name in type(value).model_fields:
        if isinstance(child := getattr(value, name), BaseModel):
            assert_declared(child)


@pytest.fixture
async def project(projects: Any) -> Any:
    return await send(projects, "create", name="Lab")


async def test_projects(projects: Any) -> None:
    made = await send(
        projects, "create", name="Lab", external_key_id=None, geography=None, residency=None
    )
    assert (made.name, made.status, made.archived_at) == ("Lab", "active", None)
    assert abs(made.created_at - time.time()) < 60
    assert await send(projects, "retrieve", made.id) == made
    renamed = await send(projects, "update", made.id, name="Laboratory")
    assert renamed == made.model_copy(update={"name": "Laboratory"})
    assert await send(projects, "update", made.id, external_key_id=None) == renamed
    others = [(await send(projects, "create", name=f"P{number}")).id for number in range(4)]
    archived = await send(projects, "archive", made.id)
    assert archived.status == "archived"
    assert abs(archived.archived_at - time.time()) < 60
    assert await send(projects, "archive", made.id) == archived
    active = [each.id for each in await items(projects.list(limit=2))]
    assert active[:4] == others[::-1]
    assert made.id not in active
    everything = [each.id for each in await items(projects.list(limit=2, include_archived=True))]
    assert everything[:5] == [*others[::-1], made.id]
    page = await send(projects, "list", limit=1, after=others[2], include_archived=False)
    assert ([each.id for each in page.data], page.has_more) == ([others[1]], True)


async def test_service_accounts_and_their_keys(
    projects: Any, project: Any, site: AccessSite
) -> None:
    accounts, keys = projects.service_accounts, projects.api_keys
    made = await send(accounts, "create", project.id, name="bot", expires_in_seconds=YEAR)
    assert abs(made.api_key.expires_at - time.time() - YEAR) < 60
    assert chat(site, made.api_key.value) is None
    bare = await send(accounts, "create", project.id, name="x", create_service_account_only=True)
    assert bare.api_key is None
    with pytest.raises(openai.BadRequestError) as caught:
        await send(
            accounts,
            "create",
            project.id,
            name="x",
            create_service_account_only=True,
            expires_in_seconds=1,
        )
    assert caught.value.param == "expires_in_seconds"
    further = await send(
        accounts.api_keys,
        "create",
        bare.id,
        project_id=project.id,
        name="few",
        scopes=["models"],
        expires_in_seconds=None,
    )
    assert (further.name, further.expires_at) == ("few", None)
    assert isinstance(chat(site, further.value), openai.PermissionDeniedError)
    changed = await send(
        accounts, "update", bare.id, project_id=project.id, name="y", role="member"
    )
    assert changed.name == "y"
    assert await send(accounts, "retrieve", bare.id, project_id=project.id) == changed
    ids = [each.id for each in await items(accounts.list(project.id, limit=1))]
    assert ids == [bare.id, made.id]

    listed = await send(keys, "list", project.id, limit=10, owner_project_access="active")
    assert [each.id for each in listed.data] == [further.id, made.api_key.id]
    assert [each.id for each in await items(keys.list(project.id, limit=1))] == [
        each.id for each in listed.data
    ]
    assert (await send(keys, "list", project.id, owner_project_access="inactive")).data == []
    assert listed.data[0].owner.service_account.id == bare.id
    assert made.api_key.value not in str(listed)
    found = await send(keys, "retrieve", further.id, project_id=project.id)
    # It has been used, which is written a moment later.
    assert found.model_copy(update={"last_used_at": None}) == listed.data[0].model_copy(
        update={"last_used_at": None}
    )
    freed = await send(keys, "update", further.id, project_id=project.id, scopes=[])
    assert freed.id == further.id
    assert chat(site, further.value) is None
    ended = await send(
        keys, "update", further.id, project_id=project.id, expires_in_seconds=1, scopes=["chat"]
    )
    assert ended.expires_at is not None
    deleted = await send(keys, "delete", further.id, project_id=project.id)
    assert (deleted.id, deleted.deleted) == (further.id, True)
    assert isinstance(chat(site, further.value), openai.AuthenticationError)
    with pytest.raises(openai.NotFoundError):
        await send(keys, "retrieve", further.id, project_id=project.id)

    gone = await send(accounts, "delete", made.id, project_id=project.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    assert isinstance(chat(site, made.api_key.value), openai.AuthenticationError)
    assert (await send(keys, "list", project.id)).data == []


async def test_a_key_of_a_user(projects: Any, project: Any, site: AccessSite) -> None:
    site.database.command("ollama", "workspaces", "add", project.id, "ada", "--role", "admin")
    made = site.database.command(
        "ollama", "keys", "create", "hers", "--user", "ada", "--workspace", project.id
    )
    (listed,) = (await send(projects.api_keys, "list", project.id)).data
    assert (listed.owner.type, listed.owner.user.email) == ("user", "ada@site.example")
    assert (listed.owner.user.role, listed.owner_project_access) == ("owner", "active")
    await send(projects.users, "delete", listed.owner.user.id, project_id=project.id)
    for access, count in (("active", 0), ("inactive", 1), ("any", 1)):
        found = await send(projects.api_keys, "list", project.id, owner_project_access=access)
        assert len(found.data) == count
    assert isinstance(chat(site, made.stdout.strip()), openai.AuthenticationError)


async def test_rate_limits(projects: Any, project: Any, site: AccessSite) -> None:
    limits = projects.rate_limits
    assert (await send(limits, "list_rate_limits", project.id)).data == []
    for pattern in ("team/m:1b", "a*", "b"):
        made = await send(
            limits,
            "update_rate_limit",
            f"rl-{pattern}",
            project_id=project.id,
            max_requests_per_1_minute=60,
            max_tokens_per_1_minute=40_000,
            max_requests_per_1_day=1,
        )
        assert (made.id, made.model, made.max_requests_per_1_day) == (f"rl-{pattern}", pattern, 1)
    site.database.command(
        "ollama",
        "limits",
        "set",
        *f"--target workspace:{project.id} --unit tokens --amount 9 --per month --model z".split(),
    )
    ids = [each.id for each in await items(limits.list_rate_limits(project.id, limit=1))]
    assert ids == ["rl-a*", "rl-b", "rl-team/m:1b"]
    before = await send(limits, "list_rate_limits", project.id, limit=1, before="rl-team/m:1b")
    assert [each.id for each in before.data] == ["rl-b"]
    after = await send(limits, "list_rate_limits", project.id, after="rl-a*")
    assert [each.id for each in after.data] == ids[1:]
    one = await send(
        limits, "update_rate_limit", "rl-c", project_id=project.id, max_requests_per_1_minute=0
    )
    assert (one.max_requests_per_1_minute, one.max_tokens_per_1_minute) == (0, None)
    for field, amount in (
        ("max_images_per_1_minute", 1),
        ("max_audio_megabytes_per_1_minute", 1),
        ("batch_1_day_max_input_tokens", 1),
        ("max_requests_per_1_minute", 10**12),
        ("max_tokens_per_1_minute", -1),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await send(
                limits, "update_rate_limit", "rl-b", project_id=project.id, **{field: amount}
            )
        assert caught.value.param == field


async def test_users(projects: Any, project: Any, site: AccessSite) -> None:
    users = projects.users
    ada = await send(users, "create", project.id, role="owner", email="ADA@site.example")
    assert (ada.role, ada.email, ada.name) == ("owner", "ada@site.example", "ada")
    assert abs(ada.added_at - time.time()) < 60
    bob = await send(users, "create", project.id, role="member", user_id=str(int(ada.id) + 1))
    assert bob.name == "bob"
    assert [each.id for each in await items(users.list(project.id, limit=1))] == [bob.id, ada.id]
    assert await send(users, "retrieve", bob.id, project_id=project.id) == bob
    assert (
        await send(users, "update", bob.id, project_id=project.id, role="owner")
    ).role == "owner"
    assert (await send(users, "update", bob.id, project_id=project.id, role=None)).role == "owner"
    gone = await send(users, "delete", bob.id, project_id=project.id)
    assert (gone.id, gone.deleted) == (bob.id, True)
    with pytest.raises(openai.NotFoundError) as caught:
        await send(users, "retrieve", bob.id, project_id=project.id)
    assert caught.value.code == "user_not_found"
    for wrong, kind in (
        ({"role": "owner"}, openai.BadRequestError),
        ({"role": "owner", "user_id": "nobody"}, openai.NotFoundError),
        ({"role": "owner", "email": "nobody@site.example"}, openai.NotFoundError),
        ({"role": "king", "user_id": bob.id}, openai.BadRequestError),
    ):
        with pytest.raises(kind):
            await send(users, "create", project.id, **wrong)


async def test_other_keys_are_refused(site: AccessSite, project: Any) -> None:
    made = site.database.command("ollama", "keys", "create", "plain", "--user", "root")
    for key, kind in (
        (made.stdout.strip(), openai.PermissionDeniedError),
        ("sk-wrong", openai.AuthenticationError),
    ):
        client = openai.OpenAI(base_url=site.base_url, admin_api_key=key, max_retries=0)
        with client, pytest.raises(kind):
            client.admin.organization.projects.retrieve(project.id)


def chat(site: AccessSite, key: str) -> Exception | None:
    """Ask a model with ``key``, and return the error, if there is one."""
    with openai.OpenAI(base_url=site.base_url, api_key=key, max_retries=0) as client:
        try:
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello"}]
            )
        except openai.APIStatusError as error:
            return error
    return None
