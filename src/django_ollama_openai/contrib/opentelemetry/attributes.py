"""The attributes of spans and metrics.

Source: OpenTelemetry's semantic conventions for generative AI, as of 2026
(https://github.com/open-telemetry/semantic-conventions-genai). They are in development, and names
may still change. Text of clients and models is never an attribute: messages, instructions, tools
and stop sequences.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.util.types import AttributeValue

from ... import backends
from ..._gateway.outcome import Timings
from ..._wire.delta import Usage
from ..._wire.engine import EngineRequest
from ...backends import BaseBackend
from ...exceptions import GatewayError
from .._labels import ErrorCodes

__all__ = [
    "Attributes",
    "error_type",
    "operation",
    "outcome_attributes",
    "provider",
    "request_attributes",
]

Attributes = dict[str, AttributeValue]

_OPERATIONS: Final = {
    "chat.completions": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_REQUEST: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
_codes: Final = ErrorCodes()


def operation(endpoint: str) -> str:
    """Return ``gen_ai.operation.name`` for ``endpoint``, such as ``"chat.completions"``."""
    return _OPERATIONS.get(endpoint, endpoint)


def provider(backend: type[BaseBackend]) -> str:
    """Return ``gen_ai.provider.name``: ``"ollama"`` for ``OllamaBackend`` and its subclasses, and
    so on. For a backend that is derived from ``BaseBackend`` itself, use its own name."""
    shipped = [getattr(backends, name) for name in backends.__all__ if name != "BaseBackend"]
    kind = next((each for each in backend.__mro__ if each in shipped), backend)
    return kind.__name__.removesuffix("Backend").lower()


def error_type(error: GatewayError) -> str:
    """Return ``error.type``: the code of ``error``, or its type if there are too many codes."""
    return _codes.label(error)


def request_attributes(body: EngineRequest) -> Attributes:
    """Return the attributes for parameters of the request."""
    found: Attributes = {}
    for field, attribute in _REQUEST.items():
        if (value := getattr(body, field, None)) is not None:
            found[attribute] = value
    if body.options is not None and body.options.top_k is not None:
        found["gen_ai.request.top_k"] = float(body.options.top_k)
    if (choices := getattr(body, "n", None)) not in (None, 1):
        found["gen_ai.request.choice.count"] = choices
    if getattr(body, "stream", None):
        found["gen_ai.request.stream"] = True
    if encoding := getattr(body, "encoding_format", None):
        found["gen_ai.request.encoding_formats"] = [encoding]
    if output := _output_type(body):
        found["gen_ai.output.type"] = output
    return found


def outcome_attributes(
    body: EngineRequest,
    usage: Usage,
    timings: Timings,
    finish_reason: str | None,
    error: GatewayError | None,
) -> Attributes:
    """Return the attributes for the outcome. Token counts of 0 are omitted: the prompt tokens of a
    cancelled completion are unknown."""
    found: Attributes = {}
    for attribute, tokens in (
        ("gen_ai.usage.input_tokens", usage.prompt_tokens),
        ("gen_ai.usage.output_tokens", usage.completion_tokens),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
    ):
        if tokens:
            found[attribute] = tokens
    if finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [finish_reason]
    if timings.time_to_first_token is not None and getattr(body, "stream", None):
        found["gen_ai.response.time_to_first_chunk"] = timings.time_to_first_token
    if error is not None:
        found["error.type"] = error_type(error)
    return found


def _output_type(body: EngineRequest) -> str | None:
    output_format = getattr(body, "response_format", None)
    if output_format is None:
        output_format = getattr(getattr(body, "text", None), "format", None)
    if output_format is None:
        return None
    return "text" if output_format.type == "text" else "json"
