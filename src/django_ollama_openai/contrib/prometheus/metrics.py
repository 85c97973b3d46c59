"""The metrics of completions, in the default registry of prometheus_client.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..._gateway.failures import is_backend_failure
from ..._gateway.outcome import Timings
from ..._wire.delta import Usage
from ..._wire.engine import EngineRequest
from ...backends import InvalidBackendError, PoolBackend, backends
from ...exceptions import GatewayError
from .._labels import OTHER, ErrorCodes, ModelNames
from .._tokens import plausible_usage

__all__ = ["BackendsCollector", "count", "is_multiprocess"]

#: The outcome of successful requests without a finish reason.
FINISHED: Final = "finished"

_FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "cancelled")
_LABELS: Final = ("endpoint", "model", "backend")

_requests = Counter(
    "ollama_openai_requests",
    "Number of finished requests for completions and embeddings, by outcome.",
    (*_LABELS, "outcome"),
)
_duration = Histogram(
    "ollama_openai_request_duration_seconds",
    "Duration from the backend request to the end of the response, with queueing.",
    _LABELS,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
)
# With large buckets, since a model may have to be loaded first.
_first_token = Histogram(
    "ollama_openai_time_to_first_token_seconds",
    "Time from the backend request to the first token of a stream, with queueing.",
    _LABELS,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
_queue = Histogram(
    "ollama_openai_queue_seconds",
    "Time that a request waited for a slot of its backend.",
    _LABELS,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_tokens = Counter(
    "ollama_openai_tokens",
    "Number of tokens by type; prompt includes cached, completion includes reasoning.",
    (*_LABELS, "type"),
)
_failures = Counter(
    "ollama_openai_backend_failures",
    "Number of failures of a backend, including those before a successful fallback.",
    ("backend", "code"),
)
_names = ModelNames()
_codes = ErrorCodes()


def count(
    *,
    endpoint: str,
    body: EngineRequest,
    model: str,
    backend: str,
    usage: Usage,
    timings: Timings,
    finish_reason: str | None,
    error: GatewayError | None,
    failures: tuple[tuple[str, GatewayError], ...],
    **facts: Any,
) -> None:
    """Count a request that has ended. This is a signal receiver."""
    usage = plausible_usage(usage)
    first = timings.time_to_first_token
    labels = (endpoint, _names.label(model, has_answered=first is not None), backend)
    _requests.labels(*labels, _outcome(finish_reason, error)).inc()
    _duration.labels(*labels).observe(timings.total)
    _queue.labels(*labels).observe(timings.queued)
    if first is not None and getattr(body, "stream", None):
        _first_token.labels(*labels).observe(first)
    for kind, tokens in (
        ("prompt", usage.prompt_tokens),
        ("completion", usage.completion_tokens),
        ("cached", usage.cached_tokens),
        ("reasoning", usage.reasoning_tokens),
    ):
        if tokens:
            _tokens.labels(*labels, kind).inc(tokens)
    for alias, failure in failures:
        _failures.labels(alias, _codes.label(failure)).inc()
    if error is not None and is_backend_failure(error):
        _failures.labels(backend, _codes.label(error)).inc()


def _outcome(finish_reason: str | None, error: GatewayError | None) -> str:
    if error is not None:
        return _codes.label(error)
    if finish_reason is None:
        return FINISHED
    # Custom backends may return any finish reason.
    return finish_reason if finish_reason in _FINISH_REASONS else OTHER


def is_multiprocess() -> bool:
    """Return whether the processes of the server share their metrics in files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class BackendsCollector(Collector):
    """The current load of each backend in this process, and the health of the members of pools.

    If several processes share their metrics, these have the label ``pid``, since they are only
    those of the process that answers the scrape.
    """

    def describe(self) -> Iterator[GaugeMetricFamily]:
        more = ("pid",) if is_multiprocess() else ()
        yield GaugeMetricFamily(
            "ollama_openai_running",
            "Number of requests that the backend is processing.",
            labels=("backend", *more),
        )
        yield GaugeMetricFamily(
            "ollama_openai_queued",
            "Number of requests that wait for the backend.",
            labels=("backend", *more),
        )
        yield GaugeMetricFamily(
            "ollama_openai_member_up",
            "1 if the member of a pool is healthy or has not been probed, 0 if it is unhealthy.",
            labels=("backend", "member", *more),
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running, queued, up = self.describe()
        more = [str(os.getpid())] if is_multiprocess() else []
        for alias in backends:
            # The system checks report the error.
            with suppress(InvalidBackendError):
                backend = backends[alias]
                running.add_metric([alias, *more], backend.slots.running)
                queued.add_metric([alias, *more], backend.slots.queued)
                if isinstance(backend, PoolBackend):
                    out = backend.unhealthy_members()
                    for member in backend.members:
                        up.add_metric([alias, member, *more], member not in out)
        yield running
        yield queued
        yield up


REGISTRY.register(BackendsCollector())
