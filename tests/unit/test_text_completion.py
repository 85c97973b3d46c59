from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from django_ollama_openai._translation.text_completion import (
    TextCompletionStream,
    WholeTextCompletion,
)
from django_ollama_openai._wire.case import Case, to_camel
from django_ollama_openai._wire.delta import Delta, Usage
from django_ollama_openai.exceptions import UpstreamError
from tests.deltas import (
    CASES,
    GOLDEN,
    PLAN,
    UPDATE,
    counts,
    end,
    entry,
    extras,
    few,
    frames,
    hold_to_golden,
    keys,
    leaves,
    normalised,
    snippets,
    without_plan,
)
from tests.wire import strictly, texts


def of(index: int, delta: Delta) -> Delta:
    delta.index = index
    return delta


TEXT = [Delta(" Paris"), Delta(", wörld!\n"), end("length", Usage(5, 2, cached_tokens=4))]
REASONING = [Delta(reasoning="Six times "), Delta(reasoning="seven."), Delta("42"), end()]
LOGPROBS = [
    Delta("é", logprobs=[entry("é", -0.5, e=-1.25, top_p=-2)]),
    Delta("ab", logprobs=[entry("a", -1, a=-1), entry("b", -1.5)]),
    end("length"),
]
CHOICES = [
    of(1, Delta("b")),
    of(0, Delta("a")),
    of(1, Delta("B")),
    of(1, end("length", Usage(5, 2))),
    of(0, Delta("A")),
    of(0, end("stop", Usage(5, 2))),
]

STREAMS: dict[str, tuple[list[Delta], list[str], bool]] = {
    "text": (TEXT, [""], False),
    "text_with_usage": (TEXT, [""], True),
    "reasoning": (REASONING, [""], False),
    "logprobs": (LOGPROBS, [""], False),
    "choices_with_echo": (CHOICES, ["1, ", "2, "], False),
}
WHOLE: dict[str, tuple[list[Delta], list[str]]] = {
    "text": (TEXT, [""]),
    "everything": (
        [
            of(1, Delta(reasoning="hm")),
            of(1, Delta("42")),
            *LOGPROBS,
            of(1, end(usage=Usage(3, 4, reasoning_tokens=1))),
        ],
        ["", "Six times seven is "],
    ),
}


def write(
    deltas: list[Delta],
    case: Case,
    echo: Sequence[str] = ("",),
    *,
    include_usage: bool = False,
    model: str = "my_model:1b",
) -> bytes:
    writer = TextCompletionStream(
        model, case, choices=len(echo), echo=echo, include_usage=include_usage
    )
    return b"".join([*map(writer.feed, deltas), writer.finish()])


def write_whole(
    deltas: list[Delta], case: Case, echo: Sequence[str] = ("",), *, model: str = "my_model:1b"
) -> bytes:
    writer = WholeTextCompletion(model, case, choices=len(echo), echo=echo)
    assert b"".join(map(writer.feed, deltas)) == b""
    return writer.finish()


def whole(deltas: list[Delta], case: Case, echo: Sequence[str] = ("",)) -> dict[str, Any]:
    completion: dict[str, Any] = strictly(write_whole(deltas, case, echo))
    return completion


# Golden files: exactly what clients get. UPDATE_GOLDEN=1 writes them anew.


@pytest.mark.compat("completions.stream.order")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_golden_one(name: str, case: Case) -> None:
    deltas, echo, include_usage = STREAMS[name]
    stream = write(deltas, case, echo, include_usage=include_usage)
    hold_to_golden(f"completions/{name}.{case}.sse", normalised(stream))


@pytest.mark.compat(
    "completions.response.id",
    "completions.response.system_fingerprint",
    "completions.response.choices[].logprobs",
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_completion_is_the_golden_one(name: str, case: Case) -> None:
    completion = strictly(normalised(write_whole(WHOLE[name][0], case, WHOLE[name][1])))
    hold_to_golden(
        f"completions/{name}.{case}.json",
        json.dumps(completion, indent=2, ensure_ascii=False) + "\n",
    )


@pytest.mark.skipif(UPDATE, reason="they are being written")
def test_every_golden_file_is_held_to() -> None:
    streams = {f"{name}.{case}.sse" for name in STREAMS for case in CASES}
    wholes = {f"{name}.{case}.json" for name in WHOLE for case in CASES}
    assert {path.name for path in (GOLDEN / "completions").iterdir()} == streams | wholes


# The three spellings

STREAMED = pytest.mark.parametrize(
    ("deltas", "echo"), [stream[:2] for stream in STREAMS.values()], ids=STREAMS
)


@pytest.mark.compat(
    "completions.response.finishReason, promptTokens, completionTokens, totalTokens"
)
@STREAMED
@pytest.mark.parametrize("include_usage", [False, True])
def test_both_is_openais_and_the_plans_beside_it(
    deltas: list[Delta], echo: list[str], include_usage: bool
) -> None:
    neutral = {"id": "", "created": 0}
    both = frames(write(deltas, "both", echo, include_usage=include_usage))
    snake = frames(write(deltas, "snake", echo, include_usage=include_usage))
    assert PLAN & set(keys(both)) == PLAN
    for chunk, plain in zip(both, snake, strict=True):
        if not include_usage:
            chunk.pop("usage", None)
        assert without_plan(chunk) | neutral == plain | neutral
    completion = without_plan(whole(deltas, "both", echo))
    assert completion | neutral == whole(deltas, "snake", echo) | neutral


@STREAMED
@pytest.mark.parametrize("include_usage", [False, True])
def test_camel_case_changes_the_keys_and_nothing_else(
    deltas: list[Delta], echo: list[str], include_usage: bool
) -> None:
    def without_tokens(value: Any) -> Any:
        """Without the dicts whose keys are tokens."""
        if isinstance(value, dict):
            return {
                key: without_tokens(item)
                for key, item in value.items()
                if key not in ("top_logprobs", "topLogprobs")
            }
        return [without_tokens(item) for item in value] if isinstance(value, list) else value

    camel = [whole(deltas, "camel", echo)]
    camel += frames(write(deltas, "camel", echo, include_usage=include_usage))
    snake = [whole(deltas, "snake", echo)]
    snake += frames(write(deltas, "snake", echo, include_usage=include_usage))
    if not include_usage:
        assert camel[-1].pop("usage")["totalTokens"] == snake[0]["usage"]["total_tokens"]
    for respelled, plain in zip(camel, snake, strict=True):
        assert all(to_camel(key) == key for key in keys(without_tokens(respelled)))
        assert list(keys(without_tokens(respelled))) == [
            to_camel(key) for key in keys(without_tokens(plain))
        ]
        assert list(leaves(respelled))[1:] == list(leaves(plain))[1:]  # but for the id


def test_a_token_is_never_respelled() -> None:
    (choice,) = whole(LOGPROBS, "camel")["choices"]
    assert choice["logprobs"]["topLogprobs"][0] == {"e": -1.25, "top_p": -2, "é": -0.5}


@pytest.mark.parametrize("case", ["both", "camel"])
def test_the_last_finish_reason_comes_with_the_usage(case: Case) -> None:
    *others, last = frames(write(CHOICES, case, ["", ""]))
    assert all("usage" not in chunk for chunk in others)
    assert last["choices"][0]["finishReason"] == "length"
    assert last["usage"]["totalTokens"] == 14


@pytest.mark.compat(
    "completions.request.stream_options.include_usage", "completions.response.usage.total_tokens"
)
@pytest.mark.parametrize("case", CASES)
def test_usage_that_was_asked_for_comes_once_and_last(case: Case) -> None:
    *others, last = frames(write(TEXT, case, include_usage=True))
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["totalTokens" if case == "camel" else "total_tokens"] == 7


@pytest.mark.compat(
    "completions.response.usage.prompt_tokens",
    "completions.response.usage.completion_tokens",
    "completions.response.usage.prompt_tokens_details",
    "completions.response.usage.completion_tokens_details",
)
def test_usage_is_the_sum_over_the_choices() -> None:
    usages = [Usage(5, 2, cached_tokens=4), Usage(0, 3, reasoning_tokens=1)]
    deltas = [of(index, end(usage=usage)) for index, usage in enumerate(usages)]
    figures = whole(deltas, "snake", ["", ""])["usage"]
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (5, 5)
    assert figures["prompt_tokens_details"]["cached_tokens"] == 4
    assert figures["completion_tokens_details"]["reasoning_tokens"] == 1


# The shape


@pytest.mark.compat(
    "completions.response.id",
    "completions.response.object",
    "completions.response.created",
    "completions.response.model",
)
@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_one_completion(case: Case) -> None:
    chunks = frames(write(CHOICES, case, ["", ""], include_usage=True))
    assert {
        (chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks
    } == {(chunks[0]["id"], chunks[0]["created"], "my_model:1b", "text_completion")}
    assert chunks[0]["id"] != frames(write(TEXT, case))[0]["id"]


@pytest.mark.compat("completions.response.choices[].logprobs")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("deltas", [[], [Delta()], [Delta(""), end(None, Usage())]])
def test_an_answer_without_anything_is_still_an_answer(deltas: list[Delta], case: Case) -> None:
    reason = "finishReason" if case == "camel" else "finish_reason"
    (chunk,) = frames(write(deltas, case))
    for answer in (chunk, whole(deltas, case)):
        (choice,) = answer["choices"]
        assert (choice["index"], choice["text"], choice[reason]) == (0, "", "stop")
        assert choice["logprobs"] is None


@pytest.mark.compat(
    "completions.response.choices[].index",
    "completions.response.choices[].finish_reason",
    "completions.stream.order",
)
def test_every_choice_has_one_end() -> None:
    chunks = frames(write(CHOICES, "snake", ["", ""]))
    ends = [
        (choice["index"], choice["finish_reason"], choice["text"])
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert ends == [(0, "stop", ""), (1, "length", "")]
    assert [choice["finish_reason"] for choice in whole(CHOICES, "snake", ["", ""])["choices"]] == [
        "stop",
        "length",
    ]


@pytest.mark.compat("completions.request.echo", "completions.response.choices[].text")
def test_the_echo_comes_before_the_text() -> None:
    stream = frames(write(CHOICES, "snake", ["1, ", "2, "]))
    pieces = [(chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in stream]
    assert pieces[:5] == [(1, "2, "), (1, "b"), (0, "1, "), (0, "a"), (1, "B")]
    completion = whole(CHOICES, "snake", ["1, ", "2, "])
    assert [choice["text"] for choice in completion["choices"]] == ["1, aA", "2, bB"]


def test_the_echo_of_a_choice_that_says_nothing() -> None:
    echoed, ended = frames(write([], "snake", ["x"]))
    assert echoed["choices"][0]["text"] == "x"
    assert ended["choices"][0]["text"] == ""
    assert whole([], "snake", ["x"])["choices"][0]["text"] == "x"


@pytest.mark.compat("completions.response.choices[].reasoning_content")
def test_reasoning_has_both_of_its_names() -> None:
    first = frames(write(REASONING, "snake"))[0]["choices"][0]
    assert (first["text"], first["reasoning"], first["reasoning_content"]) == (
        "",
        "Six times ",
        "Six times ",
    )
    (choice,) = whole(REASONING, "snake")["choices"]
    assert choice["text"] == "42"
    assert choice["reasoning"] == choice["reasoning_content"] == "Six times seven."
    assert "reasoning" not in whole(TEXT, "snake")["choices"][0]


@pytest.mark.compat("completions.stream.failure in mid-stream")
@pytest.mark.parametrize("case", CASES)
def test_a_failure_is_openais_envelope_in_every_case(case: Case) -> None:
    error = UpstreamError("Broke off.")
    stream = TextCompletionStream("m", case, choices=1, echo=[""], include_usage=True)
    chunk, failure = frames(stream.feed(Delta("x")) + stream.fail(error))
    assert chunk["choices"][0]["text"] == "x"
    assert failure == error.envelope()
    whole_writer = WholeTextCompletion("m", case, choices=1, echo=[""])
    assert strictly(whole_writer.fail(error)) == failure


# Log probabilities


def legacy(deltas: list[Delta], echo: str = "") -> dict[str, Any]:
    logprobs: dict[str, Any] = whole(deltas, "snake", [echo])["choices"][0]["logprobs"]
    return logprobs


@pytest.mark.compat(
    "completions.response.choices[].logprobs.tokens",
    "completions.response.choices[].logprobs.token_logprobs",
    "completions.response.choices[].logprobs.top_logprobs",
    "completions.response.choices[].logprobs.text_offset",
)
def test_the_legacy_shape() -> None:
    assert legacy(LOGPROBS) == {
        "tokens": ["é", "a", "b"],
        "token_logprobs": [-0.5, -1, -1.5],
        "top_logprobs": [{"e": -1.25, "top_p": -2, "é": -0.5}, {"a": -1}, {"b": -1.5}],
        "text_offset": [0, 1, 2],
    }


@pytest.mark.compat("completions.response.choices[].logprobs.text_offset")
def test_offsets_count_from_the_beginning_of_the_echo() -> None:
    assert legacy(LOGPROBS, "So: ")["text_offset"] == [4, 5, 6]


def test_offsets_go_on_through_a_stream() -> None:
    chunks = frames(write([Delta("xy"), *LOGPROBS], "snake", ["So: "]))
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [logprobs and logprobs["text_offset"] for logprobs in found] == [
        None,
        None,
        [6],
        [7, 8],
        None,
    ]


def test_choices_have_offsets_of_their_own() -> None:
    deltas = [of(index, Delta("ab", logprobs=[entry("ab", -1)])) for index in (0, 1, 1, 0, 0)]
    choices = whole(deltas, "snake", ["", "xyz"])["choices"]
    assert [choice["logprobs"]["text_offset"] for choice in choices] == [[0, 2, 4], [3, 5]]


def test_a_character_in_several_tokens_counts_once() -> None:
    halves = [
        {"token": "\ufffd", "logprob": -1, "bytes": [byte], "top_logprobs": []}
        for byte in "🦙".encode()
    ]
    deltas = [Delta("🦙!", logprobs=[*halves, entry("!", -1)]), end()]
    assert legacy(deltas)["text_offset"] == [0, 0, 0, 0, 1]


def test_bytes_may_be_null() -> None:
    unknown = {"token": "ab", "logprob": -1, "bytes": None, "top_logprobs": []}
    assert legacy([Delta("abc", logprobs=[unknown, entry("c", -2)])])["text_offset"] == [0, 2]


def test_of_alternatives_with_the_same_text_the_likeliest_stands() -> None:
    tops = [entry("\ufffd", -1), entry("\ufffd", -2)]
    given_ = {**entry("x", -3), "top_logprobs": tops}
    assert legacy([Delta("x", logprobs=[given_])])["top_logprobs"] == [{"\ufffd": -1, "x": -3}]


# What OpenAI's own client makes of it

tokens = snippets.filter(bool)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Delta], list[str]]:
    """The deltas of up to three choices, interleaved, and what each echoes."""
    echo = draw(st.lists(snippets, min_size=1, max_size=3))
    queues = []
    for index in range(len(echo)):
        words = []
        for said in draw(st.lists(st.lists(tokens, max_size=2), max_size=3)):
            logprobs = [entry(token, -1) for token in said] if draw(st.booleans()) else None
            reasoning = "" if logprobs else draw(st.just("") | snippets)
            words.append(of(index, Delta("".join(said), reasoning, logprobs=logprobs)))
        reason = draw(st.sampled_from(["stop", "length"]))
        queues.append([*words, of(index, end(reason, Usage(draw(counts), draw(counts))))])
    order = draw(st.permutations([index for index, queue in enumerate(queues) for _ in queue]))
    return [queues[index].pop(0) for index in order], echo


@few
@given(case=st.sampled_from(["both", "snake"]), answer=answers(), include_usage=st.booleans())
def test_openais_types_take_everything_and_know_every_key(
    case: Case, answer: tuple[list[Delta], list[str]], include_usage: bool
) -> None:
    known = {"reasoning", "reasoning_content"} | (PLAN if case == "both" else set())
    deltas, echo = answer
    completion = whole(deltas, case, echo)
    parsed = Completion.model_validate(completion, strict=True)
    assert extras(parsed) <= known
    assert parsed.model_dump(exclude_unset=True) == completion
    for chunk in frames(write(deltas, case, echo, include_usage=include_usage)):
        # The type has no place for the null that OpenAI sends before the last chunk.
        parsed = Completion.construct(**chunk)
        assert extras(parsed) <= known
        assert parsed.model_dump(exclude_unset=True) == chunk


@few
@given(case=st.sampled_from(CASES), answer=answers(), include_usage=st.booleans())
def test_what_a_stream_adds_up_to_is_the_whole_completion(
    case: Case, answer: tuple[list[Delta], list[str]], include_usage: bool
) -> None:
    deltas, echo = answer
    completion = whole(deltas, case, echo)
    chunks = frames(write(deltas, case, echo, include_usage=include_usage))
    reason = "finishReason" if case == "camel" else "finish_reason"
    for choice in completion["choices"]:
        pieces = [
            piece
            for chunk in chunks
            for piece in chunk["choices"]
            if piece["index"] == choice["index"]
        ]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert "".join(piece.get("reasoning", "") for piece in pieces) == choice.get(
            "reasoning", ""
        )
        assert [piece[reason] for piece in pieces if piece[reason]] == [choice[reason]]
        for name, values in (choice["logprobs"] or {}).items():
            streamed = [piece["logprobs"][name] for piece in pieces if piece["logprobs"]]
            assert [value for part in streamed for value in part] == values
    if include_usage or case != "snake":
        assert chunks[-1]["usage"] == completion["usage"]


@few
@given(case=st.sampled_from(CASES), pieces=st.lists(texts), echo=texts, model=texts)
def test_any_text_arrives_as_it_is_in_as_many_frames_as_it_was_split_into(
    case: Case, pieces: list[str], echo: str, model: str
) -> None:
    deltas = [*map(Delta, pieces), end()]
    chunks = frames(write(deltas, case, [echo], model=model))
    got = [chunk["choices"][0]["text"] for chunk in chunks]
    assert got == [*filter(None, [echo, *pieces]), ""]
    assert all(chunk["model"] == model for chunk in chunks)
    completion = strictly(write_whole(deltas, case, [echo], model=model))
    assert completion["choices"][0]["text"] == echo + "".join(pieces)
