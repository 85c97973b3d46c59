"""Translate requests into the bodies for engines with OpenAI's API.

A body only has the fields that the engine supports: neither those of other engines, such as
Ollama's, nor those for services of OpenAI's platform (``store``, ``metadata``, ``user``).
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from typing import Any, Final

from .._wire.chat import (
    AssistantMessage,
    AudioPart,
    ChatCompletionRequest,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    content_media,
)
from .._wire.completions import CompletionRequest
from .._wire.embeddings import EmbeddingsRequest
from .._wire.generation import SAMPLING_FIELDS
from .._wire.media import image_type
from .deprecated_functions import as_tool_calls
from .json_schema import object_schema

__all__ = ["openai_chat_payload", "openai_completion_payload", "openai_embeddings_payload"]

_SAMPLING: Final = frozenset(SAMPLING_FIELDS)
_CHAT: Final = _SAMPLING | {"max_completion_tokens", "max_tokens"}
_CHAT_OPTIONAL: Final = frozenset(
    {"logit_bias", "logprobs", "parallel_tool_calls", "prediction", "reasoning_effort"}
    | {"response_format", "tool_choice", "tools", "verbosity"}
)

_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_TOOL_FIELDS: Final = ("tools", "tool_choice", "parallel_tool_calls")


def openai_chat_payload(
    request: ChatCompletionRequest,
    parameters: Collection[str],
    *,
    stream: bool,
    json_arguments: bool = False,
) -> dict[str, Any]:
    """Return the body of ``POST chat/completions``.

    ``parameters`` are the optional parameters that the engine supports. With ``json_arguments`` the
    arguments of earlier tool calls are always a JSON object.
    """
    fields = _CHAT | _CHAT_OPTIONAL.intersection(parameters)
    if "logprobs" in fields:
        fields |= {"top_logprobs"}
    sent = request.dump_known(fields)
    if request.reasoning_effort is not None and "reasoning_effort" in fields:
        # It may have been sent under another name.
        sent["reasoning_effort"] = request.reasoning_effort
    if not request.tools:
        # OpenAI and vLLM refuse an empty list, and a tool choice without tools.
        _drop(sent, _TOOL_FIELDS)
    for tool in sent.get("tools", ()):
        tool["function"]["parameters"] = object_schema(tool["function"].get("parameters"))
    schema, response_format = request.output_schema, sent.get("response_format")
    if schema is not None and response_format and response_format["type"] == "json_object":
        # OpenAI's format has no schema, and some engines would ignore it.
        json_schema = {"name": "answer", "schema": schema}
        sent["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    options = dict(request.engine_options)
    if request.output_limit is not None:
        _drop(options, _LIMITS)
    if "max_completion_tokens" in sent:
        # OpenAI refuses requests with both.
        _drop(sent, ("max_tokens",))
    return {
        **options,
        "model": request.model,
        "messages": [
            _message(message, json_arguments) for message in as_tool_calls(request.messages)
        ],
        **sent,
        **_streamed(stream),
    }


def openai_completion_payload(
    request: CompletionRequest, parameters: Collection[str], *, stream: bool
) -> dict[str, Any]:
    """Return the body of ``POST completions``. ``parameters`` are the optional parameters that the
    engine supports."""
    optional = {"logit_bias", "logprobs", "suffix"}.intersection(parameters)
    sent = request.dump_known(_SAMPLING | {"max_tokens"} | optional)
    if request.logprobs == 0 and "logprobs" in optional:
        # For 0 some engines send no log probabilities. The alternatives are removed later.
        sent["logprobs"] = 1
    return {
        "max_tokens": request.output_limit,
        **request.engine_options,
        "model": request.model,
        "prompt": request.prompt,
        **sent,
        **_streamed(stream),
    }


def openai_embeddings_payload(
    request: EmbeddingsRequest, parameters: Collection[str]
) -> dict[str, Any]:
    """Return the body of ``POST embeddings``. ``parameters`` are the optional parameters that the
    engine supports."""
    optional = {"dimensions"}.intersection(parameters)
    return {
        **request.engine_options,
        "model": request.model,
        "input": request.input,
        # Base64 would be shorter, but not every engine supports it.
        "encoding_format": "float",
        **request.dump_known(optional),
    }


def _streamed(stream: bool) -> dict[str, Any]:
    # A stream has no usage unless it is requested.
    options = {"stream_options": {"include_usage": True}} if stream else {}
    return {"stream": stream, **options}


def _drop(body: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        body.pop(name, None)


def _message(message: Message, json_arguments: bool) -> dict[str, Any]:
    sent = message.dump_known()
    if message.role == "developer":
        # Few templates have "developer", OpenAI's new name for "system". OpenAI accepts both.
        sent["role"] = "system"
    if isinstance(message.content, list):
        sent["content"] = [_part(part) for part in message.content] or ""
    if isinstance(message, AssistantMessage):
        _adapt_assistant(message, sent, json_arguments)
    elif message.content is None:
        sent["content"] = ""
    return sent


def _adapt_assistant(message: AssistantMessage, sent: dict[str, Any], json_arguments: bool) -> None:
    """Change ``sent``, the JSON of ``message``, into the form that all engines accept."""
    if not sent.get("tool_calls"):
        # Some engines refuse an empty list, and a message with neither tool calls nor content.
        _drop(sent, ("tool_calls",))
        sent.setdefault("content", "")
    for call, made in zip(sent.get("tool_calls", ()), message.tool_calls or (), strict=True):
        # The text may be empty for functions without parameters.
        if json_arguments or not made.function.arguments.strip():
            call["function"]["arguments"] = made.function.arguments_json()
    # Only OpenAI's own models distinguish refusals from other text.
    refusal = sent.pop("refusal", None)
    if refusal and not message.content:
        sent["content"] = refusal


def _part(part: Part) -> dict[str, Any]:
    sent = part.dump_known()
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal}
    # Always data, never URLs, in the base64 alphabet that all engines accept.
    if isinstance(part, ImagePart):
        (data,) = content_media([part])
        sent["image_url"]["url"] = f"data:{image_type(data)};base64,{_base64(data)}"
    elif isinstance(part, AudioPart):
        sent["input_audio"]["data"] = _base64(part.input_audio.audio)
    return sent


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
