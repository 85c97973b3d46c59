"""The language inside: what every backend gives back and everything above transforms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Delta", "Embeddings", "ToolCallDelta", "Usage", "fold", "says_something"]


@dataclass(slots=True, frozen=True)
class Usage:
    """Tokens of one completion.

    ``prompt_tokens`` includes ``cached_tokens``. ``estimated`` marks figures that were counted
    here because the engine never got to report its own: those of a cancelled completion.
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

    ``index`` counts the calls of the whole answer from 0. ``id`` and ``name`` come with the first
    piece only; ``arguments`` is JSON text, to be joined over the pieces. If ``is_custom``, it is
    the input of a custom tool instead.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_custom: bool = False


@dataclass(slots=True)
class Delta:
    """What one step of an engine added to the answer. A whole answer is one large delta.

    ``logprobs`` holds entries of OpenAI's ``logprobs.content``. ``finish_reason`` comes with the
    last delta that carries content, ``usage`` with it or after it; ``tokens`` is how many tokens
    of completion the delta stands for (the basis of an estimate when the client hangs up).
    ``index`` is the choice it belongs to.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    tokens: int = 1
    index: int = 0


def says_something(delta: Delta) -> bool:
    """Whether there is anything in ``delta`` for a client."""
    return bool(
        delta.content
        or delta.reasoning
        or delta.tool_calls
        or delta.logprobs
        or delta.finish_reason
        or delta.usage
    )


def fold(deltas: Iterable[Delta]) -> Delta:
    """Join the deltas of a stream into the one delta that is the whole answer."""
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
    """The vectors of the inputs, in order and all of one length.

    A number is the shortest that says which float32 it is: 0.1, not 0.10000000149011612. Written as
    JSON as it is, it takes the least space.
    """

    vectors: list[list[float]]
    usage: Usage
