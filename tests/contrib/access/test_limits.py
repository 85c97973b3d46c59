"""Limits of requests: which apply, the estimate, the settlement, and what clients get."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from django.db import transaction
from django.db.models import F
from django.test import AsyncClient
from pytest_django import Settings

from django_ollama_openai._connections import run_and_close
from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.access import policies
from django_ollama_openai.contrib.access._limits.ledger import Rule
from django_ollama_openai.contrib.access._limits.reservation import Reservation
from django_ollama_openai.contrib.access._limits.resolve import AppliedLimit
from django_ollama_openai.contrib.access.models import Limit, LimitAccount, LimitReservation
from django_ollama_openai.contrib.access.stores import Claim, MemoryStore
from django_ollama_openai.exceptions import ClientTimeout
from django_ollama_openai.policies import Outcome
from django_ollama_openai.types import Usage
from tests.contrib.access.conftest import DUMMY, Caller, World

ENDLESS = "tests.site.test_signals.Endless"


def limit(target: str, unit: str, amount: Any, per: str = "minute", **more: Any) -> Limit:
    if unit == "concurrent":
        per = ""
    return Limit.objects.create(target=target, unit=unit, amount=amount, per=per, **more)


def admitted(caller: Caller, most: int = 20, **options: Any) -> int:
    """Return how many chats of ``caller`` are admitted one after another."""
    count = 0
    while count < most and caller.chat(**options).status == 200:
        count += 1
    return count


def test_a_request_without_limits_has_no_headers(world: World) -> None:
    answer = world.key(world.user("ada")).chat()
    assert answer.status == 200
    assert not [name for name in answer.headers if "ratelimit" in name]


@pytest.mark.parametrize("target", ["everybody", "each_user", "each_key", "each_workspace"])
def test_callers_that_share_a_limit(world: World, target: str) -> None:
    limit(target, "requests", 2)
    ada, bob = world.user("ada"), world.user("bob")
    lab = world.workspace("Lab", member=ada)
    first, second, third = world.key(ada), world.key(ada), world.key(bob)
    shared = world.key(None, lab)
    counts = [admitted(caller) for caller in (first, second, shared, third)]
    # A user in one workspace calls in it; bob is in none.
    assert (
        counts
        == {
            "everybody": [2, 0, 0, 0],
            "each_user": [2, 0, 20, 2],
            "each_key": [2, 2, 2, 2],
            "each_workspace": [2, 0, 0, 20],
        }[target]
    )


def test_the_most_specific_limit_of_a_kind_applies(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    limit("each_user", "requests", 1)
    limit("user", "requests", 3, user=ada)
    assert admitted(world.key(ada)) == 3
    assert admitted(world.key(bob)) == 1


@pytest.mark.parametrize("more", [{"per": "hour"}, {"unit": "tokens"}, {"model": "m*"}])
def test_a_specific_limit_of_another_kind_applies_as_well(
    world: World, more: dict[str, Any]
) -> None:
    ada = world.user("ada")
    limit("each_user", "requests", 2)
    limit("user", **{"unit": "requests", "amount": 100, "user": ada, **more})
    assert admitted(world.key(ada)) == 2


def test_a_limit_of_some_models(world: World) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", "requests", 1, model="big-*")
    assert admitted(caller, model="big-one") == 1
    assert caller.chat("big-two").status == 429
    assert caller.chat("small").status == 200


def test_an_exceeded_rate_limit(world: World) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", "requests", 2)
    headers = caller.chat().headers
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"] == "30s"
    caller.chat()
    refused = caller.chat()
    assert refused.status == 429
    assert refused.error["code"] == "rate_limit_exceeded"
    assert refused.error["type"] == "requests"
    assert "Please try again in " in refused.error["message"]
    assert 25 <= int(refused.headers["Retry-After"]) <= 30
    assert 25_000 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(("unit", "amount"), [("requests", 1), ("tokens", 8)])
def test_an_exceeded_quota(world: World, unit: str, amount: int) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", unit, amount, "day")
    assert admitted(caller) == 1
    refused = caller.chat()
    assert refused.status == 429
    assert (refused.error["code"], refused.error["type"]) == ("insufficient_quota",) * 2
    assert refused.headers["x-should-retry"] == "false"


def test_tokens_are_reserved_and_settled(world: World) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", "tokens", 10_000, "day")
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x" * 40}],
        "max_tokens": 4096,
    }
    total = 0
    for _ in range(9):
        answer = caller("POST", "v1/chat/completions", body)
        assert answer.status == 200
        # The most that is reserved of the completion, and a quarter of the characters.
        left = 10_000 - total - 1000 - 10
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(left)
        total += answer.body["usage"]["total_tokens"]
    (row,) = caller("GET", "api/limits/").body["data"]
    assert (row["used"], row["remaining"]) == (total, 10_000 - total)
    assert not LimitReservation.objects.exists()


@pytest.mark.parametrize(
    ("send", "counts"),
    [
        (lambda caller: caller("POST", "v1/chat/completions", {"model": "m"}), False),
        (lambda caller: caller("GET", "v1/models"), False),
        (lambda caller: caller("GET", "api/me/"), False),
        (lambda caller: caller.chat(), True),
    ],
    ids=["invalid", "models", "me", "chat"],
)
def test_a_request_that_reaches_no_engine_uses_nothing(
    world: World, send: Callable[[Caller], Any], counts: bool
) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", "requests", 10, "day")
    send(caller)
    (row,) = caller("GET", "api/limits/").body["data"]
    assert row["used"] == int(counts)


def test_a_failure_gives_tokens_back(world: World, settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {
            "default": {
                "BACKEND": "tests.site.test_policies.Words",
                "OPTIONS": {"fail_after": 0},
            }
        }
    }
    caller = world.key(world.user("ada"))
    limit("each_user", "tokens", 1000, "day")
    limit("each_user", "requests", 10, "day")
    limit("each_user", "concurrent", 1)
    for _ in range(2):
        assert caller.chat().status >= 500
    used = {row["unit"]: row["used"] for row in caller("GET", "api/limits/").body["data"]}
    assert used == {"tokens": 0, "requests": 2, "concurrent": 0}


def test_a_client_that_stops_reading_pays_for_what_was_generated() -> None:
    store = MemoryStore()
    claim = Claim("a", Rule("calendar", 10**6, 0, 10**18), 1000, is_leased=True)
    request = uuid7()
    verdict = store.reserve(request, [claim])
    hold = Reservation(request, store, [AppliedLimit(Limit(unit="tokens"), "a")], verdict.held, 7)
    usage = Usage(completion_tokens=15_000, estimated=True)
    hold.settle(Outcome(usage=usage, error=ClientTimeout(), answered_by="m"))
    assert [figures.used for figures in store.read([claim])] == [15_007]


@pytest.mark.parametrize(
    "spelling",
    [
        "M",
        "m:latest",
        "library/m",
        "registry.ollama.ai/library/m:latest",
        "https://registry.ollama.ai/library/m",
        "http://m",
        "m@sha256:" + "0" * 64,
    ],
)
def test_a_limit_of_a_model_holds_for_each_spelling_of_its_name(
    world: World, spelling: str
) -> None:
    limit("everybody", "requests", 1, "day", model="m")
    caller = world.key(world.user("ada"))
    assert caller.chat("m").status == 200
    assert caller.chat(spelling).status == 429


def test_a_refused_request_uses_nothing(world: World) -> None:
    caller = world.key(world.user("ada"))
    limit("each_user", "requests", 1)
    limit("each_user", "tokens", 1000, "day")
    limit("everybody", "requests", 100, "month")
    assert admitted(caller) == 1
    before = caller("GET", "api/limits/").body["data"]
    for _ in range(3):
        assert caller.chat().status == 429
    after = caller("GET", "api/limits/").body["data"]
    assert [row["used"] for row in after] == [row["used"] for row in before]


def test_a_request_that_is_larger_than_its_limit(world: World) -> None:
    limit("each_user", "tokens", 10)
    answer = world.key(world.user("ada"))(
        "POST",
        "v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]},
    )
    assert answer.status == 429
    assert answer.headers["x-should-retry"] == "false"
    assert "too large" in answer.error["message"]


def test_setting_a_limit_again_replaces_it(world: World) -> None:
    first = Limit(target="each_user", unit="requests", amount=1, per="minute").put()
    second = Limit(target="each_user", unit="requests", amount=5, per="minute").put()
    assert first.pk == second.pk
    assert Limit.objects.get().amount == 5
    assert admitted(world.key(world.user("ada"))) == 5


@pytest.mark.parametrize("when_down", ["refuse", "allow"])
def test_a_store_that_is_down(
    world: World,
    settings: Settings,
    when_down: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis = {
        "STORE": "django_ollama_openai.contrib.access.stores.RedisStore",
        "OPTIONS": {"url": "redis://127.0.0.1:9/0"},
    }
    settings.OLLAMA_OPENAI = {
        "BACKENDS": DUMMY,
        "ACCESS": {"LIMIT_STORE": redis, "WHEN_DOWN": when_down},
    }
    caller = world.key(world.user("ada"))
    # No limit applies to them yet.
    assert caller.chat().status == 200
    limit("each_user", "requests", 1)
    monkeypatch.setattr(policies, "_logged_at", -math.inf)
    caplog.clear()
    for _ in range(2):
        assert caller.chat().status == (503 if when_down == "refuse" else 200)
    (record,) = [each for each in caplog.records if "store of limits" in each.getMessage()]
    assert "127.0.0.1:9" in record.getMessage()


async def test_the_event_loop_does_not_wait_for_the_database(
    transactional_db: None, world: World
) -> None:
    def prepare() -> Caller:
        limit("each_user", "concurrent", 5)
        caller = world.key(world.user("ada"))
        # Makes the account.
        assert caller.chat().status == 200
        return caller

    is_locked, may_end = threading.Event(), threading.Event()

    def lock() -> None:
        with transaction.atomic():
            LimitAccount.objects.update(seen=F("seen"))
            is_locked.set()
            may_end.wait(10)

    async def chat() -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"Authorization": f"Bearer {caller.key}"}
        async with ThreadSensitiveContext():
            response = await AsyncClient().post(
                "/ai/v1/chat/completions", body, content_type="application/json", headers=headers
            )
        return response.status_code

    caller = await asyncio.to_thread(run_and_close, prepare)
    locking = asyncio.create_task(asyncio.to_thread(run_and_close, lock))
    await asyncio.to_thread(is_locked.wait, 10)
    waiting = asyncio.create_task(chat())
    longest, last, end = 0.0, time.monotonic(), time.monotonic() + 2
    while last < end:
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert not waiting.done()
    assert longest < 1
    may_end.set()
    await locking
    assert await waiting == 200


def test_a_name_of_a_model_is_short_enough_to_be_remembered(world: World) -> None:
    caller = world.key(world.user("ada"))
    assert caller.chat("m" * 1024).status == 200
    answer = caller.chat("m" * 1025)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
