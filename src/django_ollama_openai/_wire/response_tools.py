"""The tools of ``POST v1/responses``, and the choice among them.

Source: OpenAI's API reference, "Create a model response", ``tools`` and ``tool_choice``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import MaxLen, MinLen
from pydantic import Discriminator, Field, Tag

from .base import FirstErrorOnly, JSONSchemaExtra, WireModel, tagged_union
from .chat import MAX_TOOLS, Function, TextFormat

__all__ = [
    "AllowedTools",
    "CustomTool",
    "FunctionTool",
    "GrammarFormat",
    "Member",
    "NamespaceTool",
    "OtherMember",
    "OtherReference",
    "OtherTool",
    "Tool",
    "ToolChoice",
    "ToolReference",
]


class FunctionTool(Function):
    type: Literal["function"]


class GrammarFormat(WireModel):
    type: Literal["grammar"]
    definition: str
    syntax: Literal["lark", "regex"]


CustomFormat: TypeAlias = Annotated[
    Annotated[TextFormat, Tag("<text>")] | Annotated[GrammarFormat, Tag("<grammar>")],
    tagged_union("type", "text", "grammar"),
]


class CustomTool(WireModel):
    """A tool with free text as input, which may have to match a grammar."""

    type: Literal["custom"]
    name: str = Field(min_length=1)
    description: str | None = None
    format: CustomFormat | None = None


class OtherTool(WireModel):
    """A hosted tool of OpenAI, or a tool of an MCP server; not supported."""

    type: Annotated[str, JSONSchemaExtra(**{"not": {"enum": ["function", "custom", "namespace"]}})]


class OtherMember(WireModel):
    """A hosted tool in a namespace or in a list of allowed tools; not supported."""

    type: Annotated[str, JSONSchemaExtra(**{"not": {"enum": ["function", "custom"]}})]


Member: TypeAlias = Annotated[
    Annotated[FunctionTool, Tag("<function>")]
    | Annotated[CustomTool, Tag("<custom>")]
    | Annotated[OtherMember, Tag("<other>")],
    tagged_union("type", "function", "custom", other=True),
]


class NamespaceTool(WireModel):
    """A namespace of functions and custom tools; calls of these name the namespace, too."""

    type: Literal["namespace"]
    name: str = Field(min_length=1)
    description: str | None = None
    tools: Annotated[list[Member], MaxLen(MAX_TOOLS), FirstErrorOnly()]


Tool: TypeAlias = Annotated[
    Annotated[FunctionTool, Tag("<function>")]
    | Annotated[CustomTool, Tag("<custom>")]
    | Annotated[NamespaceTool, Tag("<namespace>")]
    | Annotated[OtherTool, Tag("<other>")],
    tagged_union("type", "function", "custom", "namespace", other=True),
]


class ToolReference(WireModel):
    """A reference to a function or a custom tool by its name; ``namespace`` distinguishes tools
    with the same name."""

    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


AnyReference: TypeAlias = Annotated[
    Annotated[ToolReference, Tag("<function>")]
    | Annotated[ToolReference, Tag("<custom>")]
    | Annotated[OtherMember, Tag("<other>")],
    tagged_union("type", "function", "custom", other=True),
]


class AllowedTools(WireModel):
    """The tools that the model may call; with the mode ``required`` it must call one of them."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AnyReference], MinLen(1), MaxLen(MAX_TOOLS), FirstErrorOnly()]

    @property
    def references(self) -> list[ToolReference]:
        """The references to functions and custom tools."""
        return [tool for tool in self.tools if isinstance(tool, ToolReference)]


class OtherReference(WireModel):
    """The choice of a hosted tool; not supported."""

    type: Annotated[
        str, JSONSchemaExtra(**{"not": {"enum": ["function", "custom", "allowed_tools"]}})
    ]


def _mode_or_choice(value: Any) -> str:
    return "<mode>" if isinstance(value, str) else "<choice>"


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[
        Annotated[ToolReference, Tag("<function>")]
        | Annotated[ToolReference, Tag("<custom>")]
        | Annotated[AllowedTools, Tag("<allowed_tools>")]
        | Annotated[OtherReference, Tag("<other>")],
        tagged_union("type", "function", "custom", "allowed_tools", other=True),
        Tag("<choice>"),
    ],
    Discriminator(_mode_or_choice),
]
