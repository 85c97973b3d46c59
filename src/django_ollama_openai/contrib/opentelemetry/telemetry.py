"""Record a span and measurements for each completion at its end.

They go to the tracer and meter providers that the site configures; without these to none.
"""

from __future__ import annotations

import time
from typing import Any, Final

from opentelemetry import metrics, trace

from ... import __version__
from ..._gateway.outcome import Timings
from ..._wire.delta import Usage
from ..._wire.engine import EngineRequest
from ...backends import BaseBackend, backends
from ...exceptions import GatewayError
from .._labels import MAX_NAME_LENGTH, ModelNames
from .._tokens import plausible_usage
from .attributes import (
    Attributes,
    error_type,
    operation,
    outcome_attributes,
    provider,
    request_attributes,
)

__all__ = ["record"]

_SCOPE: Final = "django_ollama_openai"
_SECONDS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)

_tracer = trace.get_tracer(_SCOPE, __version__)
_meter = metrics.get_meter(_SCOPE, __version__)

_server_duration = _meter.create_histogram(
    "gen_ai.server.request.duration",
    unit="s",
    description="Duration from the backend request to the end of the response, with queueing.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
_client_duration = _meter.create_histogram(
    "gen_ai.client.operation.duration",
    unit="s",
    description="Duration of the request to the engine, without queueing.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
_first_token = _meter.create_histogram(
    "gen_ai.server.time_to_first_token",
    unit="s",
    description="Time to the first token of a stream, with queueing.",
    explicit_bucket_boundaries_advisory=(
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08),
        *(0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
)
_per_token = _meter.create_histogram(
    "gen_ai.server.time_per_output_token",
    unit="s",
    description="Time per token of a stream after the first one.",
    explicit_bucket_boundaries_advisory=(
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
        *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ),
)
_tokens = _meter.create_histogram(
    "gen_ai.client.token.usage",
    unit="{token}",
    description="Number of prompt and completion tokens.",
    explicit_bucket_boundaries_advisory=tuple(4**power for power in range(14)),
)
_names = ModelNames()


def record(
    *,
    request_id: str,
    endpoint: str,
    body: EngineRequest,
    model: str,
    backend: str,
    answered_by: str,
    usage: Usage,
    timings: Timings,
    finish_reason: str | None,
    error: GatewayError | None,
    choices: int,
    **facts: Any,
) -> None:
    """Record a completion that has ended. This is a signal receiver."""
    ended = time.time_ns()
    usage = plausible_usage(usage)
    has_answered = timings.time_to_first_token is not None
    operation_name, name = operation(endpoint), _names.label(model, has_answered=has_answered)
    common: Attributes = {
        "gen_ai.operation.name": operation_name,
        "gen_ai.provider.name": provider(_answerer(backend)),
        "gen_ai.request.model": name,
    }
    _measure(common, body, usage, timings, error, choices)

    # A child of the request's span, if the site is instrumented.
    span = _tracer.start_span(
        f"{operation_name} {name}",
        kind=trace.SpanKind.CLIENT,
        attributes={
            **common,
            "gen_ai.request.model": model[:MAX_NAME_LENGTH],
            **request_attributes(body),
            "ollama_openai.backend": backend,
            "ollama_openai.endpoint": endpoint,
            "ollama_openai.request_id": request_id,
        },
        start_time=ended - round(timings.total * 1e9),
    )
    if span.is_recording():
        span.set_attributes(outcome_attributes(body, usage, timings, finish_reason, error))
        span.set_attribute("ollama_openai.queue_seconds", timings.queued)
        if error is None:
            span.set_attribute("gen_ai.response.model", answered_by[:MAX_NAME_LENGTH])
        else:
            # Without the error message, which may quote the request.
            span.set_status(trace.StatusCode.ERROR)
    span.end(ended)


def _answerer(alias: str) -> type[BaseBackend]:
    """Return the class of the backend ``alias``; for a pool, that of its members."""
    return type(backends[backends[alias].engines()[0]])


def _measure(
    common: Attributes,
    body: EngineRequest,
    usage: Usage,
    timings: Timings,
    error: GatewayError | None,
    choices: int,
) -> None:
    attributes = common if error is None else {**common, "error.type": error_type(error)}
    _server_duration.record(timings.total, attributes)
    _client_duration.record(max(0.0, timings.total - timings.queued), attributes)
    for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
        if tokens:
            _tokens.record(tokens, {**common, "gen_ai.token.type": kind})
    first = timings.time_to_first_token
    if error is not None or first is None or not getattr(body, "stream", None):
        return
    _first_token.record(first, common)
    # Several choices are generated concurrently.
    if choices == 1 and usage.completion_tokens > 1:
        _per_token.record((timings.total - first) / (usage.completion_tokens - 1), common)
