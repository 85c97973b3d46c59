"""Stores of limits: one table of cases for all of them, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from redis import Redis

from django_ollama_openai.contrib.access._limits.ledger import Rule
from django_ollama_openai.contrib.access.stores import (
    BaseStore,
    Claim,
    DatabaseStore,
    MemoryStore,
    RedisStore,
    Settlement,
    StoreDown,
    Verdict,
)
from tests.contrib.settings import KIND
from tests.database_servers import RunningServer, running_server

SECOND = 10**6
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
NOON = 20_000 * DAY + DAY // 2


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


class Limits:
    """A store, and requests to it."""

    def __init__(self, store: BaseStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.run = uuid.uuid4().hex

    def claim(self, rule: Rule, amount: int = 1, *, leased: bool = True, name: str = "") -> Claim:
        return Claim(f"{name or rule.kind}:{self.run}"[:64], rule, amount, leased)

    def reserve(self, *claims: Claim) -> tuple[uuid.UUID, Verdict]:
        request = uuid.uuid4()
        return request, self.store.reserve(request, claims)

    def admitted(self, *claims: Claim) -> int:
        """Return how many requests with ``claims`` are admitted one after another."""
        count = 0
        while self.reserve(*claims)[1].refused is None:
            count += 1
        return count

    def settle(self, request: uuid.UUID, verdict: Verdict, *actual: int) -> None:
        parts = zip(verdict.held, actual, strict=True)
        self.store.settle(request, [Settlement(held, amount) for held, amount in parts])

    def remaining(self, *claims: Claim) -> list[int]:
        return [figures.remaining for figures in self.store.read(claims)]


def minute(amount: int) -> Rule:
    return Rule("bucket", amount, length=MINUTE)


def day(amount: int, begin: int = 20_000 * DAY) -> Rule:
    return Rule("calendar", amount, begin, DAY)


def at_once(amount: int) -> Rule:
    return Rule("concurrent", amount)


@pytest.fixture(scope="session")
def redis() -> Iterator[RunningServer]:
    with running_server("redis") as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[RunningServer]:
    with running_server("valkey") as server:
        yield server


# The others are the same whatever the database is.
@pytest.fixture(
    params=["memory", "database", "redis", "valkey"] if KIND == "sqlite" else ["database"]
)
def limits(request: pytest.FixtureRequest, transactional_db: None) -> Limits:
    clock = Clock()
    make: dict[str, Callable[[], BaseStore]] = {
        "memory": lambda: MemoryStore(clock=clock),
        "database": lambda: DatabaseStore(clock=clock),
    }
    if request.param in make:
        return Limits(make[request.param](), clock)
    return Limits(RedisStore(url=request.getfixturevalue(request.param).url, clock=clock), clock)


@pytest.mark.parametrize("rule", [minute(5), day(5), at_once(5)], ids=lambda rule: rule.kind)
def test_the_limit_is_exact(limits: Limits, rule: Rule) -> None:
    assert limits.admitted(limits.claim(rule)) == 5
    _, verdict = limits.reserve(limits.claim(rule))
    assert verdict.refused is not None
    assert verdict.held == ()
    assert (verdict.figures[0].used, verdict.figures[0].remaining) == (5, 0)


def test_a_bucket_refills_evenly(limits: Limits) -> None:
    claim = limits.claim(minute(60))
    assert limits.admitted(claim) == 60
    assert limits.reserve(claim)[1].refused == (0, SECOND)
    limits.clock.now += SECOND
    assert limits.admitted(claim) == 1
    limits.clock.now += 30 * SECOND
    assert limits.admitted(claim) == 30
    limits.clock.now += 10 * MINUTE
    assert limits.admitted(claim) == 60


def test_a_day_begins_with_an_empty_account(limits: Limits) -> None:
    assert limits.admitted(limits.claim(day(3))) == 3
    limits.clock.now += DAY
    assert limits.admitted(limits.claim(day(3, begin=20_001 * DAY))) == 3
    # A clock that is put back brings nothing back.
    limits.clock.now -= DAY
    assert limits.admitted(limits.claim(day(3))) == 0


@pytest.mark.parametrize("rule", [minute(10), day(10)], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("actual", [0, 3, 8, 25])
def test_a_reservation_is_settled(limits: Limits, rule: Rule, actual: int) -> None:
    claim = limits.claim(rule, 8)
    request, verdict = limits.reserve(claim)
    assert limits.remaining(claim) == [2]
    limits.settle(request, verdict, actual)
    assert limits.remaining(claim) == [max(0, 10 - actual)]


def test_what_a_bucket_owes_is_paid(limits: Limits) -> None:
    claim = limits.claim(minute(60), 1)
    request, verdict = limits.reserve(claim)
    limits.settle(request, verdict, 180)
    limits.clock.now += 2 * MINUTE - 1
    assert limits.admitted(claim) == 0
    limits.clock.now += 1 + SECOND
    assert limits.admitted(claim) == 1


def test_a_clock_that_was_ahead_blocks_no_bucket_for_long(limits: Limits) -> None:
    claim = limits.claim(minute(60))
    limits.clock.now += 30 * DAY
    assert limits.admitted(claim) == 60
    limits.clock.now -= 30 * DAY
    assert limits.reserve(claim)[1].refused == (0, SECOND)
    limits.clock.now += MINUTE
    assert limits.admitted(claim) == 60


def test_all_or_nothing(limits: Limits) -> None:
    wide, narrow = limits.claim(day(10)), limits.claim(minute(2))
    slots = limits.claim(at_once(10))
    assert limits.admitted(wide, narrow, slots) == 2
    assert limits.remaining(wide, narrow, slots) == [8, 0, 8]


def test_of_several_refusals_the_longest_counts(limits: Limits) -> None:
    today, now = limits.claim(day(1)), limits.claim(minute(1))
    assert limits.admitted(now, today) == 1
    assert limits.reserve(now, today)[1].refused == (1, DAY // 2)
    too_much = limits.claim(minute(1), 2)
    assert limits.reserve(too_much, today)[1].refused == (0, -1)


@pytest.mark.parametrize("rule", [minute(5), day(5), at_once(5)], ids=lambda rule: rule.kind)
def test_a_lost_reservation_expires(limits: Limits, rule: Rule) -> None:
    claim = limits.claim(rule, 5)
    request, verdict = limits.reserve(claim)
    limits.clock.now += 50 * SECOND
    limits.store.renew({request: verdict.held})
    limits.clock.now += 59 * SECOND
    if rule.kind != "bucket":
        assert limits.remaining(claim) == [0]
    limits.clock.now += SECOND
    assert limits.remaining(claim) == [5]
    assert limits.reserve(claim)[1].refused is None
    # It was only slow.
    limits.settle(request, verdict, 2)
    if rule.kind == "calendar":
        assert limits.remaining(limits.claim(day(20))) == [20 - 5 - 2]


def test_requests_of_a_lost_process_stay_counted(limits: Limits) -> None:
    claim = limits.claim(day(5), leased=False)
    limits.reserve(claim)
    limits.clock.now += 10 * MINUTE
    assert limits.remaining(claim) == [4]


def test_a_limit_of_zero_admits_nothing(limits: Limits) -> None:
    for rule in (minute(0), day(0), at_once(0)):
        assert limits.reserve(limits.claim(rule))[1].refused == (0, -1)
        assert limits.remaining(limits.claim(rule)) == [0]


def test_a_concurrent_request_ends(limits: Limits) -> None:
    claim = limits.claim(at_once(1))
    for _ in range(3):
        request, verdict = limits.reserve(claim)
        assert verdict.refused is None
        assert limits.reserve(claim)[1].refused == (0, SECOND)
        limits.settle(request, verdict, 0)


@pytest.mark.parametrize("rule", [minute(20), day(20), at_once(20)], ids=lambda rule: rule.kind)
def test_many_threads(limits: Limits, rule: Rule) -> None:
    claims = [limits.claim(rule), limits.claim(day(1000), name="other")]
    barrier = threading.Barrier(8)

    def some(_: int) -> int:
        barrier.wait()
        try:
            return sum(limits.reserve(*claims)[1].refused is None for _ in range(10))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        admitted: list[Any] = list(threads.map(some, range(8)))
    assert sum(admitted) == 20
    assert limits.remaining(claims[1]) == [980]


async def test_one_connection_for_all_requests_of_an_event_loop(redis: RunningServer) -> None:
    store = RedisStore(url=redis.url)
    claim = Claim(uuid.uuid4().hex, at_once(50), 1, is_leased=True)
    verdicts = await asyncio.gather(*(store.areserve(uuid.uuid4(), [claim]) for _ in range(120)))
    assert sum(bool(verdict.held) for verdict in verdicts) == 50
    # Each has got its own answer.
    used = sorted(verdict.figures[0].used for verdict in verdicts)
    assert used == [*range(1, 50), *[50] * 71]


@pytest.mark.parametrize("fault", ["hangs", "restarts", "drops the connection"])
async def test_redis_comes_back(redis: RunningServer, fault: str) -> None:
    store = RedisStore(url=redis.url, timeout=0.5)
    claim = Claim(uuid.uuid4().hex, at_once(100), 1, is_leased=True)
    await store.areserve(uuid.uuid4(), [claim])

    async def several() -> list[Any]:
        calls = (store.areserve(uuid.uuid4(), [claim]) for _ in range(3))
        return await asyncio.gather(*calls, return_exceptions=True)

    match fault:
        case "hangs":
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                outcomes = await asyncio.wait_for(several(), 1)
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            assert [type(each) for each in outcomes] == [StoreDown] * 3
        case "restarts":
            redis.stop()
            assert [type(each) for each in await several()] == [StoreDown] * 3
            redis.start()
        case _:
            with Redis.from_url(redis.url) as other:
                other.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.1)
    assert all(isinstance(each, Verdict) and each.held for each in await several())


def test_a_repeated_settlement_counts_once(redis: RunningServer) -> None:
    """It is repeated when the answer to it was lost."""
    clock = Clock()
    limits = Limits(RedisStore(url=redis.url, clock=clock), clock)
    claims = limits.claim(day(10), 5), limits.claim(day(10), leased=False, name="requests")
    limits.reserve(*claims)
    request, verdict = limits.reserve(*claims)
    for _ in range(2):
        limits.settle(request, verdict, 3, 0)
    assert limits.remaining(*claims) == [2, 9]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_cluster(asynchronous: bool) -> None:
    """The node of the address has none of the keys, and names the one that has them."""
    with running_server("redis-cluster") as empty, running_server("redis-cluster") as full:
        with (
            Redis.from_url(empty.url, decode_responses=True) as first,
            Redis.from_url(full.url) as second,
        ):
            bus = first.config_get("cluster-port")["cluster-port"]
            second.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            second.execute_command("CLUSTER", "MEET", "127.0.0.1", empty.port, bus)
            end = time.monotonic() + 30
            for node in (first, second):
                while "cluster_state:ok" not in str(node.execute_command("CLUSTER", "INFO")):
                    assert time.monotonic() < end
                    time.sleep(0.05)
        store = RedisStore(url=empty.url)
        limits = Limits(store, Clock())
        claim = limits.claim(day(2, begin=int(time.time()) // 86400 * DAY))

        async def reserve() -> list[bool]:
            return [(await store.areserve(uuid.uuid4(), [claim])).refused is None for _ in range(3)]

        if asynchronous:
            assert asyncio.run(reserve()) == [True, True, False]
        else:
            assert limits.admitted(claim) == 2
        # The node is gone; the one of the address is tried again.
        full.stop()
        for _ in range(2):
            with pytest.raises(StoreDown):
                limits.reserve(claim)
