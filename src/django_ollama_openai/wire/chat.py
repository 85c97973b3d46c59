"""The request of ``POST v1/chat/completions``.

Source: OpenAI's API reference, "Create chat completion". Fields beyond those named here are
accepted and kept, as OpenAI adds new ones all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

import pydantic_core
from annotated_types import MaxLen
from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..exceptions import InvalidRequest
from .base import FirstErrorOnly, WireModel, parse_json, told_apart_by
from .engine import INT32_MAX, INT64_MAX, INT64_MIN, EngineRequest, Stop, Think

__all__ = [
    "AssistantMessage",
    "ChatCompletionRequest",
    "DeveloperMessage",
    "FunctionCall",
    "FunctionMessage",
    "FunctionTool",
    "JSONSchemaFormat",
    "Message",
    "RefusalPart",
    "StreamOptions",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolMessage",
    "UserMessage",
    "content_text",
]

# A body within its limit may hold millions of each, and everybody would wait while they are read.
# For the same reason a list is left at its first error.
MAX_MESSAGES, MAX_PARTS, MAX_TOOLS, MAX_BIASES = 10_000, 1_000, 1_000, 1_000


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class RefusalPart(WireModel):
    type: Literal["refusal"]
    refusal: str


def _text_or_parts(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<parts>" if isinstance(value, list) else None


_NEITHER = {
    "custom_error_type": "content_type",
    "custom_error_message": "Input should be a string or an array of content parts",
}

TextContent: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[TextPart], MaxLen(MAX_PARTS), FirstErrorOnly(), Tag("<parts>")],
    Discriminator(_text_or_parts, **_NEITHER),
]
AssistantPart: TypeAlias = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    told_apart_by("type", "text", "refusal"),
]
AssistantContent: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[AssistantPart], MaxLen(MAX_PARTS), FirstErrorOnly(), Tag("<parts>")],
    Discriminator(_text_or_parts, **_NEITHER),
]


def content_text(content: str | Sequence[TextPart | RefusalPart] | None) -> str:
    """The text of a message: its parts are joined as OpenAI's models read them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


class FunctionCall(WireModel):
    """A call to a function; ``arguments`` is the text of a JSON object."""

    name: str
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _arguments_are_an_object(cls, value: str) -> str:
        # Models that call a function without parameters leave the text empty.
        if value.strip():
            try:
                arguments = parse_json(value)
            except ValueError as error:
                raise PydanticCustomError(
                    "arguments_json", "Input should be JSON: {reason}", {"reason": str(error)}
                ) from None
            if not isinstance(arguments, dict):
                raise PydanticCustomError("arguments_json", "Input should be a JSON object")
        return value

    def arguments_object(self) -> dict[str, Any]:
        """The arguments, parsed."""
        return pydantic_core.from_json(self.arguments) if self.arguments.strip() else {}


class ToolCall(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(WireModel):
    role: Literal["system"]
    content: TextContent


class DeveloperMessage(WireModel):
    role: Literal["developer"]
    content: TextContent


class UserMessage(WireModel):
    role: Literal["user"]
    content: TextContent


class AssistantMessage(WireModel):
    """An earlier answer. Clients send its reasoning back under either of two names."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Annotated[list[ToolCall], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None


class ToolMessage(WireModel):
    role: Literal["tool"]
    content: TextContent
    tool_call_id: str


class FunctionMessage(WireModel):
    """The result of a function, from before tools had ids (deprecated by OpenAI, still sent)."""

    role: Literal["function"]
    content: str | None
    name: str


Message: TypeAlias = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[DeveloperMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[FunctionMessage, Tag("<function>")],
    told_apart_by("role", "system", "developer", "user", "assistant", "tool", "function"),
]


class Function(WireModel):
    """A function the model may call; ``parameters`` is a JSON schema and stays as it came."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireModel):
    type: Literal["function"]
    function: Function


class StreamOptions(WireModel):
    include_usage: bool | None = None


class TextFormat(WireModel):
    type: Literal["text"]


class JSONObjectFormat(WireModel):
    type: Literal["json_object"]


class JSONSchema(WireModel):
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JSONSchemaFormat(WireModel):
    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat: TypeAlias = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JSONObjectFormat, Tag("<json_object>")]
    | Annotated[JSONSchemaFormat, Tag("<json_schema>")],
    told_apart_by("type", "text", "json_object", "json_schema"),
]


class ChatCompletionRequest(EngineRequest):
    """The body of ``POST v1/chat/completions``, and what a backend is asked to answer.

    Absent and ``null`` mean the same: the engine's own default. Sampling parameters are therefore
    never filled in here.
    """

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    stop: Stop = None
    seed: int | None = Field(None, ge=INT64_MIN, le=INT64_MAX)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)

    stream: bool | None = None
    stream_options: StreamOptions | None = None

    tools: Annotated[list[FunctionTool], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    n: int | None = Field(None, ge=1, le=128)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None

    # Ollama's, beside those of every request.
    think: Think = None

    # Read only to say that they are not supported.
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    prediction: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _biases_are_few(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_BIASES:
            raise PydanticCustomError("logit_bias", "Input should have up to 1000 keys")
        return value

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "'stream_options' is only allowed when 'stream' is true.", param="stream_options"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest(
                "'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs"
            )
        return self

    @property
    def include_usage(self) -> bool:
        """Whether the client asked for an extra last chunk with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def output_limit(self) -> int | None:
        """How many tokens may be produced, by whichever of the two names."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens
