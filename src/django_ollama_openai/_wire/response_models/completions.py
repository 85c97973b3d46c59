"""The responses of ``POST v1/completions``."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from .common import CompletionUsage, Count, ExtraKey, FinishReason

__all__ = ["TextCompletion", "TextCompletionChunk"]


class TextLogprobs(TypedDict):
    """Log probabilities; the lists have an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[Count]


class TextChoiceHead(TypedDict):
    text: str
    index: Count
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    logprobs: TextLogprobs | None


class TextChoice(TextChoiceHead):
    finish_reason: Annotated[FinishReason, ExtraKey("finishReason")]


class TextChunkChoice(TextChoiceHead):
    finish_reason: Annotated[FinishReason | None, ExtraKey("finishReason")]


class TextCompletionHead(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    system_fingerprint: str | None


class TextCompletion(TextCompletionHead):
    """A text completion."""

    choices: list[TextChoice]
    usage: CompletionUsage


class TextCompletionChunk(TextCompletionHead):
    """A chunk of a streamed text completion."""

    choices: list[TextChunkChoice]
    usage: NotRequired[CompletionUsage | None]
