"""``v1/models``, ``v1/models/{id}`` and ``health``, in front of Ollama and of other backends.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import include, path

from django_ollama_openai import _conf
from django_ollama_openai._gateway import health
from django_ollama_openai._translation.model_cards import METADATA, ModelCard
from django_ollama_openai._wire.case import to_camel
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.exceptions import UpstreamTimeout, UpstreamUnavailable
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import OllamaServer, Reply, Send, error

if TYPE_CHECKING:
    from pytest_django import Settings

Get: TypeAlias = Callable[..., Any]
Configure: TypeAlias = Callable[..., None]

KEY = "sk-test-key"
HERE = __name__
DUMMY = "django_ollama_openai.backends.DummyBackend"
DEAD = {"HOST": "http://127.0.0.1:9"}  # the discard port: nothing listens there


class Down(DummyBackend):
    """Cannot be reached."""

    def list_models(self) -> list[ModelCard]:
        raise UpstreamUnavailable(f"The engine {self.alias} is down.", retry_after=9)


class Slow(DummyBackend):
    """Answers no ping before there were as many as ``wanted``."""

    wanted: ClassVar[int] = 1
    pings: ClassVar[list[str]] = []

    def ping(self) -> None:
        self.pings.append(self.alias)
        for _ in iter(self.is_ready, True):
            time.sleep(0.01)

    async def aping(self) -> None:
        self.pings.append(self.alias)
        for _ in iter(self.is_ready, True):
            await asyncio.sleep(0.01)

    def is_ready(self) -> bool:
        return len(self.pings) >= self.wanted


class TimesOut(DummyBackend):
    def ping(self) -> None:
        raise UpstreamTimeout("Too late.")

    async def aping(self) -> None:
        raise TimeoutError


class Crashes(DummyBackend):
    def ping(self) -> None:
        raise RuntimeError("secret detail")

    async def aping(self) -> None:
        self.ping()


@pytest.fixture(params=CLIENTS, ids=IDS)
def get(request: pytest.FixtureRequest) -> Get:
    """A request by either client, with the key of the site unless told otherwise."""
    send = sender(request.param)

    def get(rest: str, key: str | None = KEY) -> Any:
        return send("GET", f"/ai/{rest}", headers={"Authorization": f"Bearer {key}"} if key else {})

    return get


@pytest.fixture
def configure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Sets ``OLLAMA_OPENAI``, and forgets what was reported of other backends."""

    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {"API_KEYS": [KEY], **options}
        monkeypatch.setattr(health, "_last", None)

    Slow.pings.clear()
    Slow.wanted = 1
    yield configure
    Slow.wanted = 0


def dummy(*models: str, backend: str = DUMMY) -> dict[str, Any]:
    return {"BACKEND": backend, "OPTIONS": {"models": models}}


def ids(response: Any) -> list[str]:
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "list"
    return [entry["id"] for entry in body["data"]]


# Names


@pytest.mark.compat("models.response.object")
def test_aliases_come_first_then_what_the_backend_has(get: Get, configure: Configure) -> None:
    configure(
        BACKENDS={"default": dummy("llama", "qwen"), "big": dummy("giant", "other")},
        MODELS={
            "gpt-4o-mini": {"MODEL": "llama"},
            "o1": {"MODEL": "giant", "BACKEND": "big"},
            "qwen": {"OPTIONS": {"num_ctx": 1}},
            "gone": {"MODEL": "removed"},
            "far": {"MODEL": "removed", "BACKEND": "big"},
        },
    )
    body = get("v1/models").json()
    listed = [(entry["id"], entry["metadata"]["backend"]) for entry in body["data"]]
    assert listed == [
        ("gpt-4o-mini", "default"),
        ("o1", "big"),
        ("qwen", "default"),
        ("llama", "default"),
    ]
    for entry in body["data"]:
        assert get(f"v1/models/{entry['id']}").json() == entry


@pytest.mark.compat("errors.status.404")
@pytest.mark.parametrize("name", ["gone", "removed", "giant", "far", "", "LLAMA", "lla"])
def test_a_model_that_is_not_there(get: Get, configure: Configure, name: str) -> None:
    configure(
        BACKENDS={"default": dummy("llama"), "big": dummy("giant")},
        MODELS={"gone": {"MODEL": "removed"}, "far": {"MODEL": "removed", "BACKEND": "big"}},
    )
    response = get(f"v1/models/{name}")
    assert response.status_code == 404
    if name:
        assert response.json()["error"] == {
            "message": f"The model {name!r} does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


@pytest.mark.compat("models.response.data")
def test_a_server_without_models_is_an_empty_list(
    get: Get, configure: Configure, ollama: OllamaServer
) -> None:
    body = Reply([Send(b'{"models":null}')], headers={"Content-Type": "application/json"})
    ollama.routes["/api/tags"] = body
    configure(HOST=ollama.url)
    assert get("v1/models").json() == {"object": "list", "data": []}


@pytest.mark.compat("http.header.Cache-Control")
def test_answers_are_not_to_be_stored(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy("m")})
    for rest in ("v1/models", "v1/models/m", "v1/models/gone", "health", "nothing"):
        assert get(rest).headers["Cache-Control"] == "private, no-store"


def test_only_allowed_names_exist(get: Get, configure: Configure) -> None:
    configure(
        BACKENDS={"default": dummy("llama3", "llama3:70b", "qwen", "hf.co/u/m:Q4")},
        MODELS={"gpt-4o": {"MODEL": "qwen"}, "gpt-3": {"MODEL": "qwen"}},
        ALLOWED_MODELS=["llama3", "gpt-4*", "hf.co/*:Q[45]"],
    )
    assert ids(get("v1/models")) == ["gpt-4o", "llama3", "hf.co/u/m:Q4"]
    for name in ("gpt-3", "qwen", "llama3:70b"):
        response = get(f"v1/models/{name}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.compat("models.response.data[].id", "models.path.GET v1/models/{id}")
@pytest.mark.parametrize(
    "name", ["team/tools:small", "hf.co/user/model-GGUF:Q4_K_M", "a/b/c/d", "small %41?#&+ x"]
)
def test_an_id_may_hold_slashes_and_colons(get: Get, configure: Configure, name: str) -> None:
    configure(BACKENDS={"default": dummy("x", name)})
    assert name in ids(get("v1/models"))
    quoted = name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    for spelling in (quoted, quoted.replace("/", "%2F").replace(":", "%3A")):
        assert get(f"v1/models/{spelling}").json()["id"] == name


def test_ollamas_own_names_follow_its_rule_of_the_latest(
    get: Get, configure: Configure, ollama: OllamaServer
) -> None:
    names = ("llama3.2:latest", "llama3.2:1b", "team/x:latest")
    tags = [
        {"name": name, "model": name, "details": {"context_length": 1}, "capabilities": []}
        for name in names
    ]
    body = json.dumps({"models": tags}).encode()
    ollama.routes["/api/tags"] = Reply([Send(body)], headers={"Content-Type": "application/json"})
    configure(HOST=ollama.url, MODELS={"gpt": {"MODEL": "llama3.2"}})
    assert ids(get("v1/models")) == ["gpt", *names]
    whole = get("v1/models/llama3.2:latest").json()
    assert whole["id"] == "llama3.2:latest"
    for name in ("llama3.2", "gpt"):
        assert get(f"v1/models/{name}").json() == {**whole, "id": name}
    assert get("v1/models/team/x").json()["owned_by"] == "team"
    for name in ("llama3.2:2b", "llama3", "x", "latest", "llama3.2:latest:latest"):
        assert get(f"v1/models/{name}").status_code == 404


# Entries


@pytest.mark.compat(
    "models.response.data[].object",
    "models.response.data[].shutdown_date",
    "models.response.data[].metadata",
    "models.response.data[].context_length",
)
def test_an_entry_has_openais_fields_and_all_metadata(
    get: Get, configure: Configure, ollama: OllamaServer
) -> None:
    configure(HOST=ollama.url)
    entry = get("v1/models/smollm2:135m").json()
    context_lengths = ["context_length", "max_model_len"]
    assert list(entry) == ["id", "object", "created", "owned_by", *context_lengths, "metadata"]
    assert (entry["object"], entry["owned_by"]) == ("model", "library")
    assert entry["created"] > 1_700_000_000
    assert list(entry["metadata"]) == [*METADATA, "backend"]
    assert entry["metadata"]["backend"] == "default"
    assert entry["metadata"]["family"] == "llama"
    assert "completion" in entry["metadata"]["capabilities"]
    length = entry["metadata"]["context_length"]
    assert length > 0
    assert [entry[name] for name in context_lengths] == [length, length]


def test_what_a_backend_does_not_tell_is_null(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy("m")})
    assert get("v1/models").json()["data"] == [
        {
            "id": "m",
            "object": "model",
            "created": 0,
            "owned_by": "dummy",
            "metadata": {**dict.fromkeys(METADATA), "backend": "default"},
        }
    ]


@pytest.mark.parametrize("case", ["both", "snake", "camel"])
def test_the_spelling_is_that_of_the_mount(
    get: Get, configure: Configure, settings: Settings, case: str
) -> None:
    configure(BACKENDS={"default": dummy("m_x")}, RESPONSE_CASE="snake")
    settings.ROOT_URLCONF = (path("ai/", include("django_ollama_openai.urls"), {"case": case}),)
    respell = to_camel if case == "camel" else str
    entry = get("v1/models/m_x").json()
    assert entry["id"] == "m_x"
    assert respell("owned_by") in entry
    assert list(entry["metadata"]) == [respell(name) for name in (*METADATA, "backend")]
    assert get("v1/models").json()["data"] == [entry]


def test_a_mount_lists_its_own_backend(get: Get, configure: Configure, settings: Settings) -> None:
    configure(
        BACKENDS={"default": dummy("small"), "big": dummy("giant")},
        MODELS={"here": {"MODEL": "giant"}, "there": {"MODEL": "small", "BACKEND": "default"}},
    )
    assert ids(get("v1/models")) == ["there", "small"]
    settings.ROOT_URLCONF = (path("ai/", include("django_ollama_openai.urls"), {"backend": "big"}),)
    assert ids(get("v1/models")) == ["here", "there", "giant"]


# Failures


def test_a_backend_that_fails_hides_its_own_models_only(
    get: Get, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(
        BACKENDS={"default": dummy("m"), "down": dummy(backend=f"{HERE}.Down"), "dead": DEAD},
        MODELS={
            "a": {"MODEL": "m"},
            "b": {"MODEL": "m", "BACKEND": "down"},
            "c": {"MODEL": "m", "BACKEND": "dead"},
        },
    )
    assert ids(get("v1/models")) == ["a", "m"]
    assert "'down'" in caplog.text
    assert "'dead'" in caplog.text
    assert get("v1/models/b").status_code == 503
    assert get("v1/models/a").status_code == 200


def test_an_error_if_all_fail(get: Get, configure: Configure) -> None:
    configure(
        BACKENDS={"default": dummy(backend=f"{HERE}.Down"), "dead": DEAD},
        MODELS={"c": {"MODEL": "m", "BACKEND": "dead"}},
    )
    for rest in ("v1/models", "v1/models/m"):
        response = get(rest)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "9"
        assert response.json()["error"]["message"] == "The engine default is down."


def test_what_ollama_answers_wrongly_is_a_bad_gateway(
    get: Get, configure: Configure, ollama: OllamaServer
) -> None:
    configure(HOST=ollama.url)
    ollama.routes["/api/tags"] = error(500, "secret detail")
    response = get("v1/models")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "bad_upstream")
    assert "secret" not in response.text
    assert ollama.url.partition("://")[2] not in response.text


def test_the_models_are_not_for_strangers(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy("m")})
    for rest in ("v1/models", "v1/models/m", "v1/models/gone"):
        assert get(rest, key=None).status_code == 401
        assert get(rest, key="wrong").status_code == 401


# Health


def test_health_when_all_is_well(get: Get, configure: Configure, ollama: OllamaServer) -> None:
    configure(HOST=ollama.url, BACKENDS={"canned": dummy("m")})
    response = get("health")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "ok"
    assert {alias: entry["status"] for alias, entry in body["backends"].items()} == {
        "default": "ok",
        "canned": "ok",
    }
    assert all(0 <= entry["latency_ms"] < 5000 for entry in body["backends"].values())
    assert [request.path for request in ollama.requests] == ["/api/version"]


@pytest.mark.parametrize("backend", ["Down", "TimesOut", "Crashes"])
def test_health_when_one_backend_fails(get: Get, configure: Configure, backend: str) -> None:
    configure(BACKENDS={"default": dummy(), "other": dummy(backend=f"{HERE}.{backend}")})
    response = get("health")
    assert response.status_code == 503
    body = response.json()
    assert body["status"] == "unavailable"
    assert body["backends"]["default"]["status"] == "ok"
    assert body["backends"]["other"]["status"] == "unavailable"
    assert "secret" not in response.text
    assert get("health?probe=live").status_code == 200


def test_strangers_see_the_status_only(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy()})
    for key in (None, "wrong"):
        response = get("health", key=key)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
    configure(BACKENDS={"default": DEAD})
    response = get("health", key=None)
    assert (response.status_code, response.json()) == (503, {"status": "unavailable"})


def test_anonymous_callers_of_health_get_no_details_where_they_are_allowed(
    get: Get, configure: Configure
) -> None:
    configure(BACKENDS={"default": dummy()}, ALLOW_ANONYMOUS=True)
    assert get("health", key=None).json() == {"status": "ok"}
    assert "backends" in get("health").json()


@pytest.mark.django_db
def test_a_session_user_sees_the_latency(configure: Configure) -> None:
    configure(BACKENDS={"default": dummy()})
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    assert "latency_ms" in client.get("/ai/health").json()["backends"]["default"]


def test_what_runs_and_waits_is_that_of_now(
    get: Get, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REPORT_SECONDS", 60)
    configure(BACKENDS={"default": dummy(backend=f"{HERE}.Slow"), "b": dummy()})
    Slow.wanted = 1
    for running in (0, 1, 2):
        with ExitStack() as taken:
            for _ in range(running):
                taken.enter_context(backends["b"].slots.acquire(QueueTicket()))
            entries = get("health").json()["backends"]
        counts = {alias: (entry["running"], entry["queued"]) for alias, entry in entries.items()}
        assert counts == {"default": (0, 0), "b": (running, 0)}
    assert Slow.pings == ["default"]


def test_the_live_probe_asks_nobody(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy(backend=f"{HERE}.Slow")}, AUTHENTICATION=["no.Way"])
    response = get("health?probe=live", key=None)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert Slow.pings == []


def test_a_slow_backend_does_not_hold_health_up(
    get: Get, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READY_WITHIN_SECONDS", 0.2)
    configure(BACKENDS={"default": dummy(), "slow": dummy(backend=f"{HERE}.Slow")})
    Slow.wanted = 99
    # It would wait for 99 pings.
    body = get("health").json()
    assert body["backends"]["default"]["status"] == "ok"
    assert body["backends"]["slow"]["status"] == "unavailable"
    assert body["backends"]["slow"]["latency_ms"] >= 200


def test_backends_are_asked_at_the_same_time(get: Get, configure: Configure) -> None:
    slow = dummy(backend=f"{HERE}.Slow")
    configure(BACKENDS={"default": slow, "b": slow, "c": slow})
    Slow.wanted = 3
    assert get("health").status_code == 200
    assert sorted(Slow.pings) == ["b", "c", "default"]


def test_backends_are_asked_once_a_second_however_often_health_is(
    get: Get, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(BACKENDS={"default": dummy(backend=f"{HERE}.Slow")})
    monkeypatch.setattr(health, "REPORT_SECONDS", 0)
    for _ in range(2):
        assert get("health").status_code == 200
    assert len(Slow.pings) == 2
    monkeypatch.setattr(health, "REPORT_SECONDS", 600)
    for _ in range(5):
        assert get("health").status_code == 200
    assert len(Slow.pings) == 3


def test_the_report_is_kept_for_a_second() -> None:
    assert health.REPORT_SECONDS == 1
    assert health.READY_WITHIN_SECONDS == 5


def test_a_changed_setting_is_a_new_report(get: Get, configure: Configure) -> None:
    configure(BACKENDS={"default": dummy()})
    assert get("health").status_code == 200
    down = {"API_KEYS": [KEY], "BACKENDS": {"default": dummy(backend=f"{HERE}.Down")}}
    with override_settings(OLLAMA_OPENAI=down):
        assert get("health").status_code == 503
    assert get("health").status_code == 200


def test_health_in_camel_case_leaves_the_names_of_the_backends_alone(
    get: Get, configure: Configure
) -> None:
    configure(BACKENDS={"default": dummy(), "gpu_1": dummy()}, RESPONSE_CASE="camel")
    body = get("health").json()
    assert list(body["backends"]["default"]) == ["status", "latencyMs", "running", "queued"]
    assert list(body["backends"]) == ["default", "gpu_1"]


def test_however_many_ask_the_backends_are_asked_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REPORT_SECONDS", 600)
    configure(BACKENDS={"default": dummy(backend=f"{HERE}.Slow")})
    Slow.wanted = 2
    reports: list[Any] = []
    # Threads that read them for the first time all at once might get several that are equal.
    settings = _conf.get()
    threads = [
        threading.Thread(target=lambda: reports.append(health._check(settings))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert Slow.pings == ["default"]
    Slow.wanted = 1
    for thread in threads:
        thread.join(60)
    assert len(reports) == 8
    assert Slow.pings == ["default"]


def test_the_same_in_an_event_loop(configure: Configure) -> None:
    configure(BACKENDS={"default": dummy(backend=f"{HERE}.Slow")})
    Slow.wanted = 2

    async def ask() -> None:
        asking = [asyncio.create_task(health._acheck(_conf.get())) for _ in range(8)]
        await asyncio.sleep(0.1)
        asking[0].cancel()
        Slow.wanted = 1
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert all(isinstance(other, dict) for other in others)

    asyncio.run(ask())
    assert Slow.pings == ["default"]
    assert not health._probes
