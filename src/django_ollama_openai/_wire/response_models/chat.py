"""The responses of ``POST v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from .common import CompletionUsage, Count, ExtraKey, FinishReason, TokenLogprob

__all__ = ["ChatCompletion", "ChatCompletionChunk"]


class ChatFunctionCall(TypedDict):
    """A function, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


class ChatToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: ChatFunctionCall


class ChatCustomCall(TypedDict):
    """The name of a custom tool, and its input."""

    name: str
    input: str


class ChatCustomToolCall(TypedDict):
    id: str
    type: Literal["custom"]
    custom: ChatCustomCall


class ChatMessage(TypedDict):
    """The model's message. Its reasoning, if any, is in two keys with the same text."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[
        list[Annotated[ChatToolCall | ChatCustomToolCall, Field(discriminator="type")]]
    ]
    function_call: NotRequired[ChatFunctionCall]


class ChatLogprobs(TypedDict):
    content: list[TokenLogprob]
    refusal: None


class ChatChoice(TypedDict):
    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Annotated[FinishReason, ExtraKey("finishReason")]


class ChatCompletion(TypedDict):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: Count
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatFunctionChunk(TypedDict):
    name: NotRequired[str]
    arguments: str


class ChatToolCallChunk(TypedDict):
    """A piece of a tool call. The first one has the id, the type and the name of the function."""

    index: Count
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: ChatFunctionChunk


class ChatCustomChunk(TypedDict):
    name: NotRequired[str]
    input: str


class ChatCustomToolCallChunk(TypedDict):
    """A piece of a call of a custom tool. The first one has the id, the type and the name."""

    index: Count
    id: NotRequired[str]
    type: NotRequired[Literal["custom"]]
    custom: ChatCustomChunk


class ChatDelta(TypedDict):
    """The next piece of the message."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    refusal: NotRequired[None]
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ChatToolCallChunk | ChatCustomToolCallChunk]]
    function_call: NotRequired[ChatFunctionChunk]


class ChatChunkChoice(TypedDict):
    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Annotated[FinishReason | None, ExtraKey("finishReason")]


class ChatCompletionChunk(TypedDict):
    """A chunk of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Count
    model: str
    system_fingerprint: str | None
    choices: list[ChatChunkChoice]
    usage: NotRequired[CompletionUsage | None]
