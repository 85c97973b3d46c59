"""``PoolBackend`` in front of several scripted Ollamas: who gets a request, what becomes of it when
one fails, and what is known of them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from django.core.checks import run_checks
from django.test import AsyncClient, override_settings
from pytest_django.fixtures import Settings

from django_ollama_openai._translation.model_cards import ModelCard
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, Embeddings, fold
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import (
    BaseBackend,
    DummyBackend,
    PoolBackend,
    backends,
)
from django_ollama_openai.backends._pool import monitor
from django_ollama_openai.backends._pool.selection import Health, Member
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.exceptions import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ShuttingDown,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.conftest import DEAD_HOST
from tests.fast_lane import CLIENTS, IDS
from tests.ollama_server import (
    Answer,
    Close,
    Hold,
    OllamaServer,
    Received,
    Reply,
    Reset,
    Send,
    error,
    line,
)

pytestmark = pytest.mark.once

POOL = "django_ollama_openai.backends.PoolBackend"
MODEL, EMBEDDER = "smollm2:135m", "all-minilm:22m"
MEMBER = {"OPTIONS": {"verify": False}}
"""Reading the system's certificates for every client takes longer than all the rest."""
WITHIN = 60.0


def chat(model: str = MODEL, **fields: Any) -> ChatCompletionRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return ChatCompletionRequest.parse(json.dumps(body).encode())


REQUESTS: dict[str, Any] = {
    "chat": chat(),
    "stream_chat": chat(),
    "complete": CompletionRequest.parse(b'{"model": "smollm2:135m", "prompt": "Hi"}'),
    "stream_complete": CompletionRequest.parse(b'{"model": "smollm2:135m", "prompt": "Hi"}'),
    "embed": EmbeddingsRequest.parse(b'{"model": "all-minilm:22m", "input": "Hi"}'),
}
KINDS = list(REQUESTS)
GENERATING = [kind for kind in KINDS if kind != "embed"]
PATHS = {"chat": "/api/chat", "complete": "/api/generate", "embed": "/api/embed"}

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks a backend, in either way, and puts together what is streamed."""

    def sync(backend: BaseBackend, kind: str = "chat", body: Any = None) -> Any:
        answer = getattr(backend, kind)(body or REQUESTS[kind])
        return fold(answer) if kind.startswith("stream") else answer

    async def async_(backend: BaseBackend, kind: str = "chat", body: Any = None) -> Any:
        answer = getattr(backend, f"a{kind}")(body or REQUESTS[kind])
        if kind.startswith("stream"):
            return fold([delta async for delta in answer])
        return await answer

    if request.param == "sync":
        return sync
    return lambda *arguments: asyncio.run(async_(*arguments))


@pytest.fixture(scope="module")
def servers() -> Iterator[list[OllamaServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(OllamaServer()) for _ in range(3)]


@pytest.fixture
def hosts(servers: list[OllamaServer]) -> list[OllamaServer]:
    for server in servers:
        server.reset()
    return servers


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., PoolBackend]]:
    """Makes the pool ``default`` of Ollamas at hosts, which are its members "1", "2", …"""

    def make(
        *hosts: OllamaServer | str,
        member: dict[str, Any] = MEMBER,
        options: dict[str, Any] | None = None,
        **entry: Any,
    ) -> PoolBackend:
        members = {
            str(number): {"HOST": host if isinstance(host, str) else host.url, **MEMBER, **member}
            for number, host in enumerate(hosts, 1)
        }
        pool = {
            "BACKEND": POOL,
            "OPTIONS": {"members": list(members), "probe_interval": 0.1, **(options or {})},
            **entry,
        }
        settings.OLLAMA_OPENAI = {"BACKENDS": {**members, "default": pool}}
        made = backends["default"]
        assert isinstance(made, PoolBackend)
        return made

    yield make
    backends.close()
    assert not of_pools()


def of_pools() -> list[str]:
    """The threads that pools have."""
    deadline = time.monotonic() + WITHIN
    while True:
        names = [thread.name for thread in threading.enumerate()]
        left = [name for name in names if "monitor" in name or "ollama-openai-pump" in name]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def asked(host: OllamaServer) -> list[Received]:
    """What it was to work on."""
    return [request for request in list(host.requests) if request.path in PATHS.values()]


def counts(hosts: Sequence[OllamaServer]) -> list[int]:
    return [len(asked(host)) for host in hosts]


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def looks_at(host: OllamaServer) -> list[Received]:
    return [each for each in list(host.requests) if each.path == "/api/version"]


def health(pool: PoolBackend) -> dict[str, Health]:
    return {member.alias: member.health for member in pool._members().members}


def is_idle(pool: PoolBackend) -> bool:
    """Whether no slot is taken and nobody waits."""
    each = [pool.slots, *(backends[alias].slots for alias in pool.members)]
    return all((slots.running, slots.queued) == (0, 0) for slots in each)


@contextmanager
def hung_host() -> Iterator[str]:
    """A host that accepts connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# Every endpoint


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_spread(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, kind: str
) -> None:
    for host in hosts:
        host.loaded = [MODEL, EMBEDDER]
    pool = make(*hosts)
    for _ in range(6):
        answer = ask(pool, kind)
        if isinstance(answer, Delta):
            assert (answer.content, answer.finish_reason) == ("Hello!", "stop")
        else:
            assert isinstance(answer, Embeddings)
            assert len(answer.vectors[0]) == 384
    assert counts(hosts) == [2, 2, 2]
    assert {request.path for host in hosts for request in asked(host)} == {
        PATHS[kind.removeprefix("stream_")]
    }
    assert is_idle(pool)


def test_a_host_that_has_the_model_in_memory_is_preferred(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    hosts[0].loaded, hosts[1].loaded, hosts[2].loaded = [], [EMBEDDER], [MODEL]
    pool = make(*hosts)
    for _ in range(3):
        ask(pool)
    assert counts(hosts) == [0, 0, 3]
    ask(pool, "embed")
    assert counts(hosts) == [0, 1, 3]


def test_a_model_that_is_loaded_somewhere_else_later_is_noticed(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    hosts[0].loaded, hosts[1].loaded = [MODEL], []
    pool = make(*hosts[:2])
    ask(pool)
    assert counts(hosts[:2]) == [1, 0]
    hosts[0].loaded, hosts[1].loaded = [], [MODEL]
    members = pool._members().members
    wait_until(lambda: members[1].has_loaded(MODEL) and not members[0].has_loaded(MODEL))
    ask(pool)
    assert counts(hosts[:2]) == [1, 1]


def test_a_busy_host_leaves_work_to_the_others(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    gate = threading.Event()
    hosts[0].reply(*[Reply([Hold(gate), line({"done": False})])] * 2)
    pool = make(*hosts[:2], options={"loading_cost": 0})
    with ThreadPoolExecutor(10) as threads:
        taken = [threads.submit(backends["1"].chat, chat()) for _ in range(2)]
        wait_until(lambda: len(hosts[0].chats()) == 2)
        # Whoever names the member takes its slots, too.
        with backends["1"].slots.acquire(QueueTicket()), backends["1"].slots.acquire(QueueTicket()):
            for _ in range(4):
                ask(pool)
        gate.set()
        for each in taken:
            assert isinstance(each.exception(WITHIN), GatewayError)
    assert counts(hosts[:2]) == [2, 4]


# Slots and the queue


def test_one_queue_for_the_slots_of_all(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    gates = [threading.Event(), threading.Event()]
    for host, gate in zip(hosts, gates, strict=False):
        host.loaded = [MODEL]
        host.reply(Answer(), *[_held(gate)] * 9)
        host.reply()
    pool = make(*hosts[:2], member={"MAX_CONCURRENCY": 1})
    ask(pool)
    ask(pool)
    with ThreadPoolExecutor(10) as threads:
        running = [threads.submit(ask, pool) for _ in range(2)]
        wait_until(lambda: counts(hosts) == [2, 2, 0])
        waiting = [threads.submit(ask, pool)]
        wait_until(lambda: pool.slots.queued == 1)
        assert pool.slots.running == 2
        assert [backends[alias].slots.queued for alias in pool.members] == [1, 1]
        gates[1].set()
        assert waiting[0].result(WITHIN).content == "Hello"
        assert counts(hosts) == [2, 3, 0]
        gates[0].set()
        for each in running:
            assert each.result(WITHIN).content == "Hello"
    assert is_idle(pool)


def _held(gate: threading.Event) -> Reply:
    """An answer that is begun when the gate is opened."""
    whole = {"model": MODEL, "message": {"content": "Hello"}, "done": True, "done_reason": "stop"}
    return Reply([line(whole)], before=[Hold(gate)])


@pytest.mark.parametrize(
    ("entry", "seconds"), [({"MAX_QUEUE": 0}, 0.0), ({"QUEUE_TIMEOUT": 0.3}, 0.3)]
)
def test_the_limits_of_the_queue_are_those_of_the_pool(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    entry: dict[str, Any],
    seconds: float,
) -> None:
    member = {"MAX_CONCURRENCY": 1, "MAX_QUEUE": 50, "QUEUE_TIMEOUT": WITHIN}
    pool = make(*hosts[:2], member=member, **entry)
    with ExitStack() as slots:
        for alias in pool.members:
            slots.enter_context(backends[alias].slots.acquire(QueueTicket()))
        started = time.monotonic()
        with pytest.raises(Overloaded):
            ask(pool)
        assert seconds <= time.monotonic() - started < WITHIN / 2
    assert counts(hosts) == [0, 0, 0]
    assert ask(pool).content == "Hello!"
    assert is_idle(pool)


def test_the_general_limit_is_that_of_each_member(
    hosts: list[OllamaServer], settings: Settings
) -> None:
    members = {"1": {"HOST": hosts[0].url}, "2": {"HOST": hosts[1].url}}
    pool = {"BACKEND": POOL, "OPTIONS": {"members": ["1", "2"]}}
    settings.OLLAMA_OPENAI = {
        "MAX_CONCURRENCY": 2,
        "MAX_QUEUE": 0,
        "BACKENDS": {**members, "default": pool},
    }
    gate = threading.Event()
    for host in hosts:
        host.reply(*[_held(gate)] * 3)
    with ThreadPoolExecutor(10) as threads:
        running = [threads.submit(backends["default"].chat, chat()) for _ in range(4)]
        wait_until(lambda: counts(hosts) == [2, 2, 0])
        with pytest.raises(Overloaded):
            backends["default"].chat(chat())
        gate.set()
        for each in running:
            each.result(WITHIN)


# Failover

REFUSED = Reply([Reset()], raw=True)
GARBAGE = Reply([Send(b"HTTP/1.1 what?\r\n\r\n")], raw=True)
FAILURES: dict[str, tuple[Reply, type[GatewayError]]] = {
    "503": (error(503, "busy"), UpstreamUnavailable),
    "429": (error(429, "busy"), UpstreamUnavailable),
    "500": (error(500, "boom"), UpstreamError),
    "404": (error(404, "no such model"), ModelNotFound),
    "reset": (Reply([Reset()], raw=True), UpstreamError),
    "closed": (Reply([Close()], raw=True), UpstreamError),
    "garbage": (GARBAGE, UpstreamError),
    "no JSON": (Reply([Send(b"what?\n")]), UpstreamError),
    "cut short": (Reply([Close()]), UpstreamError),
    "error in the stream": (Reply([line({"error": "boom"})]), UpstreamError),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_before_it_has_begun_is_tried_elsewhere(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    kind: str,
    failure: str,
) -> None:
    path = PATHS[kind.removeprefix("stream_")]
    for host in hosts[:2]:
        host.loaded = [MODEL, EMBEDDER]
    hosts[0].routes[path] = FAILURES[failure][0]
    pool = make(*hosts[:2])
    for _ in range(3):
        ask(pool, kind)
    assert len(asked(hosts[1])) == 3
    assert len(asked(hosts[0])) >= 1
    assert is_idle(pool)


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_refuses_connections_is_passed_over(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, kind: str
) -> None:
    pool = make(DEAD_HOST, hosts[0], DEAD_HOST)
    for _ in range(3):
        ask(pool, kind)
    assert len(asked(hosts[0])) == 3
    assert is_idle(pool)


@pytest.mark.parametrize("failure", FAILURES)
def test_when_all_fail_the_client_is_told_why(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, failure: str
) -> None:
    reply, told = FAILURES[failure]
    for host in hosts:
        host.routes["/api/chat"] = reply
    pool = make(*hosts)
    with pytest.raises(told) as raised:
        ask(pool, "stream_chat")
    assert type(raised.value) is told
    # What it was at work on may be what has killed it.
    at_most = 2 if told is UpstreamError else 3
    assert sum(counts(hosts)) == at_most
    assert is_idle(pool)


def test_a_request_that_times_out_goes_to_one_more(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    for host in hosts:
        host.routes["/api/chat"] = Reply([Hold()])
    pool = make(*hosts, member={"OPTIONS": {"timeout": 0.3, "verify": False}})
    with pytest.raises(UpstreamTimeout):
        ask(pool)
    assert sum(counts(hosts)) == 2
    # It may have been the request: nobody is out for it.
    assert set(health(pool).values()) == {Health.HEALTHY}


@pytest.mark.parametrize("failure", ["500", "reset"])
def test_those_that_fail_do_not_attract_more_because_they_are_idle(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, failure: str
) -> None:
    for host in hosts[:2]:
        host.routes["/api/chat"] = FAILURES[failure][0]
    pool = make(*hosts, options={"probe_interval": 60})
    with pytest.raises(UpstreamError):
        ask(pool)
    with backends["3"].slots.acquire(QueueTicket()):
        for _ in range(5):
            assert ask(pool).content == "Hello!"
    assert counts(hosts) == [1, 1, 5]


def test_the_last_failure_of_an_engine_says_more_than_a_missing_model(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    hosts[0].routes["/api/chat"] = error(503, "busy")
    hosts[1].routes["/api/chat"] = error(404, "no such model")
    hosts[2].routes["/api/chat"] = error(404, "no such model")
    pool = make(*hosts)
    for _ in range(3):
        with pytest.raises(UpstreamUnavailable):
            ask(pool)


def test_a_model_that_is_nowhere_is_looked_for_everywhere(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    pool = make(*hosts)
    with pytest.raises(ModelNotFound):
        ask(pool, "chat", chat("nowhere"))
    assert counts(hosts) == [1, 1, 1]


def test_a_model_that_was_just_pulled_is_found(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    pool = make(*hosts, options={"probe_interval": 60})
    ask(pool)
    hosts[2].models["new"] = {**hosts[2].models[MODEL], "name": "new", "model": "new"}
    assert ask(pool, "chat", chat("new")).content == "Hello!"


def test_a_model_goes_where_it_is(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    for host in hosts[:2]:
        del host.models[MODEL]
    # As Ollama does, which adds the tag to a name without one.
    hosts[2].models["plain"] = {
        **hosts[2].models[MODEL],
        "name": "plain:latest",
        "model": "plain:latest",
    }
    pool = make(*hosts)
    for _ in range(3):
        ask(pool)
        ask(pool, "chat", chat("plain"))
    assert counts(hosts) == [0, 0, 6]


@pytest.mark.parametrize("failure", ["400", "too long"])
def test_errors_of_the_request_itself_are_not_tried_elsewhere(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, failure: str
) -> None:
    text = "invalid option" if failure == "400" else "the input exceeds the context length"
    for host in hosts:
        host.routes["/api/chat"] = error(400, text)
    with pytest.raises(InvalidRequest):
        ask(make(*hosts))
    assert sum(counts(hosts)) == 1


@pytest.mark.parametrize("raised", [ShuttingDown, ValueError])
def test_what_is_no_failure_of_an_engine_is_not_tried_elsewhere(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[Exception],
) -> None:
    pool = make(*hosts)
    calls = []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        raise raised

    for alias in pool.members:
        monkeypatch.setattr(backends[alias], "chat", fails)
        monkeypatch.setattr(backends[alias], "achat", fails)
    with pytest.raises(raised):
        ask(pool)
    assert len(calls) == 1
    assert is_idle(pool)


@pytest.mark.parametrize("end", [Close(), Reset(), line({"error": "boom"})])
@pytest.mark.parametrize("kind", ["stream_chat", "stream_complete"])
def test_nothing_is_tried_elsewhere_after_the_first_delta(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    kind: str,
    end: Any,
) -> None:
    part = {"model": MODEL, "message": {"content": "He"}, "response": "He", "done": False}
    for host in hosts:
        host.routes[PATHS[kind.removeprefix("stream_")]] = Reply([line(part), end])
    pool = make(*hosts)
    with pytest.raises(UpstreamError):
        ask(pool, kind)
    assert sum(counts(hosts)) == 1
    assert is_idle(pool)


def test_an_answer_that_has_begun_fails_with_its_own_error(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    pool = make(*hosts[:2], options={"probe_interval": 60})
    ask(pool)
    # The pool has not seen yet that it was pulled. The other one gets the request first.
    hosts[0].models["new"] = {**hosts[0].models[MODEL], "name": "new", "model": "new"}
    part = {"model": "new", "message": {"content": "He"}, "done": False}
    hosts[0].reply(Reply([line(part), line({"error": "boom"})]))
    with pytest.raises(UpstreamError):
        ask(pool, "stream_chat", chat("new"))
    assert counts(hosts[:2]) == [2, 1]
    assert is_idle(pool)


def test_a_later_attempt_waits_no_longer_than_others(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    hosts[0].routes["/api/chat"] = error(503, "busy")
    pool = make(*hosts[:2], member={"MAX_CONCURRENCY": 1}, QUEUE_TIMEOUT=0.3)
    with backends["2"].slots.acquire(QueueTicket()):
        started = time.monotonic()
        with pytest.raises(Overloaded):
            ask(pool)
        assert 0.29 < time.monotonic() - started < WITHIN / 2
    assert is_idle(pool)


# Whose connection fails


def test_who_dies_is_out_and_comes_back(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "django_ollama_openai")
    for host in hosts[:2]:
        host.loaded = [MODEL]
    pool = make(*hosts[:2])
    # Looking at what is known starts nothing.
    assert (pool.unhealthy_members(), of_pools()) == (frozenset(), [])
    ask(pool)
    wait_until(lambda: set(health(pool).values()) == {Health.HEALTHY})
    assert pool.unhealthy_members() == frozenset()
    hosts[0].die()
    try:
        for _ in range(4):
            ask(pool)
        wait_until(lambda: health(pool)["1"] is Health.UNHEALTHY)
        assert pool.unhealthy_members() == {"1"}
        before = hosts[0].connections
        for _ in range(4):
            ask(pool)
        assert len(asked(hosts[1])) >= 8
        assert hosts[0].connections == before
    finally:
        hosts[0].revive()
    deadline = time.monotonic() + WITHIN
    while health(pool)["1"] is not Health.HEALTHY:
        assert time.monotonic() < deadline
        ask(pool)
        time.sleep(0.05)
    count = len(asked(hosts[0]))
    ask(pool)
    ask(pool)
    assert len(asked(hosts[0])) == count + 1
    (out, back) = caplog.records
    assert (out.levelname, back.levelname) == ("WARNING", "INFO")
    assert out.getMessage().startswith("The backend '1' is out of the pool 'default' until")
    assert back.getMessage() == "The backend '1' is back in the pool 'default'"
    assert f"reached at {hosts[0].url}: start it with `ollama serve`" in out.getMessage()
    assert "Hi" not in caplog.text


def test_requests_that_crash_their_connection_put_nobody_out(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for host in hosts:
        host.routes["/api/chat"] = REFUSED
        host.loaded = [MODEL]
    pool = make(*hosts)
    for _ in range(6):
        with pytest.raises(UpstreamError):
            ask(pool)
    assert Health.UNHEALTHY not in health(pool).values()
    wait_until(lambda: set(health(pool).values()) == {Health.HEALTHY})
    assert "out of the pool" not in caplog.text
    assert (
        "The backend '1' of the pool 'default' failed: The connection to the engine" in caplog.text
    )
    ask(pool, "complete")


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_status_is_a_sign_of_life(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, status: int
) -> None:
    hosts[0].routes["/api/version"] = error(status, "not for you")
    pool = make(*hosts[:2])
    ask(pool)
    wait_until(lambda: set(health(pool).values()) == {Health.HEALTHY})


def test_one_that_is_silent_once_is_looked_at_again(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(monitor, "PROBE_SECONDS", 2)
    hosts[0].routes["/api/version"] = Reply([], before=[Hold()])
    pool = make(*hosts[:2])
    # It waits for half of that.
    ask(pool)
    hosts[0].routes.clear()
    assert health(pool)["1"] is Health.SUSPECT
    wait_until(lambda: health(pool)["1"] is Health.HEALTHY)
    assert "out of the pool" not in caplog.text


@pytest.mark.parametrize("failure", ["500", "503"])
def test_a_status_puts_nobody_out(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask, failure: str
) -> None:
    for host in hosts:
        host.routes["/api/chat"] = FAILURES[failure][0]
    pool = make(*hosts)
    for _ in range(10):
        with pytest.raises(UpstreamError):
            ask(pool)
    assert set(health(pool).values()) == {Health.HEALTHY}


def test_when_all_are_out_they_are_tried_anyway(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    pool = make(*hosts[:2])
    ask(pool)
    for host in hosts[:2]:
        host.die()
    try:
        with pytest.raises(UpstreamUnavailable):
            ask(pool)
        assert set(health(pool).values()) == {Health.UNHEALTHY}
    finally:
        for host in hosts[:2]:
            host.revive()
    # Before anybody has looked.
    assert ask(pool).content == "Hello!"
    wait_until(lambda: set(health(pool).values()) == {Health.HEALTHY})


def test_a_silent_host_holds_nothing_up(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with hung_host() as silent:
        monkeypatch.setattr(monitor, "FIRST_PROBE_SECONDS", 0.3)
        monkeypatch.setattr(monitor, "PROBE_SECONDS", 600)
        pool = make(silent, hosts[0])
        started = time.monotonic()
        for _ in range(5):
            ask(pool)
        assert 0.3 <= time.monotonic() - started < WITHIN
        assert len(asked(hosts[0])) == 5
        backends.close()
        monkeypatch.setattr(monitor, "PROBE_SECONDS", 0.5)
        pool = make(silent, hosts[0])
        ask(pool)
        seen = len(hosts[0].requests)
        # The other is looked at all the while.
        wait_until(lambda: len(hosts[0].requests) > seen + 4)
        wait_until(lambda: health(pool)["1"] is Health.UNHEALTHY)
        assert "did not answer within" in caplog.text
        assert health(pool)["2"] is Health.HEALTHY
        backends.close()


def test_who_is_out_is_asked_less_and_less_often(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(monitor, "LONGEST_PAUSE", 0.4)
    hosts[0].routes["/api/version"] = REFUSED
    pool = make(hosts[0], hosts[1])
    ask(pool)
    started = time.monotonic()

    wait_until(lambda: len(looks_at(hosts[0])) >= 6)
    # 0.05 + 0.1 + 0.2 + 0.4 + 0.4
    assert time.monotonic() - started > 0.9


def unreachable() -> UpstreamUnavailable:
    failure = UpstreamUnavailable()
    failure.__cause__ = httpx.ConnectError("refused")
    return failure


def test_who_waits_is_told_when_there_is_nobody_better_to_wait_for(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "FIRST_PAUSE", 60)
    pool = make(*hosts[:2], member={"MAX_CONCURRENCY": 1}, options={"probe_interval": 60})
    ask(pool)
    before = counts(hosts)[1]
    crew = pool._members()
    wait_until(lambda: set(health(pool).values()) == {Health.HEALTHY})
    with ThreadPoolExecutor(1) as threads, backends["1"].slots.acquire(QueueTicket()):
        crew.monitor.failed(crew.members[1], unreachable())
        waiting = threads.submit(ask, pool)
        wait_until(lambda: pool.slots.queued == 1)
        assert backends["2"].slots.running == 0
        crew.monitor.failed(crew.members[0], unreachable())
        assert waiting.result(WITHIN / 2).content == "Hello!"
    assert counts(hosts)[1] == before + 1
    assert is_idle(pool)


def test_an_answer_from_before_a_failure_is_no_sign_of_life() -> None:
    member = Member("a", BaseBackend(alias="a"))
    watching = monitor.Monitor("pool", [member], 60, lambda: None)
    began = time.monotonic()
    seen = []
    watching._mark_healthy(member, began)
    seen.append(member.health)
    watching.failed(member, unreachable())
    watching._mark_healthy(member, began)
    seen.append(member.health)
    watching._mark_healthy(member, time.monotonic())
    seen.append(member.health)
    assert seen == [Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY]


# Who dies under load


@pytest.mark.parametrize("mode", ["threads", "tasks"])
def test_who_dies_under_load_takes_nothing_along_that_has_not_begun(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], mode: str
) -> None:
    for host in hosts:
        host.loaded = [MODEL]
        host.reply(*[Answer(["a", "b", "c"], pause=0.01)] * 400)
    pool = make(*hosts, member={"MAX_CONCURRENCY": 4}, QUEUE_TIMEOUT=WITHIN)
    outcomes: list[tuple[int, Exception | None]] = []

    @contextmanager
    def outcome() -> Iterator[list[Delta]]:
        got: list[Delta] = []
        failure = None
        try:
            yield got
        except Exception as raised:
            failure = raised
        outcomes.append((len(got), failure))

    def one() -> None:
        with outcome() as got:
            got.extend(pool.stream_chat(chat()))

    async def aone() -> None:
        with outcome() as got:
            async for delta in pool.astream_chat(chat()):
                got.append(delta)

    async def all_of_them() -> None:
        await asyncio.gather(*(aone() for _ in range(200)))

    def kill() -> None:
        wait_until(lambda: len(outcomes) > 50)
        hosts[1].die()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        if mode == "threads":
            with ThreadPoolExecutor(60) as threads:
                for _ in range(200):
                    threads.submit(one)
        else:
            asyncio.run(all_of_them())
    finally:
        killer.join()
        hosts[1].revive()
    assert len(outcomes) == 200
    assert [raised for got, raised in outcomes if not got] == []
    broken = [raised for _, raised in outcomes if raised is not None]
    assert len(broken) <= 4
    assert all(isinstance(each, UpstreamError) for each in broken)
    assert len(asked(hosts[0])) > 50
    assert is_idle(pool)


def test_whatever_happens_no_slot_is_lost(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    chance = random.Random(1)
    for host in hosts:
        host.loaded = [MODEL]
    pool = make(*hosts, member={"MAX_CONCURRENCY": 3}, QUEUE_TIMEOUT=WITHIN * 3)
    outcomes: list[str] = []
    is_over = threading.Event()

    def one() -> None:
        deltas = pool.stream_chat(chat())
        try:
            for _ in deltas:
                if chance.random() < 0.05:
                    deltas.close()  # type: ignore[attr-defined]
            outcomes.append("ok")
        except UpstreamError as raised:
            outcomes.append(type(raised).__name__)

    async def some() -> None:
        async def one() -> None:
            async for _ in pool.astream_chat(chat()):
                pass

        tasks = [asyncio.create_task(one()) for _ in range(60)]
        for task in tasks[::7]:
            await asyncio.sleep(0.005)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        outcomes.extend("ok" if result is None else type(result).__name__ for result in results)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def trouble() -> None:
        while not is_over.wait(0.05):
            host = chance.choice(hosts[:2])
            what = chance.choice(["dies", "500", "reset", "503", "is well"])
            if what == "dies":
                host.die()
                time.sleep(0.2)
                host.revive()
            elif what == "is well":
                host.routes.pop("/api/chat", None)
            else:
                host.routes["/api/chat"] = FAILURES[what][0]

    troubling = threading.Thread(target=trouble)
    troubling.start()
    try:
        with ThreadPoolExecutor(20) as threads:
            running = [threads.submit(one) for _ in range(120)]
            running += [threads.submit(asyncio.run, some()) for _ in range(2)]
            for each in running:
                each.result(WITHIN * 3)
    finally:
        is_over.set()
        troubling.join()
    assert set(outcomes) <= {"ok", "CancelledError", "UpstreamError", "UpstreamUnavailable"}
    assert outcomes.count("ok") > 100
    assert is_idle(pool)
    assert all(host.wait_for_released() for host in hosts)
    assert not any(member._running for member in pool._members().members)


# Who hangs up


def test_a_stream_that_nobody_reads_on_frees_the_slot_and_the_engine(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    part = {"model": MODEL, "message": {"content": "He"}, "done": False}
    hosts[0].reply(*[Reply([line(part), Hold()])] * 2)
    pool = make(hosts[0], member={"MAX_CONCURRENCY": 1})
    deltas = pool.stream_chat(chat())
    assert next(deltas).content == "He"
    assert (pool.slots.running, backends["1"].slots.running) == (1, 1)
    deltas.close()  # type: ignore[attr-defined]
    assert hosts[0].chats()[0].hung_up.wait(WITHIN)
    assert is_idle(pool)

    async def hang_up() -> None:
        async def read() -> None:
            async for _ in pool.astream_chat(chat()):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(wait_until, lambda: len(hosts[0].chats()) == 2)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await asyncio.to_thread(hosts[0].chats()[1].hung_up.wait, WITHIN)

    asyncio.run(hang_up())
    assert is_idle(pool)


# Models


def test_the_models_are_those_of_all(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    tag = hosts[0].models[MODEL]
    hosts[0].models = {
        MODEL: tag,
        "own:latest": {**tag, "name": "own:latest", "model": "own:latest"},
    }
    hosts[1].models = {
        MODEL: {**tag, "digest": "other"},
        EMBEDDER: hosts[1].models[EMBEDDER],
        "own": {**tag, "name": "own", "model": "own"},
    }
    pool = make(hosts[0], hosts[1], DEAD_HOST)
    cards = pool.list_models()
    assert [card.id for card in cards] == [MODEL, "own:latest", EMBEDDER]
    assert cards[0].metadata["digest"] == tag["digest"]
    assert asyncio.run(pool.alist_models()) == cards
    assert pool.get_model("own").id == "own:latest"
    assert asyncio.run(pool.aget_model(EMBEDDER)).id == EMBEDDER
    with pytest.raises(ModelNotFound):
        pool.get_model("nowhere")


def test_models_are_not_to_be_had_when_all_fail(make: Callable[..., PoolBackend]) -> None:
    pool = make(DEAD_HOST, DEAD_HOST)
    with pytest.raises(UpstreamUnavailable):
        pool.list_models()
    with pytest.raises(UpstreamUnavailable):
        asyncio.run(pool.alist_models())
    with pytest.raises(UpstreamUnavailable):
        pool.ping()
    with pytest.raises(UpstreamUnavailable):
        asyncio.run(pool.aping())


def test_it_is_ready_if_any_member_is(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    with hung_host() as silent:
        monkeypatch.setattr("django_ollama_openai.backends._pool.pool.ANSWER_SECONDS", 600)
        pool = make(silent, DEAD_HOST, hosts[0])
        started = time.monotonic()
        pool.ping()
        asyncio.run(pool.aping())
        assert time.monotonic() - started < WITHIN
        monkeypatch.setattr("django_ollama_openai.backends._pool.pool.ANSWER_SECONDS", 0.3)
        pool = make(silent, silent)
        with pytest.raises(UpstreamTimeout):
            pool.ping()
        with pytest.raises(UpstreamTimeout):
            asyncio.run(pool.aping())


@pytest.mark.parametrize("client", CLIENTS, ids=IDS)
def test_a_site_is_healthy_without_one_of_the_members(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], client: type[Any]
) -> None:
    make(DEAD_HOST, hosts[0])
    answer = client().get("/ai/health")
    if issubclass(client, AsyncClient):
        answer = asyncio.run(answer)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    make(DEAD_HOST, DEAD_HOST)
    answer = client().get("/ai/health")
    if issubclass(client, AsyncClient):
        answer = asyncio.run(answer)
    assert answer.status_code == 503


def test_versions_are_not_mixed(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hosts[1].models[MODEL] = {**hosts[1].models[MODEL], "digest": "f" * 64}
    for host in hosts:
        host.loaded = [MODEL]
    pool = make(*hosts)
    for _ in range(6):
        ask(pool)
    assert counts(hosts) == [3, 0, 3]
    digest = hosts[0].models[MODEL]["digest"]
    assert pool.version_conflicts() == {MODEL: {"1": digest, "2": "f" * 64, "3": digest}}
    looks = len(hosts[0].requests)
    wait_until(lambda: len(hosts[0].requests) > looks + 6)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{MODEL!r}: 1 {digest[:12]}, 2 {'f' * 12}, 3 {digest[:12]}." in record.getMessage()
    assert "Pull it" in record.getMessage()
    for host in (hosts[0], hosts[2]):
        host.routes["/api/chat"] = error(500, "boom")
    with pytest.raises(UpstreamError):
        ask(pool)
    assert counts(hosts)[1] == 0
    hosts[1].models[MODEL]["digest"] = digest
    members = pool._members().members
    wait_until(lambda: members[1].digest(MODEL) == digest)
    assert pool.version_conflicts() == {}
    assert ask(pool).content == "Hello!"


def test_another_version_serves_while_the_first_is_down(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], ask: Ask
) -> None:
    hosts[1].models[MODEL] = {**hosts[1].models[MODEL], "digest": "f" * 64}
    pool = make(*hosts[:2])
    ask(pool)
    hosts[0].die()
    try:
        for _ in range(3):
            ask(pool)
        assert counts(hosts[:2]) == [1, 3]
    finally:
        hosts[0].revive()


# What it can do


class Small(BaseBackend):
    """An engine that only chats."""

    supported_parameters = frozenset({"tools"})

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        yield Delta("small", finish_reason="stop")

    def list_models(self) -> list[ModelCard]:
        return [ModelCard(id="small")]


class Particular(DummyBackend):
    def unsupported_parameters(self, request: Any) -> list[str]:
        return ["tools"] if getattr(request, "tools", None) else []


def test_it_can_what_its_members_can(settings: Settings, ask: Ask) -> None:
    members = {
        "small": {"BACKEND": f"{__name__}.Small"},
        "dummy": {"BACKEND": f"{__name__}.Particular"},
    }
    pool = {"BACKEND": POOL, "OPTIONS": {"members": ["small", "dummy"]}}
    small = {"BACKEND": POOL, "OPTIONS": {"members": ["small"]}}
    settings.OLLAMA_OPENAI = {"BACKENDS": {**members, "default": pool, "alone": small}}
    both, alone = backends["default"], backends["alone"]
    assert both.supported_parameters == {"tools"}
    assert (both.supports_chat, both.supports_completions, both.supports_embeddings) == (
        True,
        True,
        True,
    )
    assert (alone.supports_chat, alone.supports_completions, alone.supports_embeddings) == (
        True,
        False,
        False,
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    request = chat(logprobs=True, tools=[tool])
    assert both.unsupported_parameters(request) == ["logprobs", "tools"]
    assert alone.unsupported_parameters(request) == ["logprobs"]
    both.check_support(REQUESTS["embed"])
    with pytest.raises(InvalidRequest, match="does not support embeddings"):
        alone.check_support(REQUESTS["embed"])
    with pytest.raises(InvalidRequest, match="does not support embeddings"):
        ask(alone, "embed")
    for _ in range(3):
        ask(both, "embed")
        ask(both, "complete")
    dummy = backends["dummy"]
    assert isinstance(dummy, DummyBackend)
    assert len(dummy.requests) == 6
    assert {ask(both, "chat", chat("small")).content for _ in range(3)} == {"small"}


# Life


def test_nothing_is_asked_before_it_is_needed(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    make(*hosts)
    assert not of_pools()
    assert run_checks() is not None
    assert [host.requests for host in hosts] == [[], [], []]


def test_the_monitor_ends_when_there_is_no_traffic_and_begins_again(
    hosts: list[OllamaServer],
    make: Callable[..., PoolBackend],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "IDLE_SECONDS", 0.3)
    pool = make(hosts[0])
    ask(pool)
    assert of_pools() == []
    # What was on its way may still arrive.
    time.sleep(0.3)
    looks = len(hosts[0].requests)
    time.sleep(0.3)
    assert len(hosts[0].requests) == looks
    # Not so soon again: a busy machine may not have looked by then.
    monkeypatch.setattr(monitor, "IDLE_SECONDS", 600)
    ask(pool)
    wait_until(lambda: len(hosts[0].requests) > looks + 1)


def test_it_can_be_asked_from_threads_and_loops_at_once(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    pool = make(*hosts, member={"MAX_CONCURRENCY": 2})

    async def some() -> None:
        answers = await asyncio.gather(*(pool.achat(chat()) for _ in range(20)))
        assert {answer.content for answer in answers} == {"Hello!"}

    with ThreadPoolExecutor(10) as threads:
        running = [threads.submit(pool.chat, chat()) for _ in range(40)]
        loops = [threads.submit(asyncio.run, some()) for _ in range(3)]
        assert {each.result(WITHIN * 3).content for each in running} == {"Hello!"}
        for loop in loops:
            loop.result(WITHIN * 3)
    assert sum(counts(hosts)) == 100
    assert min(counts(hosts)) > 20
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("ollama-openai-monitor-default") == 1
    assert is_idle(pool)


def test_a_pool_is_closed_before_its_members(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases = [*make(*hosts).members, "default"]
    backends.close()
    closed: list[str] = []

    def recording(alias: str, close: Callable[[], None]) -> None:
        closed.append(alias)
        close()

    # Requests that name the members come first.
    for backend in map(backends.__getitem__, aliases):
        monkeypatch.setattr(backend, "close", partial(recording, backend.alias, backend.close))
    backends["default"].chat(chat())
    backends.close()
    assert closed == ["default", "1", "2", "3"]


def test_a_process_that_is_forked_off_has_a_pool_of_its_own(
    hosts: list[OllamaServer], make: Callable[..., PoolBackend]
) -> None:
    pool = make(*hosts)
    for alias in pool.members:
        # Make its client here. A thread of the pool that used OpenSSL for that, and is just ending,
        # may hold a lock of OpenSSL, which the child would wait for without end.
        assert backends[alias].address
    pool.chat(chat())
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads: theirs are what is being tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            made = backends["default"]
            answer = made.chat(chat()).content if made is not pool else "the same"
            os.write(writing, answer.encode())
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 10_000).decode() == "Hello!"
    os.close(reading)
    os.waitpid(child, 0)
    assert pool.chat(chat()).content == "Hello!"


# Bad settings


@pytest.mark.parametrize(
    ("members", "entry", "wrong"),
    [
        ([], {}, "members: name at least one backend; there are 'a', 'b', 'pool'."),
        (["c"], {}, "members: there is no 'c'; there are 'a', 'b', 'pool'."),
        (["a", "default"], {}, "members: 'default' is the pool itself."),
        (["a", "pool"], {}, "members: 'pool' is a pool, too; name its members instead."),
        (["a", "b", "a"], {}, "members: 'a' is named more than once."),
        (["a"], {"MAX_CONCURRENCY": 3}, "MAX_CONCURRENCY: a pool has none; set it in"),
        ("a", {}, "members: "),
        ([1], {}, "members.0: Input should be a valid string"),
        (None, {}, "members: "),
    ],
)
def test_what_is_wrong_with_the_setting_is_said(
    members: Any, entry: dict[str, Any], wrong: str
) -> None:
    setting = {
        "BACKENDS": {
            "a": {"HOST": DEAD_HOST},
            "b": {"HOST": DEAD_HOST},
            "pool": {"BACKEND": POOL, "OPTIONS": {"members": ["b"]}},
            "default": {"BACKEND": POOL, "OPTIONS": {"members": members}, **entry},
        },
        "ALLOW_ANONYMOUS": True,
    }
    with override_settings(OLLAMA_OPENAI=setting):
        (message,) = [each for each in run_checks() if each.id == "ollama_openai.E002"]
    assert f"OLLAMA_OPENAI['BACKENDS']['default']: {wrong}" in message.msg


@pytest.mark.parametrize(("seconds", "ids"), [(20, ["ollama_openai.W004"] * 2), (10, [])])
def test_a_queue_for_the_slots_of_members_is_checked_as_any(seconds: int, ids: list[str]) -> None:
    limits = {"QUEUE_TIMEOUT": seconds}
    setting = {
        "BACKENDS": {
            "a": {"HOST": DEAD_HOST, "MAX_CONCURRENCY": 1, **limits},
            "second": {"HOST": DEAD_HOST},
            "default": {"BACKEND": POOL, "OPTIONS": {"members": ["a", "second"]}, **limits},
        },
        "ALLOW_ANONYMOUS": True,
    }
    with override_settings(OLLAMA_OPENAI=setting):
        assert [each.id for each in run_checks() if "ollama" in (each.id or "")] == ids


def test_the_general_host_is_that_of_no_pool() -> None:
    pool = {"BACKEND": POOL, "OPTIONS": {"members": ["a"]}}
    setting = {"HOST": DEAD_HOST, "BACKENDS": {"a": {"HOST": DEAD_HOST}, "default": pool}}
    with override_settings(OLLAMA_OPENAI=setting):
        (message,) = [each for each in run_checks() if each.id == "ollama_openai.E002"]
    assert "PoolBackend does not take 'HOST', but members, " in message.msg
    assert "Its HOST is OLLAMA_OPENAI['HOST'], which is the default's." in message.msg


@pytest.mark.parametrize("options", [{"loading_cost": -1}, {"probe_interval": 0}, {"other": 1}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    setting = {
        "BACKENDS": {
            "a": {"HOST": DEAD_HOST},
            "default": {"BACKEND": POOL, "OPTIONS": {"members": ["a"], **options}},
        },
        "ALLOW_ANONYMOUS": True,
    }
    with override_settings(OLLAMA_OPENAI=setting):
        (message,) = [each for each in run_checks() if each.id == "ollama_openai.E002"]
    assert next(iter(options)) in message.msg
