from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings

from django_ollama_openai._translation.openai_chunks import (
    OpenAIAnswer,
    OpenAIChunks,
    OpenAITextChunks,
)
from django_ollama_openai._translation.openai_errors import engine_error
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    UpstreamError,
)
from tests.deltas import answers, frames, well_formed, write
from tests.wire import any_json, json_like

pytestmark = pytest.mark.once


def chunk(
    delta: dict[str, Any] | None = None, finish_reason: str | None = None, **choice: Any
) -> dict[str, Any]:
    """A chunk as llama-server sends it."""
    return {
        "choices": [
            {"finish_reason": finish_reason, "index": 0, "delta": delta or {}, **choice},
        ],
        "created": 1700000000,
        "id": "chatcmpl-x",
        "model": "m",
        "object": "chat.completion.chunk",
    }


def feed(chunk: Any) -> Delta:
    return OpenAIChunks().feed(chunk)


# What is read


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"role": "assistant", "content": None}, Delta(tokens=0)),
        ({"role": "assistant", "content": "x"}, Delta("x")),
        ({"content": ""}, Delta(tokens=0)),
        ({"content": "a\x85b\u2028"}, Delta("a\x85b\u2028")),
        ({"reasoning_content": "hm"}, Delta(reasoning="hm")),
        ({"reasoning": "hm"}, Delta(reasoning="hm")),
        ({"content": None, "refusal": "No."}, Delta("No.")),
        ({"content": "x", "refusal": None}, Delta("x")),
        ({"content": "x", "reasoning_content": "hm"}, Delta("x", "hm")),
        ({"content": None, "reasoning_content": None, "tool_calls": None}, Delta(tokens=0)),
        ({}, Delta(tokens=0)),
    ],
)
def test_text_and_reasoning(body: dict[str, Any], expected: Delta) -> None:
    assert feed(chunk(body)) == expected


def test_the_pieces_of_a_call() -> None:
    chunks = OpenAIChunks()
    function = {"name": "get_weather", "arguments": ""}
    first = {"index": 1, "id": "call_1", "type": "function", "function": function}
    deltas = [
        chunks.feed(chunk({"role": "assistant", "content": None, "tool_calls": [first]})),
        chunks.feed(chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"a"'}}]})),
        chunks.feed(chunk({"tool_calls": [{"index": 1, "function": {"arguments": ":1}"}}]})),
        chunks.feed(chunk({"tool_calls": [{"index": 1}, {"index": 1, "function": None}]})),
    ]
    assert [delta.tool_calls for delta in deltas] == [
        [ToolCallDelta(0, "call_1", "get_weather")],
        [ToolCallDelta(0, arguments='{"a"')],
        [ToolCallDelta(0, arguments=":1}")],
        [ToolCallDelta(0), ToolCallDelta(0)],
    ]
    assert [delta.tokens for delta in deltas] == [1, 1, 1, 1]


def test_a_call_without_an_id_is_given_one() -> None:
    chunks = OpenAIChunks()
    for index, id in enumerate([None, ""]):
        piece = {"index": index, "id": id, "function": {"name": "f", "arguments": "{"}}
        (first,) = chunks.feed(chunk({"tool_calls": [piece]})).tool_calls
        assert first.id is not None
        assert first.id.startswith("call_")
        (second,) = chunks.feed(chunk({"tool_calls": [piece]})).tool_calls
        assert second == ToolCallDelta(index, arguments="{")


def test_calls_without_an_index_are_told_apart_by_their_names() -> None:
    """Some engines send whole calls, each in a chunk of its own or several in one."""

    def piece(**function: Any) -> dict[str, Any]:
        return {"id": "c", "function": function}

    chunks = OpenAIChunks()
    fed = [
        [piece(name="f", arguments="{}")],
        [piece(name="g", arguments='{"a"'), piece(arguments=":1}")],
        [piece(name="f", arguments="{}"), piece(name="h", arguments="{}")],
    ]
    whole = fold([chunks.feed(chunk({"tool_calls": calls})) for calls in fed])
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [
        ("f", "{}"),
        ("g", '{"a":1}'),
        ("f", "{}"),
        ("h", "{}"),
    ]


@pytest.mark.parametrize("choice", [{}, {"delta": None}, {"delta": {}}])
def test_a_choice_without_a_delta_says_nothing(choice: dict[str, Any]) -> None:
    assert feed({"choices": [choice]}) == Delta(tokens=0)


def test_usage_may_lack_counts() -> None:
    for usage in ({"prompt_tokens": 3}, {"prompt_tokens": 3, "completion_tokens": None}):
        assert feed({"choices": [], "usage": usage}).usage == Usage(prompt_tokens=3)


def test_calls_with_the_same_index_are_told_apart_by_their_ids() -> None:
    def piece(index: int, id: str | None = None, **function: Any) -> dict[str, Any]:
        return {"index": index, "id": id, "function": function}

    chunks = OpenAIChunks()
    fed = [
        [piece(0, "call_1", name="f", arguments="{"), piece(0, "call_1", arguments='"a"')],
        [piece(0, "call_1", name="f", arguments=":1}")],
        [piece(0, "call_2", name="g", arguments="{}")],
        [piece(-7, "call_3", name="h", arguments={"b": [2]})],
    ]
    whole = fold([chunks.feed(chunk({"tool_calls": calls})) for calls in fed])
    assert whole.tool_calls == [
        ToolCallDelta(0, "call_1", "f", '{"a":1}'),
        ToolCallDelta(1, "call_2", "g", "{}"),
        ToolCallDelta(2, "call_3", "h", '{"b":[2]}'),
    ]


def test_many_calls_take_no_longer_each() -> None:
    calls = [{"id": "c", "function": {"name": "f", "arguments": "{}"}}] * 50_000
    started = time.process_time()
    assert len(feed(chunk({"tool_calls": calls})).tool_calls) == 50_000
    assert time.process_time() - started < 3


@pytest.mark.parametrize("function", [None, {}, {"name": None}, {"name": ""}])
def test_a_call_without_a_name_is_an_upstream_error(function: Any) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        feed(chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": function}]}))


def test_log_probabilities_lack_nothing_that_openais_have() -> None:
    entries = [{"id": 5, "token": "é", "logprob": -1, "top_logprobs": []}]
    delta = feed(chunk({"content": "é"}, logprobs={"content": entries}))
    assert delta.logprobs == [
        {"token": "é", "logprob": -1, "bytes": [195, 169], "top_logprobs": []}
    ]
    assert feed(chunk({"content": "x"}, logprobs=None)).logprobs is None
    assert feed(chunk({"content": "x"}, logprobs={"content": None})).logprobs == []


@pytest.mark.compat(
    "chat.response.usage.prompt_tokens_details.cached_tokens",
    "chat.response.usage.completion_tokens_details.reasoning_tokens",
)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, Usage(3, 4)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            Usage(3, 4, 2, 1),
        ),
        (
            {
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            Usage(),
        ),
        (None, None),
    ],
)
def test_usage_comes_without_a_choice(usage: dict[str, Any] | None, expected: Usage | None) -> None:
    assert feed({"choices": [], "usage": usage}) == Delta(usage=expected, tokens=0)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_the_finish_reason_is_the_engines(reason: str) -> None:
    chunks = OpenAIChunks()
    assert chunks.feed(chunk({"content": "x"})).finish_reason is None
    assert chunks.feed(chunk({}, reason)) == Delta(finish_reason=reason, tokens=0)
    # Usage comes after it.
    chunks.feed({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    chunks.finish()


@pytest.mark.parametrize(
    "fed",
    [
        [chunk({"content": "x"})],
        [chunk({"content": "x"}), {"choices": [], "usage": None}],
        [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}],
    ],
    ids=["content", "no choice", "usage"],
)
def test_an_answer_without_a_finish_reason_is_an_error(fed: list[dict[str, Any]]) -> None:
    chunks = OpenAIChunks()
    for part in fed:
        chunks.feed(part)
    with pytest.raises(UpstreamError, match="ended before it was complete"):
        chunks.finish()


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_the_engine_gave_up_is_an_error(reason: str) -> None:
    chunks = OpenAIChunks()
    chunks.feed(chunk({"content": "x"}))
    with pytest.raises(UpstreamError, match="ended before it was complete"):
        chunks.feed(chunk({}, reason))


def test_nothing_at_all_is_no_answer() -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        OpenAIChunks().finish()


@settings(max_examples=40)
@given(answers())
def test_what_the_gateway_writes_it_reads_again(deltas: list[Delta]) -> None:
    chunks = OpenAIChunks()
    read = fold([chunks.feed(part) for part in frames(write(deltas, "snake", include_usage=True))])
    chunks.finish()
    written = fold(deltas)
    read.tokens = written.tokens = 0
    assert read == written


# Failures


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            {
                "code": 400,
                "message": "request (831 tokens) exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 831,
                "n_ctx": 256,
            },
            ContextLengthExceeded,
            "This model's maximum context length is 256 tokens. However, your messages resulted "
            "in 831 tokens. Please reduce the length of the messages.",
        ),
        (
            {"type": "exceed_context_size_error"},
            ContextLengthExceeded,
            "This model's context has no room for your messages. Please reduce the length of the "
            "messages.",
        ),
        (
            {"code": 400, "message": "Bad grammar.", "type": "invalid_request_error"},
            InvalidRequest,
            "Bad grammar.",
        ),
        ({"code": 400, "message": "Bad grammar."}, InvalidRequest, "Bad grammar."),
        ({"type": "invalid_request_error", "message": "Bad."}, InvalidRequest, "Bad."),
        ({"code": 400}, InvalidRequest, "The engine refused the request."),
        ({"code": 400, "message": ""}, InvalidRequest, "The engine refused the request."),
        (
            {"code": 500, "message": "open /srv/model.gguf", "type": "server_error"},
            UpstreamError,
            "The engine failed while generating the response.",
        ),
        (
            {"code": 503, "message": "Loading model", "type": "unavailable_error"},
            UpstreamError,
            "The engine failed while generating the response.",
        ),
        ({}, UpstreamError, "The engine failed while generating the response."),
    ],
)
def test_what_an_error_of_the_engine_is_told_as(
    error: dict[str, Any], kind: type[GatewayError], message: str
) -> None:
    told = engine_error(error)
    assert (type(told), told.message) == (kind, message)
    assert told.param == ("messages" if kind is ContextLengthExceeded else None)
    with pytest.raises(kind) as caught:
        feed({"error": error, **chunk({"content": "x"})})
    assert caught.value.message == message


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        5,
        "error",
        "choices",
        [],
        ["error"],
        ["choices"],
        {},
        {"error": None},
        {"choices": None},
        {"choices": 5},
        {"choices": [None]},
        {"choices": [{"delta": "x"}]},
        chunk({"tool_calls": 5}),
        chunk({"tool_calls": [None]}),
        chunk({"tool_calls": [{"id": "call_1"}]}),
        chunk({"tool_calls": [{"index": 0, "function": "f"}]}),
        chunk(logprobs=5),
        chunk(logprobs={"content": [{}]}),
        {"choices": [], "usage": 5},
        {"choices": [], "usage": {"completion_tokens": 3}},
        {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 3}},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2**60}},
    ],
    ids=repr,
)
def test_nonsense_is_an_upstream_error(nonsense: Any) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        feed(nonsense)


USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
CALL = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "wrong",
    [
        chunk({"content": 5}),
        chunk({"content": ["x"]}),
        chunk({"reasoning_content": True}),
        chunk({"tool_calls": [{**CALL, "index": "0"}]}),
        chunk({"tool_calls": [{**CALL, "id": 5}]}),
        chunk({"tool_calls": [{**CALL, "function": {"name": 5}}]}),
        chunk({"tool_calls": [{**CALL, "function": {"arguments": {"a": 1}}}]}),
        chunk({}, 5),  # type: ignore[arg-type]
        chunk(logprobs={"content": [{"token": "a", "logprob": float("nan")}]}),
        chunk(logprobs={"content": [{"token": "a", "logprob": "x"}]}),
        {"choices": [], "usage": {**USAGE, "prompt_tokens": "3"}},
        {"choices": [], "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": "2"}}},
    ],
    ids=lambda wrong: json.dumps(wrong.get("usage") or wrong["choices"][0]),
)
def test_a_value_of_the_wrong_type_is_an_upstream_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        feed(wrong)


FULL: dict[str, Any] = {
    "choices": [
        {
            "delta": {"content": "x", "reasoning_content": "y", "tool_calls": [CALL]},
            "logprobs": {
                "content": [
                    {
                        "token": "a",
                        "logprob": -1.5,
                        "bytes": [97],
                        "top_logprobs": [{"token": "a", "logprob": -1.5, "bytes": [97]}],
                    }
                ]
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}

parts = json_like(FULL)


@given(parts)
def test_anything_at_all_is_translated_or_an_error_of_ours(part: Any) -> None:
    with suppress(GatewayError):
        feed(part)


@given(any_json)
def test_any_error_at_all_is_an_error_of_ours(error: Any) -> None:
    with pytest.raises((UpstreamError, InvalidRequest)) as caught:
        feed({"error": error})
    assert isinstance(caught.value.message, str)
    assert caught.value.message


@given(parts)
def test_whatever_is_translated_is_well_formed(part: Any) -> None:
    with suppress(GatewayError):
        # The arguments are a piece of JSON only.
        delta = feed(part)
        for call in delta.tool_calls:
            assert isinstance(call.arguments, str)
            call.arguments = "{}"
        assert well_formed(delta)


# Answers in one piece


def answer(
    message: dict[str, Any] | None, finish_reason: str | None = "stop", **fields: Any
) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "x", "object": "chat.completion", "choices": [choice], **fields}


def whole(data: Any) -> Delta:
    state = OpenAIAnswer(model="m")
    delta = state.feed(data if isinstance(data, bytes) else json.dumps(data).encode())
    state.finish()
    return delta


def test_a_whole_answer() -> None:
    data = answer({"role": "assistant", "content": "Hi", "reasoning": "hm"}, usage=USAGE)
    assert whole(data) == Delta("Hi", "hm", finish_reason="stop", usage=Usage(3, 4))
    assert whole(answer({"content": "Hi"}, usage=None)).usage is None
    assert whole(answer({"content": None, "refusal": "No."})).content == "No."


def test_the_calls_of_a_whole_answer_have_no_index() -> None:
    calls = [
        {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in "fgf"
    ]
    delta = whole(answer({"content": None, "tool_calls": calls}, "tool_calls"))
    assert delta.tool_calls == [
        ToolCallDelta(0, "call_f", "f", "{}"),
        ToolCallDelta(1, "call_g", "g", "{}"),
        ToolCallDelta(2, "call_f", "f", "{}"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an invalid response"),
        (b"<html>", "an invalid response"),
        (b"data: {}\n\n", "an invalid response"),
        (b"\x1f\x8b\x08", "an invalid response"),
        (b"{}", "an invalid response"),
        (chunk({"content": "x"}, "stop"), "an invalid response"),
        (answer(None), "an invalid response"),
        (answer({"content": "x"}, None), "ended before it was complete"),
        (answer({"content": "x"}, "error"), "ended before it was complete"),
        ({"object": "chat.completion", "choices": []}, "ended before it was complete"),
        ({"error": {"message": "/srv", "code": 500}}, "failed while generating"),
    ],
    ids=repr,
)
def test_what_is_no_whole_answer(data: Any, message: str) -> None:
    with pytest.raises(UpstreamError, match=message):
        whole(data)


# Completions


def text_chunk(
    text: Any = "", finish_reason: str | None = None, logprobs: Any = None, **more: Any
) -> dict[str, Any]:
    choice = {
        "text": text,
        "index": 0,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return {"choices": [choice], "object": "text_completion", **more}


TEXT_USAGE: dict[str, Any] = {
    "completion_tokens": 6,
    "prompt_tokens": 5,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def test_the_text_of_a_completion_stands_in_the_choice() -> None:
    chunks = OpenAITextChunks(alternatives=0)
    deltas = [
        chunks.feed(text_chunk(" Paris")),
        chunks.feed(text_chunk(".")),
        chunks.feed(text_chunk("")),
        chunks.feed(text_chunk("", "length", usage=TEXT_USAGE)),
    ]
    chunks.finish()
    assert [delta.tokens for delta in deltas] == [1, 1, 0, 0]
    assert fold(deltas) == Delta(
        " Paris.", finish_reason="length", usage=Usage(5, 6, cached_tokens=4), tokens=2
    )


@pytest.mark.parametrize("alternatives", [0, 1, 2])
def test_no_more_alternatives_than_were_asked_for(alternatives: int) -> None:
    tops = [{"id": 1, "token": "a", "bytes": [97], "logprob": -1}, {"token": "b", "logprob": -2}]
    content = [{"id": 1, "token": "a", "bytes": [97], "logprob": -1, "top_logprobs": tops}]
    delta = OpenAITextChunks(alternatives=alternatives).feed(
        text_chunk("a", logprobs={"content": content})
    )
    assert delta.logprobs is not None
    (entry,) = delta.logprobs
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("a", -1, [97])
    assert [top["token"] for top in entry["top_logprobs"]] == ["a", "b"][:alternatives]


def test_openais_own_log_probabilities_of_completions() -> None:
    """As lists side by side; the alternatives of a token in any order, with the token itself."""
    logprobs = {
        "tokens": [" Par", "\u00e9"],
        "token_logprobs": [-3, -0.5],
        "top_logprobs": [{" Par": -3, " Lyon": -0.1, " Nice": -2}, {"\u00e9": -0.5}],
        "text_offset": [0, 4],
    }
    delta = OpenAITextChunks(alternatives=2).feed(text_chunk(" Par\u00e9", logprobs=logprobs))
    assert delta.logprobs == [
        {
            "token": " Par",
            "logprob": -3,
            "bytes": list(b" Par"),
            "top_logprobs": [
                {"token": " Lyon", "logprob": -0.1, "bytes": list(b" Lyon")},
                {"token": " Nice", "logprob": -2, "bytes": list(b" Nice")},
            ],
        },
        {
            "token": "\u00e9",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "\u00e9", "logprob": -0.5, "bytes": [195, 169]}],
        },
    ]


@pytest.mark.parametrize("tops", [None, [None, None], [{}, {}]])
def test_log_probabilities_without_alternatives(tops: Any) -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1], "top_logprobs": tops}
    delta = OpenAITextChunks(alternatives=2).feed(text_chunk("ab", logprobs=logprobs))
    # The first token of an echoed prompt has none.
    assert delta.logprobs == [{"token": "b", "logprob": -1, "bytes": [98], "top_logprobs": []}]


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"]},
        {"tokens": ["a"], "token_logprobs": [-1, -1]},
        {"tokens": ["a"], "token_logprobs": [float("-inf")]},
        {"tokens": ["a"], "token_logprobs": ["-1"]},
        {"tokens": [5], "token_logprobs": [-1]},
    ],
    ids=repr,
)
def test_lists_that_do_not_fit_together(logprobs: Any) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        OpenAITextChunks(alternatives=2).feed(text_chunk("a", logprobs=logprobs))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"text": 5}]},
        {"choices": [{"text": ["a"]}]},
        text_chunk("a", logprobs={"content": [{"token": "a"}]}),
    ],
)
def test_what_is_no_completion(data: Any) -> None:
    with pytest.raises(UpstreamError, match="an invalid response"):
        OpenAITextChunks(alternatives=0).feed(data)


def test_a_completion_that_breaks_off_is_an_error() -> None:
    chunks = OpenAITextChunks(alternatives=0)
    chunks.feed(text_chunk("a"))
    with pytest.raises(UpstreamError, match="ended before it was complete"):
        chunks.finish()


TOO_LONG = {
    "code": 400,
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 3001,
    "n_ctx": 512,
}
TOO_LARGE = {
    "code": 500,
    "message": "input (3001 tokens) is too large to process. increase the physical batch size "
    "(current batch size: 512)",
    "type": "server_error",
}


@pytest.mark.parametrize("error", [TOO_LONG, TOO_LARGE], ids=["the context", "the batch"])
@pytest.mark.parametrize("param", ["prompt", "input"])
def test_what_is_too_long_is_named_as_the_request_names_it(
    error: dict[str, Any], param: str
) -> None:
    told = engine_error(error, param=param)
    assert (type(told), told.param) == (ContextLengthExceeded, param)
    assert "512 tokens" in told.message
    assert f"your {param} resulted in 3001 tokens" in told.message


def test_a_prompt_that_is_too_long_is_called_a_prompt() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        OpenAITextChunks(alternatives=0).feed({"error": TOO_LONG})
    assert caught.value.param == "prompt"


def test_a_model_for_embeddings_produces_no_text() -> None:
    message = "the current context does not support logits computation. skipping"
    told = engine_error({"code": 500, "message": message, "type": "server_error"})
    assert (told.status, told.param, told.code) == (400, "model", "unsupported_endpoint")


def test_how_to_pool_is_the_sites_concern() -> None:
    message = "Pooling type 'none' is not OAI compatible. Please use a different pooling type"
    told = engine_error(
        {"code": 400, "message": message, "type": "invalid_request_error"}, param="input"
    )
    assert told.status == 502
    assert "'pooling'" in told.message
