"""Items of a conversation that were not made here: searches, shells, patches, calls by servers.

What a model can read in one stays: as a call with its result where the item is one, else as text of
the answer that it stands in. OpenAI's own secrets (``encrypted_content``) and what only asks for
something say nothing to a model here.

Source: OpenAI's API reference, "Create a model response", ``input``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ..wire.responses import OtherItem

__all__ = ["Call", "Result", "Text", "readable"]


@dataclass(slots=True, frozen=True)
class Call:
    """A call of a tool."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True, frozen=True)
class Result:
    """The result of the call with this id."""

    id: str
    text: str


@dataclass(slots=True, frozen=True)
class Text:
    """A part of the answer."""

    text: str


Readable: TypeAlias = Call | Result | Text

_CALLS: Final = {
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "tool_search_call": "arguments",
    "program": "code",
}
"""Types of calls whose results are items of their own, and the key of their arguments."""

_RESULTS: Final = {
    "local_shell_call_output": "output",
    "shell_call_output": "output",
    "apply_patch_call_output": "output",
    "program_output": "result",
}

_TEXTS: Final = {
    "web_search_call": ("Web search", ("query", "queries", "url", "pattern")),
    "file_search_call": ("File search", ("queries", "text")),
    "code_interpreter_call": ("Code", ("code", "logs")),
    "image_generation_call": ("Image", ("revised_prompt",)),
}
"""Types of what OpenAI's tools have done, what it is, and the keys of what can be read in it."""

_ANY_TEXT: Final = ("text", "content", "output", "result")
"""The keys of what can be read in types that are not known here."""

_SILENT: Final = frozenset(
    {
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
    }
)


def readable(item: OtherItem) -> list[Readable]:
    """Return what a model can read in ``item``; nothing if it has to be left out."""
    fields = item.model_extra or {}
    kind = item.type
    if kind in _SILENT:
        return []
    id = fields.get("call_id") or fields.get("id")
    if kind == "mcp_call":
        return _mcp_call(id, fields)
    if kind == "tool_search_call":
        # Of a search by a server the result does not say which call it belongs to.
        id = fields.get("call_id")
    if kind in _CALLS:
        arguments = fields.get(_CALLS[kind])
        if not (isinstance(id, str) and arguments):
            return []
        return [Call(id, kind.removesuffix("_call"), _arguments(arguments))]
    if kind in _RESULTS:
        text = "\n".join(_strings(fields.get(_RESULTS[kind])))
        # A patch may have nothing to say but that it is done.
        text = text or str(fields.get("status") or "")
        return [Result(id, text)] if isinstance(id, str) else []
    label, keys = _TEXTS.get(kind, (kind, _ANY_TEXT))
    # Searches say the same in two fields.
    text = "\n".join(dict.fromkeys(_under(fields, keys)))
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


def _under(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """The texts below any of ``keys``, in their order."""
    if isinstance(value, list):
        for item in value:
            yield from _under(item, keys)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in keys:
                yield from _strings(item)
            elif isinstance(item, (dict, list)):
                yield from _under(item, keys)


_READ: Final = ("text", "stdout", "stderr", "message", "content", "output", "logs", "result")


def _strings(value: Any) -> Iterator[str]:
    """The texts of ``value``: itself, those of a list, or those of the parts in it."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key in _READ:
            yield from _strings(value.get(key))
