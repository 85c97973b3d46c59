"""Limits are exact, with an ASGI and a WSGI server process that share a store.

This command prints tables of the simultaneous requests that were admitted and refused::

    TEST_DATABASE=postgresql pytest --ds tests.contrib.settings -s -k is_exact tests/contrib/access

for ``sqlite`` (and Redis), ``postgresql`` and ``mariadb``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from django.db import connections
from pytest_django import Settings
from redis import Redis

from django_ollama_openai.contrib.access._limits.resolve import AppliedLimit, account_id
from django_ollama_openai.contrib.access.models import APIKey, Limit, Target
from django_ollama_openai.contrib.access.stores import (
    BaseStore,
    Claim,
    DatabaseStore,
    RedisStore,
)
from django_ollama_openai.contrib.access.stores._base import now
from tests.contrib.access.conftest import World
from tests.contrib.settings import KIND
from tests.database_servers import RunningServer, running_server
from tests.ollama_server import DEFAULT_MODEL, Answer, Hold, OllamaServer, Reply, error
from tests.servers import NO_TLS, Server, Site, serve

SERVERS: Final[tuple[Server, ...]] = ("uvicorn+fast-lane", "gunicorn")
# Redis is the same beside any database. Valkey takes the same commands, so one burst is enough.
STORES: Final = ("database", "redis") if KIND == "sqlite" else ("database",)
WITH_VALKEY: Final = (*STORES, "valkey") if KIND == "sqlite" else STORES
SENT, ADMITTED = 120, 50

#: The completion tokens that requests allow, and what each of them reserves and uses: its prompt is
#: estimated as a quarter of its 11 characters.
COMPLETION, RESERVED, USED = 97, 97 + 3, 33 + 2

WHOLE: Final = Answer().reply({"model": DEFAULT_MODEL, "messages": [], "stream": False})

TABLE: dict[str, dict[tuple[str, str], str]] = {}


@dataclass
class Sites:
    """Two processes of the site, callers, and the store that both use.

    Attributes:
        server: The server of the store.
        keys: For each target, the keys that share an account.
        subjects: The workspaces, users and keys that a limit can name.
    """

    name: str
    sites: Sequence[Site]
    options: dict[str, Any]
    environment: dict[str, Any]
    server: RunningServer | None
    engine: OllamaServer
    keys: dict[Target, list[str]] = field(default_factory=dict)
    subjects: dict[str, Any] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    #: Requests wait in the engine until it is set.
    gate: threading.Event = field(default_factory=threading.Event)

    def limit(self, target: str, unit: str, amount: int, per: str = "day") -> Limit:
        subject = {target: self.subjects[target]} if target in self.subjects else {}
        return Limit.objects.create(
            target=target,
            unit=unit,
            amount=amount,
            per="" if unit == "concurrent" else per,
            **subject,
        )

    def limit_all(self) -> list[Limit]:
        """Limit requests, tokens and concurrent requests of everybody, beyond what tests use."""
        units = ("requests", "tokens", "concurrent")
        return [self.limit("everybody", unit, 10_000) for unit in units]

    def burst(
        self,
        number: int = SENT,
        target: Target = Target.EACH_KEY,
        reply: Reply = WHOLE,
        **body: Any,
    ) -> list[httpx.Response]:
        """Send ``number`` simultaneous requests, half to each process. The admitted ones end
        after all have been admitted or refused."""
        self.engine.reset()
        self.gate = threading.Event()
        self.engine.reply(*[replace(reply, before=[Hold(self.gate)])] * number)
        return asyncio.run(self._burst(number, target, body))

    async def _burst(
        self, number: int, target: Target, body: dict[str, Any]
    ) -> list[httpx.Response]:
        keys, end = self.keys[target], time.monotonic() + 60
        async with httpx.AsyncClient(
            timeout=90, verify=NO_TLS, limits=httpx.Limits(max_connections=None)
        ) as client:
            requests = [
                asyncio.create_task(
                    client.post(
                        f"{self.sites[each % 2].base_url}/chat/completions",
                        json=chat(**body),
                        headers=bearer(keys[each // 2 % len(keys)]),
                    )
                )
                for each in range(number)
            ]
            while self._undecided(requests) and time.monotonic() < end:  # noqa: ASYNC110  # of another thread
                await asyncio.sleep(0.01)
            self.gate.set()
            return await asyncio.gather(*requests)

    def _undecided(self, requests: Sequence[asyncio.Task[httpx.Response]]) -> int:
        refused = sum(map(asyncio.Task.done, requests))
        return len(requests) - refused - len(self.engine.chats())

    def stream(self, site: Site, key: str, *tokens: str) -> Stream:
        """Begin a stream and return it after the first token. The engine sends ``tokens``, and the
        rest when the gate is open."""
        request = {"model": DEFAULT_MODEL, "messages": [], "stream": True}
        first = Answer(tokens or ("Hello",)).reply(request).steps[:-1]
        rest = Answer().reply(request).steps
        self.engine.reply(Reply([*first, Hold(self.gate), *rest]))
        stream = Stream(site, key)
        self.streams.append(stream)
        return stream

    def used(self, key: str) -> dict[tuple[str, str], int]:
        """Return the current use of a caller's limits by unit and target, which has to be the same
        in both processes."""
        seen = []
        for site in self.sites:
            answer = httpx.get(f"{site.url}/ai/api/limits/", headers=bearer(key), verify=NO_TLS)
            assert answer.status_code == 200, answer.text
            rows = answer.json()["data"]
            seen.append({(row["unit"], row["target"]): row["used"] for row in rows})
        assert seen[0] == seen[1]
        return seen[0]

    def store(self, ahead: int) -> BaseStore:
        """Return the store with a clock that is ``ahead`` seconds ahead."""

        def clock() -> int:
            return now() + ahead * 10**6

        if self.name == "database":
            return DatabaseStore(clock=clock)
        assert self.server is not None
        return RedisStore(url=self.server.url, clock=clock)

    def used_in(self, seconds: int, *limits: Limit) -> list[int]:
        """Return the use of ``limits`` of everybody after ``seconds`` in which no process renews a
        lease."""
        claims = []
        for limit in limits:
            applied = AppliedLimit(limit, account_id(limit, ""))
            claims.append(Claim(applied.account, applied.rule(now()), 0, is_leased=True))
        return [figures.used for figures in self.store(seconds).read(claims)]


class Stream:
    """A stream that has begun."""

    def __init__(self, site: Site, key: str) -> None:
        self._connection = site.send(
            chat(stream=True), "stream", **{"Authorization": f"Bearer {key}"}
        )
        self.received = b""
        self.read_until(b'"content":')

    def read_until(self, text: bytes) -> None:
        while text not in self.received:
            received = self._connection.recv(65536)
            assert received, self.received.decode(errors="replace")
            self.received += received

    def close(self) -> None:
        self._connection.close()


def chat(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello there"}]
    body = {"model": DEFAULT_MODEL, "messages": messages, "max_completion_tokens": COMPLETION}
    return {**body, **more}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def post(site: Site, key: str) -> httpx.Response:
    return httpx.post(
        f"{site.base_url}/chat/completions",
        json=chat(),
        headers=bearer(key),
        timeout=30,
        verify=NO_TLS,
    )


def statuses(answers: Sequence[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not come to that."
        time.sleep(0.02)


def store_options(name: str, server: RunningServer | None) -> dict[str, Any]:
    if name == "database":
        return {}
    assert server is not None
    path = "django_ollama_openai.contrib.access.stores.RedisStore"
    return {"LIMIT_STORE": {"STORE": path, "OPTIONS": {"url": server.url}}}


@contextmanager
def running_sites(
    servers: Sequence[Server],
    directory: Path,
    options: dict[str, Any],
    environment: dict[str, Any],
) -> Iterator[list[Site]]:
    with ExitStack() as stack:
        sites = []
        for server in servers:
            place = directory / server
            place.mkdir()
            # Each request takes a thread of gunicorn, also while it waits for the engine.
            site = serve(server, place, options, threads=64, **environment)
            sites.append(stack.enter_context(site))
        yield sites


@pytest.fixture(scope="module", params=STORES)
def all_sites(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    database_server: RunningServer | None,
    django_db_setup: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sites]:
    with ExitStack() as stack:
        server = database_server
        if request.param != "database":
            server = stack.enter_context(running_server(request.param))
        options = {
            "HOST": ollama_server.url,
            "ACCESS": store_options(request.param, server),
        }
        database = connections["default"].settings_dict
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.contrib.settings",
            "SITE_CONN_MAX_AGE": "60",
            "TEST_DATABASE": KIND,
            "TEST_DATABASE_NAME": str(database["NAME"]),
            "TEST_DATABASE_PORT": str(database["PORT"]),
        }
        directory = tmp_path_factory.mktemp(request.param)
        sites = stack.enter_context(running_sites(SERVERS, directory, options, environment))
        yield Sites(request.param, sites, options, environment, server, ollama_server)


def invite(sites: Sites) -> None:
    """Make users, a workspace and keys."""
    world = World()
    ada, bob = world.user("ada"), world.user("bob")
    lab = world.workspace("Lab", member=ada)
    lab.memberships.create(user=bob)
    callers = [
        world.key(ada, lab),
        world.key(ada),
        world.key(bob, lab),
        world.key(None, lab),
    ]
    first, second, third, fourth = (caller.key or "" for caller in callers)
    sites.keys = {
        Target.EVERYBODY: [first, third],
        Target.EACH_WORKSPACE: [first, third, fourth],
        Target.WORKSPACE: [first, third, fourth],
        Target.EACH_USER: [first, second],
        Target.USER: [first, second],
        Target.EACH_KEY: [first],
        Target.KEY: [first],
    }
    key = APIKey.objects.filter(user=ada, workspace=lab).get()
    sites.subjects = {"workspace": lab, "user": ada, "key": key}


@pytest.fixture
def sites(
    all_sites: Sites, ollama: OllamaServer, settings: Settings, transactional_db: None
) -> Iterator[Sites]:
    # Changes of limits are announced in the store.
    settings.OLLAMA_OPENAI = all_sites.options
    all_sites.gate, all_sites.streams = threading.Event(), []
    invite(all_sites)
    yield all_sites
    all_sites.gate.set()
    for stream in all_sites.streams:
        stream.close()


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    for name, cells in TABLE.items():
        units = list(dict.fromkeys(unit for unit, _ in cells))
        print(f"\n{name}, {SENT} sent: admitted / refused")
        print(f"{'':16}" + "".join(f"{unit:>16}" for unit in units))
        for target in dict.fromkeys(target for _, target in cells):
            print(
                f"{target:16}" + "".join(f"{cells.get((unit, target), ''):>16}" for unit in units)
            )


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("unit", "amount", "used", "code"),
    [
        ("requests", ADMITTED, ADMITTED, "insufficient_quota"),
        # Not enough for another.
        ("tokens", ADMITTED * RESERVED + RESERVED - 1, ADMITTED * USED, "insufficient_quota"),
        ("concurrent", ADMITTED, 0, "rate_limit_exceeded"),
    ],
)
def test_a_limit_is_exact(
    sites: Sites, target: Target, unit: str, amount: int, used: int, code: str
) -> None:
    sites.limit(target, unit, amount)
    answers = sites.burst(target=target)
    found = statuses(answers)
    name = f"{connections['default'].display_name} with {sites.name}"
    TABLE.setdefault(name, {})[unit, target] = f"{found[200]} / {found[429]}"
    assert found == {200: ADMITTED, 429: SENT - ADMITTED}
    errors = [answer.json()["error"] for answer in answers if answer.status_code == 429]
    assert {error["code"] for error in errors} == {code}
    assert sites.used(sites.keys[target][0]) == {(unit, target): used}


@pytest.mark.parametrize(("unit", "each"), [("requests", 1), ("tokens", RESERVED)])
@pytest.mark.parametrize(("per", "seconds"), [("minute", 60), ("hour", 3600)])
def test_a_bucket_refills_evenly(
    sites: Sites, unit: str, each: int, per: str, seconds: int
) -> None:
    refill = seconds / ADMITTED
    sites.limit("everybody", unit, ADMITTED * each, per)
    begin = time.monotonic()
    answers = sites.burst()
    found = statuses(answers)
    refilled = int((time.monotonic() - begin) / refill)
    assert ADMITTED <= found[200] <= ADMITTED + refilled
    assert found[429] == SENT - found[200]
    errors = [answer.json()["error"] for answer in answers if answer.status_code == 429]
    assert {error["code"] for error in errors} == {"rate_limit_exceeded"}
    if (unit, per) == ("requests", "minute"):
        refused = [answer for answer in answers if answer.status_code == 429]
        assert max(float(answer.headers["retry-after-ms"]) for answer in refused) <= refill * 1000
        time.sleep(refill)
        assert statuses(sites.burst(1)) == {200: 1}


@pytest.mark.parametrize("all_sites", WITH_VALKEY, indirect=True)
def test_a_refused_request_uses_nothing(sites: Sites) -> None:
    sites.limit("each_key", "requests", ADMITTED)
    sites.limit("everybody", "requests", 1000, "month")
    sites.limit("each_user", "tokens", 10**6, "week")
    sites.limit("workspace", "concurrent", SENT)
    assert statuses(sites.burst()) == {200: ADMITTED, 429: SENT - ADMITTED}
    assert sites.used(sites.keys[Target.EACH_KEY][0]) == {
        ("requests", "each_key"): ADMITTED,
        ("requests", "everybody"): ADMITTED,
        ("tokens", "each_user"): ADMITTED * USED,
        ("concurrent", "workspace"): 0,
    }


def test_large_estimates_do_not_block_a_limit(sites: Sites) -> None:
    sites.limit("everybody", "tokens", 10_000)
    # 1,000 tokens for the completion are reserved at most.
    assert statuses(sites.burst(20, max_completion_tokens=4096)) == {200: 9, 429: 11}
    for _ in range(10):
        assert statuses(sites.burst(5, max_completion_tokens=4096)) == {200: 5}
    key = sites.keys[Target.EVERYBODY][0]
    assert sites.used(key) == {("tokens", "everybody"): (9 + 10 * 5) * USED}


def test_a_failure_gives_tokens_back(sites: Sites) -> None:
    limits = sites.limit_all()
    assert min(statuses(sites.burst(20, reply=error(500, "out of memory")))) >= 500
    assert sites.used_in(0, *limits) == [20, 0, 0]


def test_a_disconnect_settles_with_what_was_produced(sites: Sites) -> None:
    limits = sites.limit_all()
    key = sites.keys[Target.EVERYBODY][0]
    streams = [sites.stream(site, key, "one", " two", " three") for site in sites.sites]
    for stream in streams:
        stream.read_until(b"three")
    assert sites.used_in(0, *limits) == [2, 2 * RESERVED, 2]
    for stream in streams:
        stream.close()
    # The engine has read the prompt, which the gateway estimates.
    expected = [2, 2 * (RESERVED - COMPLETION + 3), 0]
    eventually(lambda: sites.used_in(0, *limits) == expected)


def test_the_leases_of_a_killed_process_end(sites: Sites, tmp_path: Path) -> None:
    limits = sites.limit_all()
    key = sites.keys[Target.EVERYBODY][0]
    with running_sites(SERVERS[:1], tmp_path, sites.options, sites.environment) as (site,):
        for _ in range(4):
            sites.stream(site, key)
        site.process.kill()
        site.process.wait()
    assert sites.used_in(0, *limits) == [4, 4 * RESERVED, 4]
    assert sites.used_in(60, *limits) == [4, 0, 0]


@pytest.mark.parametrize("when_down", ["refuse", "allow"])
@pytest.mark.parametrize("all_sites", ["redis" if KIND == "sqlite" else "database"], indirect=True)
def test_a_store_goes_down_in_mid_stream(sites: Sites, tmp_path: Path, when_down: str) -> None:
    access = {**sites.options["ACCESS"], "WHEN_DOWN": when_down}
    options = {**sites.options, "ACCESS": access}
    limits = [sites.limit("everybody", unit, 10_000) for unit in ("requests", "tokens")]
    slots = sites.limit("everybody", "concurrent", 5)
    key = sites.keys[Target.EVERYBODY][0]
    assert sites.server is not None
    with running_sites(SERVERS, tmp_path, options, sites.environment) as pair:
        again = replace(sites, sites=pair)
        # Threads keep their connections, which will be lost.
        again.burst(40, Target.EVERYBODY)
        sites.engine.reset()
        streams = [sites.stream(site, key) for site in pair]
        connections.close_all()
        sites.server.stop()
        try:
            found = {post(site, key).status_code for site in pair for _ in range(2)}
            assert found == {503 if when_down == "refuse" else 200}
            sites.gate.set()
            for stream in streams:
                stream.read_until(b"[DONE]")
        finally:
            sites.server.start()
        # Processes find it again by themselves.
        eventually(lambda: all(post(site, key).status_code == 200 for site in pair), 30)
        eventually(lambda: sites.used_in(0, slots) == [0], 30)
        assert min(sites.used_in(0, *limits)) > 0
        assert statuses(again.burst(20, Target.EVERYBODY)) == {200: 5, 429: 15}
        assert sites.used_in(0, slots) == [0]


if KIND == "sqlite":

    @pytest.mark.parametrize("all_sites", ["redis", "valkey"], indirect=True)
    def test_redis_loses_its_keys_in_mid_stream(sites: Sites) -> None:
        limits = [sites.limit("everybody", unit, 10_000) for unit in ("requests", "tokens")]
        slots = sites.limit("everybody", "concurrent", 5)
        key = sites.keys[Target.EVERYBODY][0]
        assert sites.server is not None
        streams = [sites.stream(site, key) for site in sites.sites]
        with Redis.from_url(sites.server.url) as client:
            client.flushall()
        assert sites.used_in(0, *limits, slots) == [0, 0, 0]
        sites.gate.set()
        for stream in streams:
            stream.read_until(b"[DONE]")
        assert min(sites.used_in(0, *limits, slots)) >= 0
        assert statuses(sites.burst(20, Target.EVERYBODY)) == {200: 5, 429: 15}
        assert sites.used_in(0, slots) == [0]

    # It takes long, and depends on the process more than on the store.
    @pytest.mark.parametrize("all_sites", ["database", "redis"], indirect=True)
    def test_the_leases_of_a_running_request_are_renewed(sites: Sites) -> None:
        limits = sites.limit_all()
        key = sites.keys[Target.EVERYBODY][0]
        streams = [sites.stream(site, key) for site in sites.sites]
        assert sites.used_in(60, *limits) == [2, 0, 0]
        # They are renewed every 20 seconds.
        time.sleep(24)
        assert sites.used_in(37, *limits) == [2, 2 * RESERVED, 2]
        sites.gate.set()
        for stream in streams:
            stream.read_until(b"[DONE]")
        assert sites.used_in(0, *limits) == [2, 2 * USED, 0]
