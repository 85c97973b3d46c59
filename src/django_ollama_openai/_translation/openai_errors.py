"""What the errors of an engine that speaks OpenAI's API mean to a client.

Most answer ``{"error": {"message", "type", "param", "code"}}``. Some send the inner object alone,
as vLLM and SGLang have long done, or a text for it, and whatever stands on FastAPI says
``{"detail": …}`` of what it did not get to. The status may also be the code, as a number or a text.
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
"""How engines say that a prompt does not fit: OpenAI and vLLM, SGLang, LM Studio, llama.cpp."""

_LIMIT: Final = re.compile(
    r"(?:(?:context|model|allowed) length(?: is| of)?|(?:context|batch) size:?|limit of) "
    r"\(?(\d{1,12})\b",
    re.IGNORECASE,
)
"""The length of the context in such a text."""

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
"""The length of the prompt in such a text."""

_LACKS_ENDPOINT: Final = re.compile(r"does not support [\w ]{1,40} API\b")
"""How vLLM says that a model is for something else."""

_LACKS_INPUT: Final = re.compile(r"(image|audio|video) input is not supported")
"""How llama-server says that a model takes texts only. It calls that a failure of its own."""

_LACKS_TOOLS: Final = re.compile(r"requires --(?:enable-auto-tool-choice|jinja)\b")
"""Errors of vLLM and llama-server that were started without support for tools."""

_BAD_SCHEMA: Final = re.compile(
    r"""
      JSON\ schema\ (?:error\ at\b|conversion\ failed:?)(?P<reason>.*)
    | failed\ to\ (?:parse|initialize|load)\ (?:the\ )?grammar
    | invalid\ (?:JSON\ schema|grammar)
    | json\ schema\ contains\ features\ not\ supported
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Errors of llama-server, vLLM and SGLang about a schema that they cannot use."""

_BAD_ARGUMENTS: Final = "Failed to parse tool call arguments"
"""The error of llama-server about earlier calls whose arguments are not JSON. Its status is 500."""

_ENDPOINTS: Final = {
    "messages": "chat completions",
    "prompt": "completions",
    "input": "embeddings",
}
"""What was asked for, by the field that the engine reads."""

_REFUSALS: Final = frozenset({400, 413, 415, 422})
"""With these an engine blames the request."""

_NAME: Final = re.compile(r"(?!\d+$)[\w.\[\]-]{1,100}", re.ASCII)
"""What codes and names of parameters look like."""

MAX_SEARCHED: Final = 2_000


def openai_error(
    status: int, body: bytes | bytearray, **error_context: Unpack[ErrorContext]
) -> GatewayError:
    """The error for a response with ``status``.

    The message of a refusal is about the request, and is passed on unless it names addresses, paths
    or keys of the server. That of the engine's own failures is not.
    """
    error = _parsed(body)
    return _for_operators_too(_failure(status, error, **error_context), error, **error_context)


def _for_operators_too(
    failure: GatewayError, error: dict[str, Any], **error_context: Unpack[ErrorContext]
) -> GatewayError:
    text = _message(error)
    if failure.status >= 500 or not client_message(text, error_context.get("model", "")):
        failure.engine_message = operator_text(text)
    return failure


def _failure(
    status: int, error: dict[str, Any], **error_context: Unpack[ErrorContext]
) -> GatewayError:
    if status in (401, 403):
        return UpstreamError("The engine rejected the gateway's credentials.")
    if status in _REFUSALS:
        return _engine_error(error, is_refusal=True, **error_context)
    if known := _known(error, is_refusal=False, **error_context):
        return known
    if status == 404:
        return _not_found(error, **error_context)
    if status in (405, 501):
        return _other_endpoint(**error_context)
    if status in (408, 504):
        return UpstreamTimeout("The engine did not answer in time.")
    if status in (429, 503):
        return UpstreamUnavailable("The engine is busy. Try again later.")
    return UpstreamError(f"The engine failed with status {status}.")


def engine_error(
    error: Any, *, is_refusal: bool = False, **error_context: Unpack[ErrorContext]
) -> GatewayError:
    """Return the error for an ``error`` object: that of a refusal, or one that came instead of an
    answer or in the middle of it."""
    if not isinstance(error, dict):
        error = {"message": error}
    return _for_operators_too(
        _engine_error(error, is_refusal=is_refusal, **error_context), error, **error_context
    )


def _engine_error(
    error: dict[str, Any], *, is_refusal: bool, **error_context: Unpack[ErrorContext]
) -> GatewayError:
    is_refusal = (
        is_refusal
        or error.get("code") in (400, "400")
        or error.get("type") == "invalid_request_error"
    )
    if known := _known(error, is_refusal=is_refusal, **error_context):
        return known
    if is_refusal:
        return InvalidRequest(
            client_message(_message(error), error_context.get("model", "")) or REFUSED,
            param=_word(error.get("param")),
            code=_word(error.get("code")),
        )
    return UpstreamError("The engine failed while generating the response.")


def _known(
    error: dict[str, Any], *, is_refusal: bool, **error_context: Unpack[ErrorContext]
) -> GatewayError | None:
    """What ``error`` says itself, whatever status it has come with."""
    text = _message(error)[:MAX_SEARCHED]
    if error.get("code") == "model_not_found":
        return ModelNotFound(error_context.get("model", ""))
    if _LACKS_ENDPOINT.search(text):
        return _other_endpoint(**error_context)
    if "does not support logits" in text:
        return InvalidRequest(
            "This model does not produce text.", param="model", code="unsupported_endpoint"
        )
    if lack := _LACKS_INPUT.search(text):
        return media_error(lack[1], **error_context)
    if _LACKS_TOOLS.search(text):
        return tools_error()
    # Only if the client has sent a schema.
    if "schema_param" in error_context and (bad := _BAD_SCHEMA.search(text)):
        return schema_error(bad["reason"], **error_context)
    if text.startswith(_BAD_ARGUMENTS):
        return InvalidRequest(
            "This model requires JSON as the arguments of earlier tool calls.", param="messages"
        )
    if text.startswith("Pooling type"):
        return UpstreamError("This model's file does not say how to pool; set 'pooling'.")
    if error.get("type") == "exceed_context_size_error":
        return _too_long(error, **error_context)
    if error.get("code") == "context_length_exceeded" or _TOO_LONG.search(text):
        limit, size = _LIMIT.search(text), _SIZE.search(text)
        if limit and size and int(size[size.lastindex or 0]) > int(limit[1]):
            figures = {"n_prompt_tokens": int(size[size.lastindex or 0]), "n_ctx": int(limit[1])}
            return _too_long(figures, **error_context)
        # It is too long together with what it asks for, or there are no figures.
        if is_refusal and (words := client_message(text, error_context.get("model", ""))):
            return ContextLengthExceeded(words, param=_param(**error_context))
        return _too_long({}, **error_context)
    return None


def _too_long(figures: dict[str, Any], **error_context: Unpack[ErrorContext]) -> GatewayError:
    param = _param(**error_context)
    return ContextLengthExceeded(context_message(figures, param), param=param)


def _not_found(error: dict[str, Any], **error_context: Unpack[ErrorContext]) -> GatewayError:
    """The model is missing, or is for something else, or there is no such endpoint: engines answer
    all of these with 404."""
    model = error_context.get("model", "")
    if model and model in _message(error)[:MAX_SEARCHED]:
        return ModelNotFound(model)
    if error.get("param") == "model":
        return _other_endpoint(**error_context)
    # Where the address of the engine is wrong, it is the site's owner who has to know.
    return UpstreamError("The engine does not have this endpoint.")


def _other_endpoint(**error_context: Unpack[ErrorContext]) -> GatewayError:
    return endpoint_error(_ENDPOINTS[_param(**error_context)])


def _param(**error_context: Unpack[ErrorContext]) -> str:
    return error_context.get("param", "messages")


def _message(error: dict[str, Any]) -> str:
    message = error.get("message")
    return message if isinstance(message, str) else ""


def _word(value: Any) -> str | None:
    """``value``, if it is a name: some engines send the status for a code, and ``None`` in
    letters."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value == "None":
        return None
    return client_message(value) or None


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
    return {**error, **_detailed(error.get("detail"))}


def _detailed(detail: Any) -> dict[str, Any]:
    """The same from FastAPI's ``detail``: a text, or what is wrong field by field."""
    if isinstance(detail, str):
        return {"message": detail}
    first = detail[0] if isinstance(detail, list) and detail else None
    if not isinstance(first, dict) or not isinstance(first.get("msg"), str):
        return {}
    location = first.get("loc")
    steps = [step for step in location if step != "body"] if isinstance(location, list) else []
    param = ".".join(map(str, steps))
    return {"message": f"Invalid value for '{param}': {first['msg']}.", "param": param}
