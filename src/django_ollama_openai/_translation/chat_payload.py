"""A chat completion request as the body of Ollama's ``POST /api/chat``.

Source: Ollama's ``api/types.go`` (``ChatRequest``). Ollama accepts unknown roles and options
silently, so what leaves here has been validated before.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
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
from .json_schema import object_schema, portable_schema
from .options import ollama_options, sampling_options

__all__ = ["chat_payload"]

_THINK: Final[dict[str, bool | str]] = {"none": False, "minimal": "low", "xhigh": "max"}


def chat_payload(request: ChatCompletionRequest, *, stream: bool) -> dict[str, Any]:
    """The body for ``request``, whose model is already the engine's own name for it."""
    payload: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": stream,
        **ollama_options(request, {**sampling_options(request), "think": _think(request)}),
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


def _tool(tool: FunctionTool) -> dict[str, Any]:
    sent = tool.model_dump(exclude_unset=True)
    sent["function"]["parameters"] = object_schema(tool.function.parameters)
    return sent


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
        return _answer(message, content or message.refusal or "")
    if isinstance(message, FunctionMessage):
        return {"role": "tool", "content": content, "tool_name": message.name}
    # Few of Ollama's templates know the role that OpenAI renamed "system" to.
    role = "system" if message.role == "developer" else message.role
    translated: dict[str, Any] = {"role": role, "content": content}
    if isinstance(message, ToolMessage):
        translated["tool_call_id"] = message.tool_call_id
        if name := tool_names.get(message.tool_call_id):
            translated["tool_name"] = name
    if media := content_media(message.content):
        # Sounds go there too. Always data: Ollama's own client reads the file a text names.
        translated["images"] = [base64.b64encode(data).decode() for data in media]
    return translated


def _answer(message: AssistantMessage, content: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking := message.reasoning_content or message.reasoning:
        answer["thinking"] = thinking
    calls: list[tuple[dict[str, Any], FunctionCall]] = [
        ({"id": call.id}, call.function) for call in message.tool_calls or ()
    ]
    if message.function_call is not None:
        calls.append(({}, message.function_call))
    if calls:
        answer["tool_calls"] = [
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
    return answer
