"""A chat completion request as the body of Ollama's ``POST /api/chat``.

Source: Ollama's ``api/types.go`` (``ChatRequest``). Ollama accepts unknown roles and options
silently, so what leaves here has been validated before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..wire.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    FunctionMessage,
    JSONSchemaFormat,
    Message,
    ToolMessage,
    content_text,
)

__all__ = ["chat_payload"]

TOP_LEVEL_OPTIONS: Final = frozenset({"keep_alive", "shift", "think", "truncate"})
"""Engine options that stand beside ``options`` in the body, not in it."""

_THINK: Final = {"none": False, "minimal": "low", "xhigh": "max"}


def chat_payload(request: ChatCompletionRequest, *, stream: bool) -> dict[str, Any]:
    """The body for ``request``, whose model is already the engine's own name for it."""
    payload: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": stream,
        # Ollama would cut the oldest messages off and answer as if nothing had happened.
        "truncate": False,
    }
    engine_options = request.engine_options
    payload.update((k, v) for k, v in engine_options.items() if k in TOP_LEVEL_OPTIONS)
    if request.tools:
        payload["tools"] = [tool.model_dump(exclude_unset=True) for tool in request.tools]
    response_format = request.response_format
    if isinstance(response_format, JSONSchemaFormat):
        payload["format"] = response_format.json_schema.schema_
    elif response_format is not None and response_format.type == "json_object":
        payload["format"] = "json"
    if request.reasoning_effort is not None:
        payload["think"] = _THINK.get(request.reasoning_effort, request.reasoning_effort)
    if request.logprobs:
        payload["logprobs"] = True
        payload["top_logprobs"] = request.top_logprobs or 0
    options = {k: v for k, v in engine_options.items() if k not in TOP_LEVEL_OPTIONS}
    options.update(_options(request))
    if options:
        payload["options"] = options
    return payload


def _options(request: ChatCompletionRequest) -> dict[str, Any]:
    """Sampling options, only those that the client sent: the Modelfile's own hold otherwise."""
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "num_predict": request.output_limit,
        "stop": stop,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


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
        answer: dict[str, Any] = {"role": "assistant", "content": content}
        if thinking := message.reasoning_content or message.reasoning:
            answer["thinking"] = thinking
        if message.tool_calls:
            answer["tool_calls"] = [
                {
                    "id": call.id,
                    "function": {
                        "index": index,
                        "name": call.function.name,
                        "arguments": call.function.arguments_object(),
                    },
                }
                for index, call in enumerate(message.tool_calls)
            ]
        return answer
    if isinstance(message, ToolMessage):
        result = {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}
        if name := tool_names.get(message.tool_call_id):
            result["tool_name"] = name
        return result
    if isinstance(message, FunctionMessage):
        return {"role": "tool", "content": content, "tool_name": message.name}
    # Few of Ollama's templates know the role that OpenAI renamed "system" to.
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content}
