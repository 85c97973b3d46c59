"""What Ollama's errors mean to a client.

Ollama answers ``{"error": "text"}``; the text may be the JSON of the llama-server behind it.
"""

from __future__ import annotations

from typing import Any, Final

import pydantic_core

from ..exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamUnavailable,
)

__all__ = ["context_message", "ollama_error"]


_LIBRARY: Final = "registry.ollama.ai/library/"
"""What Ollama puts before the names of its own models."""


def ollama_error(status: int | None, body: bytes, *, model: str = "") -> GatewayError:
    """The error for a response with ``status``, or for an error line of a stream (``None``).

    Messages of a 400 are for whoever made the request, and are passed on. Those of the engine's
    own failures may name files and hosts of the server, and are not.
    """
    error = _parsed(body)
    detail = _parsed(error.encode()) if isinstance(error, str) else error
    if isinstance(detail, dict):
        if detail.get("type") == "exceed_context_size_error":
            return ContextLengthExceeded(context_message(detail), param="messages")
        text = detail.get("message")
    else:
        text = error
    if status == 400 and isinstance(text, str):
        return InvalidRequest(text.replace(_LIBRARY, "") or "The engine refused the request.")
    if status == 404 and isinstance(error, str):
        return ModelNotFound(model)
    if status in (429, 503):
        return UpstreamUnavailable("The engine is busy. Try again later.")
    if status in (401, 403):
        return UpstreamError("The engine refused the gateway's own credentials.")
    if status is None:
        return UpstreamError("The engine failed in the middle of its answer.")
    return UpstreamError(f"The engine failed with status {status}.")


def _parsed(body: bytes) -> Any:
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return None
    return value.get("error") if isinstance(value, dict) else None


def context_message(detail: dict[str, Any]) -> str:
    """What OpenAI says when a prompt is too long, with llama-server's figures."""
    size, limit = detail.get("n_prompt_tokens"), detail.get("n_ctx")
    if isinstance(size, int) and isinstance(limit, int):
        return (
            f"This model's maximum context length is {limit} tokens. However, your messages "
            f"resulted in {size} tokens. Please reduce the length of the messages."
        )
    return "The messages are longer than this model's context. Please reduce their length."
