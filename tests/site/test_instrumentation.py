"""Sentry and OpenTelemetry see the requests to engines, and continue their traces there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.httpx import HttpxIntegration
from sentry_sdk.transport import Transport

from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.backends import OllamaBackend, OpenAIBackend
from django_ollama_openai.backends._http_backend import HTTPBackend
from django_ollama_openai.exceptions import UpstreamError
from tests.ollama_server import OllamaServer, Reply, line
from tests.site.test_openai_backend import REQUEST, STREAM, WAYS, WHOLE, Way, answer

pytestmark = pytest.mark.once

SAID = line({"model": "m", "message": {"content": "Hello"}, "done": True, "done_reason": "stop"})

Spans = list[tuple[str, str, int | None]]
"""Of each request: its method, its URL and the status of its response."""


@contextmanager
def sentry() -> Iterator[Spans]:
    """Collect the spans of requests in the envelopes that Sentry's SDK sends."""
    spans: Spans = []

    class Capture(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            transaction: Any = envelope.get_transaction_event() or {}
            for span in transaction.get("spans", ()):
                data = span["data"]
                status = data.get("http.response.status_code")
                spans.append((data["http.method"], data["url"], status))

    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=Capture,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[HttpxIntegration()],
        trace_propagation_targets=[".*"],
    )
    try:
        with sentry_sdk.start_transaction(name="a request"):
            yield spans
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


@contextmanager
def opentelemetry(way: Way) -> Iterator[Spans]:
    """Collect the spans of OpenTelemetry's instrumentation of the library that sends."""
    if way == "fast":
        from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

        instrumentor: Any = AioHttpClientInstrumentor()
    else:
        instrumentor = HTTPXClientInstrumentor()
    spans: Spans = []
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield spans
    finally:
        instrumentor.uninstrument()
        for span in exporter.get_finished_spans():
            values: Any = span.attributes
            spans.append((values["http.method"], values["http.url"], values["http.status_code"]))


TOOLS: dict[str, tuple[Callable[[Way], AbstractContextManager[Spans]], str]] = {
    "sentry": (lambda way: sentry(), "sentry-trace"),
    "opentelemetry": (opentelemetry, "traceparent"),
}


ENGINES: dict[str, tuple[Callable[..., HTTPBackend[Any, Any]], str, Reply, Reply]] = {
    "ollama": (
        lambda url, **options: OllamaBackend(host=url, **options),
        "/api/chat",
        Reply([SAID]),
        Reply([SAID]),
    ),
    "openai": (
        lambda url, **options: OpenAIBackend(base_url=f"{url}/v1", **options),
        "/v1/chat/completions",
        WHOLE,
        STREAM,
    ),
}


async def read(deltas: AsyncIterator[Delta]) -> None:
    async for _ in deltas:
        pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tool", TOOLS)
def test_requests_to_engines_are_seen(
    ollama: OllamaServer, tool: str, engine: str, way: Way
) -> None:
    make, path, whole, stream = ENGINES[engine]
    instrumented, header = TOOLS[tool]
    with instrumented(way) as spans, closing(make(ollama.url, fast=way == "fast")) as backend:
        ollama.routes[path] = whole
        if way == "sync":
            backend.chat(REQUEST)
        else:
            asyncio.run(backend.achat(REQUEST))
        ollama.routes[path] = stream
        if way == "sync":
            list(backend.stream_chat(REQUEST))
        else:
            asyncio.run(read(backend.astream_chat(REQUEST)))
        ollama.routes[path] = answer({"error": "out of order"}, 500)
        with pytest.raises(UpstreamError):
            if way == "sync":
                backend.chat(REQUEST)
            else:
                asyncio.run(backend.achat(REQUEST))
    url = f"{ollama.url}{path}"
    assert spans == [("POST", url, 200), ("POST", url, 200), ("POST", url, 500)]
    assert [bool(request.headers.get(header)) for request in ollama.requests] == [True] * 3
