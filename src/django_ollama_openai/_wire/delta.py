"""The gateway's internal format for model output, which backends return as :class:`Delta`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Delta", "Embeddings", "ToolCallDelta", "Usage", "fold", "has_output"]


@dataclass(slots=True, frozen=True)
class Usage:
    """The token counts of one completion.

    ``prompt_tokens`` includes ``cached_tokens``, ``completion_tokens`` includes
    ``reasoning_tokens``. ``estimated`` means that the gateway counted the tokens, since the engine
    reports no usage for a cancelled completion.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


@dataclass(slots=True)
class ToolCallDelta:
    """A tool call or a piece of one.

    ``index`` counts the calls of the whole completion from 0. Only the first piece has ``id`` and
    ``name``. The ``arguments`` of all pieces, joined, are JSON text; if ``is_custom``, they are the
    input of a custom tool.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_custom: bool = False


@dataclass(slots=True)
class Delta:
    """A piece of a completion; a whole completion is one delta.

    ``logprobs`` has entries of OpenAI's ``logprobs.content``. ``finish_reason`` comes with the last
    delta that has content, ``usage`` with it or after it. ``tokens`` is the number of completion
    tokens in this delta, for the estimated usage if the client disconnects. ``index`` is the
    number of the choice.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    tokens: int = 1
    index: int = 0


def new_tool_call_id() -> str:
    """Return a random tool call id in OpenAI's format, for engines that send none."""
    return "call_" + secrets.token_hex(12)


def has_output(delta: Delta) -> bool:
    """Return whether ``delta`` has anything for a client."""
    return bool(
        delta.content
        or delta.reasoning
        or delta.tool_calls
        or delta.logprobs
        or delta.finish_reason
        or delta.usage
    )


def fold(deltas: Iterable[Delta]) -> Delta:
    """Join the deltas of one choice into one delta with the whole completion."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    arguments: dict[int, list[str]] = {}
    whole = Delta(tokens=0)
    for delta in deltas:
        content.append(delta.content)
        reasoning.append(delta.reasoning)
        for piece in delta.tool_calls:
            call = calls.setdefault(piece.index, ToolCallDelta(piece.index))
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.is_custom = call.is_custom or piece.is_custom
            arguments.setdefault(piece.index, []).append(piece.arguments)
        if delta.logprobs is not None:
            whole.logprobs = whole.logprobs or []
            whole.logprobs += delta.logprobs
        whole.finish_reason = delta.finish_reason or whole.finish_reason
        whole.usage = delta.usage or whole.usage
        whole.tokens += delta.tokens
    whole.content = "".join(content)
    whole.reasoning = "".join(reasoning)
    for index, call in calls.items():
        call.arguments = "".join(arguments[index])
    whole.tool_calls = [calls[index] for index in sorted(calls)]
    return whole


@dataclass(slots=True, frozen=True)
class Embeddings:
    """The vectors of the inputs, in order and all of the same length.

    Each number is the shortest decimal that identifies its float32, 0.1 instead of
    0.10000000149011612, so that it takes the least space in JSON.
    """

    vectors: list[list[float]]
    usage: Usage
