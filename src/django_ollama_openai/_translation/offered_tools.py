"""Translate the tools of a Responses API request into those of a chat completion request.

The name of a tool in a namespace is joined with the name of the namespace. In tool calls that the
client gets, they are separate again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from .._wire.response_tools import CustomTool, FunctionTool, GrammarFormat, NamespaceTool, Tool
from .._wire.responses import OfferedTool, ResponsesRequest

__all__ = ["ToolNames", "function_tool", "offered_name"]

# OpenAI's rules for names of functions, which many engines enforce.
MAX_NAME: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")


class ToolNames:
    """The tools of ``request`` by the names that engines get, which are unique."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.tools: dict[str, OfferedTool] = {}
        self._names: dict[tuple[str | None, str], str] = {}
        # Tools without a namespace keep their names.
        tools = request.offered_tools
        for tool in sorted(tools, key=lambda tool: tool.namespace is not None):
            name = offered_name(*tool.full_name)
            attempt = 0
            while name in self.tools:
                name = _hashed_name(*tool.full_name, attempt)
                attempt += 1
            self.tools[name] = tool
            self._names[tool.full_name] = name
        self.in_order = [(self._names[tool.full_name], tool) for tool in tools]

    def engine_name(self, namespace: str | None, name: str) -> str:
        """Return the engine's name of a tool, which the request need not have."""
        return self._names.get((namespace, name)) or offered_name(namespace, name)

    def engine_names(self, tool: Tool) -> list[str]:
        """Return the engine's name of ``tool``, or those of all tools in a namespace."""
        if isinstance(tool, NamespaceTool):
            return [
                self.engine_name(tool.name, member.name)
                for member in tool.tools
                if isinstance(member, (FunctionTool, CustomTool))
            ]
        return (
            [self.engine_name(None, tool.name)]
            if isinstance(tool, (FunctionTool, CustomTool))
            else []
        )

    def name_fields(self, name: str) -> dict[str, Any]:
        """Return the client's name, and namespace if any, of the tool with the engine's
        ``name``."""
        tool = self.tools.get(name)
        if tool is None or tool.namespace is None:
            return {"name": name}
        return {"name": tool.tool.name, "namespace": tool.namespace.name}


def offered_name(namespace: str | None, name: str) -> str:
    """Return the engine's name of the tool ``name`` in ``namespace``."""
    if namespace is None:
        return name
    joined = f"{namespace.rstrip('_')}__{name}"
    is_a_name = len(joined) <= MAX_NAME and not _NOT_IN_NAMES.search(joined)
    return joined if is_a_name else _hashed_name(namespace, name)


def _hashed_name(namespace: str | None, name: str, attempt: int = 0) -> str:
    """Return a name of at most ``MAX_NAME`` characters that ends in a hash, different for each
    ``attempt``."""
    full = f"{namespace or ''}__{name}"
    # Not of the joined name, which is equal for "a__b" and "c", and "a" and "b__c".
    mark = hashlib.sha256(json.dumps([namespace, name, attempt]).encode()).hexdigest()[:8]
    return f"{_NOT_IN_NAMES.sub('_', full)[: MAX_NAME - 9]}_{mark}"


def function_tool(name: str, offered: OfferedTool, *, is_first: bool) -> dict[str, Any]:
    """Return the chat completion tool for ``offered``, with the engine's ``name``. The first one of
    a namespace also has the description of the namespace."""
    tool = offered.tool
    if isinstance(tool, CustomTool):
        fields: dict[str, Any] = {"description": tool.description}
        if isinstance(tool.format, GrammarFormat):
            grammar = {"syntax": tool.format.syntax, "definition": tool.format.definition}
            fields["format"] = {"type": "grammar", "grammar": grammar}
    else:
        fields = tool.dump_known({"description", "parameters", "strict"})
    about = offered.namespace.description if offered.namespace and is_first else None
    description = "\n\n".join(filter(None, (about, tool.description)))
    fields = {"name": name, **fields, **({"description": description} if description else {})}
    return {"type": tool.type, tool.type: {k: v for k, v in fields.items() if v is not None}}
