from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.ollama_chunks import OllamaChatChunks, OllamaGenerateChunks
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold, new_tool_call_id
from django_ollama_openai.exceptions import ContextLengthExceeded, UpstreamError
from tests.deltas import well_formed
from tests.recordings import load, names
from tests.wire import json_like, strictly, texts

pytestmark = pytest.mark.once

CHAT = [name for name in names("chat") if load(name).status == 200]
GENERATE = [name for name in names("generate") if load(name).status == 200]
FAILURES = [name for name in names("chat") if load(name).status != 200]

BROKE_OFF, FAILED = "ended before it was complete", "failed while generating"
INVALID = "an invalid response"
NEW_ID = re.compile(r"call_[0-9a-f]{24}")

Parts: TypeAlias = type[OllamaChatChunks] | type[OllamaGenerateChunks]
both = pytest.mark.parametrize(
    "of", [OllamaChatChunks, OllamaGenerateChunks], ids=["chat", "generate"]
)


def replay(name: str) -> Delta:
    parts = OllamaChatChunks() if name in CHAT else OllamaGenerateChunks()
    whole = fold([parts.feed(line) for line in load(name).lines])
    parts.finish()
    return whole


def line(message: Any = None, **fields: Any) -> bytes:
    return json.dumps({"message": {} if message is None else message, **fields}).encode()


def text(of: Parts, content: str = "", **fields: Any) -> bytes:
    """Return a line of one text, as each of the endpoints sends it."""
    said = {"message": {"content": content}} if of is OllamaChatChunks else {"response": content}
    return json.dumps({**said, **fields}).encode()


def call(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"function": {"index": 0, "name": name, **fields}}


# Recorded answers


def test_there_are_streams_and_whole_answers_to_replay() -> None:
    for answers in (CHAT, GENERATE):
        assert {load(name).is_stream for name in answers} == {True, False}
        assert all(len(load(name).lines) > 1 for name in answers if load(name).is_stream)


@pytest.mark.parametrize("name", CHAT + GENERATE)
def test_a_recorded_answer_is_translated_in_full(name: str) -> None:
    parts = [json.loads(line) for line in load(name).lines]
    messages = [part.get("message") or {"content": part["response"]} for part in parts]
    last = parts[-1]
    answer = replay(name)
    assert answer.content == "".join(message["content"] for message in messages)
    assert answer.reasoning == "".join(message.get("thinking", "") for message in messages)
    calls = [call for message in messages for call in message.get("tool_calls", [])]
    assert [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls
    ]
    assert [call.index for call in answer.tool_calls] == list(range(len(calls)))
    logprobs = [entry for part in parts for entry in part.get("logprobs", [])]
    # Those of a call are not those of the content.
    assert answer.logprobs == (None if calls else logprobs or None)
    assert answer.usage == Usage(last["prompt_eval_count"], last["eval_count"])
    assert answer.finish_reason == ("tool_calls" if calls else last["done_reason"])
    assert well_formed(answer)


def test_what_some_of_them_are_is_known() -> None:
    think, tools = replay("chat_think_stream"), replay("chat_tools_stream")
    assert (think.reasoning, think.content, think.finish_reason) == (
        "I add 3 and 3. The sum is 6.\n",
        "The answer is 6.",
        "stop",
    )
    assert tools.tool_calls == [
        ToolCallDelta(0, "call_9mth0lrj", "get_weather", '{"city":"Paris"}')
    ]
    assert (tools.content, tools.usage) == ("", Usage(378, 31))
    assert replay("chat_stream").finish_reason == "length"
    assert replay("chat_stop").finish_reason == "stop"
    assert replay("generate_raw").content.startswith(" Paris.")
    assert replay("generate_raw").finish_reason == "length"


@pytest.mark.parametrize(
    "name", ["chat", "chat_format_schema", "chat_think", "chat_tools", "generate"]
)
def test_a_streamed_answer_is_the_same_as_a_whole_one(name: str) -> None:
    whole, streamed = replay(name), replay(f"{name}_stream")
    for answer in (whole, streamed):
        answer.tokens = 0
        for made in answer.tool_calls:
            assert made.id is not None
            made.id = "id"
    assert streamed == whole


def test_no_streamed_token_of_a_call_is_content() -> None:
    parts = OllamaChatChunks()
    deltas = [parts.feed(line) for line in load("chat_tools_logprobs_stream").lines]
    assert [delta.logprobs for delta in deltas] == [None] * len(deltas)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("", ["<"]), ("<b>", ["b", ">"])], [None, ["<", "b", ">"]]),
        ([("", ["<tool>"]), ("", ["x"]), ("Hi", ["Hi"])], [None, None, ["Hi"]]),
        ([("", ["<tool>"]), ("Hi", ["trimmed Hi "])], [None, ["trimmed Hi "]]),
        ([("a", ["a"]), ("", ["<eos>"])], [["a"], None]),
    ],
    ids=["held back", "dropped", "trimmed", "the end"],
)
def test_the_tokens_of_content_that_was_held_back(lines: Any, expected: Any) -> None:
    parts = OllamaChatChunks()
    found = [
        parts.feed(
            line(
                {"content": content},
                logprobs=[{"token": token, "logprob": -1.0} for token in tokens],
            )
        ).logprobs
        for content, tokens in lines
    ]
    assert [entries and [entry["token"] for entry in entries] for entries in found] == expected


def test_streamed_log_probabilities_are_the_same_as_whole_ones() -> None:
    whole, streamed = replay("chat_logprobs").logprobs, replay("chat_logprobs_stream").logprobs
    assert whole is not None
    assert streamed is not None
    assert streamed[: len(whole)] == whole


@pytest.mark.parametrize("name", [name for name in CHAT + GENERATE if load(name).is_stream])
def test_every_streamed_part_with_content_stands_for_a_token(name: str) -> None:
    parts = OllamaChatChunks() if name in CHAT else OllamaGenerateChunks()
    deltas = [parts.feed(line) for line in load(name).lines]
    assert [delta.tokens for delta in deltas] == [*[1] * (len(deltas) - 1), 0]
    # The basis of an estimate: never more than Ollama counts itself.
    usage = deltas[-1].usage
    assert usage is not None
    assert sum(delta.tokens for delta in deltas) <= usage.completion_tokens


@both
@given(text=texts, escaped=st.booleans(), data=st.data())
def test_any_text_arrives_as_it_is_however_it_is_split(
    of: Parts, text: str, escaped: bool, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
    parts = of()
    deltas = []
    for start, end in bounds:
        message = {"content": text[start:end], "thinking": text[start:end]}
        generated = {"response": message["content"], "thinking": message["thinking"]}
        said = {"message": message} if of is OllamaChatChunks else generated
        part = json.dumps({**said, "done": False}, ensure_ascii=escaped)
        deltas.append(parts.feed(part.encode()))
    whole = fold(deltas)
    assert whole.content == whole.reasoning == text


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x0b", "\x1c", "\r\n", "\ufeff"])
def test_what_some_readers_take_for_a_line_end_is_content(mark: str) -> None:
    raw = json.dumps({"message": {"content": f"a{mark}b"}}, ensure_ascii=False).encode()
    assert OllamaChatChunks().feed(raw).content == f"a{mark}b"


# Tool calls


@pytest.mark.compat("chat.response.choices[].delta.tool_calls[].index")
def test_calls_are_counted_over_the_whole_answer() -> None:
    parts = OllamaChatChunks()
    deltas = [
        parts.feed(line({"tool_calls": [call("a"), call("b")]})),
        parts.feed(line({"content": "and"})),
        parts.feed(line({"tool_calls": [call("c")]})),
        parts.feed(line({"tool_calls": [call("d")]}, done=True, done_reason="stop")),
    ]
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert [(call.index, call.name) for call in calls] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_two_answers_are_counted_apart() -> None:
    for parts in (OllamaChatChunks(), OllamaChatChunks()):
        assert [call_.index for call_ in parts.feed(line({"tool_calls": [call()]})).tool_calls] == [
            0
        ]


@pytest.mark.compat("chat.response.choices[].message.tool_calls[].id")
def test_the_id_of_a_call_is_kept_and_made_up_where_there_is_none() -> None:
    calls = [{"id": "call_own", **call()}, call(), {"id": "", **call()}, {"id": None, **call()}]
    ids = [made.id for made in OllamaChatChunks().feed(line({"tool_calls": calls})).tool_calls]
    assert ids[0] == "call_own"
    assert len(set(ids)) == len(ids)
    assert all(id is not None and NEW_ID.fullmatch(id) for id in ids[1:])


def test_a_made_up_id_looks_like_openais() -> None:
    assert NEW_ID.fullmatch(new_tool_call_id())


@pytest.mark.compat("chat.response.choices[].message.tool_calls[].function.arguments")
@pytest.mark.parametrize(
    "arguments", [{}, {"a_b": {"c": [1, 2.5, None, True, "é\u2028", 2**70]}}, {"": {"": []}}]
)
def test_arguments_are_the_text_of_an_object(arguments: dict[str, Any]) -> None:
    (made,) = OllamaChatChunks().feed(line({"tool_calls": [call(arguments=arguments)]})).tool_calls
    assert strictly(made.arguments) == arguments


@pytest.mark.parametrize("fields", [{}, {"arguments": None}])
def test_no_arguments_are_an_empty_object(fields: dict[str, Any]) -> None:
    (made,) = OllamaChatChunks().feed(line({"tool_calls": [call(**fields)]})).tool_calls
    assert made.arguments == "{}"


def test_the_order_of_arguments_is_the_models() -> None:
    arguments = {"z": 1, "a": {"y": 2, "b": 3}}
    (made,) = OllamaChatChunks().feed(line({"tool_calls": [call(arguments=arguments)]})).tool_calls
    assert made.arguments == '{"z":1,"a":{"y":2,"b":3}}'


# Log probabilities


@pytest.mark.compat(
    "chat.response.choices[].logprobs.content[].token",
    "chat.response.choices[].logprobs.content[].logprob",
    "chat.response.choices[].logprobs.content[].bytes",
    "chat.response.choices[].logprobs.content[].top_logprobs",
)
def test_log_probabilities_lack_nothing_that_openais_have() -> None:
    entries = [{"token": "é", "logprob": -1, "top_logprobs": [{"token": "e", "logprob": -2}]}]
    said = {"content": "é"}
    expected = [
        {
            "token": "é",
            "logprob": -1,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -2, "bytes": [101]}],
        }
    ]
    assert OllamaChatChunks().feed(line(said, logprobs=entries)).logprobs == expected
    assert (
        OllamaGenerateChunks().feed(text(OllamaGenerateChunks, "é", logprobs=entries)).logprobs
        == expected
    )
    assert OllamaChatChunks().feed(line(said, logprobs=[{"token": "", "logprob": 0}])).logprobs == [
        {"token": "", "logprob": 0, "bytes": [], "top_logprobs": []}
    ]


@pytest.mark.compat("chat.response.choices[].logprobs.content[].bytes")
def test_the_bytes_of_half_a_character_are_ollamas() -> None:
    first, second = ({"token": "\ufffd", "logprob": -1, "bytes": [byte]} for byte in (195, 169))
    parts = OllamaChatChunks()
    assert parts.feed(line(logprobs=[first])).logprobs is None
    logprobs = parts.feed(line({"content": "é"}, logprobs=[second])).logprobs
    assert logprobs == [{**half, "top_logprobs": []} for half in (first, second)]


# The end


@pytest.mark.compat(
    "chat.response.choices[].finish_reason", "completions.response.choices[].finish_reason"
)
@pytest.mark.parametrize(
    ("done_reason", "finish_reason", "after_a_call"),
    [
        ("stop", "stop", "tool_calls"),
        ("length", "length", "length"),
        ("load", "stop", "tool_calls"),
        ("unload", "stop", "tool_calls"),
        ("", "stop", "tool_calls"),
        (None, "stop", "tool_calls"),
        ("something new", "stop", "tool_calls"),
    ],
)
def test_why_an_answer_ended(
    done_reason: str | None, finish_reason: str, after_a_call: str
) -> None:
    end = line({"content": ""}, done=True, done_reason=done_reason)
    assert OllamaChatChunks().feed(end).finish_reason == finish_reason
    generated = text(OllamaGenerateChunks, done=True, done_reason=done_reason)
    assert OllamaGenerateChunks().feed(generated).finish_reason == finish_reason
    parts = OllamaChatChunks()
    assert parts.feed(line({"tool_calls": [call()]})).finish_reason is None
    assert parts.feed(end).finish_reason == after_a_call


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"prompt_eval_count": 3, "eval_count": 4}, Usage(3, 4)),
        ({"eval_count": 4}, Usage(0, 4)),
        ({"prompt_eval_count": None}, Usage()),
        ({}, Usage()),
    ],
)
@both
def test_a_count_that_is_missing_is_zero(of: Parts, fields: dict[str, Any], usage: Usage) -> None:
    assert of().feed(text(of, done=True, **fields)) == Delta(
        usage=usage, finish_reason="stop", tokens=0
    )


def test_usage_and_reason_come_with_the_end_only() -> None:
    delta = OllamaChatChunks().feed(
        line({"content": "x"}, done=False, eval_count=4, done_reason="stop")
    )
    assert delta == Delta("x")


@pytest.mark.compat("chat.stream.an engine that breaks off")
@pytest.mark.parametrize("fields", [None, {}, {"done": False}, {"done": None, "done_reason": "x"}])
@both
def test_an_answer_that_breaks_off_is_an_error(of: Parts, fields: dict[str, Any] | None) -> None:
    parts = of()
    for part in load("chat_stream").lines[:-1] if of is OllamaChatChunks else ():
        parts.feed(part)
    if fields is not None:
        parts.feed(text(of, "x", **fields))
    with pytest.raises(UpstreamError, match=BROKE_OFF):
        parts.finish()


def entry(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -1.0, "bytes": list(token.encode()), "top_logprobs": []}


@pytest.mark.compat("chat.response.choices[].logprobs.content")
@pytest.mark.parametrize(
    ("message", "tokens", "kept"),
    [
        ({"thinking": "Let me", "content": ""}, ["Let", " me"], None),
        ({"thinking": "Let me", "content": "Né!"}, ["Let", " me", "N", "é", "!"], ["N", "é", "!"]),
        ({"thinking": "Hm", "content": "No"}, ["Hm", "</think>", "\n", "No"], ["No"]),
        ({"thinking": "Hm", "content": "No"}, ["Hm", ">No"], [">No"]),
        ({"thinking": "Hm", "content": "No"}, ["something", " else"], None),
        ({"thinking": "Hm", "content": "longer than all"}, ["all"], None),
        ({"content": "", "tool_calls": [{"function": {"name": "f"}}]}, ["<tool>"], None),
    ],
)
def test_the_probabilities_are_those_of_the_content(
    message: dict[str, Any], tokens: list[str], kept: list[str] | None
) -> None:
    delta = OllamaChatChunks().feed(line(message, logprobs=[entry(token) for token in tokens]))
    assert delta.logprobs == (None if kept is None else [entry(token) for token in kept])


# Failures


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_the_middle_of_an_answer(name: str) -> None:
    parts = OllamaChatChunks()
    parts.feed(line({"content": "x"}, done=False))
    too_long = name == "chat_long_notruncate"
    expected = ContextLengthExceeded if too_long else UpstreamError
    with pytest.raises((ContextLengthExceeded, UpstreamError)) as caught:
        parts.feed(load(name).body)
    assert type(caught.value) is expected
    assert caught.value.param == ("messages" if too_long else None)


def test_a_prompt_that_is_too_long_is_called_a_prompt() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        OllamaGenerateChunks().feed(load("chat_long_notruncate").body)
    assert caught.value.param == "prompt"
    assert "your prompt resulted in" in caught.value.message


@pytest.mark.compat("completions.stream.failure in mid-stream")
@pytest.mark.parametrize("error", ["", None, 5, {}, [], {"message": "x"}, "[{", "boom"])
@both
def test_any_error_is_one(of: Parts, error: Any) -> None:
    with pytest.raises(UpstreamError, match=FAILED):
        of().feed(text(of, "x", error=error))


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"{",
        b"null",
        b"NaN",
        b"5",
        b"[]",
        b'["error"]',
        b'"message"',
        b"{}",
        b'{"done":true}',
        b'{"message":null}',
        b'{"message":[]}',
        b'{"message":"x"}',
        b'{"message":{"content":"\\ud800"}}',
        b'{"message":{"content":"\xff"}}',
        b'{"message":{"content":"x"}}{"message":{}}',
        b'{"message":{"tool_calls":{"function":{"name":"f"}}}}',
        b'{"message":{"tool_calls":[{}]}}',
        b'{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}',
        b'{"message":{"tool_calls":[null]}}',
        b'{"message":{},"logprobs":5}',
        b'{"message":{},"logprobs":[{"token":"a"}]}',
        b'{"message":{},"logprobs":[{"token":5,"logprob":-1}]}',
        b'{"message":{"content":' + b"[" * 100_000,
    ],
    ids=lambda nonsense: nonsense[:60].decode(errors="replace"),
)
def test_nonsense_is_an_upstream_error(nonsense: bytes) -> None:
    with pytest.raises(UpstreamError, match=INVALID):
        OllamaChatChunks().feed(nonsense)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"null",
        b"{}",
        b'{"done":true}',
        b'{"message":{"content":"x"},"done":true}',
        b'{"response":5}',
        b'{"response":["x"]}',
        b'{"response":"x","thinking":5}',
        b'{"response":"x","logprobs":[{"token":"a"}]}',
        b'{"response":"x","logprobs":[{"token":"a","logprob":-1,"bytes":[256]}]}',
        b'{"response":"","done":true,"eval_count":"5"}',
        b'{"response":"\\ud800"}',
    ],
)
def test_nonsense_instead_of_a_text_is_an_upstream_error(nonsense: bytes) -> None:
    with pytest.raises(UpstreamError, match=INVALID):
        OllamaGenerateChunks().feed(nonsense)


WRONG_TYPES: list[tuple[str, dict[str, Any]]] = [
    ("content a number", {"message": {"content": 5}}),
    ("content true", {"message": {"content": True}}),
    ("content a list", {"message": {"content": ["x"]}}),
    ("content an object", {"message": {"content": {"text": "x"}}}),
    ("thinking a number", {"message": {"thinking": 5}}),
    ("thinking a list", {"message": {"thinking": ["x"]}}),
    ("name a number", {"message": {"tool_calls": [{"function": {"name": 5}}]}}),
    ("id a number", {"message": {"tool_calls": [{"id": 5, **call()}]}}),
    ("arguments a text", {"message": {"tool_calls": [call(arguments="x")]}}),
    ("arguments a list", {"message": {"tool_calls": [call(arguments=[1])]}}),
    ("arguments with NaN", {"message": {"tool_calls": [call(arguments={"a": float("nan")})]}}),
    ("logprob NaN", {"message": {}, "logprobs": [{"token": "a", "logprob": float("nan")}]}),
    ("logprob infinite", {"message": {}, "logprobs": [{"token": "a", "logprob": -float("inf")}]}),
    ("logprob a text", {"message": {}, "logprobs": [{"token": "a", "logprob": "x"}]}),
    ("bytes a text", {"message": {}, "logprobs": [{"token": "a", "logprob": -1, "bytes": "x"}]}),
    (
        "a byte too large",
        {"message": {}, "logprobs": [{"token": "a", "logprob": -1, "bytes": [256]}]},
    ),
    ("eval_count a text", {"message": {}, "done": True, "eval_count": "5"}),
    ("prompt_eval_count half", {"message": {}, "done": True, "prompt_eval_count": 1.5}),
]


@pytest.mark.parametrize(
    "part", [part for _, part in WRONG_TYPES], ids=[name for name, _ in WRONG_TYPES]
)
def test_a_value_of_the_wrong_type_is_an_upstream_error(part: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError, match=INVALID):
        OllamaChatChunks().feed(json.dumps(part).encode())


FULL: dict[str, Any] = {
    "message": {
        "role": "assistant",
        "content": "x",
        "thinking": "y",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": [1]}}}],
    },
    "logprobs": [
        {
            "token": "a",
            "logprob": -1.5,
            "bytes": [97],
            "top_logprobs": [{"token": "a", "logprob": -1.5, "bytes": [97]}],
        }
    ],
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 1,
    "eval_count": 2,
}
GENERATED: dict[str, Any] = {
    "response": "x",
    "thinking": "y",
    **{name: value for name, value in FULL.items() if name != "message"},
}


@pytest.mark.parametrize(
    ("of", "example"),
    [(OllamaChatChunks, FULL), (OllamaGenerateChunks, GENERATED)],
    ids=["chat", "generate"],
)
@given(data=st.data())
def test_anything_at_all_is_translated_well_or_an_upstream_error(
    of: Parts, example: dict[str, Any], data: st.DataObject
) -> None:
    lines = st.binary() | json_like(example).map(lambda value: json.dumps(value).encode())
    with suppress(UpstreamError):
        assert well_formed(of().feed(data.draw(lines)))


@pytest.mark.parametrize(
    "after", [b"garbage", b'{"message":{"content":"x"}}', b'{"done":true,"done_reason":"length"}']
)
@both
def test_what_follows_the_end_is_no_part_of_the_answer(of: Parts, after: bytes) -> None:
    parts = of()
    parts.feed(text(of, "x", done=True, done_reason="stop", eval_count=1))
    assert parts.feed(after) == Delta(tokens=0)
    parts.finish()
