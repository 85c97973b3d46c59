"""Translate requests into the bodies of Ollama's own API.

Source: Ollama's ``api/types.go`` (``ChatRequest``, ``GenerateRequest``, ``EmbedRequest``,
``Options``). Ollama ignores unknown roles and options without an error, so requests have to be
validated before.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .._wire.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    FunctionCall,
    FunctionMessage,
    FunctionTool,
    Message,
    ToolMessage,
    content_media,
    content_text,
)
from .._wire.completions import CompletionRequest
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from .._wire.generation import SAMPLING_FIELDS
from .._wire.text_input import tokens_unsupported
from .json_schema import object_schema, portable_schema

__all__ = [
    "TOP_LEVEL_OPTIONS",
    "ollama_chat_payload",
    "ollama_completion_payload",
    "ollama_embeddings_payload",
]

#: Options that are fields of the body itself, beside ``options``.
TOP_LEVEL_OPTIONS: Final = frozenset({"keep_alive", "shift", "think", "truncate"})

_THINK: Final[dict[str, bool | str]] = {"none": False, "minimal": "low", "xhigh": "max"}


def ollama_chat_payload(request: ChatCompletionRequest, *, stream: bool) -> dict[str, Any]:
    """Return the body of ``POST /api/chat``. ``request`` has Ollama's own name of the model."""
    payload: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": stream,
        **_options(request, {**_sampling(request), "think": _think(request)}),
    }
    if request.tools:
        payload["tools"] = [_tool(tool) for tool in request.tools]
    schema, response_format = request.translated_schema(portable_schema), request.response_format
    if schema is not None:
        payload["format"] = schema
    elif response_format is not None and response_format.type == "json_object":
        payload["format"] = "json"
    if request.logprobs:
        payload["logprobs"] = True
        payload["top_logprobs"] = request.top_logprobs or 0
    return payload


def ollama_completion_payload(request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
    """Return the body of ``POST /api/generate``. ``request`` has one prompt and Ollama's own name
    of the model.

    Raises:
        UnsupportedParameter: The prompt is an array of tokens.
    """
    if not isinstance(request.prompt, str):
        raise tokens_unsupported("prompt")
    payload: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "stream": stream,
        **_options(request, {**_sampling(request), "think": request.think}),
    }
    if request.suffix:
        # Only the model's own template has a place for the text after the completion.
        payload["suffix"] = request.suffix
    else:
        # Without "raw" the template would turn the prompt into a chat message.
        payload["raw"] = True
    if request.logprobs is not None:
        payload["logprobs"] = True
        payload["top_logprobs"] = request.logprobs
    return payload


def ollama_embeddings_payload(request: EmbeddingsRequest) -> dict[str, Any]:
    """Return the body of ``POST /api/embed``. ``request`` has Ollama's own name of the model.

    Raises:
        UnsupportedParameter: The input consists of tokens.
    """
    if request.token_input:
        raise tokens_unsupported("input")
    payload = {"model": request.model, "input": request.inputs(), **_options(request, {})}
    if request.dimensions is not None:
        payload["dimensions"] = request.dimensions
    return payload


# Options


def _sampling(request: ChatCompletionRequest | CompletionRequest) -> dict[str, Any]:
    """Return OpenAI's fields under Ollama's names; ``None`` leaves one to the Modelfile."""
    return {
        **{name: getattr(request, name) for name in SAMPLING_FIELDS},
        "num_predict": request.output_limit,
        "shift": request.shift,
    }


def _options(request: EngineRequest, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` and the options beside it.

    The site's options, from ``MODELS``, have the lowest precedence, then come the ``options`` of
    the request, then ``fields``: OpenAI's fields of the request under Ollama's names.
    """
    given = {**fields, "keep_alive": request.keep_alive, "truncate": request.truncate}
    options = {
        # Ollama's default is to cut off a prompt that is too long, without an error.
        "truncate": False,
        **request.engine_options,
        **(request.options.dump_known() if request.options is not None else {}),
        **{name: value for name, value in given.items() if value is not None},
    }
    if "shift" in fields and not options["truncate"]:
        # With a full context Ollama would drop the oldest tokens during the answer without notice.
        options.setdefault("shift", False)
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    body = {name: options.pop(name) for name in TOP_LEVEL_OPTIONS & options.keys()}
    return {**body, "options": options} if options else body


# Chat


def _tool(tool: FunctionTool) -> dict[str, Any]:
    payload = tool.model_dump(exclude_unset=True)
    payload["function"]["parameters"] = object_schema(tool.function.parameters)
    return payload


def _think(request: ChatCompletionRequest) -> bool | str | None:
    effort = request.reasoning_effort
    if request.think is not None or effort is None:
        return request.think
    return _THINK.get(effort, effort)


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    translated = []
    tool_names: dict[str, str] = {}
    for message in messages:
        if isinstance(message, AssistantMessage):
            for call in message.tool_calls or ():
                tool_names[call.id] = call.function.name
        translated.append(_message(message, tool_names))
    return translated


def _message(message: Message, tool_names: dict[str, str]) -> dict[str, Any]:
    content = content_text(message.content)
    if isinstance(message, AssistantMessage):
        return _assistant_message(message, content or message.refusal or "")
    if isinstance(message, FunctionMessage):
        return {"role": "tool", "content": content, "tool_name": message.name}
    # Few of Ollama's templates have "developer", OpenAI's new name for "system".
    role = "system" if message.role == "developer" else message.role
    translated: dict[str, Any] = {"role": role, "content": content}
    if isinstance(message, ToolMessage):
        translated["tool_call_id"] = message.tool_call_id
        if name := tool_names.get(message.tool_call_id):
            translated["tool_name"] = name
    if media := content_media(message.content):
        # Audio goes there too. Always as data: Ollama's own client would read a file of that name.
        translated["images"] = [base64.b64encode(data).decode() for data in media]
    return translated


def _assistant_message(message: AssistantMessage, content: str) -> dict[str, Any]:
    translated: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking := message.reasoning_content or message.reasoning:
        translated["thinking"] = thinking
    calls: list[tuple[dict[str, Any], FunctionCall]] = [
        ({"id": call.id}, call.function) for call in message.tool_calls or ()
    ]
    if message.function_call is not None:
        calls.append(({}, message.function_call))
    if calls:
        translated["tool_calls"] = [
            {
                **identity,
                "function": {
                    "index": index,
                    "name": function.name,
                    "arguments": function.arguments_object(),
                },
            }
            for index, (identity, function) in enumerate(calls)
        ]
    return translated
