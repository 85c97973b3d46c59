"""Translate Ollama's errors into errors for clients.

Ollama sends ``{"error": "text"}``; the text may be the JSON of the llama-server behind it.
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


_UNSUPPORTED: Final = re.compile(
    r"does not support (chat|generate|embeddings|insert|tools|thinking|multimodal)\b"
)

_ENDPOINTS: Final = {
    "chat": "chat completions",
    "generate": "completions",
    "embeddings": "embeddings",
}

#: Errors of Ollama, and of the llama-server behind it, about a schema that is not supported. Ollama
#: sends them with status 500, and llama-server names ``json_schema``, its own field.
_BAD_SCHEMA: Final = re.compile(
    r"""
      invalid\ JSON\ schema\ in\ format
    | ^invalid\ format:
    | JSON\ schema\ (?:error\ at\b|conversion\ failed:?)(?P<reason>.*)
    | failed\ to\ (?:parse|initialize|load)\ (?:the\ )?grammar
    """,
    re.VERBOSE | re.DOTALL,
)

#: Engines quote prompts and answers after these phrases.
_QUOTATION: Final = re.compile(
    r"((?:failed to parse|could not parse|error parsing)[^:]*:|input_value=|[\"']input[\"']:).*",
    re.IGNORECASE | re.DOTALL,
)

MAX_ENGINE_MESSAGE: Final = 500

#: The field of Ollama's request that has a wrong type.
_WRONG_TYPE: Final = re.compile(r"Go struct field \w+\.(\w+)")

#: The fields that requests to Ollama and requests of clients have in common.
_COMMON_FIELDS: Final = frozenset(
    {"dimensions", "input", "keep_alive", "messages", "model", "options", "prompt", "suffix"}
    | {"think", "tools", "truncate"}
)

#: Ollama's own error for a prompt that is too long, without token counts.
_TOO_LONG: Final = re.compile(r"(?:exceeds|longer than) (?:the|maximum) context length")

#: Distinguishes a failure from a refusal of ``/api/embed``, which sends both with status 400.
_ADDRESS: Final = re.compile(r"://|\bdial\b|127\.0\.0\.1|localhost")


def ollama_error(
    status: int | None, body: bytes | bytearray, **context: Unpack[ErrorContext]
) -> GatewayError:
    """Return the error for a response with ``status``, or for an error in a stream (``None``).

    Its message is the engine's own for status 400, unless that has addresses, paths or keys of the
    server, and a general one for failures of the engine.
    """
    failure = _failure(status, body, **context)
    text = _text(body)
    if failure.status >= 500 or not client_message(text, context.get("model", "")):
        failure.engine_message = operator_text(text)
    return failure


def operator_text(text: str) -> str:
    """Return ``text``, an engine's error message, for the log of operators: shortened and without
    quotations of prompts and answers."""
    return _QUOTATION.sub(r"\1…", " ".join(text.split()))[:MAX_ENGINE_MESSAGE]


def _text(body: bytes | bytearray) -> str:
    error = _parsed(body)
    detail = _parsed(error.encode()) if isinstance(error, str) else error
    text = detail.get("message") if isinstance(detail, dict) else error
    return text if isinstance(text, str) else ""


def _failure(
    status: int | None, body: bytes | bytearray, **context: Unpack[ErrorContext]
) -> GatewayError:
    model, param = context.get("model", ""), context.get("param", "messages")
    error = _parsed(body)
    detail = _parsed(error.encode()) if isinstance(error, str) else error
    if isinstance(detail, dict):
        if detail.get("type") == "exceed_context_size_error":
            return ContextLengthExceeded(context_message(detail, param), param=param)
        text = detail.get("message")
    else:
        text = error
    if (
        status in (400, 501)
        and isinstance(text, str)
        and (unsupported := _UNSUPPORTED.search(text))
    ):
        return _refusal(unsupported[1], **context)
    if status in (400, 500) and isinstance(text, str) and (bad := _BAD_SCHEMA.search(text)):
        return schema_error(bad["reason"], **context)
    if status == 400 and isinstance(text, str):
        if _TOO_LONG.search(text):
            return ContextLengthExceeded(context_message({}, param), param=param)
        if not (param == "input" and _ADDRESS.search(text)):
            return InvalidRequest(
                client_message(text, model) or REFUSED, param=_named_param(text, **context)
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


def _named_param(text: str, **context: Unpack[ErrorContext]) -> str | None:
    """Return the field of the client's request that the message ``text`` is about, or ``None`` if
    unknown."""
    if text.startswith("model is required"):
        return "model"
    if text.startswith("invalid input type"):
        return "input"
    found = _WRONG_TYPE.search(text)
    if found is None:
        return None
    if found[1] == "format":
        return context.get("schema_param", "response_format")
    return found[1] if found[1] in _COMMON_FIELDS else None


def _refusal(feature: str, **context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a model that does not support ``feature``."""
    match feature:
        case "insert":
            return UnsupportedParameter("This model does not support 'suffix'.", param="suffix")
        case "tools":
            return tools_error()
        case "thinking":
            return UnsupportedParameter(
                "This model does not support thinking.", param=context.get("think_param")
            )
        case "multimodal":
            return media_error("image and audio", **context)
    return endpoint_error(_ENDPOINTS[feature])


def endpoint_error(endpoint: str) -> GatewayError:
    """Return the error for a model that does not support ``endpoint``."""
    return InvalidRequest(
        f"This model does not support {endpoint}.", param="model", code="unsupported_endpoint"
    )


def tools_error() -> GatewayError:
    """Return the error for a model that does not support tools."""
    return UnsupportedParameter("This model does not support tools.", param="tools")


def media_error(kind: str, **context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a model that does not support ``kind`` input in messages."""
    param = context.get("media_param", "messages")
    return UnsupportedParameter(
        f"This model does not support {kind} input, which is in '{param}'.", param=param
    )


def schema_error(reason: str | None, **context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for a JSON schema that the engine cannot enforce, with the engine's
    ``reason`` if there is one."""
    param = context.get("schema_param", "response_format")
    reason = " ".join(client_message(reason or "", context.get("model", "")).split()).rstrip(".")
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
    """Return OpenAI's message for a prompt that is too long. ``detail`` may have llama-server's
    token counts; ``param`` is the field with the prompt."""
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
