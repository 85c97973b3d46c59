"""Turn deprecated function calls, which have no ids, into tool calls.

Source: OpenAI's API reference, "Create chat completion": ``functions``, ``function_call`` and the
role ``function``, all deprecated.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._wire.chat import AssistantMessage, FunctionMessage, Message, ToolCall, ToolMessage

__all__ = ["as_tool_calls"]


def as_tool_calls(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` with each ``function_call`` in ``tool_calls``, and the result of each as
    a tool message. A result without a call is unchanged."""
    translated: list[Message] = []
    ids: dict[str, str] = {}
    for number, message in enumerate(messages):
        if isinstance(message, AssistantMessage) and message.function_call is not None:
            function = message.function_call
            ids[function.name] = f"call_of_message_{number}"
            call = ToolCall(id=ids[function.name], type="function", function=function)
            calls = [*(message.tool_calls or ()), call]
            changes = {"tool_calls": calls, "function_call": None}
            translated.append(message.model_copy(update=changes))
        elif isinstance(message, FunctionMessage) and message.name in ids:
            call_id = ids.pop(message.name)
            content = message.content or ""
            translated.append(ToolMessage(role="tool", content=content, tool_call_id=call_id))
        else:
            translated.append(message)
    return translated
