"""Traces and metrics for OpenTelemetry: what a site exports that runs in real servers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import override_settings

from django_ollama_openai._gateway.outcome import Timings
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Usage
from django_ollama_openai.backends import DummyBackend, LlamaCppBackend, OllamaBackend
from django_ollama_openai.backends._base import BaseBackend
from django_ollama_openai.exceptions import GatewayError, InvalidRequest, Overloaded
from tests.conftest import site_options
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, error
from tests.servers import SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import HEADERS, MODEL, body, part

pytestmark = pytest.mark.otel

APPS = "django_ollama_openai.contrib.opentelemetry tests.project.telemetry.TelemetryConfig"
SECRET = "a secret of the client's"


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def running_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp(request.param)
    spans = str(directory / "spans.jsonl")
    with serve(
        request.param, directory, site_options(ollama_server), SITE_APPS=APPS, SITE_SPANS=spans
    ) as site:
        yield site


def spans(site: Site, request_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The span of the completion, and that of the request around it, as soon as both have ended."""
    file = site.output.parent / "spans.jsonl"
    deadline = time.monotonic() + 60
    while True:
        all_of_them = [json.loads(text) for text in file.read_text().split("\n")[:-1]]
        for mine in all_of_them:
            if mine["attributes"].get("ollama_openai.request_id") == request_id:
                trace = mine["context"]["trace_id"]
                for span in all_of_them:
                    # ASGI's instrumentation makes further ones, of what is sent.
                    is_server = span["kind"] == "SpanKind.SERVER"
                    if span["context"]["trace_id"] == trace and is_server:
                        return mine, span
        assert time.monotonic() < deadline, (request_id, all_of_them[-3:], site.log())
        time.sleep(0.01)


def ask(
    site: Site, path: str = "chat/completions", **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    content = changes if path != "chat/completions" else body(**changes)
    response = httpx.post(f"{site.base_url}/{path}", headers=HEADERS, json=content, timeout=60)
    mine, around = spans(site, response.headers["x-request-id"])
    assert SECRET not in json.dumps([mine, around])
    return mine, around


def seconds(span: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(span[f"{end}_time"]) for end in ("start", "end"))
    return (ended - began).total_seconds()


# Spans


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion(site: Site, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(Answer(["a", SECRET, "c"], prompt_tokens=9, pause=0.1))
    secret = [{"role": "user", "content": SECRET}]
    mine, around = ask(
        site, messages=secret, stream=stream, temperature=0.5, seed=7, max_tokens=20, stop=[SECRET]
    )
    attributes = mine["attributes"]
    assert mine["name"] == f"chat {MODEL}"
    assert mine["kind"] == "SpanKind.CLIENT"
    assert mine["status"]["status_code"] == "UNSET"
    assert mine["events"] == []
    assert attributes.pop("ollama_openai.request_id")
    assert attributes.pop("ollama_openai.queue_seconds") == 0
    if stream:
        assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < seconds(mine)
        assert attributes.pop("gen_ai.request.stream") is True
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.model": MODEL,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3,
        "ollama_openai.backend": "default",
        "ollama_openai.endpoint": "chat.completions",
    }
    assert 0.1 < seconds(mine) < 5
    # The span that OpenTelemetry's own instrumentation makes.
    assert around["name"].startswith("POST ")
    assert around["kind"] == "SpanKind.SERVER"
    assert mine["parent_id"] == around["context"]["span_id"]
    assert around["start_time"] <= mine["start_time"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_parent_is_found_behind_a_middleware_without_async(
    site: Site, ollama: OllamaServer, tmp_path: Path, stream: bool
) -> None:
    environment: Any = {
        "SITE_APPS": APPS,
        "SITE_SPANS": str(tmp_path / "spans.jsonl"),
        "SITE_MIDDLEWARE": "tests.project.middleware.sync_only",
    }
    with serve(site.server, tmp_path, site_options(ollama), **environment) as other:
        mine, around = ask(other, stream=stream)
    assert mine["parent_id"] == around["context"]["span_id"]


@pytest.mark.parametrize(
    ("path", "field", "name"),
    [
        ("completions", "prompt", "text_completion gpt-4o-mini"),
        ("responses", "input", "chat gpt-4o-mini"),
    ],
)
def test_the_other_endpoints(
    site: Site, ollama: OllamaServer, path: str, field: str, name: str
) -> None:
    mine, _ = ask(site, path, model="gpt-4o-mini", **{field: SECRET})
    assert mine["name"] == name
    assert mine["attributes"]["ollama_openai.endpoint"] == path
    assert mine["attributes"]["gen_ai.usage.output_tokens"] > 0


def test_embeddings(site: Site) -> None:
    asked = {"model": "all-minilm:22m", "input": SECRET, "encoding_format": "base64"}
    mine, around = ask(site, "embeddings", **asked)
    attributes = mine["attributes"]
    assert mine["name"] == "embeddings all-minilm:22m"
    assert attributes["gen_ai.request.encoding_formats"] == ["base64"]
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert "gen_ai.usage.output_tokens" not in attributes
    assert "gen_ai.response.finish_reasons" not in attributes
    assert mine["parent_id"] == around["context"]["span_id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token(site: Site, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(error(503, SECRET))
    mine, around = ask(site, stream=stream)
    assert mine["status"] == {"status_code": "ERROR"}
    assert mine["attributes"]["error.type"] == "upstream_unavailable"
    assert "gen_ai.response.finish_reasons" not in mine["attributes"]
    assert "gen_ai.usage.output_tokens" not in mine["attributes"]
    assert mine["parent_id"] == around["context"]["span_id"]


def test_a_failure_within_a_stream(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part(SECRET), Close()]))
    response = httpx.post(
        f"{site.base_url}/chat/completions", headers=HEADERS, json=body(stream=True), timeout=10
    )
    assert SECRET in response.text
    mine, around = spans(site, response.headers["x-request-id"])
    assert SECRET not in json.dumps(mine)
    assert mine["status"] == {"status_code": "ERROR"}
    assert mine["attributes"]["error.type"] == "bad_upstream"
    assert mine["attributes"]["gen_ai.usage.output_tokens"] == 1
    assert mine["parent_id"] == around["context"]["span_id"]


def test_a_client_that_hangs_up(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one "), part("two "), Hold()]))
    request_id = f"hangs-up-{time.monotonic_ns()}"
    connection = site.send(body(stream=True), request_id)
    got = b""
    while b"two " not in got:
        got += connection.recv(65536)
    connection.close()
    mine, around = spans(site, request_id)
    assert mine["status"]["status_code"] == "UNSET"
    assert mine["attributes"]["gen_ai.response.finish_reasons"] == ["cancelled"]
    assert mine["attributes"]["gen_ai.usage.output_tokens"] == 2
    assert "gen_ai.usage.input_tokens" not in mine["attributes"]
    assert mine["parent_id"] == around["context"]["span_id"]


def test_a_model_that_does_not_exist(site: Site) -> None:
    mine, _ = ask(site, model="made-up" * 100)
    assert mine["name"] == "chat unknown"
    assert mine["attributes"]["error.type"] == "model_not_found"
    assert mine["attributes"]["gen_ai.request.model"] == ("made-up" * 100)[:200]


@pytest.mark.parametrize("stream", [False, True])
def test_an_exporter_that_fails_disturbs_no_answer(
    site: Site, ollama: OllamaServer, tmp_path: Path, stream: bool
) -> None:
    environment: Any = {"SITE_APPS": APPS, "SITE_SPANS": "/dev/full"}
    with serve(site.server, tmp_path, site_options(ollama), **environment) as full:
        ollama.reply(Answer(["fine"]))
        response = httpx.post(
            f"{full.base_url}/chat/completions",
            headers=HEADERS,
            json=body(stream=stream),
            timeout=60,
        )
        assert response.status_code == 200
        assert "fine" in response.text
        assert "No space left on device" in full.log()


# What the conventions say


def test_the_names_are_those_of_the_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv.attributes import error_attributes

    from django_ollama_openai.contrib.opentelemetry.attributes import (
        operation,
        outcome_attributes,
        request_attributes,
    )

    request = ChatCompletionRequest.model_validate(
        {
            **body(stream=True, n=2, temperature=1, top_p=1, seed=1, max_tokens=5),
            "frequency_penalty": 1,
            "presence_penalty": 1,
            "max_completion_tokens": 6,
            "options": {"top_k": 3},
            "response_format": {"type": "json_object"},
        }
    )
    asked = request_attributes(request)
    assert asked["gen_ai.request.max_tokens"] == 6
    assert asked["gen_ai.request.choice.count"] == 2
    assert asked["gen_ai.request.top_k"] == 3.0
    assert asked["gen_ai.output.type"] == "json"
    usage = Usage(prompt_tokens=4, completion_tokens=3, cached_tokens=2, reasoning_tokens=1)
    came = outcome_attributes(request, usage, Timings(0.1, 1, 0), "stop", Overloaded())
    assert came["gen_ai.usage.cache_read.input_tokens"] == 2
    assert came["gen_ai.usage.reasoning.output_tokens"] == 1
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    known.add(error_attributes.ERROR_TYPE)
    assert set(asked) | set(came) <= known
    operations = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    for endpoint in ("chat.completions", "responses", "completions", "embeddings"):
        assert operation(endpoint) in operations


def test_providers() -> None:
    from django_ollama_openai.contrib.opentelemetry.attributes import provider

    class HouseStyleBackend(OllamaBackend):
        pass

    class EchoBackend(BaseBackend):
        pass

    kinds = (OllamaBackend, HouseStyleBackend, LlamaCppBackend, DummyBackend, EchoBackend)
    assert [provider(kind) for kind in kinds] == ["ollama", "ollama", "llamacpp", "dummy", "echo"]


@pytest.fixture(scope="module")
def reader() -> Any:
    """Where the measurements of this process go. There is one provider in a process."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return reader


def record(**changes: Any) -> None:
    from django_ollama_openai.contrib.opentelemetry.telemetry import record

    facts: dict[str, Any] = {
        "sender": OllamaBackend,
        "request_id": "req-1",
        "endpoint": "chat.completions",
        "body": ChatCompletionRequest.model_validate(body(stream=True)),
        "model": MODEL,
        "backend": "default",
        "answered_by": MODEL,
        "usage": Usage(prompt_tokens=9, completion_tokens=5),
        "timings": Timings(time_to_first_token=1.0, total=3.0, queued=0.5),
        "finish_reason": "stop",
        "error": None,
        "choices": 1,
        "signal": None,
    }
    with override_settings(OLLAMA_OPENAI={}):
        record(**{**facts, **changes})


def test_measurements(reader: Any) -> None:
    def points() -> dict[tuple[str, str], Any]:
        data = reader.get_metrics_data()
        return {
            (metric.name, point.attributes.get("gen_ai.token.type", "")): point
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if point.attributes["gen_ai.provider.name"] == "ollama"
        }

    record()
    found = points()
    assert {key: (point.sum, point.count) for key, point in found.items()} == {
        ("gen_ai.server.request.duration", ""): (3.0, 1),
        ("gen_ai.client.operation.duration", ""): (2.5, 1),
        ("gen_ai.server.time_to_first_token", ""): (1.0, 1),
        ("gen_ai.server.time_per_output_token", ""): (0.5, 1),
        ("gen_ai.client.token.usage", "input"): (9, 1),
        ("gen_ai.client.token.usage", "output"): (5, 1),
    }
    for (name, _), point in found.items():
        assert point.attributes["gen_ai.operation.name"] == "chat"
        assert point.attributes["gen_ai.request.model"] == MODEL
        if "token.usage" in name:
            assert point.explicit_bounds[-1] == 67108864
        elif "duration" in name:
            assert point.explicit_bounds == (
                *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
                *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
            )
    # Of several choices at a time, and of a failure, the time of a token says nothing.
    record(choices=2)
    record(error=GatewayError("no"), finish_reason=None)
    again = points()
    assert again["gen_ai.server.time_per_output_token", ""].count == 1
    assert again["gen_ai.server.time_to_first_token", ""].count == 2
    failed = again["gen_ai.server.request.duration", ""]
    assert failed.attributes["error.type"] == "server_error"


def test_what_an_engine_sends_for_codes_and_tokens(reader: Any) -> None:
    usage = Usage(prompt_tokens=-3, completion_tokens=10**400)
    refusal = InvalidRequest("No.", code="x" * 3000)
    record(model="absurd", endpoint="absurd", usage=usage)
    record(model="absurd", endpoint="absurd", usage=usage, error=refusal, finish_reason=None)
    measured = {
        (metric.name, point.attributes.get("error.type", ""))
        for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if point.attributes["gen_ai.operation.name"] == "absurd"
    }
    assert measured == {
        ("gen_ai.server.request.duration", ""),
        ("gen_ai.client.operation.duration", ""),
        ("gen_ai.server.time_to_first_token", ""),
        ("gen_ai.server.request.duration", "invalid_request_error"),
        ("gen_ai.client.operation.duration", "invalid_request_error"),
    }
