"""One span and some measurements of each completion, made when it has ended.

They go to the providers that the site has set up; without any, nowhere.
"""

from __future__ import annotations

import time
from typing import Any, Final

from opentelemetry import metrics, trace

from ... import __version__
from ..._gateway.accounting import Timings
from ..._wire.delta import Usage
from ..._wire.engine import EngineRequest
from ...backends import BaseBackend, backends
from ...exceptions import GatewayError
from .._labels import MAX_NAME_LENGTH, ModelNames
from .._tokens import plausible
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
    description="From when a request goes to its backend to the end of the answer, queue included.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
_client_duration = _meter.create_histogram(
    "gen_ai.client.operation.duration",
    unit="s",
    description="The same without the queue: how long the engine took.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
_first_token = _meter.create_histogram(
    "gen_ai.server.time_to_first_token",
    unit="s",
    description="Time to the first token of a stream, queue included.",
    explicit_bucket_boundaries_advisory=(
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08),
        *(0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
)
_per_token = _meter.create_histogram(
    "gen_ai.server.time_per_output_token",
    unit="s",
    description="Time per token of a stream after the first.",
    explicit_bucket_boundaries_advisory=(
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
        *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ),
)
_tokens = _meter.create_histogram(
    "gen_ai.client.token.usage",
    unit="{token}",
    description="Tokens of the prompt and of the answer.",
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
    """Record a completion that has ended; a receiver."""
    ended = time.time_ns()
    usage = plausible(usage)
    is_known = timings.time_to_first_token is not None
    asked, name = operation(endpoint), _names.label(model, has_answered=is_known)
    named: Attributes = {
        "gen_ai.operation.name": asked,
        "gen_ai.provider.name": provider(_answerer(backend)),
        "gen_ai.request.model": name,
    }
    _measure(named, body, usage, timings, error, choices)

    # The current span is the request's own, if the site has one made.
    span = _tracer.start_span(
        f"{asked} {name}",
        kind=trace.SpanKind.CLIENT,
        attributes={
            **named,
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
            # Without its message, which may quote the request.
            span.set_status(trace.StatusCode.ERROR)
    span.end(ended)


def _answerer(alias: str) -> type[BaseBackend]:
    """The class of the backend that has answered; of a pool, that of its members."""
    return type(backends[backends[alias].engines()[0]])


def _measure(
    named: Attributes,
    body: EngineRequest,
    usage: Usage,
    timings: Timings,
    error: GatewayError | None,
    choices: int,
) -> None:
    ended = named if error is None else {**named, "error.type": error_type(error)}
    _server_duration.record(timings.total, ended)
    _client_duration.record(max(0.0, timings.total - timings.queued), ended)
    for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
        if tokens:
            _tokens.record(tokens, {**named, "gen_ai.token.type": kind})
    first = timings.time_to_first_token
    if error is not None or first is None or not getattr(body, "stream", None):
        return
    _first_token.record(first, named)
    # Several choices come at the same time.
    if choices == 1 and usage.completion_tokens > 1:
        _per_token.record((timings.total - first) / (usage.completion_tokens - 1), named)
