"""Read the items of hosted tools in a conversation: searches, shells, patches, MCP calls.

Their readable text stays in the conversation: as a tool call or a result if the item is one,
otherwise as text of the assistant's message. Encrypted content and approval requests are dropped,
since they are useless to a model.

Source: OpenAI's API reference, "Create a model response", ``input``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .._wire.responses import OtherItem

__all__ = ["Call", "Result", "Text", "readable"]


@dataclass(slots=True, frozen=True)
class Call:
    """A tool call."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True, frozen=True)
class Result:
    """The result of the call with the same id."""

    id: str
    text: str


@dataclass(slots=True, frozen=True)
class Text:
    """Text of the assistant's message."""

    text: str


Readable: TypeAlias = Call | Result | Text

#: Types of calls whose results are separate items, with the key of their arguments.
_CALLS: Final = {
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "tool_search_call": "arguments",
    "program": "code",
}

#: Types of results, with the key of their text.
_RESULTS: Final = {
    "local_shell_call_output": "output",
    "shell_call_output": "output",
    "apply_patch_call_output": "output",
    "program_output": "result",
}

#: Other types of OpenAI's hosted tools, with a label and the keys of their readable text.
_TEXTS: Final = {
    "web_search_call": ("Web search", ("query", "queries", "url", "pattern")),
    "file_search_call": ("File search", ("queries", "text")),
    "code_interpreter_call": ("Code", ("code", "logs")),
    "image_generation_call": ("Image", ("revised_prompt",)),
}

#: The keys of the readable text in unknown types.
_ANY_TEXT: Final = ("text", "content", "output", "result")

#: Types without readable text.
_UNREADABLE: Final = frozenset(
    {
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
    }
)


def readable(item: OtherItem) -> list[Readable]:
    """Return the readable parts of ``item``; an empty list if there are none."""
    fields = item.model_extra or {}
    kind = item.type
    if kind in _UNREADABLE:
        return []
    id = fields.get("call_id") or fields.get("id")
    if kind == "mcp_call":
        return _mcp_call(id, fields)
    if kind == "tool_search_call":
        # The result of a search on OpenAI's servers does not have the id of its call.
        id = fields.get("call_id")
    if kind in _CALLS:
        arguments = fields.get(_CALLS[kind])
        if not (isinstance(id, str) and arguments):
            return []
        return [Call(id, kind.removesuffix("_call"), _arguments(arguments))]
    if kind in _RESULTS:
        text = "\n".join(_strings(fields.get(_RESULTS[kind])))
        # The result of a patch may have only a status.
        text = text or str(fields.get("status") or "")
        return [Result(id, text)] if isinstance(id, str) else []
    label, keys = _TEXTS.get(kind, (kind, _ANY_TEXT))
    # Searches repeat their text in a second field.
    text = "\n".join(dict.fromkeys(_texts(fields, keys)))
    return [Text(f"{label}: {text}" if kind in _TEXTS else text)] if text else []


def _mcp_call(id: Any, fields: dict[str, Any]) -> list[Readable]:
    name, arguments = fields.get("name"), fields.get("arguments")
    if not (isinstance(id, str) and isinstance(name, str) and name and isinstance(arguments, str)):
        return []
    result = "\n".join(_strings(fields.get("output") or fields.get("error")))
    return [Call(id, name, arguments), Result(id, result)]


def _arguments(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
        return json.dumps(value, ensure_ascii=False)
    return json.dumps({"input": value}, ensure_ascii=False)


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the strings in any of ``keys``, at any depth, in order."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, keys)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in keys:
                yield from _strings(item)
            elif isinstance(item, (dict, list)):
                yield from _texts(item, keys)


_TEXT_KEYS: Final = ("text", "stdout", "stderr", "message", "content", "output", "logs", "result")


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings of ``value``: a string, a list of strings, or parts with text."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key in _TEXT_KEYS:
            yield from _strings(value.get(key))
