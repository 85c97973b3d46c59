"""Custom tools of chat completions: tools with free text as input instead of arguments.

Engines do not support them. A function with one string, ``input``, represents each of them, and
calls of the function become calls of the custom tool.

Source: OpenAI's API reference, "Create chat completion", ``tools``.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from .base import WireModel, tagged_union

__all__ = [
    "INPUT",
    "CustomReference",
    "CustomTool",
    "CustomToolCall",
    "input_arguments",
    "input_parameters",
]

#: The only parameter of the function that represents a custom tool.
INPUT = "input"


class TextInput(WireModel):
    type: Literal["text"]


class Grammar(WireModel):
    definition: str
    syntax: Literal["lark", "regex"]


class GrammarInput(WireModel):
    type: Literal["grammar"]
    grammar: Grammar


InputFormat: TypeAlias = Annotated[
    Annotated[TextInput, Tag("<text>")] | Annotated[GrammarInput, Tag("<grammar>")],
    tagged_union("type", "text", "grammar"),
]


class Custom(WireModel):
    name: str = Field(min_length=1)
    description: str | None = None
    format: InputFormat | None = None


class CustomTool(WireModel):
    """A tool with free text as input, which may have to match a grammar."""

    type: Literal["custom"]
    custom: Custom

    def as_function(self) -> dict[str, Any]:
        """Return the function tool that represents this tool."""
        grammar = None
        if isinstance(self.custom.format, GrammarInput):
            grammar = self.custom.format.grammar.syntax, self.custom.format.grammar.definition
        function: dict[str, Any] = {
            "name": self.custom.name,
            "parameters": input_parameters(grammar),
        }
        if self.custom.description is not None:
            function["description"] = self.custom.description
        return {"type": "function", "function": function}


class CustomCall(WireModel):
    name: str
    input: str


class CustomToolCall(WireModel):
    """An earlier call of a custom tool."""

    id: str
    type: Literal["custom"]
    custom: CustomCall

    def as_function(self) -> dict[str, Any]:
        """Return the call of the function that represents the tool."""
        arguments = input_arguments(self.custom.input)
        function = {"name": self.custom.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class CustomName(WireModel):
    name: str = Field(min_length=1)


class CustomReference(WireModel):
    """A reference to a custom tool by its name."""

    type: Literal["custom"]
    custom: CustomName

    def as_function(self) -> dict[str, Any]:
        """Return the reference to the function that represents the tool."""
        return {"type": "function", "function": {"name": self.custom.name}}


def input_parameters(grammar: tuple[str, str] | None) -> dict[str, Any]:
    """Return the JSON schema of the function's parameters. ``grammar`` is a pair of the syntax and
    the definition.

    The grammar is not enforced. It is in the description, which the model sees.
    """
    schema = {"type": "string"}
    if grammar is not None:
        syntax, definition = grammar
        schema["description"] = f"Text that matches this {syntax} grammar:\n{definition}"
    return {
        "type": "object",
        "properties": {INPUT: schema},
        "required": [INPUT],
        "additionalProperties": False,
    }


def input_arguments(text: str) -> str:
    """Return the JSON arguments of a call with ``text`` as the input."""
    return json.dumps({INPUT: text}, ensure_ascii=False)
