"""Changes of limits and keys take effect at once in other processes, through Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.test import AsyncClient
from pytest_django import Settings

from django_ollama_openai.contrib.access import _key_cache
from django_ollama_openai.contrib.access._limits import resolve
from django_ollama_openai.contrib.access.models import APIKey, Limit
from django_ollama_openai.contrib.access.stores import Claim
from django_ollama_openai.contrib.access.stores._base import now
from django_ollama_openai.contrib.access.stores._configured import limit_store
from tests.contrib.access.conftest import DUMMY, Caller, World
from tests.database_servers import RunningServer, running_server


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningServer]:
    with running_server("redis") as server:
        yield server


@pytest.fixture(autouse=True)
def with_redis(settings: Settings, redis: RunningServer, transactional_db: None) -> None:
    store = {
        "STORE": "django_ollama_openai.contrib.access.stores.RedisStore",
        "OPTIONS": {"url": redis.url},
    }
    # Nothing is forgotten in time.
    settings.OLLAMA_OPENAI = {
        "BACKENDS": DUMMY,
        "ACCESS": {"LIMIT_STORE": store, "KEY_CACHE_SECONDS": 3600},
    }
    resolve.cache.clear()


class OtherProcess:
    """Change rows as another process does, of which this one learns only through Redis."""

    def __enter__(self) -> None:
        caches: list[Any] = [_key_cache.cache, resolve.cache]
        self.kept = [(cache, dict(cache._entries)) for cache in caches]

    def __exit__(self, *error: Any) -> None:
        for cache, entries in self.kept:
            cache._entries.update(entries)


def chat(caller: Caller, asynchronous: bool) -> int:
    if not asynchronous:
        return caller.chat().status

    async def post() -> int:
        response = await AsyncClient().post(
            "/ai/v1/chat/completions",
            json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {caller.key}"},
        )
        return response.status_code

    return asyncio.run(post())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_limit_of_another_process(world: World, asynchronous: bool) -> None:
    caller = world.key(world.user("ada"))
    assert [chat(caller, asynchronous) for _ in range(3)] == [200] * 3
    with OtherProcess():
        call_command(
            "ollama", "limits", "set", target="each_user", unit="requests", amount="2", per="day"
        )
    assert [chat(caller, asynchronous) for _ in range(3)] == [200, 200, 429]
    with OtherProcess():
        Limit.objects.get().delete()
    assert [chat(caller, asynchronous) for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("change", ["revoke", "user", "workspace", "membership"])
def test_a_key_that_another_process_ends(world: World, change: str, asynchronous: bool) -> None:
    ada = world.user("ada")
    lab = world.workspace("Lab", member=ada)
    caller, other = world.key(ada, lab), world.key(world.user("bob"))
    Limit(target="each_user", unit="requests", amount=5, per="day").put()
    assert [chat(each, asynchronous) for each in (caller, other)] == [200, 200]
    with OtherProcess():
        if change == "revoke":
            APIKey.objects.get(user=ada).revoke()
        elif change == "user":
            ada.is_active = False
            ada.save()
        elif change == "workspace":
            lab.is_active = False
            lab.save()
        else:
            lab.memberships.get().delete()
    assert [chat(each, asynchronous) for each in (caller, other)] == [401, 200]
    # The request that was refused has used nothing.
    (limit,) = resolve.applied_limits(("", str(ada.pk), ""), None)
    claim = Claim(limit.account, limit.rule(now()), 0, is_leased=True)
    assert [figures.used for figures in limit_store().read([claim])] == [1]


@pytest.mark.parametrize("path", ["api/me/", "v1/models"])
def test_a_revoked_key_at_endpoints_without_an_engine(world: World, path: str) -> None:
    caller = world.key(world.user("ada"))
    assert caller("GET", path).status == 200
    with OtherProcess():
        APIKey.objects.get().revoke()
    assert caller("GET", path).status == 401
