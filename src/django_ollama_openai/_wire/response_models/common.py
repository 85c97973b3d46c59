"""Types that several responses share: finish reason, usage, log probabilities, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypedDict

__all__ = [
    "EXTRA_KEY",
    "CompletionUsage",
    "Count",
    "Error",
    "ExtraKey",
    "FinishReason",
    "TokenLogprob",
]

#: The keyword of :class:`ExtraKey` in a JSON schema.
EXTRA_KEY: Final = "x-extra-key"


@dataclass(frozen=True)
class ExtraKey:
    """Mark a key whose value the case ``both`` repeats under ``name``."""

    name: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(core_schema), EXTRA_KEY: self.name}


Count: TypeAlias = Annotated[int, Field(ge=0)]
# Engines have reasons of their own, which are passed on.
FinishReason: TypeAlias = Annotated[
    str, Field(examples=["stop", "length", "tool_calls", "content_filter", "function_call"])
]


class PromptTokensDetails(TypedDict):
    cached_tokens: Count
    audio_tokens: Count


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: Count
    audio_tokens: Count
    accepted_prediction_tokens: Count
    rejected_prediction_tokens: Count


class CompletionUsage(TypedDict):
    """The token counts of a completion."""

    prompt_tokens: Annotated[Count, ExtraKey("promptTokens")]
    completion_tokens: Annotated[Count, ExtraKey("completionTokens")]
    total_tokens: Annotated[Count, ExtraKey("totalTokens")]
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


Byte: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class TopLogprob(TypedDict):
    """A token and its log probability."""

    token: str
    logprob: float
    bytes: list[Byte]


class TokenLogprob(TopLogprob):
    """A token, its log probability, and the most likely tokens at its position."""

    top_logprobs: list[TopLogprob]


class ErrorDetails(TypedDict):
    message: str
    type: str
    param: Annotated[
        str | None,
        Field(description="The invalid field, such as `messages[0].content[1].text`."),
    ]
    code: str | None


class Error(TypedDict):
    """An error. Its keys are the same in every case."""

    error: ErrorDetails
