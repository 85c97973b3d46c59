"""What answers have in common: the finish reason, the usage, log probabilities, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypedDict

__all__ = [
    "ALSO",
    "Also",
    "CompletionUsage",
    "Count",
    "Error",
    "FinishReason",
    "TokenLogprob",
]

ALSO: Final = "x-also"
"""The keyword of :class:`Also` in a JSON schema."""


@dataclass(frozen=True)
class Also:
    """In the spelling ``both``, the same value also stands under the plan's ``name``."""

    name: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(core_schema), ALSO: self.name}


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
    """How many tokens it took."""

    prompt_tokens: Annotated[Count, Also("promptTokens")]
    completion_tokens: Annotated[Count, Also("completionTokens")]
    total_tokens: Annotated[Count, Also("totalTokens")]
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


Byte: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class TopLogprob(TypedDict):
    """A token that could have been, and its log probability."""

    token: str
    logprob: float
    bytes: list[Byte]


class TokenLogprob(TopLogprob):
    """A token, its log probability, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ErrorDetails(TypedDict):
    message: str
    type: str
    param: Annotated[
        str | None,
        Field(description="The field at fault, such as `messages[0].content[1].text`."),
    ]
    code: str | None


class Error(TypedDict):
    """What went wrong. The keys are the same in every spelling."""

    error: ErrorDetails
