"""``tool_choice`` and ``parallel_tool_calls`` for engines that do not support them.

A :class:`ToolChoiceAdapter` makes one or two requests to the engine of the client's, and of the
engine's deltas those that the client expects. It is pure state, for one choice::

    for request in adapter.requests():
        for delta in backend.stream_chat(request):
            send(adapter.feed(delta))

Source: OpenAI's API reference, "Create chat completion", ``tool_choice``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import PrivateAttr

from .._wire.base import parse_json
from .._wire.chat import (
    AllowedToolsChoice,
    ChatCompletionRequest,
    FunctionReference,
    FunctionTool,
    JSONSchemaFormat,
    Message,
    SystemMessage,
    chosen_functions,
    content_text,
)
from .._wire.delta import Delta, ToolCallDelta, new_tool_call_id
from ..exceptions import UpstreamError
from .custom_tool_calls import CustomToolCalls
from .json_schema import Definitions, object_schema, portable_schema

__all__ = [
    "CallFormat",
    "ToolChoiceAdapter",
    "forced_tools",
    "honoured",
    "parameters_param",
    "tool_choice_adapter",
]


class CallFormat(JSONSchemaFormat):
    """The format of a required call; its schema comes from the client's tools."""

    _origin: str = PrivateAttr("tools")

    @property
    def origin(self) -> str:
        """The field of the client's request with the schema."""
        return self._origin

    @classmethod
    def of(cls, schema: dict[str, Any], origin: str) -> CallFormat:
        """Return the format for ``schema``, which is in the field ``origin`` of the request."""
        made = cls.model_validate(
            {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
        )
        made._origin = origin
        return made


def tool_choice_adapter(
    request: ChatCompletionRequest, native: frozenset[str]
) -> ToolChoiceAdapter | None:
    """Return the adapter for ``request`` on an engine that honours the parameters ``native``;
    ``None`` if it needs none."""
    custom = request.custom_tools
    # The deprecated form allows only one call.
    is_parallel = not request.functions and (
        request.parallel_tool_calls is not False or "parallel_tool_calls" in native
    )
    is_native = "tool_choice" in native or not request.tools
    if is_native and is_parallel and not custom:
        return None
    adapter = ToolChoiceAdapter(request) if is_native else _chosen(request)
    adapter.is_parallel = is_parallel
    if custom:
        adapter.custom_tool_calls = CustomToolCalls(custom)
    return adapter


def honoured(request: ChatCompletionRequest, native: frozenset[str]) -> frozenset[str]:
    """Return which of ``tool_choice`` and ``parallel_tool_calls`` this module can honour for an
    engine that supports the parameters ``native``."""
    if "tools" not in native:
        return frozenset()
    choice = request.tool_choice
    is_call_required = isinstance(choice, FunctionReference) or "required" in (
        choice,
        choice.allowed_tools.mode if isinstance(choice, AllowedToolsChoice) else None,
    )
    if is_call_required and "response_format" not in native:
        return frozenset({"parallel_tool_calls"})
    return frozenset({"parallel_tool_calls", "tool_choice"})


def forced_tools(request: ChatCompletionRequest) -> list[tuple[str, FunctionTool]]:
    """Return the tools of which ``tool_choice`` demands one, each with the name of the field with
    its parameters."""
    choice, names = request.tool_choice, chosen_functions(request.tool_choice)
    if choice != "required" and not isinstance(choice, FunctionReference):
        mode = choice.allowed_tools.mode if isinstance(choice, AllowedToolsChoice) else None
        if mode != "required":
            return []
    return [
        (parameters_param(request, number), tool)
        for number, tool in enumerate(request.tools or ())
        if choice == "required" or tool.function.name in names
    ]


def parameters_param(request: ChatCompletionRequest, number: int) -> str:
    """Return the field with the parameters of tool ``number``, in ``tools`` or ``functions``."""
    if request.functions:
        return f"functions[{number}].parameters"
    return f"tools[{number}].function.parameters"


def _chosen(request: ChatCompletionRequest) -> ToolChoiceAdapter:
    choice, forced = request.tool_choice, forced_tools(request)
    if choice == "none":
        return _NoCalls(request)
    if isinstance(choice, FunctionReference):
        return _NamedCall(request, *forced[0])
    if isinstance(choice, AllowedToolsChoice):
        allowed = {tool.function.name for tool in choice.allowed_tools.tools}
        tools = [tool for tool in request.tools or () if tool.function.name in allowed]
        mode = choice.allowed_tools.mode
        request = request.model_copy(update={"tools": tools, "tool_choice": mode})
        choice = mode
    if choice == "required":
        return _SomeCall(request, forced)
    return ToolChoiceAdapter(request if choice is None else _plain(request))


def _plain(request: ChatCompletionRequest, **changes: Any) -> ChatCompletionRequest:
    return request.model_copy(update={"tool_choice": None, **changes})


class ToolChoiceAdapter:
    """Passes on what the engine decides."""

    is_parallel = True
    custom_tool_calls: CustomToolCalls | None = None

    def __init__(self, request: ChatCompletionRequest) -> None:
        self._request = request

    def requests(self) -> Iterator[ChatCompletionRequest]:
        """Yield the requests to the engine, each after all deltas of the one before were fed."""
        yield self._request

    def feed(self, delta: Delta) -> Delta:
        """Return what the client gets for ``delta``."""
        delta = self._shaped(delta)
        if not self.is_parallel and delta.tool_calls:
            delta.tool_calls = [call for call in delta.tool_calls if call.index == 0]
        return delta if self.custom_tool_calls is None else self.custom_tool_calls.feed(delta)

    def _shaped(self, delta: Delta) -> Delta:
        return delta


class _NoCalls(ToolChoiceAdapter):
    """``none``: the model does not get the tools, and calls in its answer are left out."""

    def requests(self) -> Iterator[ChatCompletionRequest]:
        yield _plain(self._request, tools=None)

    def _shaped(self, delta: Delta) -> Delta:
        delta.tool_calls = []
        if delta.finish_reason == "tool_calls":
            delta.finish_reason = "stop"
        return delta


class _NamedCall(ToolChoiceAdapter):
    """A named function: the model writes its arguments, and nothing else, as structured output.

    Some engines find calls in an answer that was to have none. One of the named function is the
    call then, and no other is. Text that is no object waits for it. The finish reason stays
    ``stop``, as it is with OpenAI for a named function.
    """

    def __init__(self, request: ChatCompletionRequest, param: str, tool: FunctionTool) -> None:
        super().__init__(request)
        self._param, self._tool = param, tool
        self._held: list[str] = []
        self._is_written = False
        #: The index of the engine's own call.
        self._found: int | None = None

    def requests(self) -> Iterator[ChatCompletionRequest]:
        yield _structured(
            self._request,
            f"Call the function {self._tool.function.name!r}: answer with its arguments, as JSON.",
            [self._tool],
            CallFormat.of(
                portable_schema(object_schema(self._tool.function.parameters), self._param),
                self._param,
            ),
        )

    def _shaped(self, delta: Delta) -> Delta:
        delta.tool_calls = [*self._written(delta.content), *self._called(delta.tool_calls)]
        if delta.finish_reason:
            if not self._is_written and self._found is None:
                delta.tool_calls = [self._begun()]
            if delta.finish_reason == "tool_calls":
                delta.finish_reason = "stop"
        return _only_calls(delta)

    def _written(self, content: str) -> Iterator[ToolCallDelta]:
        """Yield the pieces of the call that the model writes."""
        if not content or self._found is not None:
            return
        if self._is_written:
            yield ToolCallDelta(0, arguments=content)
            return
        # Blanks before it are nothing.
        is_object = not self._held and content.lstrip().startswith("{")
        if content.strip() or self._held:
            self._held.append(content)
        if is_object:
            yield self._begun()

    def _begun(self) -> ToolCallDelta:
        self._is_written = True
        arguments = "".join(self._held)
        self._held.clear()
        name = self._tool.function.name
        return ToolCallDelta(0, new_tool_call_id(), name, arguments)

    def _called(self, calls: list[ToolCallDelta]) -> Iterator[ToolCallDelta]:
        """Yield the pieces of the call that the engine has found, if it is the named function's."""
        if self._is_written:
            return
        for call in calls:
            if self._found is None and call.name == self._tool.function.name:
                self._found = call.index
                self._held.clear()
                yield replace(call, index=0, id=call.id or new_tool_call_id())
            elif call.index == self._found:
                yield replace(call, index=0, id=None, name=None)


class _SomeCall(ToolChoiceAdapter):
    """``required``: if the model answers without a call, a second request demands one."""

    def __init__(
        self, request: ChatCompletionRequest, tools: Sequence[tuple[str, FunctionTool]]
    ) -> None:
        super().__init__(request)
        self._tools = tools
        self._held: list[Delta] | None = []
        self._written: _WrittenCall | None = None

    def requests(self) -> Iterator[ChatCompletionRequest]:
        yield _plain(self._request)
        if self._held is None:
            return
        self._held = None
        tools = [tool for _, tool in self._tools]
        self._written = _WrittenCall({tool.function.name for tool in tools})
        # In a larger schema references have other targets.
        definitions = Definitions()
        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.function.name},
                    "arguments": definitions.embed(object_schema(tool.function.parameters), param),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for param, tool in self._tools
        ]
        schema: dict[str, Any] = {"anyOf": calls}
        if definitions.schemas:
            schema["$defs"] = definitions.schemas
        yield _structured(
            self._request,
            "Call one of these functions: answer with its name and its arguments, as JSON.",
            tools,
            CallFormat.of(
                schema,
                self._tools[0][0] if len(tools) == 1 else self._request.client_param("tools"),
            ),
        )

    def _shaped(self, delta: Delta) -> Delta:
        if self._written is not None:
            return self._written.feed(delta)
        if self._held is None:
            return delta
        is_call = bool(delta.tool_calls)
        # Cut off by its limit, an answer has no room for a call.
        if is_call or delta.finish_reason not in (None, "stop"):
            held, self._held = self._held, None
            delta.content = "".join(each.content for each in held) + delta.content
            logprobs = [entry for each in (*held, delta) for entry in each.logprobs or ()]
            delta.logprobs = logprobs or None
            return delta
        self._held.append(replace(delta))
        delta.content, delta.logprobs, delta.finish_reason = "", None, None
        return delta


_CALL_HEAD: Final = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*', re.DOTALL
)
_MAX_HEAD: Final = 1000
_MAY_END: Final = "} \t\r\n"


class _WrittenCall:
    """A call of one of the functions ``names`` that the model writes as
    ``{"name": …, "arguments": …}``; the arguments are passed on as they are written.

    Some engines find calls in an answer that was to have none. Those of one of the functions are
    the calls then, unless the model has begun to write one.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._is_begun = False
        # The calls that the engine has found: their indexes, and those for the client.
        self._found: dict[int, int] = {}
        self._head = ""
        # Pieces, for there may be many: models that keep to a schema may fall to writing blanks.
        self._held: list[str] = []

    def feed(self, delta: Delta) -> Delta:
        found = [] if self._is_begun else list(self._parsed(delta.tool_calls))
        if self._found:
            delta.tool_calls = found
        else:
            written = self._arguments if self._is_begun else self._begin
            delta.tool_calls = list(written(delta.content))
            if delta.finish_reason:
                delta.tool_calls += self._end(delta.finish_reason)
        if delta.finish_reason == "stop":
            delta.finish_reason = "tool_calls"
        return _only_calls(delta)

    def _parsed(self, calls: list[ToolCallDelta]) -> Iterator[ToolCallDelta]:
        for call in calls:
            if call.name in self._names:
                self._found.setdefault(call.index, len(self._found))
                call = replace(call, id=call.id or new_tool_call_id())
            if call.index in self._found:
                yield replace(call, index=self._found[call.index])

    def _begin(self, content: str) -> Iterator[ToolCallDelta]:
        self._head += content
        head = _CALL_HEAD.match(self._head)
        if head is not None:
            self._is_begun = True
            yield ToolCallDelta(0, id=new_tool_call_id(), name=self._known(head[1]))
            yield from self._arguments(self._head[head.end() :])
        elif len(self._head) > _MAX_HEAD:
            raise _no_call()

    def _known(self, text: str) -> str:
        try:
            name = parse_json(text)
        except ValueError as error:
            raise _no_call() from error
        if name not in self._names:
            raise _no_call()
        return str(name)

    def _arguments(self, content: str) -> Iterator[ToolCallDelta]:
        # What may be the closing brace of the call itself waits for what comes after it.
        ready = content.rstrip(_MAY_END)
        if ready:
            yield ToolCallDelta(0, arguments="".join([*self._held, ready]))
            self._held.clear()
        self._held.append(content[len(ready) :])

    def _end(self, finish_reason: str) -> Iterator[ToolCallDelta]:
        # Cut off by its limit, the call has no end, nor perhaps a beginning.
        is_whole = finish_reason == "stop"
        if is_whole and not self._is_begun:
            raise _no_call()
        if rest := "".join(self._held).rstrip():
            yield ToolCallDelta(0, arguments=rest.removesuffix("}").rstrip() if is_whole else rest)


def _no_call() -> UpstreamError:
    return UpstreamError("The engine did not call a function, as it was required to.")


def _only_calls(delta: Delta) -> Delta:
    delta.content, delta.logprobs = "", None
    return delta


def _structured(
    request: ChatCompletionRequest,
    instruction: str,
    tools: Sequence[FunctionTool],
    response_format: CallFormat,
) -> ChatCompletionRequest:
    """Return ``request`` without tools, for an answer that matches ``response_format``."""
    functions = [tool.function.dump_known() for tool in tools]
    text = "\n".join([instruction, *(json.dumps(each, ensure_ascii=False) for each in functions)])
    return _plain(
        request,
        messages=_instructed(request.messages, text),
        tools=None,
        response_format=response_format,
        logprobs=None,
        top_logprobs=None,
    )


def _instructed(messages: list[Message], text: str) -> list[Message]:
    """Return ``messages`` with the instruction ``text``, at the beginning: chat templates only
    support a system message there."""
    first, *rest = messages
    if first.role in ("system", "developer"):
        text = f"{content_text(first.content)}\n\n{text}"
    else:
        rest = messages
    return [SystemMessage(role="system", content=text), *rest]
