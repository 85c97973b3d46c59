"""A pool of three Ollamas through the official OpenAI client, on both servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.conftest import DEAD_HOST
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, Reset, error, line
from tests.servers import KEY, SERVERS, Site, serve

pytestmark = pytest.mark.once

MODEL, EMBEDDER = "smollm2:135m", "all-minilm:22m"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
HEADERS = {"Authorization": f"Bearer {KEY}"}
WITHIN = 60.0
MEMBERS = ["1", "2", "3"]
PART = {"model": MODEL, "message": {"content": "He"}, "done": False}


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[OllamaServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(OllamaServer()) for _ in MEMBERS]


@pytest.fixture(scope="module", params=SERVERS)
def pooled_site(
    request: pytest.FixtureRequest,
    servers: list[OllamaServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    pool = {"BACKEND": "django_ollama_openai.backends.PoolBackend"}
    settings = {
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
        "BACKENDS": {
            **{
                alias: {"HOST": server.url, "MAX_CONCURRENCY": 2}
                for alias, server in zip(MEMBERS, servers, strict=True)
            },
            "dead": {"HOST": DEAD_HOST},
            "default": {
                **pool,
                "OPTIONS": {"members": MEMBERS, "probe_interval": 0.2},
                "QUEUE_TIMEOUT": WITHIN,
                "MAX_QUEUE": 100,
            },
            "hasty": {**pool, "OPTIONS": {"members": ["1"]}, "QUEUE_TIMEOUT": 0.3},
            "second": {**pool, "OPTIONS": {"members": ["dead"]}},
        },
        "MODELS": {
            "hasty": {"MODEL": MODEL, "BACKEND": "hasty"},
            "dead": {"MODEL": MODEL, "BACKEND": "second"},
        },
        "STREAM_KEEPALIVE_SECONDS": 15,
    }
    directory = tmp_path_factory.mktemp(f"pool-{request.param}")
    with serve(request.param, directory, settings) as site:
        yield site


@pytest.fixture
def site(pooled_site: Site, servers: list[OllamaServer]) -> Iterator[Site]:
    """The site, with hosts that are all well and idle, and that it takes for that."""
    for server in servers:
        server.reset()
        server.loaded = [MODEL, EMBEDDER]
        server.reply(*[Answer(pause=0.1)] * 2)
    body = {"model": MODEL, "messages": ASK, "n": 6}
    answer = httpx.post(
        f"{pooled_site.base_url}/chat/completions", json=body, headers=HEADERS, timeout=30
    )
    assert answer.status_code == 200
    assert counts(servers) == [2, 2, 2]
    for server in servers:
        server.requests.clear()
    yield pooled_site
    wait_until(lambda: is_idle(pooled_site))


@pytest.fixture
def hosts(site: Site, servers: list[OllamaServer]) -> list[OllamaServer]:
    return servers


def health(site: Site) -> dict[str, Any]:
    report: dict[str, Any] = httpx.get(f"{site.url}/ai/health", headers=HEADERS, timeout=60).json()[
        "backends"
    ]
    return report


def is_idle(site: Site) -> bool:
    return all((each["running"], each["queued"]) == (0, 0) for each in health(site).values())


def counts(hosts: list[OllamaServer], path: str = "/api/chat") -> list[int]:
    return [sum(request.path == path for request in list(host.requests)) for host in hosts]


def chat(client: openai.OpenAI, **options: Any) -> str:
    """An answer in one piece."""
    completion = client.chat.completions.create(
        **{"model": MODEL, "messages": ASK, **options}, stream=False
    )
    return str(completion.choices[0].message.content)


def test_requests_are_spread_over_the_hosts(
    client: openai.OpenAI, hosts: list[OllamaServer]
) -> None:
    for _ in range(6):
        assert chat(client) == "Hello!"
    assert counts(hosts) == [2, 2, 2]
    for _ in range(3):
        stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello!"
    assert counts(hosts) == [3, 3, 3]
    for _ in range(3):
        assert client.responses.create(model=MODEL, input="Hi", store=False).output_text == "Hello!"
    assert counts(hosts) == [4, 4, 4]
    for _ in range(3):
        assert client.completions.create(model=MODEL, prompt="Hi").choices[0].text == "Hello!"
    for _ in range(3):
        assert client.embeddings.create(model=EMBEDDER, input="Hi").data[0].embedding
    assert counts(hosts, "/api/generate") == counts(hosts, "/api/embed") == [1, 1, 1]


def test_the_choices_of_a_request_go_to_several_hosts(
    client: openai.OpenAI, hosts: list[OllamaServer]
) -> None:
    for host in hosts:
        host.reply(*[Answer(["a", "b"], pause=0.2)] * 2)
    completion = client.chat.completions.create(model=MODEL, messages=ASK, n=6)
    assert [choice.message.content for choice in completion.choices] == ["ab"] * 6
    assert counts(hosts) == [2, 2, 2]


def test_more_choices_than_slots_wait_for_one_another(
    client: openai.OpenAI, hosts: list[OllamaServer]
) -> None:
    for host in hosts:
        host.reply(*[Answer(["a", "b"], pause=0.02)] * 20)
    completion = client.chat.completions.create(model=MODEL, messages=ASK, n=20)
    assert [choice.message.content for choice in completion.choices] == ["ab"] * 20
    assert sum(counts(hosts)) == 20
    assert min(counts(hosts)) >= 4


def test_the_models_of_all_hosts_are_listed_once(
    client: openai.OpenAI, hosts: list[OllamaServer]
) -> None:
    own = {**hosts[2].models[MODEL], "name": "own:latest", "model": "own:latest"}
    hosts[2].models["own"] = own
    listed = [model.id for model in client.models.list()]
    assert listed.count(MODEL) == 1
    assert "own:latest" in listed
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("own").id == "own"
    for _ in range(3):
        assert chat(client, model="own") == "Hello!"
    assert counts(hosts) == [0, 0, 3]


# Failures


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "failure",
    [
        Reply([Reset()], raw=True),
        error(503, "busy"),
        error(500, "boom"),
        Reply([line({"error": "boom"})]),
        Reply([Close()]),
    ],
)
def test_what_fails_before_its_first_token_is_answered_by_another_host(
    client: openai.OpenAI, hosts: list[OllamaServer], failure: Reply, stream: bool
) -> None:
    hosts[1].routes["/api/chat"] = failure
    for _ in range(4):
        if stream:
            chunks = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"
        else:
            assert chat(client) == "Hello!"
    assert counts(hosts)[0] + counts(hosts)[2] == 4
    assert counts(hosts)[1] >= 1


def test_what_fails_after_its_first_token_is_an_error(
    client: openai.OpenAI, hosts: list[OllamaServer]
) -> None:
    for host in hosts:
        host.routes["/api/chat"] = Reply([line(PART), Reset()])
    text = ""
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "He"
    assert sum(counts(hosts)) == 1


@pytest.mark.parametrize("n", [1, 4])
def test_a_request_that_kills_engines_reaches_two_at_most(
    client: openai.OpenAI, hosts: list[OllamaServer], n: int
) -> None:
    for host in hosts:
        host.routes["/api/chat"] = Reply([Reset()], raw=True)
    with pytest.raises(openai.APIStatusError) as raised:
        chat(client, n=n)
    assert raised.value.status_code == 502
    # Its choices are asked for at the same time, and no more of them again than one would be.
    assert sum(counts(hosts)) <= n + 1


def test_a_pool_without_a_member_that_is_up_is_a_503(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        chat(client, model="dead")
    assert (raised.value.status_code, raised.value.code) == (503, "upstream_unavailable")
    with pytest.raises(openai.NotFoundError):
        chat(client, model="nowhere")


def test_a_pool_with_a_host_that_is_down_is_healthy_and_one_without_any_is_not(
    site: Site, hosts: list[OllamaServer]
) -> None:
    report = health(site)
    ready = {alias: each["status"] for alias, each in report.items()}
    assert ready.pop("dead") == ready.pop("second") == "unavailable"
    assert set(ready.values()) == {"ok"}
    assert httpx.get(f"{site.url}/ai/health", timeout=60).status_code == 503


def test_a_host_that_dies_under_load_takes_nothing_along_that_has_not_begun(
    client: openai.OpenAI, hosts: list[OllamaServer], site: Site
) -> None:
    for host in hosts:
        host.reply(*[Answer(["a", "b", "c"], pause=0.02)] * 200)
    outcomes: list[tuple[str, Exception | None]] = []

    def one() -> None:
        text = ""
        failure = None
        try:
            for chunk in client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
                text += chunk.choices[0].delta.content or ""
        except Exception as raised:
            failure = raised
        outcomes.append((text, failure))

    with ThreadPoolExecutor(14) as threads:
        for _ in range(100):
            threads.submit(one)
        wait_until(lambda: len(outcomes) > 20)
        hosts[1].die()
    hosts[1].revive()
    assert len(outcomes) == 100
    assert [failure for text, failure in outcomes if not text] == []
    assert sum(failure is not None for _, failure in outcomes) <= 2
    assert {text for text, failure in outcomes if failure is None} == {"abc"}
    wait_until(lambda: "is out of the pool" in site.log())
    assert site.log().count("The backend '2' is out of the pool 'default'") == 1

    def has_work() -> bool:
        before = counts(hosts)[1]
        for _ in range(3):
            chat(client)
        return counts(hosts)[1] > before

    wait_until(has_work)


# Slots


def test_who_waits_gets_the_first_free_slot_of_any_host(
    client: openai.OpenAI, hosts: list[OllamaServer], site: Site
) -> None:
    gates = [threading.Event() for _ in hosts]
    whole = {**PART, "done": True, "done_reason": "stop"}
    for host, gate in zip(hosts, gates, strict=True):
        host.reply(*[Reply([line(whole)], before=[Hold(gate)])] * 2)
    request_id = f"waits-{site.server}"
    with ThreadPoolExecutor(10) as threads:
        running = [threads.submit(chat, client) for _ in range(6)]
        wait_until(lambda: counts(hosts) == [2, 2, 2])
        waiting = threads.submit(chat, client, extra_headers={"x-request-id": request_id})
        wait_until(lambda: health(site)["default"]["queued"] == 1)
        report = health(site)
        assert report["default"]["running"] == 6
        assert [report[alias]["running"] for alias in MEMBERS] == [2, 2, 2]
        gates[1].set()
        assert waiting.result(WITHIN) == "Hello!"
        assert counts(hosts) == [2, 3, 2]
        for gate in gates:
            gate.set()
        assert [each.result(WITHIN) for each in running] == ["He"] * 6
    _, ended = site.signals(request_id, 2)
    assert (ended["event"], ended["backend"]) == ("finished", "default")
    assert 0 < ended["timings"]["queued"] <= ended["timings"]["total"]


def test_who_has_waited_long_enough_is_refused(
    client: openai.OpenAI, hosts: list[OllamaServer], site: Site
) -> None:
    gate = threading.Event()
    whole = {**PART, "done": True, "done_reason": "stop"}
    hosts[0].reply(*[Reply([line(whole)], before=[Hold(gate)])] * 2)
    request_id = f"late-{site.server}"
    with ThreadPoolExecutor(10) as threads:
        running = [threads.submit(chat, client, model="hasty") for _ in range(2)]
        wait_until(lambda: counts(hosts) == [2, 0, 0])
        with pytest.raises(openai.APIStatusError) as raised:
            chat(client, model="hasty", extra_headers={"x-request-id": request_id})
        assert (raised.value.status_code, raised.value.code) == (503, "overloaded")
        gate.set()
        for each in running:
            each.result(WITHIN)
    _, ended = site.signals(request_id, 2)
    assert ended["timings"]["queued"] > 0.29


@pytest.mark.parametrize("begun", [False, True])
def test_a_disconnect_frees_the_engine_and_the_slot(
    client: openai.OpenAI, hosts: list[OllamaServer], site: Site, begun: bool
) -> None:
    for host in hosts:
        host.reply(*[Reply([line(PART), Hold()] if begun else [Hold()])] * 2)
    if begun:
        stream = client.chat.completions.create(model=MODEL, messages=ASK, n=6, stream=True)
        next(iter(stream))
        wait_until(lambda: counts(hosts) == [2, 2, 2])
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1).chat.completions.create(model=MODEL, messages=ASK, n=6)
    for host in hosts:
        for request in host.chats():
            assert request.hung_up.wait(WITHIN)
    assert sum(counts(hosts)) == 6
    wait_until(lambda: is_idle(site))
