"""Translate requests into the bodies of llama.cpp's own server, which runs in-process.

Source: llama.cpp's ``tools/server/README.md``.
"""

from __future__ import annotations

from typing import Any, Final

from .._wire.chat import AssistantMessage, ChatCompletionRequest, Message, content_text
from .._wire.completions import CompletionRequest
from .._wire.generation import SAMPLING_FIELDS
from .deprecated_functions import as_tool_calls
from .json_schema import map_schema, object_schema, portable_schema
from .llamacpp_schema import Patterns, enforceable_schema, without_long_integers
from .tool_choice import forced_tools, parameters_param

__all__ = ["check_schemas", "llamacpp_chat_payload", "llamacpp_completion_payload"]

# llama-server has many more fields than OpenAI, which clients must not set.
_SAMPLING_FIELDS: Final = frozenset({*SAMPLING_FIELDS, "model", "logit_bias"})
_COMPLETION_FIELDS: Final = _SAMPLING_FIELDS | {"prompt"}
_CHAT_FIELDS: Final = _SAMPLING_FIELDS | {
    "tools",
    "parallel_tool_calls",
    "response_format",
    "logprobs",
    "top_logprobs",
}


def llamacpp_chat_payload(request: ChatCompletionRequest) -> dict[str, Any]:
    """Return the fields of ``request`` for llama-server's chat completion endpoint.

    Raises:
        InvalidRequest: The request has a schema that llama.cpp cannot enforce.
    """
    body = request.dump_known(_CHAT_FIELDS)
    body["messages"] = [_message(message) for message in as_tool_calls(request.messages)]
    schema = request.translated_schema(enforceable_schema)
    if schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        }
    for number, tool in enumerate(body.get("tools", ())):
        function = tool["function"]
        parameters = object_schema(function.get("parameters"))
        portable = portable_schema(parameters, parameters_param(request, number))
        function["parameters"] = without_long_integers(
            map_schema(portable, lambda node, path: node)
        )
    if request.output_limit is not None:
        # In llama-server n_predict overrides OpenAI's names, and the site's options may have any.
        body["n_predict"] = request.output_limit
    return body


def llamacpp_completion_payload(request: CompletionRequest) -> dict[str, Any]:
    """Return the fields of ``request`` for llama-server's completion endpoint."""
    body = request.dump_known(_COMPLETION_FIELDS)
    if request.logprobs is not None:
        # llama-server returns no log probabilities for 0.
        body["logprobs"] = max(1, request.logprobs)
    if request.max_tokens is not None:
        body["n_predict"] = request.max_tokens
    return body


def check_schemas(request: ChatCompletionRequest) -> None:
    """Check the schemas that the completion of ``request`` must match.

    Raises:
        InvalidRequest: llama.cpp cannot enforce one of them.
    """
    request.translated_schema(enforceable_schema)
    patterns = Patterns()
    for param, tool in forced_tools(request):
        enforceable_schema(object_schema(tool.function.parameters), param, patterns)


def _message(message: Message) -> dict[str, Any]:
    sent = message.dump_known()
    sent["content"] = content_text(message.content)
    if message.role == "developer":
        # Few templates have "developer", OpenAI's new name for "system".
        sent["role"] = "system"
    if isinstance(message, AssistantMessage):
        sent["content"] = sent["content"] or sent.pop("refusal", "")
        for call, made in zip(sent.get("tool_calls", ()), message.tool_calls or (), strict=True):
            # llama-server parses every string, and crashes at one that is not JSON.
            call["function"]["arguments"] = made.function.arguments_json()
    return sent
