"""What a site does that wants traces: it has OpenTelemetry's own instrumentation make a span of
each request, and exports all spans, here to a file that a test reads."""

from __future__ import annotations

import os
from typing import IO

from django.apps import AppConfig
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

FILE = os.environ.get("SITE_SPANS", "")


class TelemetryConfig(AppConfig):
    name = "tests.project.telemetry"
    label = "site_telemetry"

    def ready(self) -> None:
        if FILE:
            provider = TracerProvider()
            exporter = ConsoleSpanExporter(out=_file(), formatter=_line)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
        DjangoInstrumentor().instrument()


def _file() -> IO[str]:
    return open(FILE, "a", buffering=1)


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
