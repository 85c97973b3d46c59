"""What the errors of an engine that speaks OpenAI's API mean to a client.

Most answer ``{"error": {"message", "type", "param", "code"}}``. vLLM has been sending the inner
object alone, and whatever stands on FastAPI says ``{"detail": …}`` of what it did not get to.
"""

from __future__ import annotations

import re
from typing import Any, Final, Unpack

import pydantic_core

from ..exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from .blame import Blame
from .ollama_errors import context_message

__all__ = ["engine_error", "openai_error"]

_TOO_LARGE: Final = re.compile(r"input \((\d+) tokens\) is too large .* batch size: (\d+)")
"""How llama-server says that an input of embeddings does not fit."""

_MAXIMUM: Final = re.compile(r"maximum context length", re.IGNORECASE)
"""How OpenAI and vLLM say that a prompt does not fit; each goes on in its own words."""

_FIGURES: Final = re.compile(
    r"maximum context length (?:is|of) (\d+) tokens.*?(?:resulted in|requested|contains at least|"
    r"has|contains) (\d+) (?:input )?tokens",
    re.IGNORECASE | re.DOTALL,
)

_ENDPOINTS: Final = {
    "messages": "chat completions",
    "prompt": "completions",
    "input": "embeddings",
}
"""What was asked for, by the field that the engine reads."""

_REFUSALS: Final = frozenset({400, 413, 415, 422})
"""With these an engine blames the request."""

MAX_SEARCHED: Final = 2_000


def openai_error(status: int, body: bytes | bytearray, **blame: Unpack[Blame]) -> GatewayError:
    """The error for a response with ``status``.

    Messages of a refusal are for whoever made the request, and are passed on. Those of the engine's
    own failures may name files and hosts of the server, and are not.
    """
    error = _parsed(body)
    if status in _REFUSALS:
        return engine_error(error, is_refusal=True, **blame)
    if status == 404:
        return _not_found(error, blame.get("model", ""))
    if status in (405, 501):
        endpoint = _ENDPOINTS.get(blame.get("param", "messages"), "this endpoint")
        return InvalidRequest(
            f"This model does not support {endpoint}.", param="model", code="unsupported_endpoint"
        )
    if status in (401, 403):
        return UpstreamError("The engine refused the gateway's own credentials.")
    if status in (408, 504):
        return UpstreamTimeout("The engine did not answer in time.")
    if status in (429, 503):
        return UpstreamUnavailable("The engine is busy. Try again later.")
    return UpstreamError(f"The engine failed with status {status}.")


def engine_error(error: Any, *, is_refusal: bool = False, **blame: Unpack[Blame]) -> GatewayError:
    """The error for an ``error`` object: that of a refusal, or one that came instead of an answer
    or in the middle of it."""
    param = blame.get("param", "messages")
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message")
    text = message if isinstance(message, str) else ""
    if detail := _too_long(error, text[:MAX_SEARCHED]):
        return ContextLengthExceeded(context_message(detail, param), param=param)
    if "does not support logits" in text:
        return InvalidRequest(
            "This model does not produce text.", param="model", code="unsupported_endpoint"
        )
    if text.startswith("Pooling type"):
        return UpstreamError("This model's file does not say how to pool; set 'pooling'.")
    if error.get("code") == "model_not_found":
        return ModelNotFound(blame.get("model", ""))
    if is_refusal or error.get("code") == 400 or error.get("type") == "invalid_request_error":
        return InvalidRequest(
            text or "The engine refused the request.",
            param=_text(error.get("param")),
            code=_text(error.get("code")),
        )
    return UpstreamError("The engine failed in the middle of its answer.")


def _too_long(error: dict[str, Any], text: str) -> dict[str, Any] | None:
    """Figures of a prompt that does not fit, as far as the engine gives any."""
    if error.get("type") == "exceed_context_size_error":
        return error
    sizes = _TOO_LARGE.search(text)
    if sizes is not None:
        return {"n_prompt_tokens": int(sizes[1]), "n_ctx": int(sizes[2])}
    if error.get("code") == "context_length_exceeded" or _MAXIMUM.search(text):
        figures = _FIGURES.search(text)
        return (
            {"figures": None}
            if figures is None
            else {"n_prompt_tokens": int(figures[2]), "n_ctx": int(figures[1])}
        )
    return None


def _not_found(error: dict[str, Any], model: str) -> GatewayError:
    """The model is missing, or the whole endpoint: engines answer both with 404."""
    message = error.get("message")
    text = message[:MAX_SEARCHED] if isinstance(message, str) else ""
    if error.get("code") == "model_not_found" or (model and model in text):
        return ModelNotFound(model)
    # Where the address of the engine is wrong, it is the site's owner who has to know.
    return UpstreamError("The engine does not have this endpoint.")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _parsed(body: bytes | bytearray) -> dict[str, Any]:
    """The error object in ``body``; an empty one if there is none."""
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {}
    detail = error.get("detail")
    return {**error, "message": detail} if isinstance(detail, str) else error
