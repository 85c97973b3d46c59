"""Translate errors of engines with OpenAI's API into errors for clients.

Most engines send ``{"error": {"message", "type", "param", "code"}}``. Older versions of vLLM and
SGLang send the inner object alone, others a text instead of it, and FastAPI's own errors are
``{"detail": …}``. The code may be the status, as a number or a text.
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
from .engine_messages import REFUSED, client_message
from .error_context import ErrorContext
from .ollama_errors import (
    context_message,
    endpoint_error,
    media_error,
    operator_text,
    schema_error,
    tools_error,
)

__all__ = ["engine_error", "openai_error"]

#: Errors for prompts that are too long, of OpenAI and vLLM, SGLang, LM Studio and llama.cpp.
_TOO_LONG: Final = re.compile(
    r"""
      maximum\ (?:context|model|allowed)\ length
    | the\ (?:model's\ )?context\ length
    | (?:available\ context\ size|context\ window)
    | tokens\ exceed\ the\ configured\ limit
    | input\ .*is\ too\ large\ to\ process
    """,
    re.IGNORECASE | re.VERBOSE,
)

#: The context length in such an error.
_LIMIT: Final = re.compile(
    r"(?:(?:context|model|allowed) length(?: is| of)?|(?:context|batch) size:?|limit of) "
    r"\(?(\d{1,12})\b",
    re.IGNORECASE,
)

#: The number of tokens of the prompt in such an error.
_SIZE: Final = re.compile(
    r"""
      (?:resulted\ in|has|contains|at\ least)\ (\d{1,12})(?:\ input)?\ tokens
    | (?:input|request|input\ length)\ \((\d{1,12})\ tokens\)
    | prompt\ \(length\ (\d{1,12})\)
    | (\d{1,12})\ in\ (?:the\ messages|your\ prompt)
    | (\d{1,12})\ tokens\ from\ the\ input
    """,
    re.IGNORECASE | re.VERBOSE,
)

#: The error of vLLM for a model that does not support the endpoint.
_UNSUPPORTED_ENDPOINT: Final = re.compile(r"does not support [\w ]{1,40} API\b")

#: The error of llama-server for a model that only supports text. Its status is 500.
_UNSUPPORTED_INPUT: Final = re.compile(r"(image|audio|video) input is not supported")

#: Errors of vLLM and llama-server that were started without support for tools.
_UNSUPPORTED_TOOLS: Final = re.compile(r"requires --(?:enable-auto-tool-choice|jinja)\b")

#: Errors of llama-server, vLLM and SGLang about a schema that is not supported.
_BAD_SCHEMA: Final = re.compile(
    r"""
      JSON\ schema\ (?:error\ at\b|conversion\ failed:?)(?P<reason>.*)
    | failed\ to\ (?:parse|initialize|load)\ (?:the\ )?grammar
    | invalid\ (?:JSON\ schema|grammar)
    | json\ schema\ contains\ features\ not\ supported
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

#: The error of llama-server for earlier tool calls with invalid JSON. Its status is 500.
_BAD_ARGUMENTS: Final = "Failed to parse tool call arguments"

#: The endpoint by its field with the prompt or input.
_ENDPOINTS: Final = {
    "messages": "chat completions",
    "prompt": "completions",
    "input": "embeddings",
}

#: The statuses for invalid requests.
_REFUSALS: Final = frozenset({400, 413, 415, 422})

#: Matches error codes and names of parameters.
_IDENTIFIER: Final = re.compile(r"(?!\d+$)[\w.\[\]-]{1,100}", re.ASCII)

MAX_SEARCHED: Final = 2_000


def openai_error(
    status: int, body: bytes | bytearray, **context: Unpack[ErrorContext]
) -> GatewayError:
    """Return the error for a response with ``status``.

    Its message is the engine's own for invalid requests, unless that has addresses, paths or keys
    of the server, and a general one for failures of the engine.
    """
    error = _parsed(body)
    return _with_engine_message(_failure(status, error, **context), error, **context)


def _with_engine_message(
    failure: GatewayError, error: dict[str, Any], **context: Unpack[ErrorContext]
) -> GatewayError:
    text = _message(error)
    if failure.status >= 500 or not client_message(text, context.get("model", "")):
        failure.engine_message = operator_text(text)
    return failure


def _failure(status: int, error: dict[str, Any], **context: Unpack[ErrorContext]) -> GatewayError:
    if status in (401, 403):
        return UpstreamError("The engine rejected the gateway's credentials.")
    if status in _REFUSALS:
        return _engine_error(error, is_refusal=True, **context)
    if specific := _specific_error(error, is_refusal=False, **context):
        return specific
    if status == 404:
        return _not_found(error, **context)
    if status in (405, 501):
        return _other_endpoint(**context)
    if status in (408, 504):
        return UpstreamTimeout("The engine did not answer in time.")
    if status in (429, 503):
        return UpstreamUnavailable("The engine is busy. Try again later.")
    return UpstreamError(f"The engine failed with status {status}.")


def engine_error(
    error: Any, *, is_refusal: bool = False, **context: Unpack[ErrorContext]
) -> GatewayError:
    """Return the error for an ``error`` object that the engine sent as a refusal, or with status
    200 or in a stream."""
    if not isinstance(error, dict):
        error = {"message": error}
    return _with_engine_message(
        _engine_error(error, is_refusal=is_refusal, **context), error, **context
    )


def _engine_error(
    error: dict[str, Any], *, is_refusal: bool, **context: Unpack[ErrorContext]
) -> GatewayError:
    is_refusal = (
        is_refusal
        or error.get("code") in (400, "400")
        or error.get("type") == "invalid_request_error"
    )
    if specific := _specific_error(error, is_refusal=is_refusal, **context):
        return specific
    if is_refusal:
        return InvalidRequest(
            client_message(_message(error), context.get("model", "")) or REFUSED,
            param=_identifier(error.get("param")),
            code=_identifier(error.get("code")),
        )
    return UpstreamError("The engine failed while generating the response.")


def _specific_error(
    error: dict[str, Any], *, is_refusal: bool, **context: Unpack[ErrorContext]
) -> GatewayError | None:
    """Return the error that ``error`` itself identifies, whatever its status, or ``None``."""
    text = _message(error)[:MAX_SEARCHED]
    if error.get("code") == "model_not_found":
        return ModelNotFound(context.get("model", ""))
    if _UNSUPPORTED_ENDPOINT.search(text):
        return _other_endpoint(**context)
    if "does not support logits" in text:
        return InvalidRequest(
            "This model does not produce text.", param="model", code="unsupported_endpoint"
        )
    if unsupported := _UNSUPPORTED_INPUT.search(text):
        return media_error(unsupported[1], **context)
    if _UNSUPPORTED_TOOLS.search(text):
        return tools_error()
    # Only if the client sent a schema.
    if "schema_param" in context and (bad := _BAD_SCHEMA.search(text)):
        return schema_error(bad["reason"], **context)
    if text.startswith(_BAD_ARGUMENTS):
        return InvalidRequest(
            "This model requires JSON as the arguments of earlier tool calls.", param="messages"
        )
    if text.startswith("Pooling type"):
        return UpstreamError("This model's file has no pooling type; set 'pooling'.")
    if error.get("type") == "exceed_context_size_error":
        return _too_long(error, **context)
    if error.get("code") == "context_length_exceeded" or _TOO_LONG.search(text):
        limit, size = _LIMIT.search(text), _SIZE.search(text)
        if limit and size and int(size[size.lastindex or 0]) > int(limit[1]):
            counts = {"n_prompt_tokens": int(size[size.lastindex or 0]), "n_ctx": int(limit[1])}
            return _too_long(counts, **context)
        # The prompt is too long only together with max_tokens, or there are no token counts.
        if is_refusal and (message := client_message(text, context.get("model", ""))):
            return ContextLengthExceeded(message, param=_param(**context))
        return _too_long({}, **context)
    return None


def _too_long(counts: dict[str, Any], **context: Unpack[ErrorContext]) -> GatewayError:
    param = _param(**context)
    return ContextLengthExceeded(context_message(counts, param), param=param)


def _not_found(error: dict[str, Any], **context: Unpack[ErrorContext]) -> GatewayError:
    """Return the error for status 404: engines send it for an unknown model, for a model that does
    not support the endpoint, and for an unknown endpoint."""
    model = context.get("model", "")
    if model and model in _message(error)[:MAX_SEARCHED]:
        return ModelNotFound(model)
    if error.get("param") == "model":
        return _other_endpoint(**context)
    # Perhaps the engine's address is wrong: a matter for the operators, not for clients.
    return UpstreamError("The engine does not have this endpoint.")


def _other_endpoint(**context: Unpack[ErrorContext]) -> GatewayError:
    return endpoint_error(_ENDPOINTS[_param(**context)])


def _param(**context: Unpack[ErrorContext]) -> str:
    return context.get("param", "messages")


def _message(error: dict[str, Any]) -> str:
    message = error.get("message")
    return message if isinstance(message, str) else ""


def _identifier(value: Any) -> str | None:
    """Return ``value`` if it is a code or the name of a parameter. Some engines send the status as
    the code, or the text "None"."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value) or value == "None":
        return None
    return client_message(value) or None


def _parsed(body: bytes | bytearray) -> dict[str, Any]:
    """Return the error object in ``body``, or an empty one."""
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
    return {**error, **_fastapi_error(error.get("detail"))}


def _fastapi_error(detail: Any) -> dict[str, Any]:
    """Return the error object for FastAPI's ``detail``: a text, or a list with an error for each
    field."""
    if isinstance(detail, str):
        return {"message": detail}
    first = detail[0] if isinstance(detail, list) and detail else None
    if not isinstance(first, dict) or not isinstance(first.get("msg"), str):
        return {}
    location = first.get("loc")
    steps = [step for step in location if step != "body"] if isinstance(location, list) else []
    param = ".".join(map(str, steps))
    return {"message": f"Invalid value for '{param}': {first['msg']}.", "param": param}
