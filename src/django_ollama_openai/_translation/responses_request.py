"""Translate requests of the Responses API into chat completion requests, which backends accept.

Several items of a model's turn (reasoning, text, tool calls) become one assistant message. Errors
name the fields of the original request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias

from .._wire.base import MAX_PARTS
from .._wire.chat import ChatCompletionRequest
from .._wire.response_tools import AllowedTools, OtherReference, ToolReference
from .._wire.responses import (
    AssistantInput,
    CompactionItem,
    ContentPart,
    CustomToolCallItem,
    CustomToolCallOutput,
    FunctionCallItem,
    FunctionCallOutput,
    InputAudioPart,
    InputImagePart,
    InputItem,
    ItemReference,
    JSONSchemaFormat,
    OtherItem,
    ReasoningItem,
    RefusalPart,
    ResponsesRequest,
    TextConfig,
    ToolsItem,
)
from ..exceptions import GatewayError, InvalidRequest
from .hosted_items import Call, Text, readable
from .offered_tools import ToolNames, function_tool

__all__ = ["chat_request", "ignored_parts", "to_responses_error", "to_responses_param"]


def chat_request(request: ResponsesRequest) -> ChatCompletionRequest:
    """Return the chat completion request that is equivalent to ``request``.

    Parts without an equivalent are dropped: see ``ResponsesRequest.unsupported_parameters`` and
    :func:`ignored_parts`.

    Raises:
        InvalidRequest: A field of ``request`` is invalid; the error names it.
    """
    body = _Translation(request).body
    if not body["messages"]:
        raise InvalidRequest(
            "'input' must contain a message or another item with readable text.",
            param="input",
        )
    try:
        return ChatCompletionRequest.from_dict(body)
    except InvalidRequest as error:
        to_responses_error(request, error)
        raise


def ignored_parts(request: ResponsesRequest) -> tuple[str, ...]:
    """Return the names of the parts of ``request`` that do not reach the model: hosted tools and
    items without readable text. Each type has one name."""
    items = request.input if isinstance(request.input, list) else ()
    unreadable = (
        item.type
        for item in items
        if isinstance(item, CompactionItem)
        or (isinstance(item, OtherItem) and not readable(item))
        or (isinstance(item, ReasoningItem) and item.encrypted_content and not item.text)
    )
    names = [_named("tools", type) for type in request.hosted_tools]
    names += [_named("input", type) for type in unreadable]
    # Clients may send any number of types, but the header with the names has to be short.
    return tuple(dict.fromkeys(names))[:MAX_IGNORED]


MAX_IGNORED: Final = 32
_TYPE: Final = re.compile(r"[a-z0-9_]{1,40}")


def _named(field: str, type: str) -> str:
    return f"{field}.{type}" if _TYPE.fullmatch(type) else field


def to_responses_error(request: ResponsesRequest, error: GatewayError) -> None:
    """Change ``error``, which names a field of the chat completion request for ``request``, to name
    the field of ``request`` instead."""
    if error.param is not None:
        param = to_responses_param(request, error.param)
        error.message = error.message.replace(f"'{error.param}'", f"'{param}'")
        if (error.param, param) == ("messages", "input"):
            # Messages about the context length name the field without quotes.
            error.message = _YOUR_MESSAGES.sub(r"\1 input", error.message)
        error.param = param


def to_responses_param(request: ResponsesRequest, param: str) -> str:
    """Return the field of ``request`` from which the field ``param`` of its chat completion request
    was made."""
    origins = _Translation(request).origins
    for end in sorted((step.end() for step in _STEP.finditer(param)), reverse=True):
        if (origin := origins.get(param[:end])) is not None:
            return origin + param[end:]
    return param


_YOUR_MESSAGES: Final = re.compile(r"\b(your|the) messages\b")

#: Fields of the chat completion request, with their names in the Responses API.
_RESPONSES_NAMES: Final = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "tool_choice.function": "tool_choice",
    "tool_choice.custom": "tool_choice",
    "tool_choice.allowed_tools": "tool_choice",
    "verbosity": "text.verbosity",
}

_RESPONSES_IMAGE_NAMES: Final = {
    "image_url": "image_url",
    "image_url.url": "image_url",
    "image_url.detail": "detail",
}

_STEP: Final = re.compile(r"\.?[^.\[]+|\[\d+\]")

#: A part of a message, after the notation of its origin.
_Part: TypeAlias = tuple[str, dict[str, Any]]


@dataclass(slots=True)
class _AssistantMessage:
    """An assistant message that is not complete yet."""

    origin: str
    content: list[_Part] = field(default_factory=list)
    calls: list[_Part] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)


class _Translation:
    """The chat completion request as JSON, and the origins of its fields in ``request``."""

    def __init__(self, request: ResponsesRequest) -> None:
        self._messages: list[dict[str, Any]] = []
        self._names = ToolNames(request)
        self.origins = dict(_RESPONSES_NAMES)
        self._assistant: _AssistantMessage | None = None
        # Reasoning that precedes the next text or tool call.
        self._reasoning: list[str] = []
        body = {"messages": self._messages, **self._parameters(request)}
        self.body = {name: value for name, value in body.items() if value is not None}
        if request.instructions is not None:
            self._message("instructions", "system", _parts("instructions", request.instructions))
        if isinstance(request.input, str):
            self._message("input", "user", _parts("input", request.input))
        for number, item in enumerate(request.input if isinstance(request.input, list) else ()):
            self._item(f"input[{number}]", item)
        self._end_turn()

    # Messages

    def _item(self, origin: str, item: InputItem) -> None:
        if isinstance(item, ReasoningItem):
            self._assistant = self._assistant or _AssistantMessage(origin)
            self._reasoning += [item.text] if item.text else []
        elif isinstance(item, AssistantInput):
            self._text(origin, _parts(f"{origin}.content", item.content))
        elif isinstance(item, (FunctionCallItem, CustomToolCallItem)):
            self._call(origin, self._tool_call(item))
        elif isinstance(item, (FunctionCallOutput, CustomToolCallOutput)):
            self._result(origin, item.call_id, _parts(f"{origin}.output", item.output))
        elif isinstance(item, OtherItem):
            self._hosted(origin, item)
        elif isinstance(item, ToolsItem):
            if item.call_id is not None:
                # The tools are in "tools", but the call needs a result, too.
                self._result(origin, item.call_id, _parts(origin, self._tool_names(item)))
        elif not isinstance(item, (CompactionItem, ItemReference)):
            self._end_turn()
            self._message(origin, item.role, _parts(f"{origin}.content", item.content))

    def _text(self, origin: str, content: list[_Part]) -> None:
        if self._assistant is not None and self._assistant.calls:
            self._end_message()
        message = self._assistant_message(origin)
        message.content += content

    def _call(self, origin: str, call: dict[str, Any]) -> None:
        message = self._assistant_message(origin)
        message.calls.append((origin, call))

    def _result(self, origin: str, call_id: str, content: list[_Part]) -> None:
        self._end_turn()
        base = self._message(origin, "tool", content, tool_call_id=call_id)
        self.origins[f"{base}.tool_call_id"] = f"{origin}.call_id"

    def _tool_names(self, item: ToolsItem) -> str:
        names = [name for tool in item.tools for name in self._names.engine_names(tool)]
        return "\n".join(names)

    def _hosted(self, origin: str, item: OtherItem) -> None:
        for piece in readable(item):
            if isinstance(piece, Text):
                self._text(origin, _parts(origin, piece.text))
            elif isinstance(piece, Call):
                self._call(origin, _function_call(piece.id, piece.name, piece.arguments))
            else:
                self._result(origin, piece.id, _parts(origin, piece.text))

    def _tool_call(self, item: FunctionCallItem | CustomToolCallItem) -> dict[str, Any]:
        name = self._names.engine_name(item.namespace, item.name)
        if isinstance(item, FunctionCallItem):
            return _function_call(item.call_id, name, item.arguments)
        custom = {"name": name, "input": item.input}
        return {"id": item.call_id, "type": "custom", "custom": custom}

    def _assistant_message(self, origin: str) -> _AssistantMessage:
        """Return the assistant message of the item at ``origin``, with the reasoning before it."""
        self._assistant = self._assistant or _AssistantMessage(origin)
        self._assistant.reasoning += self._reasoning
        self._reasoning = []
        return self._assistant

    def _end_turn(self) -> None:
        if self._assistant is not None:
            self._assistant_message(self._assistant.origin)
            self._end_message()

    def _end_message(self) -> None:
        message, self._assistant = self._assistant, None
        # Nothing is left of encrypted reasoning.
        if message is None or not (message.content or message.calls or message.reasoning):
            return
        fields: dict[str, Any] = {}
        if message.reasoning:
            fields["reasoning_content"] = "\n".join(message.reasoning)
        if message.calls:
            fields["tool_calls"] = [call for _, call in message.calls]
        content = message.content
        if len(content) > MAX_PARTS:
            # Each item is within the limit, but not all of them together.
            content = _joined(content)
        base = self._message(message.origin, "assistant", content, **fields)
        self.origins[f"{base}.reasoning_content"] = message.origin
        for number, (origin, _) in enumerate(message.calls):
            call = f"{base}.tool_calls[{number}]"
            self.origins[call] = self.origins[f"{call}.function"] = origin
            self.origins[f"{call}.id"] = f"{origin}.call_id"
            self.origins.setdefault(f"{base}.tool_calls", origin)

    def _message(self, origin: str, role: str, content: list[_Part], **fields: Any) -> str:
        """Add a message, and return its notation in the chat completion request."""
        base = f"messages[{len(self._messages)}]"
        message: dict[str, Any] = {"role": role}
        self._messages.append(message)
        self.origins[base] = origin
        if content:
            self.origins[f"{base}.content"] = content[0][0].removesuffix("[0]")
        if len(content) == 1 and content[0][1]["type"] == "text":
            # Not every engine's templates support parts.
            message["content"] = content[0][1]["text"]
        elif content or role != "assistant":
            message["content"] = [part for _, part in content]
            for number, (part_origin, part) in enumerate(content):
                notation = f"{base}.content[{number}]"
                self.origins[notation] = part_origin
                if part["type"] == "image_url":
                    for name, original in _RESPONSES_IMAGE_NAMES.items():
                        self.origins[f"{notation}.{name}"] = f"{part_origin}.{original}"
        message.update(fields)
        return base

    # Parameters

    def _parameters(self, request: ResponsesRequest) -> dict[str, Any]:
        reasoning, options, text = request.reasoning, request.options, request.text
        is_cut = request.truncation == "auto"
        if is_cut:
            self.origins["truncate"] = "truncation"
        self.origins["logprobs"] = "top_logprobs" if request.top_logprobs else "include"
        return {
            "model": request.model,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "frequency_penalty": request.frequency_penalty,
            "presence_penalty": request.presence_penalty,
            "seed": request.seed,
            "stop": request.stop,
            "max_completion_tokens": request.max_output_tokens,
            "stream": request.stream,
            "tools": self._tools(),
            "tool_choice": self._tool_choice(request),
            "parallel_tool_calls": request.parallel_tool_calls,
            "response_format": None if text is None else _response_format(text),
            "verbosity": None if text is None else text.verbosity,
            "reasoning_effort": None if reasoning is None else reasoning.effort,
            "logprobs": request.includes_logprobs or None,
            "top_logprobs": request.top_logprobs if request.includes_logprobs else None,
            "user": request.user,
            "metadata": request.metadata,
            "options": None if options is None else options.dump_known(),
            "keep_alive": request.keep_alive,
            "think": request.think,
            "shift": request.shift,
            "truncate": is_cut or request.truncate,
        }

    def _tools(self) -> list[dict[str, Any]] | None:
        tools: list[dict[str, Any]] = []
        described: set[str] = set()
        for name, offered in self._names.in_order:
            notation = f"tools[{len(tools)}]"
            self.origins[notation] = offered.origin
            self.origins[f"{notation}.{offered.tool.type}"] = offered.origin
            namespace = "" if offered.namespace is None else offered.namespace.name
            tools.append(function_tool(name, offered, is_first=namespace not in described))
            described.add(namespace)
        return tools or None

    def _tool_choice(self, request: ResponsesRequest) -> str | dict[str, Any] | None:
        choice = request.tool_choice
        is_named = isinstance(choice, (ToolReference, AllowedTools))
        offered = request.tools_by_name() if is_named else {}

        def nested(reference: ToolReference) -> dict[str, Any]:
            tool = offered[reference.type, reference.name, reference.namespace]
            return {
                "type": reference.type,
                reference.type: {"name": self._names.engine_name(*tool.full_name)},
            }

        if isinstance(choice, ToolReference):
            return nested(choice)
        if isinstance(choice, OtherReference):
            # Refused earlier, unless the site ignores unsupported parameters.
            return None
        if not isinstance(choice, AllowedTools):
            return choice
        places = [n for n, tool in enumerate(choice.tools) if isinstance(tool, ToolReference)]
        if not places:
            return "none"
        for number, place in enumerate(places):
            notation = f"tool_choice.allowed_tools.tools[{number}].{choice.tools[place].type}"
            self.origins[notation] = f"tool_choice.tools[{place}]"
        allowed = {"mode": choice.mode, "tools": [nested(tool) for tool in choice.references]}
        return {"type": "allowed_tools", "allowed_tools": allowed}


def _parts(origin: str, content: str | Sequence[ContentPart]) -> list[_Part]:
    if isinstance(content, str):
        return [(origin, {"type": "text", "text": content})]
    return [(f"{origin}[{number}]", _part(part)) for number, part in enumerate(content)]


def _joined(content: list[_Part]) -> list[_Part]:
    """Return ``content`` with consecutive texts joined by line feeds."""
    joined: list[_Part] = []
    for kind, group in groupby(content, key=lambda part: part[1]["type"]):
        parts = list(group)
        text = "\n".join(part[kind] for _, part in parts)
        joined.append((parts[0][0], {"type": kind, kind: text}))
    return joined


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, InputImagePart):
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    if isinstance(part, InputAudioPart):
        return {"type": "input_audio", "input_audio": part.input_audio.dump_known()}
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.refusal}
    return {"type": "text", "text": part.text}


def _function_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _response_format(text: TextConfig) -> dict[str, Any] | None:
    if text.format is None:
        return None
    response_format = text.format.dump_known()
    if isinstance(text.format, JSONSchemaFormat):
        return {"type": response_format.pop("type"), "json_schema": response_format}
    return response_format
