"""Answers of engines as deltas, and readers of what clients get of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic_core
from hypothesis import settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionTokenLogprob
from pydantic import BaseModel, TypeAdapter

from django_ollama_openai._translation.chat_completion import (
    ChatCompletionStream,
)
from django_ollama_openai._wire.case import Case
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage
from tests.wire import (
    BREAKS,
    events,
    strictly,
)

__all__ = [
    "CASES",
    "GOLDEN",
    "LOGPROBS",
    "PLAN",
    "REASONING",
    "TEXT",
    "TOOL_CALLS",
    "UPDATE",
    "answers",
    "counts",
    "end",
    "entry",
    "extras",
    "few",
    "frames",
    "hold_to_golden",
    "keys",
    "leaves",
    "normalised",
    "snippets",
    "well_formed",
    "without_plan",
    "write",
]

DELTA = TypeAdapter(Delta)
GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
CASES: tuple[Case, ...] = get_args(Case)
few = settings(max_examples=min(40, settings().max_examples))
PLAN = {"finishReason", "promptTokens", "completionTokens", "totalTokens"}
"""What "both" adds to OpenAI's keys."""


def well_formed(delta: Delta) -> bool:
    """Return whether all of ``delta`` has the declared types; raise if JSON in it is invalid."""
    for entry in delta.logprobs or ():
        ChatCompletionTokenLogprob.model_validate(entry, strict=True)
    for piece in delta.tool_calls:
        assert isinstance(strictly(piece.arguments), dict)
    # NaN is not equal to itself.
    return DELTA.validate_json(pydantic_core.to_json(delta), strict=True) == delta


def end(reason: str | None = "stop", usage: Usage | None = None) -> Delta:
    return Delta(finish_reason=reason, usage=usage or Usage(12, 5), tokens=0)


def entry(token: str, logprob: float, **top: float) -> dict[str, Any]:
    def scored(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    return {
        **scored(token, logprob),
        "top_logprobs": [scored(*item) for item in top.items()],
    }


TEXT = [Delta("Hello"), Delta(", wörld!\n"), end(usage=Usage(12, 5, cached_tokens=8))]
REASONING = [
    Delta(reasoning="Six times "),
    Delta(reasoning="seven."),
    Delta("42"),
    end(usage=Usage(12, 5, reasoning_tokens=4)),
]
TOOL_CALLS = [
    Delta("One moment."),
    Delta(tool_calls=[ToolCallDelta(0, "call_1", "get_weather", '{"city_name"')]),
    Delta(tool_calls=[ToolCallDelta(0, arguments=':"Paris"}')]),
    Delta(tool_calls=[ToolCallDelta(1, "call_2", "get_time", "{}")]),
    end("tool_calls"),
]


LOGPROBS = [
    Delta("a", logprobs=[entry("a", -0.5, a=-0.5, top_p=-1.25)]),
    Delta("é", logprobs=[entry("é", -1.5)]),
    end("length"),
]


def write(
    deltas: list[Delta], case: Case, *, include_usage: bool = False, model: str = "my_model:1b"
) -> bytes:
    writer = ChatCompletionStream(model, case, include_usage=include_usage)
    return b"".join([*map(writer.feed, deltas), writer.finish()])


def frames(stream: bytes) -> list[dict[str, Any]]:
    *data, done = events(stream)
    assert done == "[DONE]"
    # Readers that take more than "\n" for a line end see the same.
    assert stream.decode().splitlines() == stream.decode().split("\n")[:-1]
    return [strictly(item) for item in data]


def normalised(data: bytes) -> str:
    text, ids = re.subn(r'"id":"((?:chat)?cmpl)-[0-9a-f]{30,32}"', r'"id":"\1-id"', data.decode())
    text, times = re.subn(r'"created":\d+', '"created":1700000000', text)
    assert ids == times > 0
    return text


def hold_to_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    assert text == path.read_bytes().decode()


def keys(value: Any) -> Iterator[str]:
    """Every key at every depth."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from keys(item)


def leaves(value: Any) -> Iterator[Any]:
    """Every value at every depth, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def without_plan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_plan(item) for key, item in value.items() if key not in PLAN}
    return [without_plan(item) for item in value] if isinstance(value, list) else value


def extras(value: Any) -> set[str]:
    """The keys that OpenAI's types do not know, at every depth."""
    found: set[str] = set()
    if isinstance(value, BaseModel):
        found |= set(value.model_extra or ())
        for name in type(value).model_fields:
            found |= extras(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            found |= extras(item)
    return found


snippets = st.sampled_from(["", "{", '"a_b"', *BREAKS]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
counts = st.integers(0, 2**31)
entries = st.builds(entry, snippets, st.floats(-100, 0))


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    """The deltas of an answer: its text, its reasoning and the pieces of its calls, interleaved."""
    calls: list[Delta] = []
    for index, pieces in enumerate(
        draw(st.lists(st.lists(snippets, min_size=1, max_size=3), max_size=2))
    ):
        first = ToolCallDelta(index, f"call_{index}", "f" + draw(snippets), pieces[0])
        rest = [ToolCallDelta(index, arguments=piece) for piece in pieces[1:]]
        calls += [Delta(tool_calls=[piece]) for piece in [first, *rest]]
    words = st.builds(
        Delta,
        content=snippets,
        reasoning=st.just("") | snippets,
        logprobs=st.none() | st.lists(entries, min_size=1, max_size=2),
    )
    deltas: list[Delta] = []
    for word in draw(st.lists(words, max_size=4)):
        taken = draw(st.integers(0, len(calls)))
        deltas += [word, *calls[:taken]]
        calls = calls[taken:]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    usage = Usage(draw(counts), draw(counts), draw(counts), draw(counts))
    return [*deltas, *calls, end(reason, usage)]
