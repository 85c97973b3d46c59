from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold

pytestmark = pytest.mark.once


def test_nothing_folds_into_an_empty_answer() -> None:
    assert fold([]) == Delta(tokens=0)


@given(st.lists(st.tuples(st.text(), st.text())))
def test_texts_are_joined_in_order(pieces: list[tuple[str, str]]) -> None:
    whole = fold(Delta(content=content, reasoning=reasoning) for content, reasoning in pieces)
    assert whole.content == "".join(content for content, _ in pieces)
    assert whole.reasoning == "".join(reasoning for _, reasoning in pieces)
    assert whole.tokens == len(pieces)


@given(st.text(), st.lists(st.integers(min_value=0)))
def test_the_pieces_of_a_call_are_joined(arguments: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(cut % (len(arguments) + 1) for cut in cuts), len(arguments)]
    pieces = [
        ToolCallDelta(0, "call_1" if start == end == 0 else None, None, arguments[start:end])
        for start, end in pairwise(bounds)
    ]
    first = ToolCallDelta(0, "call_1", "f")
    whole = fold([Delta(tool_calls=[first]), *(Delta(tool_calls=[piece]) for piece in pieces)])
    assert whole.tool_calls == [ToolCallDelta(0, "call_1", "f", arguments)]


def test_calls_that_arrive_interleaved_are_kept_apart_and_in_order() -> None:
    whole = fold(
        [
            Delta(tool_calls=[ToolCallDelta(1, "call_b", "g", "{")]),
            Delta(tool_calls=[ToolCallDelta(0, "call_a", "f", "[")]),
            Delta(tool_calls=[ToolCallDelta(1, None, None, "}")]),
            Delta(tool_calls=[ToolCallDelta(0, None, None, "]")]),
        ]
    )
    assert whole.tool_calls == [
        ToolCallDelta(0, "call_a", "f", "[]"),
        ToolCallDelta(1, "call_b", "g", "{}"),
    ]


def test_the_first_id_and_name_of_a_call_stay() -> None:
    whole = fold(
        Delta(tool_calls=[ToolCallDelta(0, id, name)]) for id, name in [("a", "f"), ("b", "g")]
    )
    assert whole.tool_calls == [ToolCallDelta(0, "a", "f")]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([None, None], None),
        ([None, []], []),
        ([[], [{"token": "a"}], None, [{"token": "b"}]], [{"token": "a"}, {"token": "b"}]),
    ],
)
def test_log_probabilities_are_joined_and_missing_only_if_nobody_gave_any(
    given_: list[list[dict[str, str]] | None], expected: list[dict[str, str]] | None
) -> None:
    assert fold(Delta(logprobs=entries) for entries in given_).logprobs == expected


def test_the_last_finish_reason_and_usage_count() -> None:
    early, late = Usage(1, 1), Usage(3, 4)
    whole = fold(
        [
            Delta(usage=early),
            Delta(finish_reason="length", tokens=0),
            Delta(usage=late, tokens=0),
            Delta(tokens=0),
        ]
    )
    assert (whole.finish_reason, whole.usage, whole.tokens) == ("length", late, 1)


def test_folding_changes_none_of_the_deltas() -> None:
    entries = [{"token": "a"}]
    call = ToolCallDelta(0, "call_1", "f", "{")
    deltas = [
        Delta(tool_calls=[call], logprobs=entries),
        Delta(tool_calls=[ToolCallDelta(0, None, None, "}")], logprobs=[{"token": "b"}]),
    ]
    fold(deltas)
    assert call == ToolCallDelta(0, "call_1", "f", "{")
    assert entries == [{"token": "a"}]


def test_folding_an_answer_changes_nothing() -> None:
    whole = fold([Delta("Hel", "th"), Delta("lo", "ink", finish_reason="stop", usage=Usage(1, 2))])
    assert fold([whole]) == whole


def test_total_tokens_count_cached_and_reasoning_tokens_once() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=8, reasoning_tokens=3)
    assert usage.total_tokens == 15


def test_usages_add_up_and_are_an_estimate_if_one_is() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert (Usage(estimated=True) + Usage()).estimated
    assert sum([Usage(1), Usage(2)], Usage()) == Usage(3)
