"""What Ollama's errors mean to a client.

Ollama answers ``{"error": "text"}``; the text may be the JSON of the llama-server behind it.
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
    UnsupportedParameter,
    UpstreamError,
    UpstreamUnavailable,
)
from .engine_messages import REFUSED, client_message
from .error_context import ErrorContext

__all__ = [
    "context_message",
    "endpoint_error",
    "media_error",
    "ollama_error",
    "operator_text",
    "schema_error",
    "tools_error",
]


_LACKS: Final = re.compile(
    r"does not support (chat|generate|embeddings|insert|tools|thinking|multimodal)\b"
)

_ENDPOINTS: Final = {
    "chat": "chat completions",
    "generate": "completions",
    "embeddings": "embeddings",
}

_BAD_SCHEMA: Final = re.compile(
    r"""
      invalid\ JSON\ schema\ in\ format
    | ^invalid\ format:
    | JSON\ schema\ (?:error\ at\b|conversion\ failed:?)(?P<reason>.*)
    | failed\ to\ (?:parse|initialize|load)\ (?:the\ )?grammar
    """,
    re.VERBOSE | re.DOTALL,
)
"""Errors of Ollama, and of the llama-server behind it, about a schema that they cannot use. Ollama
reports them with status 500, and llama-server names ``json_schema``, its own field."""

_QUOTED: Final = re.compile(
    r"((?:failed to parse|could not parse|error parsing)[^:]*:|input_value=|[\"']input[\"']:).*",
    re.IGNORECASE | re.DOTALL,
)
"""After these words engines quote a prompt or an answer."""

MAX_ENGINE_MESSAGE: Final = 500

_GO_FIELD: Final = re.compile(r"Go struct field \w+\.(\w+)")
"""The field of Ollama's request that has a wrong type."""

_READ_FROM: Final = frozenset(
    {"dimensions", "input", "keep_alive", "messages", "model", "options", "prompt", "suffix"}
    | {"think", "tools", "truncate"}
)
"""The fields that requests to Ollama and requests of clients have in common."""

_TOO_LONG: Final = re.compile(r"(?:exceeds|longer than) (?:the|maximum) context length")
"""What Ollama says itself, without figures."""

_ADDRESS: Final = re.compile(r"://|\bdial\b|127\.0\.0\.1|localhost")
"""What tells a failure of the engine's own from a refusal: ``/api/embed`` answers both with 400."""


def ollama_error(
    status: int | None, body: bytes | bytearray, **error_context: Unpack[ErrorContext]
) -> GatewayError:
    """The error for a response with ``status``, or for an error line of a stream (``None``).

    The text of a 400 is about the request, and is passed on unless it names addresses, paths or
    keys of the server. That of the engine's own failures is not.
    """
    failure = _failure(status, body, **error_context)
    text = _text(body)
    if failure.status >= 500 or not client_message(text, error_context.get("model", "")):
        failure.engine_message = operator_text(text)
    return failure


def operator_text(text: str) -> str:
    """Return ``text``, an engine's message about its failure, shortened and without quotations of
    prompts and answers."""
    return _QUOTED.sub(r"\1…", " ".join(text.split()))[:MAX_ENGINE_MESSAGE]


def _text(body: bytes | bytearray) -> str:
    error = _parsed(body)
    detail = _parsed(error.encode()) if isinstance(error, str) else error
    text = detail.get("message") if isinstance(detail, dict) else error
    return text if isinstance(text, str) else ""


def _failure(
    status: int | None, body: bytes | bytearray, **error_context: Unpack[ErrorContext]
) -> GatewayError:
    model, param = error_context.get("model", ""), error_context.get("param", "messages")
    error = _parsed(body)
    detail = _parsed(error.encode()) if isinstance(error, str) else error
    if isinstance(detail, dict):
        if detail.get("type") == "exceed_context_size_error":
            return ContextLengthExceeded(context_message(detail, param), param=param)
        text = detail.get("message")
    else:
        text = error
    if status in (400, 501) and isinstance(text, str) and (lack := _LACKS.search(text)):
        return _refusal(lack[1], **error_context)
    if status in (400, 500) and isinstance(text, str) and (bad := _BAD_SCHEMA.search(text)):
        return schema_error(bad["reason"], **error_context)
    if status == 400 and isinstance(text, str):
        if _TOO_LONG.search(text):
            return ContextLengthExceeded(context_message({}, param), param=param)
        if not (param == "input" and _ADDRESS.search(text)):
            return InvalidRequest(
                client_message(text, model) or REFUSED, param=_named_param(text, **error_context)
            )
    if status == 404 and isinstance(error, str):
        return ModelNotFound(model)
    if status in (429, 503):
        return UpstreamUnavailable("The engine is busy. Try again later.")
    if status in (401, 403):
        return UpstreamError("The engine rejected the gateway's credentials.")
    if status is None:
        return UpstreamError("The engine failed while generating the response.")
    return UpstreamError(f"The engine failed with status {status}.")


def _named_param(text: str, **error_context: Unpack[ErrorContext]) -> str | None:
    """Return the field of the client's request that ``text`` is about, or ``None`` if unknown."""
    if text.startswith("model is required"):
        return "model"
    if text.startswith("invalid input type"):
        return "input"
    found = _GO_FIELD.search(text)
    if found is None:
        return None
    if found[1] == "format":
        return error_context.get("schema_param", "response_format")
    return found[1] if found[1] in _READ_FROM else None


def _refusal(ability: str, **error_context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a model that lacks an ability."""
    match ability:
        case "insert":
            return UnsupportedParameter("This model does not support 'suffix'.", param="suffix")
        case "tools":
            return tools_error()
        case "thinking":
            return UnsupportedParameter(
                "This model does not support thinking.", param=error_context.get("think_param")
            )
        case "multimodal":
            return media_error("image and audio", **error_context)
    return endpoint_error(_ENDPOINTS[ability])


def endpoint_error(endpoint: str) -> GatewayError:
    """Return the error for a model that is for something else than ``endpoint``."""
    return InvalidRequest(
        f"This model does not support {endpoint}.", param="model", code="unsupported_endpoint"
    )


def tools_error() -> GatewayError:
    """Return the error for a model that cannot call tools."""
    return UnsupportedParameter("This model does not support tools.", param="tools")


def media_error(kind: str, **error_context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a model that does not support ``kind`` input in messages."""
    param = error_context.get("media_param", "messages")
    return UnsupportedParameter(
        f"This model does not support {kind} input, which is in '{param}'.", param=param
    )


def schema_error(reason: str | None, **error_context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a JSON schema that the engine cannot enforce, with the engine's
    ``reason`` if there is one."""
    param = error_context.get("schema_param", "response_format")
    reason = " ".join(client_message(reason or "", error_context.get("model", "")).split()).rstrip(
        "."
    )
    return InvalidRequest(
        f"Invalid schema for '{param}'" + (f": {reason}." if reason else "."),
        param=param,
        code="invalid_json_schema",
    )


def _parsed(body: bytes | bytearray) -> Any:
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return None
    return value.get("error") if isinstance(value, dict) else None


def context_message(detail: dict[str, Any], param: str = "messages") -> str:
    """What OpenAI says when a prompt is too long, with llama-server's figures; ``param`` is the
    field that it is in."""
    size, limit = detail.get("n_prompt_tokens"), detail.get("n_ctx")
    if isinstance(size, int) and isinstance(limit, int):
        return (
            f"This model's maximum context length is {limit} tokens. However, your {param} "
            f"resulted in {size} tokens. Please reduce the length of the {param}."
        )
    return (
        f"This model's context has no room for your {param}. Please reduce the length of the "
        f"{param}."
    )
