"""Metrics for Prometheus: what is counted over real servers, and who may read it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, cast

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings
from django.urls import include, path

from django_ollama_openai._wire.delta import Usage
from django_ollama_openai.auth import BaseAuthenticator, Caller
from django_ollama_openai.contrib._extras import require
from django_ollama_openai.contrib._labels import ErrorCodes, ModelNames
from django_ollama_openai.contrib._tokens import plausible_usage
from django_ollama_openai.exceptions import GatewayError, InvalidRequest, UpstreamTimeout
from tests.conftest import site_fixture, site_options
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, error, line
from tests.servers import SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import HEADERS, MODEL, body, part

pytestmark = pytest.mark.metrics

APP = "django_ollama_openai.contrib.prometheus"
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CHAT = {"endpoint": "chat.completions", "model": MODEL, "backend": "default"}

Sample: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
Samples: TypeAlias = dict[Sample, float]


# It has a gate of its own, and needs no second one.
running_site = site_fixture(SERVERS_AND_LANE, SITE_APPS=APP, SITE_MIDDLEWARE=LOGIN_REQUIRED)


def get(site: Site, path: str = "/ai/metrics", **headers: str) -> httpx.Response:
    return httpx.get(f"{site.url}{path}", headers={**HEADERS, **headers}, timeout=60)


def samples(response: httpx.Response) -> Samples:
    """What stands in a scrape, as Prometheus would read it."""
    from prometheus_client.parser import text_string_to_metric_families

    assert response.status_code == 200, response.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name.startswith("ollama_openai_") and not sample.name.endswith("_created")
    }


def sample(name: str, labels: Mapping[str, str]) -> Sample:
    return f"ollama_openai_{name}", frozenset(labels.items())


def failure(backend: str, code: str) -> Sample:
    return sample("backend_failures_total", {"backend": backend, "code": code})


def counted(site: Site, ask: Callable[[], object], requests: int = 1) -> Samples:
    """By how much ``ask`` raises what, once so many requests have been counted."""
    before = samples(get(site))
    ask()
    deadline = time.monotonic() + 60
    while True:
        after = samples(get(site))
        rise = {key: value - before.get(key, 0) for key, value in after.items()}
        rise = {key: value for key, value in rise.items() if value}
        ended = sum(value for (name, _), value in rise.items() if name.endswith("requests_total"))
        if ended >= requests or time.monotonic() > deadline:
            assert ended == requests, rise
            return rise
        time.sleep(0.01)


def post(site: Site, path: str = "chat/completions", **changes: Any) -> httpx.Response:
    content = changes if path != "chat/completions" else body(**changes)
    return httpx.post(f"{site.base_url}/{path}", headers=HEADERS, json=content, timeout=60)


# What is counted


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion(site: Site, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(Answer(["a", "b", "c"], prompt_tokens=9, pause=0.1))
    rise = counted(site, lambda: post(site, stream=stream))
    assert rise[sample("requests_total", {**CHAT, "outcome": "stop"})] == 1
    assert rise[sample("tokens_total", {**CHAT, "type": "prompt"})] == 9
    assert rise[sample("tokens_total", {**CHAT, "type": "completion"})] == 3
    assert sample("tokens_total", {**CHAT, "type": "cached"}) not in rise
    assert rise[sample("request_duration_seconds_count", CHAT)] == 1
    assert rise[sample("request_duration_seconds_sum", CHAT)] >= 0.1
    assert rise[sample("queue_seconds_bucket", {**CHAT, "le": "0.01"})] == 1
    # Of an answer in one piece the first token is the last.
    assert (sample("time_to_first_token_seconds_count", CHAT) in rise) is stream


def test_the_other_endpoints(site: Site, ollama: OllamaServer) -> None:
    rise = counted(site, lambda: post(site, "embeddings", model="all-minilm:22m", input="Hi"))
    embeddings = {"endpoint": "embeddings", "model": "all-minilm:22m", "backend": "default"}
    assert rise[sample("requests_total", {**embeddings, "outcome": "finished"})] == 1
    assert rise[sample("tokens_total", {**embeddings, "type": "prompt"})] > 0
    assert sample("tokens_total", {**embeddings, "type": "completion"}) not in rise
    for path_, field in (("completions", "prompt"), ("responses", "input")):
        labels = {**CHAT, "endpoint": path_, "model": "gpt-4o-mini", "outcome": "stop"}
        ask = {"model": "gpt-4o-mini", field: "Hi"}
        assert sample("requests_total", labels) in counted(site, lambda: post(site, path_, **ask))  # noqa: B023


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token(site: Site, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(error(503, "busy"))
    # The site's settings have this name; that of a model which has not answered is not known.
    rise = counted(site, lambda: post(site, stream=stream, model="gpt-4o-mini"))
    labels = {**CHAT, "model": "gpt-4o-mini"}
    assert rise[sample("requests_total", {**labels, "outcome": "upstream_unavailable"})] == 1
    assert rise[failure("default", "upstream_unavailable")] == 1
    assert rise[sample("request_duration_seconds_count", labels)] == 1
    assert sample("time_to_first_token_seconds_count", labels) not in rise
    assert not any(name == "ollama_openai_tokens_total" for name, _ in rise)


def test_a_failure_within_a_stream(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("half"), Close()]))
    rise = counted(site, lambda: post(site, stream=True))
    assert rise[sample("requests_total", {**CHAT, "outcome": "bad_upstream"})] == 1
    assert rise[failure("default", "bad_upstream")] == 1
    assert rise[sample("tokens_total", {**CHAT, "type": "completion"})] == 1


def pooled_options(ollama: OllamaServer) -> dict[str, Any]:
    """With fallbacks, an engine with OpenAI's API, and a pool of one that is there and one that is
    not."""
    openai = {"BACKEND": "django_ollama_openai.backends.OpenAIBackend"}
    options = site_options(ollama)
    backends = {
        **options["BACKENDS"],
        "openai": {**openai, "BASE_URL": f"{ollama.url}/v1"},
        "pool": {
            "BACKEND": "django_ollama_openai.backends.PoolBackend",
            "OPTIONS": {"members": ["default", "second"], "probe_interval": 0.2},
        },
    }
    models = {
        "safe": {"MODEL": MODEL, "BACKEND": "second", "FALLBACKS": [MODEL]},
        "hopeless": {"MODEL": MODEL, "BACKEND": "second", "FALLBACKS": ["dead"]},
        "pooled": {"MODEL": MODEL, "BACKEND": "pool"},
        "cluster": {"MODEL": "m", "BACKEND": "openai"},
    }
    return {**options, "BACKENDS": backends, "MODELS": {**options["MODELS"], **models}}


pooled = site_fixture(SERVERS_AND_LANE, pooled_options, SITE_APPS=APP)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_that_a_fallback_makes_up_for(
    pooled: Site, ollama: OllamaServer, stream: bool
) -> None:
    rise = counted(pooled, lambda: post(pooled, stream=stream, model="safe"))
    # What was asked, and who has answered.
    labels = {**CHAT, "model": "safe", "outcome": "stop"}
    assert rise[sample("requests_total", labels)] == 1
    assert rise[failure("second", "upstream_unavailable")] == 1
    assert failure("default", "upstream_unavailable") not in rise
    rise = counted(pooled, lambda: post(pooled, stream=stream, model="hopeless"))
    assert rise[failure("second", "upstream_unavailable")] == 2


def test_which_members_of_a_pool_are_up(pooled: Site, ollama: OllamaServer) -> None:
    def up() -> dict[str, float]:
        return {
            dict(labels)["member"]: value
            for (name, labels), value in samples(get(pooled)).items()
            if name == "ollama_openai_member_up" and ("backend", "pool") in labels
        }

    assert set(up()) == {"default", "second"}
    rise = counted(pooled, lambda: post(pooled, model="pooled"))
    # A pool has made up for it itself.
    assert (
        rise[
            sample(
                "requests_total", {**CHAT, "model": "pooled", "backend": "pool", "outcome": "stop"}
            )
        ]
        == 1
    )
    deadline = time.monotonic() + 60
    while up() != {"default": 1, "second": 0}:
        assert time.monotonic() < deadline, up()
        time.sleep(0.05)


def test_what_an_engine_sends_for_codes_and_tokens(pooled: Site, ollama: OllamaServer) -> None:
    def refusal(code: str) -> Reply:
        told = {"error": {"message": "No.", "type": "invalid_request_error", "code": code}}
        return Reply([line(told)], status=400)

    def ask() -> None:
        for code in ("rate_weird", "x" * 3000, "two words"):
            ollama.routes["/v1/chat/completions"] = refusal(code)
            assert post(pooled, model="cluster").status_code == 400

    labels = {**CHAT, "model": "cluster", "backend": "openai"}
    rise = counted(pooled, ask, requests=3)
    assert rise[sample("requests_total", {**labels, "outcome": "rate_weird"})] == 1
    assert rise[sample("requests_total", {**labels, "outcome": "invalid_request_error"})] == 2
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": -3, "completion_tokens": 10**400}
    ollama.routes["/v1/chat/completions"] = Reply([line({"choices": [choice], "usage": usage})])
    rise = counted(pooled, lambda: post(pooled, model="cluster"))
    assert rise[sample("queue_seconds_count", labels)] == 1
    assert not any(name == "ollama_openai_tokens_total" for name, _ in rise)
    assert "Traceback" not in pooled.log()


def test_a_client_that_hangs_up(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one "), part("two "), Hold()]))

    def hang_up() -> None:
        connection = site.send(body(stream=True), "hangs-up")
        got = b""
        while b"two " not in got:
            got += connection.recv(65536)
        connection.close()

    rise = counted(site, hang_up)
    assert rise[sample("requests_total", {**CHAT, "outcome": "cancelled"})] == 1
    assert not any(name == "ollama_openai_backend_failures_total" for name, _ in rise)
    assert rise[sample("tokens_total", {**CHAT, "type": "completion"})] == 2


def test_models_that_do_not_exist_have_no_names(site: Site) -> None:
    def ask() -> None:
        for number in range(5):
            assert post(site, model=f"made-up-{number}").status_code == 404
        post(site, model="gone")

    rise = counted(site, ask, requests=6)
    missing = {**CHAT, "outcome": "model_not_found"}
    assert rise[sample("requests_total", {**missing, "model": "unknown"})] == 5
    # The settings promise this one.
    assert rise[sample("requests_total", {**missing, "model": "gone"})] == 1
    assert "made-up" not in get(site).text


def test_how_many_run_and_wait(
    site: Site, ollama_server: OllamaServer, tmp_path: Path, ollama: OllamaServer
) -> None:
    options = {**site_options(ollama_server), "MAX_CONCURRENCY": 1, "QUEUE_TIMEOUT": 9}
    gate = threading.Event()
    ollama.reply(Reply([part("one "), Hold(gate), Close()]))
    default = {"backend": "default"}
    with (
        serve(site.server, tmp_path, options, SITE_APPS=APP) as narrow,
        ThreadPoolExecutor() as pool,
    ):
        asked = [pool.submit(post, narrow, stream=True) for _ in range(3)]
        deadline = time.monotonic() + 60
        while samples(get(narrow))[sample("queued", default)] < 2:
            assert time.monotonic() < deadline
        assert samples(get(narrow))[sample("running", default)] == 1
        assert samples(get(narrow))[sample("running", {"backend": "second"})] == 0
        gate.set()
        for each in asked:
            each.result(10)
        now = samples(get(narrow))
    assert (now[sample("queued", default)], now[sample("running", default)]) == (0, 0)
    assert now[sample("queue_seconds_count", CHAT)] == 3
    assert now[sample("queue_seconds_bucket", {**CHAT, "le": "0.01"})] == 1


def test_names_of_models_are_few() -> None:
    names = ModelNames(limit=2)
    with override_settings(OLLAMA_OPENAI={"MODELS": {"named": {}}, "DEFAULT_MODEL": "usual"}):
        assert names.label("new", has_answered=False) == "unknown"
        assert names.label("new", has_answered=True) == "new"
        assert names.label("new", has_answered=False) == "new"
        assert names.label("x" * 201, has_answered=True) == "other"
        assert names.label("newer", has_answered=True) == "newer"
        assert names.label("newest", has_answered=True) == "other"
        assert names.label("named", has_answered=False) == "named"
        assert names.label("usual", has_answered=False) == "usual"


def test_codes_of_errors_are_few() -> None:
    codes = ErrorCodes(limit=2)

    def label(code: str | None) -> str:
        return codes.label(InvalidRequest("No.", code=code))

    assert [label(code) for code in ("a", "b-2.c", "d", "a")] == [
        "a",
        "b-2.c",
        "invalid_request_error",
        "a",
    ]
    assert label(None) == "invalid_request_error"
    # However many others there are, the app's own are told.
    assert codes.label(UpstreamTimeout("Late.")) == "upstream_timeout"
    assert codes.label(GatewayError("Crashed.")) == "server_error"
    roomy = ErrorCodes()
    for code in ("", "x" * 65, "two words", "line\n", "naïve", '"}'):
        assert roomy.label(InvalidRequest("No.", code=code)) == "invalid_request_error"
    assert roomy.label(InvalidRequest("No.", code="x" * 64)) == "x" * 64


def test_numbers_of_tokens_are_plausible() -> None:
    usage = Usage(prompt_tokens=-3, completion_tokens=10**400, cached_tokens=7, reasoning_tokens=0)
    assert plausible_usage(usage) == Usage(cached_tokens=7)
    assert plausible_usage(Usage(10**9, 1, 2, 3, estimated=True)) == Usage(
        10**9, 1, 2, 3, estimated=True
    )


# Who may read it, and how


def test_nobody_reads_it_without_credentials(site: Site) -> None:
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}):
        response = httpx.get(f"{site.url}/ai/metrics", headers=headers, timeout=60)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "ollama_openai_" not in response.text


def test_it_is_an_endpoint_as_others_are(site: Site) -> None:
    refused = httpx.post(f"{site.url}/ai/metrics", headers=HEADERS, timeout=60)
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"
    assert refused.json()["error"]["code"] == "method_not_allowed"
    response = get(site, "/snake/metrics", **{"x-request-id": "scrape-1"})
    assert samples(response)
    assert response.headers["x-request-id"] == "scrape-1"
    assert response.headers["cache-control"] == "private, no-store"
    assert "python_info" in response.text


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain; version=what", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_formats(site: Site, accept: str, content_type: str) -> None:
    response = get(site, Accept=accept)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert response.text.endswith("# EOF\n") is (accept == OPENMETRICS)


class Known(BaseAuthenticator):
    """Lets in whoever the test says."""

    caller = Caller()

    def authenticate(self, request: Any) -> Caller:
        return self.caller


class Somebody:
    """A user, as far as it matters."""

    def __init__(self, is_staff: bool) -> None:
        self.is_staff = is_staff


@pytest.mark.parametrize(
    ("caller", "status"),
    [
        (Caller(user=cast("Any", Somebody(is_staff=False))), 403),
        (Caller(user=cast("Any", Somebody(is_staff=True))), 200),
        (Caller(user=cast("Any", object())), 403),
        (Caller(), 403),
        (Caller(key_id="a"), 200),
        (Caller(key_id="a", user=cast("Any", Somebody(is_staff=False))), 200),
        (Caller(key_name="prometheus", scopes=frozenset({"metrics"})), 200),
    ],
    ids=["user", "staff", "no-user-of-Djangos", "anybody", "key", "key-of-a-user", "scope"],
)
def test_only_keys_and_staff_read_it(
    caller: Caller, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Known, "caller", caller)
    options = {"AUTHENTICATION": [f"{__name__}.Known"]}
    with override_settings(OLLAMA_OPENAI=options, ROOT_URLCONF=Mounted()):
        response = Client().get("/metrics")
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"]["code"] == "permission_denied"


@pytest.mark.django_db
@pytest.mark.parametrize("is_staff", [False, True])
def test_a_session_reads_it_if_its_user_is_staff(is_staff: bool) -> None:
    user = get_user_model().objects.create_user("somebody", is_staff=is_staff)
    client = Client()
    client.force_login(user)
    with override_settings(OLLAMA_OPENAI={}, ROOT_URLCONF=Mounted()):
        response = client.get("/metrics")
    assert response.status_code == (200 if is_staff else 403)


def test_head_has_no_body(site: Site) -> None:
    response = httpx.head(f"{site.url}/ai/metrics", headers=HEADERS, timeout=60)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 100
    # gunicorn warns of a site that sends one.
    assert "body bytes" not in site.log()


class Scoped(BaseAuthenticator):
    """A key that may only do what it is called."""

    def authenticate(self, request: Any) -> Caller:
        return Caller(key_id="a", scopes=frozenset({request.headers["x-scope"]}))


class Mounted:
    """A site's urls. Those of the app are read when its optional apps are in place."""

    def __init__(self) -> None:
        from django_ollama_openai.contrib.prometheus.urls import urlpatterns

        self.urlpatterns = [path("", include(urlpatterns))]


@pytest.mark.parametrize(("scope", "status"), [("metrics", 200), ("chat", 403)])
def test_scopes(scope: str, status: int) -> None:
    options = {"AUTHENTICATION": [f"{__name__}.Scoped"]}
    with override_settings(OLLAMA_OPENAI=options, ROOT_URLCONF=Mounted()):
        response = Client(headers={"x-scope": scope}).get("/metrics")
    assert response.status_code == status


# Where the app is not installed, or something is amiss


def test_without_the_app_there_is_nothing(tmp_path: Path, ollama_server: OllamaServer) -> None:
    with serve("uvicorn", tmp_path, site_options(ollama_server)) as site:
        response = get(site)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_metrics_that_cannot_be_kept_disturb_no_answer(
    site: Site, tmp_path: Path, ollama: OllamaServer
) -> None:
    missing = str(tmp_path / "missing")
    environment: Any = {"SITE_APPS": APP, "PROMETHEUS_MULTIPROC_DIR": missing}
    with serve(site.server, tmp_path, site_options(ollama), **environment) as broken:
        for stream in (False, True):
            ollama.reply(Answer(["fine"]))
            response = post(broken, stream=stream)
            assert response.status_code == 200
            assert "fine" in response.text
        assert get(broken).status_code == 500
        assert missing not in get(broken).text
        assert "[django.dispatch] ERROR" in broken.log()


def test_a_backend_that_cannot_be_made_hides_no_other() -> None:
    from django_ollama_openai.contrib.prometheus.metrics import BackendsCollector

    dummy = "django_ollama_openai.backends.DummyBackend"
    made = {"BACKENDS": {"broken": {"BACKEND": "nowhere.Backend"}, "sound": {"BACKEND": dummy}}}
    with override_settings(OLLAMA_OPENAI=made):
        running, queued, _ = BackendsCollector().collect()
    for metric in (running, queued):
        labels = [sample.labels["backend"] for sample in metric.samples]
        assert "sound" in labels
        assert "broken" not in labels


@pytest.mark.parametrize("shared", [False, True])
def test_gauges_say_whose_they_are(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    from django_ollama_openai.contrib.prometheus.metrics import BackendsCollector

    if shared:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "anywhere")
    own = {"pid": str(os.getpid())} if shared else {}
    dummy = {"BACKEND": "django_ollama_openai.backends.DummyBackend"}
    pool = {
        "BACKEND": "django_ollama_openai.backends.PoolBackend",
        "OPTIONS": {"members": ["a", "b"]},
    }
    with override_settings(OLLAMA_OPENAI={"BACKENDS": {"a": dummy, "b": dummy, "default": pool}}):
        running, _, up = BackendsCollector().collect()
    assert {"backend": "a", **own} in [sample.labels for sample in running.samples]
    assert [(sample.labels, sample.value) for sample in up.samples] == [
        ({"backend": "default", "member": member, **own}, 1) for member in "ab"
    ]


def test_a_missing_library_is_named() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"pip install 'django-ollama-openai\[metrics\]'"
    ):
        require("no_such_library", app=APP, extra="metrics")


# Several processes


@pytest.mark.parametrize("server", SERVERS_AND_LANE)
def test_processes_count_together(server: Any, tmp_path: Path, ollama: OllamaServer) -> None:
    files = tmp_path / "metrics"
    files.mkdir()
    environment: Any = {
        "SITE_APPS": APP,
        "PROMETHEUS_MULTIPROC_DIR": str(files),
        "WEB_CONCURRENCY": "2",
    }
    with serve(server, tmp_path, site_options(ollama), **environment) as site:
        post(site)
        pids: set[str] = set()
        requests = 1
        deadline = time.monotonic() + 60
        while len(pids) < 2 or len(list(files.glob("counter_*.db"))) < 2:
            assert time.monotonic() < deadline, (pids, os.listdir(files))
            post(site)
            requests += 1
            now = samples(get(site))
            pids |= {dict(labels)["pid"] for name, labels in now if name == "ollama_openai_running"}
        now = samples(get(site))
    assert now[sample("requests_total", {**CHAT, "outcome": "stop"})] == requests
    assert now[sample("request_duration_seconds_count", CHAT)] == requests
