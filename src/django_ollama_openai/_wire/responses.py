"""The request of ``POST v1/responses``.

Source: OpenAI's API reference, "Create a model response". Fields beyond those named here are
accepted and kept, since OpenAI often adds new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from annotated_types import MaxLen, MinLen
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..exceptions import InvalidRequest
from .base import (
    MAX_PARTS,
    Content,
    FirstErrorOnly,
    JSONSchemaExtra,
    WireModel,
    tagged_union,
    text_or_list,
)
from .case import to_camel
from .chat import MAX_TOOLS, FunctionCall, JSONObjectFormat, ReasoningEffort, TextFormat
from .engine import INT32_MAX
from .generation import SamplingRequest
from .media import BASE64, IMAGE_URL
from .response_tools import (
    AllowedTools,
    CustomTool,
    FunctionTool,
    NamespaceTool,
    OtherReference,
    Tool,
    ToolChoice,
    ToolReference,
)

__all__ = [
    "AssistantInput",
    "CompactionItem",
    "ContentPart",
    "ConversationReference",
    "CustomToolCallItem",
    "CustomToolCallOutput",
    "FunctionCallItem",
    "FunctionCallOutput",
    "InputAudioPart",
    "InputImagePart",
    "InputItem",
    "InputTextPart",
    "ItemReference",
    "JSONSchemaFormat",
    "OfferedTool",
    "OtherItem",
    "OutputTextPart",
    "Reasoning",
    "ReasoningItem",
    "RefusalPart",
    "ResponsesRequest",
    "SystemInput",
    "TextConfig",
    "ToolsItem",
    "UserInput",
]

# A body within the size limit could have millions of each: see the chat completion request.
MAX_ITEMS, MAX_INCLUDES = 10_000, 100
MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512


# Content


class InputTextPart(WireModel):
    type: Literal["input_text"]
    text: str


class InputImagePart(WireModel):
    """An image; ``image_url`` is its URL or a data URI."""

    type: Literal["input_image"]
    file_id: None = None
    image_url: Annotated[str, JSONSchemaExtra(pattern=IMAGE_URL)]
    detail: Literal["low", "high", "auto", "original"] | None = None

    @field_validator("file_id", mode="before")
    @classmethod
    def _refuse_file_ids(cls, value: Any) -> None:
        if value is not None:
            raise PydanticCustomError(
                "file_id", "Stored files are not supported; send the image as 'image_url'"
            )


class Audio(WireModel):
    """Audio data in base64."""

    data: Annotated[str, JSONSchemaExtra(pattern=BASE64)]
    format: Literal["wav", "mp3"]


class InputAudioPart(WireModel):
    type: Literal["input_audio"]
    input_audio: Audio


class OutputTextPart(WireModel):
    type: Literal["output_text"]
    text: str


class RefusalPart(WireModel):
    type: Literal["refusal"]
    refusal: str


def _refuse_files(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "input_file":
        raise PydanticCustomError(
            "input_file",
            "Files ('input_file') are not supported; send their text as 'input_text' or their "
            "pages as 'input_image'",
        )
    return value


TextPart: TypeAlias = Annotated[InputTextPart, BeforeValidator(_refuse_files)]
UserPart: TypeAlias = Annotated[
    Annotated[InputTextPart, Tag("<input_text>")]
    | Annotated[InputImagePart, Tag("<input_image>")]
    | Annotated[InputAudioPart, Tag("<input_audio>")],
    tagged_union("type", "input_text", "input_image", "input_audio"),
    BeforeValidator(_refuse_files),
]
AssistantPart: TypeAlias = Annotated[
    Annotated[OutputTextPart, Tag("<output_text>")]
    | Annotated[RefusalPart, Tag("<refusal>")]
    | Annotated[InputTextPart, Tag("<input_text>")],
    tagged_union("type", "output_text", "refusal", "input_text"),
]

ContentPart: TypeAlias = (
    InputTextPart | InputImagePart | InputAudioPart | OutputTextPart | RefusalPart
)

TextContent: TypeAlias = Content[TextPart]
UserContent: TypeAlias = Content[UserPart]
AssistantContent: TypeAlias = Content[AssistantPart]


# Items

# See _add_type().
_MessageType: TypeAlias = Annotated[
    Literal["message"], WithJsonSchema({"enum": ["message", None], "default": "message"})
]


class SystemInput(WireModel):
    type: _MessageType = "message"
    role: Literal["system", "developer"]
    content: TextContent


class UserInput(WireModel):
    type: _MessageType = "message"
    role: Literal["user"]
    content: UserContent


class AssistantInput(WireModel):
    """A message of the model: an output item of an earlier response, or one from the client."""

    type: _MessageType = "message"
    role: Literal["assistant"]
    content: AssistantContent


MessageItem: TypeAlias = Annotated[
    Annotated[UserInput, Tag("<user>")]
    | Annotated[AssistantInput, Tag("<assistant>")]
    | Annotated[SystemInput, Tag("<system>")]
    | Annotated[SystemInput, Tag("<developer>")],
    tagged_union("role", "user", "assistant", "system", "developer"),
]


class FunctionCallItem(FunctionCall):
    type: Literal["function_call"]
    call_id: str
    namespace: str | None = None


class CustomToolCallItem(WireModel):
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str
    namespace: str | None = None


class FunctionCallOutput(WireModel):
    type: Literal["function_call_output"]
    call_id: str
    output: UserContent


class CustomToolCallOutput(WireModel):
    type: Literal["custom_tool_call_output"]
    call_id: str
    output: UserContent


class ToolsItem(WireModel):
    """Tools that the model may call in addition to those of the request."""

    type: Literal["additional_tools", "tool_search_output"]
    call_id: str | None = None
    tools: Annotated[list[Tool], MaxLen(MAX_TOOLS), FirstErrorOnly()]


class SummaryPart(WireModel):
    type: Literal["summary_text"]
    text: str


class ReasoningPart(WireModel):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(WireModel):
    """The reasoning of an earlier response. ``encrypted_content`` is ignored: only OpenAI can
    decrypt it."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryPart], MaxLen(MAX_PARTS), FirstErrorOnly()] | None = None
    content: Annotated[list[ReasoningPart], MaxLen(MAX_PARTS), FirstErrorOnly()] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        """The reasoning, or else its summary."""
        return "\n".join(part.text for part in self.content or self.summary or ())


class CompactionItem(WireModel):
    """An earlier conversation in a form that only the server that has made it can read."""

    type: Literal["compaction"]
    id: str | None = None
    encrypted_content: str


class ItemReference(WireModel):
    """A reference to a stored item."""

    type: Annotated[
        Literal["item_reference"],
        WithJsonSchema({"enum": ["item_reference", None], "default": "item_reference"}),
    ] = "item_reference"
    id: str


_KNOWN_ITEMS: Final = (
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "custom_tool_call",
    "custom_tool_call_output",
    "additional_tools",
    "tool_search_output",
    "compaction",
    "item_reference",
)


class OtherItem(WireModel):
    """An item of a hosted tool, such as a web search. Its readable text stays in the
    conversation."""

    type: Annotated[str, JSONSchemaExtra(**{"not": {"enum": [*_KNOWN_ITEMS]}})]


def _add_type(value: Any) -> Any:
    """Add the type of a message and of a reference, which OpenAI's clients may omit."""
    if not isinstance(value, dict) or value.get("type") is not None:
        return value
    if "role" in value:
        return {**value, "type": "message"}
    return {**value, "type": "item_reference"} if "id" in value else value


InputItem: TypeAlias = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[CustomToolCallItem, Tag("<custom_tool_call>")]
    | Annotated[CustomToolCallOutput, Tag("<custom_tool_call_output>")]
    | Annotated[ToolsItem, Tag("<additional_tools>")]
    | Annotated[ToolsItem, Tag("<tool_search_output>")]
    | Annotated[CompactionItem, Tag("<compaction>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
    | Annotated[OtherItem, Tag("<other>")],
    tagged_union("type", *_KNOWN_ITEMS, other=True),
    BeforeValidator(_add_type),
]


@dataclass(slots=True, frozen=True)
class OfferedTool:
    """A tool that the model may call, with its location in the request and its namespace."""

    origin: str
    tool: FunctionTool | CustomTool
    namespace: NamespaceTool | None = None

    @property
    def full_name(self) -> tuple[str | None, str]:
        """The namespace of the tool, if any, and its name."""
        return (None if self.namespace is None else self.namespace.name, self.tool.name)


# Options


class JSONSchemaFormat(WireModel):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


TextFormats: TypeAlias = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JSONObjectFormat, Tag("<json_object>")]
    | Annotated[JSONSchemaFormat, Tag("<json_schema>")],
    tagged_union("type", "text", "json_object", "json_schema"),
]


class TextConfig(WireModel):
    format: TextFormats | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


def _check_metadata(value: Any) -> Any:
    if isinstance(value, dict) and (
        len(value) > MAX_METADATA or any(len(key) > MAX_METADATA_KEY for key in value)
    ):
        raise PydanticCustomError(
            "metadata",
            f"Input should have up to {MAX_METADATA} keys of up to {MAX_METADATA_KEY} characters",
        )
    return value


Metadata: TypeAlias = Annotated[
    dict[str, Annotated[str, MaxLen(MAX_METADATA_VALUE)]],
    BeforeValidator(_check_metadata),
    JSONSchemaExtra(maxProperties=MAX_METADATA, propertyNames={"maxLength": MAX_METADATA_KEY}),
]

SummaryKind: TypeAlias = Literal["auto", "concise", "detailed"]


class Reasoning(WireModel):
    """The ``reasoning`` of a request. ``generate_summary`` is the deprecated name of
    ``summary``."""

    effort: ReasoningEffort | None = None
    summary: SummaryKind | None = None
    generate_summary: SummaryKind | None = None


class StreamOptions(WireModel):
    include_obfuscation: bool | None = None


class ConversationReference(WireModel):
    id: str


def _id_or_object(value: Any) -> str:
    return "<id>" if isinstance(value, str) else "<object>"


ServiceTier: TypeAlias = Literal[
    "auto", "default", "flex", "scale", "priority", "fast", "ultrafast"
]

#: Fields of chat completions, and their replacements in the Responses API.
_CHAT_COMPLETION_FIELDS: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "top_logprobs",
    "functions": "tools",
    "function_call": "tool_choice",
}


#: The fields of which a request has at least one.
_SOURCES: Final = ("input", "previous_response_id", "conversation", "prompt")


class ResponsesRequest(SamplingRequest):
    """The body of ``POST v1/responses``.

    OpenAI has the penalties, ``seed`` and ``stop`` only in chat completions, but engines support
    them for all requests.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in _SOURCES
            ]
        }
    )

    input: (
        Annotated[
            Annotated[str, Tag("<text>")]
            | Annotated[
                list[InputItem], MinLen(1), MaxLen(MAX_ITEMS), FirstErrorOnly(), Tag("<list>")
            ],
            text_or_list("items"),
        ]
        | None
    ) = None
    instructions: str | None = None

    tools: Annotated[list[Tool], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncation: Literal["auto", "disabled"] | None = None
    include: Annotated[list[str], MaxLen(MAX_INCLUDES), FirstErrorOnly()] | None = None

    stream_options: StreamOptions | None = None

    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: (
        Annotated[
            Annotated[str, Tag("<id>")] | Annotated[ConversationReference, Tag("<object>")],
            Discriminator(_id_or_object),
        ]
        | None
    ) = None

    # Accepted and repeated in the response, without any effect: the gateway has no built-in tools,
    # service tiers or prompt caches of its own.
    max_tool_calls: int | None = Field(None, ge=1, le=INT32_MAX)
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None

    # Parsed only for the error that they are not supported.
    prompt: Any = None
    audio: Any = None
    logit_bias: Any = None
    modalities: Any = None
    n: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_chat_completion_fields(cls, value: Any) -> Any:
        for name, replacement in _CHAT_COMPLETION_FIELDS.items() if isinstance(value, dict) else ():
            for spelling in (name, to_camel(name)):
                given = value.get(spelling)
                if given is not None and given is not False and given != []:
                    raise InvalidRequest(
                        f"'{spelling}' is a parameter of chat completions. Use '{replacement}' "
                        "instead.",
                        param=spelling,
                        code="unsupported_parameter",
                    )
        return value

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.previous_response_id is not None and self.conversation is not None:
            raise InvalidRequest(
                "Mutually exclusive parameters: Send only one of 'previous_response_id' and "
                "'conversation'.",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        if all(getattr(self, name) is None for name in _SOURCES):
            raise InvalidRequest("Missing required parameter: 'input'.", param="input")
        return self

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        if references := self._references():
            offered = self.tools_by_name()
            for reference in references:
                if (reference.type, reference.name, reference.namespace) not in offered:
                    raise InvalidRequest(
                        f"The {reference.type} {reference.name!r} in 'tool_choice' is not one of "
                        "'tools'.",
                        param="tool_choice",
                    )
        return self

    def _references(self) -> list[ToolReference]:
        if isinstance(self.tool_choice, ToolReference):
            return [self.tool_choice]
        return self.tool_choice.references if isinstance(self.tool_choice, AllowedTools) else []

    def _all_tools(self) -> Iterator[tuple[str, Tool]]:
        """Yield the location and the tool for all tools of the request and of its items."""
        for number, tool in enumerate(self.tools or ()):
            yield f"tools[{number}]", tool
        for place, item in enumerate(self.input if isinstance(self.input, list) else ()):
            if isinstance(item, ToolsItem):
                for number, tool in enumerate(item.tools):
                    yield f"input[{place}].tools[{number}]", tool

    @property
    def offered_tools(self) -> list[OfferedTool]:
        """The functions and custom tools, which a model can call. If items of the conversation
        define a tool again, the last definition wins."""
        offered: dict[tuple[str | None, str], OfferedTool] = {}
        for origin, tool in self._all_tools():
            if isinstance(tool, NamespaceTool):
                found = [
                    OfferedTool(f"{origin}.tools[{number}]", member, tool)
                    for number, member in enumerate(tool.tools)
                    if isinstance(member, (FunctionTool, CustomTool))
                ]
            elif isinstance(tool, (FunctionTool, CustomTool)):
                found = [OfferedTool(origin, tool)]
            else:
                continue
            offered |= {each.full_name: each for each in found}
        return list(offered.values())

    def tools_by_name(self) -> dict[tuple[str, str, str | None], OfferedTool]:
        """Return the tools by type, name and namespace, as in a ``tool_choice``. A tool in a
        namespace is also found without it, unless a tool outside has the same name."""
        offered = self.offered_tools
        inside = {(each.tool.type, each.tool.name, None): each for each in offered}
        return inside | {
            (each.tool.type, each.tool.name, each.full_name[0]): each for each in offered
        }

    @property
    def hosted_tools(self) -> list[str]:
        """The types of the hosted tools in the request."""
        hosted = []
        for _, tool in self._all_tools():
            members = tool.tools if isinstance(tool, NamespaceTool) else [tool]
            hosted += [
                member.type
                for member in members
                if not isinstance(member, (FunctionTool, CustomTool))
            ]
        return hosted

    @property
    def required_hosted_tool(self) -> str | None:
        """The type of the hosted tool that ``tool_choice`` requires, or ``None``."""
        choice = self.tool_choice
        if isinstance(choice, OtherReference):
            return choice.type
        if isinstance(choice, AllowedTools):
            return None if choice.references or choice.mode == "auto" else choice.tools[0].type
        hosted = self.hosted_tools if choice == "required" and not self.offered_tools else []
        return hosted[0] if hosted else None

    @property
    def includes_logprobs(self) -> bool:
        """Return whether the response has log probabilities. 0 for ``top_logprobs``, OpenAI's
        default, does not request them."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    @property
    def summary(self) -> SummaryKind | None:
        """The kind of summary, under either of its two names."""
        if self.reasoning is None:
            return None
        return self.reasoning.summary or self.reasoning.generate_summary

    def unsupported_parameters(self, *, stateful: bool = False) -> list[str]:
        """Return the parameters of the request that would change the answer and that no engine
        supports. ``stateful`` responses may be in the background or in a conversation."""
        has_effect = {
            "tool_choice": self.required_hosted_tool is not None,
            "background": self.background and not stateful,
            "conversation": self.conversation is not None and not stateful,
            "prompt": self.prompt is not None,
            "audio": self.audio is not None,
            "logit_bias": bool(self.logit_bias),
            "modalities": self.modalities not in (None, ["text"]),
            "n": self.n not in (None, 1),
            "prediction": self.prediction is not None,
            "web_search_options": self.web_search_options is not None,
        }
        return [name for name, is_set in has_effect.items() if is_set]

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation to which the response belongs, or ``None``."""
        conversation = self.conversation
        return conversation.id if isinstance(conversation, ConversationReference) else conversation

    @property
    def input_items(self) -> list[dict[str, Any]]:
        """The input as a list of items in JSON, with all fields that the client has sent."""
        if self.input is None:
            return []
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return [item.model_dump(exclude_unset=True) for item in self.input]

    @property
    def item_references(self) -> list[tuple[str, str]]:
        """The references to items in the input: their notations, such as ``input[1]``, and their
        ids."""
        items = enumerate(self.input if isinstance(self.input, list) else ())
        return [(f"input[{n}]", item.id) for n, item in items if isinstance(item, ItemReference)]

    def after(self, items: list[dict[str, Any]]) -> Self:
        """Return the request with ``items``, an earlier conversation, before its input."""
        return self.with_input([*items, *self.input_items])

    def with_input(self, items: list[dict[str, Any]]) -> Self:
        """Return the request with ``items``, those of a request or of a response, as its input."""
        return self.model_copy(update={"input": _ITEMS.validate_python(items)})


_ITEMS = TypeAdapter(list[InputItem])
