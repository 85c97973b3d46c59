"""The metrics of completions, in the library's default registry.

Names and units as Prometheus has them: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ...backends import InvalidBackendError, backends
from ...exceptions import GatewayError
from ...gateway.accounting import Timings
from ...wire.delta import Usage
from ...wire.engine import EngineRequest
from ..model_names import OTHER, ModelNames

__all__ = ["SlotsCollector", "count", "is_multiprocess"]

FINISHED: Final = "finished"
"""The outcome of an answer that is no text."""

_FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "cancelled")
_LABELS: Final = ("endpoint", "model", "backend")

_requests = Counter(
    "ollama_openai_requests",
    "Completions and embeddings that have ended, by how they did.",
    (*_LABELS, "outcome"),
)
_duration = Histogram(
    "ollama_openai_request_duration_seconds",
    "From when a request goes to its backend to the end of the answer, queue included.",
    _LABELS,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
)
# Its end is far off, since a model may have to be loaded first.
_first_token = Histogram(
    "ollama_openai_time_to_first_token_seconds",
    "From when a streamed request goes to its backend to the first token, queue included.",
    _LABELS,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
_queue = Histogram(
    "ollama_openai_queue_seconds",
    "How long a request has waited for one of its backend's slots.",
    _LABELS,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_tokens = Counter(
    "ollama_openai_tokens",
    "Tokens of ended requests; cached ones are prompt too, and reasoning ones completion.",
    (*_LABELS, "type"),
)
_names = ModelNames()


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
    **facts: Any,
) -> None:
    """Count a completion that has ended; a receiver."""
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


def _outcome(finish_reason: str | None, error: GatewayError | None) -> str:
    if error is not None:
        return error.code or error.type
    if finish_reason is None:
        return FINISHED
    # A backend may say what it likes.
    return finish_reason if finish_reason in _FINISH_REASONS else OTHER


def is_multiprocess() -> bool:
    """Whether the processes of the server keep their metrics in common files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class SlotsCollector(Collector):
    """How many requests each backend works on and has waiting in this process, now.

    Where several processes share their metrics, these two have the label ``pid``: they are those of
    the process that is asked, and no file has them.
    """

    def describe(self) -> Iterator[GaugeMetricFamily]:
        labels = ("backend", "pid") if is_multiprocess() else ("backend",)
        yield GaugeMetricFamily(
            "ollama_openai_running", "Requests that the backend works on.", labels=labels
        )
        yield GaugeMetricFamily(
            "ollama_openai_queued", "Requests that wait for the backend.", labels=labels
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running, queued = self.describe()
        more = [str(os.getpid())] if is_multiprocess() else []
        for alias in backends:
            # The system checks say what is wrong with one that cannot be made.
            with suppress(InvalidBackendError):
                slots = backends[alias].slots
                running.add_metric([alias, *more], slots.running)
                queued.add_metric([alias, *more], slots.queued)
        yield running
        yield queued


REGISTRY.register(SlotsCollector())
