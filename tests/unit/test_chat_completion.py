from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from django_ollama_openai._translation.chat_completion import (
    ChatCompletionStream,
    WholeChatCompletion,
    chat_message,
)
from django_ollama_openai._wire.case import Case, to_camel
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold
from django_ollama_openai.exceptions import GatewayError, InvalidRequest, UpstreamError
from tests.deltas import (
    CASES,
    GOLDEN,
    LOGPROBS,
    PLAN,
    REASONING,
    TEXT,
    TOOL_CALLS,
    UPDATE,
    answers,
    end,
    entry,
    extras,
    few,
    frames,
    hold_to_golden,
    keys,
    leaves,
    normalised,
    without_plan,
    write,
)
from tests.wire import strictly, texts

pytestmark = pytest.mark.once


TWO_CHOICES = [
    Delta("Heads", index=1),
    Delta("Ta"),
    Delta(".", index=1),
    Delta(finish_reason="stop", usage=Usage(12, 3), tokens=0, index=1),
    Delta("ils"),
    end("length"),
]

STREAMS: dict[str, tuple[list[Delta], bool]] = {
    "text": (TEXT, False),
    "text_with_usage": (TEXT, True),
    "reasoning": (REASONING, False),
    "tool_calls": (TOOL_CALLS, False),
    "logprobs": (LOGPROBS, False),
}
WHOLE = {
    "text": TEXT,
    "everything": [*REASONING[:2], *LOGPROBS[:2], *TOOL_CALLS],
}


def write_whole(deltas: list[Delta], case: Case, *, model: str = "my_model:1b") -> bytes:
    writer = WholeChatCompletion(model, case)
    assert b"".join(map(writer.feed, deltas)) == b""
    return writer.finish()


def whole(deltas: list[Delta], case: Case) -> dict[str, Any]:
    completion: dict[str, Any] = strictly(write_whole(deltas, case))
    return completion


# Functions from before tools


@pytest.mark.compat(
    "chat.response.choices[].message.function_call", "chat.response.choices[].delta.function_call"
)
@pytest.mark.parametrize("case", CASES)
def test_a_client_that_sent_functions_gets_a_function_call(case: Case) -> None:
    key, finish = (
        ("functionCall", "finishReason") if case == "camel" else ("function_call", "finish_reason")
    )
    call = {"name": "get_weather", "arguments": '{"city_name":"Paris"}'}
    whole = WholeChatCompletion("m", case, legacy_function_call=True)
    stream = ChatCompletionStream("m", case, include_usage=False, legacy_function_call=True)
    deltas = [*TOOL_CALLS[:3], TOOL_CALLS[-1]]
    for delta in deltas:
        whole.feed(delta)
    chunks = frames(b"".join([*map(stream.feed, deltas), stream.finish()]))
    pieces = [chunk["choices"][0].get("delta", {}).get(key) for chunk in chunks]
    assert [piece for piece in pieces if piece] == [
        {"name": "get_weather", "arguments": '{"city_name"'},
        {"arguments": ':"Paris"}'},
    ]
    for completion in (strictly(whole.finish()), chunks[-1]):
        (choice,) = completion["choices"]
        assert choice[finish] == "function_call"
        if "message" in choice:
            assert choice["message"][key] == call
    assert b"tool" not in json.dumps(chunks).encode()


# Several choices


def write_two(case: Case, *, include_usage: bool = False) -> bytes:
    writer = ChatCompletionStream("my_model:1b", case, choices=2, include_usage=include_usage)
    return b"".join([*map(writer.feed, TWO_CHOICES), writer.finish()])


@pytest.mark.compat("chat.response.choices[].index", "chat.stream.order")
@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_stream_of_two_choices_is_the_golden_one(case: Case, include_usage: bool) -> None:
    suffix = "_with_usage" if include_usage else ""
    stream = write_two(case, include_usage=include_usage)
    hold_to_golden(f"two_choices{suffix}.{case}.sse", normalised(stream))


@pytest.mark.parametrize("include_usage", [False, True])
def test_openais_client_puts_the_choices_together(include_usage: bool) -> None:
    state = ChatCompletionStreamState()
    for chunk in frames(write_two("both", include_usage=include_usage)):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    completion = state.current_completion_snapshot
    first, second = completion.choices
    assert (first.message.content, first.finish_reason) == ("Tails", "length")
    assert (second.message.content, second.finish_reason) == ("Heads.", "stop")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (24, 8)


@pytest.mark.compat("chat.response.choices[].index")
def test_two_choices_in_one_piece() -> None:
    writer = WholeChatCompletion("m", "snake", choices=2)
    for delta in TWO_CHOICES:
        writer.feed(delta)
    completion = ChatCompletion.model_validate(strictly(writer.finish()))
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.message.content for choice in completion.choices] == ["Tails", "Heads."]
    assert [choice.finish_reason for choice in completion.choices] == ["length", "stop"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 32


def test_a_choice_of_which_nothing_came_is_a_choice_all_the_same() -> None:
    writer = ChatCompletionStream("m", "snake", choices=2, include_usage=False)
    chunks = frames(writer.feed(end(None)) + writer.finish())
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 0, 1]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[2:]] == ["stop", "stop"]


# Golden files: exactly what clients get. UPDATE_GOLDEN=1 writes them anew.


@pytest.mark.compat(
    "chat.response.object",
    "chat.response.obfuscation",
    "chat.response.choices[].delta.reasoning_content",
    "chat.response.choices[].delta.audio",
    "chat.response.choices[].logprobs",
    "chat.stream.order",
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_golden_one(name: str, case: Case) -> None:
    deltas, include_usage = STREAMS[name]
    stream = write(deltas, case, include_usage=include_usage)
    hold_to_golden(f"{name}.{case}.sse", normalised(stream))


@pytest.mark.parametrize("case", CASES)
def test_a_stream_that_fails_is_the_golden_one(case: Case) -> None:
    writer = ChatCompletionStream("my_model:1b", case, include_usage=False)
    stream = writer.feed(TEXT[0]) + writer.fail(UpstreamError("The engine broke off."))
    hold_to_golden(f"failure.{case}.sse", normalised(stream))


@pytest.mark.compat(
    "chat.response.id",
    "chat.response.object",
    "chat.response.system_fingerprint",
    "chat.response.service_tier",
    "chat.response.metadata",
    "chat.response.moderation",
    "chat.response.choices[].message.role",
    "chat.response.choices[].message.refusal",
    "chat.response.choices[].message.annotations",
    "chat.response.choices[].message.audio",
    "chat.response.choices[].message.tool_calls[].type",
    "chat.response.choices[].logprobs",
    "chat.response.usage.prompt_tokens_details.cached_tokens",
    "chat.response.usage.prompt_tokens_details.audio_tokens",
    "chat.response.usage.prompt_tokens_details.cache_write_tokens",
    "chat.response.usage.prompt_tokens_details.image_tokens",
    "chat.response.usage.prompt_tokens_details.text_tokens",
    "chat.response.usage.completion_tokens_details.reasoning_tokens",
    "chat.response.usage.completion_tokens_details.audio_tokens",
    "chat.response.usage.completion_tokens_details.accepted_prediction_tokens",
    "chat.response.usage.completion_tokens_details.rejected_prediction_tokens",
    "chat.response.usage.completion_tokens_details.text_tokens",
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_completion_is_the_golden_one(name: str, case: Case) -> None:
    completion = strictly(normalised(write_whole(WHOLE[name], case)))
    # Indented, since these are to be read; the order of the keys is the answer's.
    hold_to_golden(
        f"{name}.{case}.json", json.dumps(completion, indent=2, ensure_ascii=False) + "\n"
    )


@pytest.mark.skipif(UPDATE, reason="they are being written")
def test_every_golden_file_is_held_to() -> None:
    more = ["failure", "two_choices", "two_choices_with_usage"]
    streams = {f"{name}.{case}.sse" for name in [*STREAMS, *more] for case in CASES}
    wholes = {f"{name}.{case}.json" for name in WHOLE for case in CASES}
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == streams | wholes


# The contract of spellings


@pytest.mark.compat("chat.response.finishReason, promptTokens, completionTokens, totalTokens")
@pytest.mark.parametrize("deltas", WHOLE.values(), ids=WHOLE)
def test_both_is_openais_and_the_plans_four_beside_it(deltas: list[Delta]) -> None:
    completion = whole(deltas, "both")
    (choice,) = completion["choices"]
    assert choice["finishReason"] == choice["finish_reason"] == deltas[-1].finish_reason
    usage = completion["usage"]
    assert (usage["promptTokens"], usage["completionTokens"], usage["totalTokens"]) == (12, 5, 17)
    assert PLAN & set(keys(completion)) == PLAN
    neutral = {"id": "", "created": 0}
    assert without_plan(completion) | neutral == whole(deltas, "snake") | neutral


@pytest.mark.compat("chat.stream.usage of other chunks")
@pytest.mark.parametrize("deltas", [TEXT, REASONING, TOOL_CALLS, LOGPROBS])
def test_both_gives_usage_with_the_finish_reason(deltas: list[Delta]) -> None:
    *others, last = frames(write(deltas, "both"))
    assert all("usage" not in chunk for chunk in others)
    (choice,) = last["choices"]
    assert choice["finishReason"] == choice["finish_reason"] == deltas[-1].finish_reason
    assert choice["delta"] == {}
    assert (last["usage"]["prompt_tokens"], last["usage"]["promptTokens"]) == (12, 12)
    for chunk in others:
        (choice,) = chunk["choices"]
        assert choice["finishReason"] is choice["finish_reason"] is None


@pytest.mark.compat(
    "chat.request.stream_options.include_usage",
    "chat.response.usage.total_tokens",
    "chat.stream.usage of other chunks",
)
@pytest.mark.parametrize("case", ["both", "snake"])
def test_usage_that_was_asked_for_comes_once_and_last(case: Case) -> None:
    *others, last = frames(write(TEXT, case, include_usage=True))
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in others)
    assert others[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 17
    assert ("totalTokens" in last["usage"]) is (case == "both")


@pytest.mark.compat("chat.response.finishReason, promptTokens, completionTokens, totalTokens")
@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("deltas", [TEXT, REASONING, TOOL_CALLS, LOGPROBS])
def test_snake_is_openais_to_the_letter(deltas: list[Delta], include_usage: bool) -> None:
    chunks = frames(write(deltas, "snake", include_usage=include_usage))
    assert all(re.fullmatch("[a-z_]+", key) for key in keys(chunks))
    assert all(("usage" in chunk) is include_usage for chunk in chunks)
    both = frames(write(deltas, "both", include_usage=include_usage))
    for chunk, other in zip(chunks, both, strict=True):
        if not include_usage:
            other.pop("usage", None)
        assert without_plan(other) == chunk | {"id": other["id"], "created": other["created"]}


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("deltas", [TEXT, REASONING, TOOL_CALLS, LOGPROBS])
def test_camel_ends_with_the_final_response(deltas: list[Delta], include_usage: bool) -> None:
    *others, final = frames(write(deltas, "camel", include_usage=include_usage))
    for chunk in others:
        (choice,) = chunk["choices"]
        assert choice["finishReason"] is None
        assert "usage" not in chunk
    assert final["id"] == others[0]["id"]
    (choice,) = final["choices"]
    answer = fold(deltas)
    assert choice["message"]["content"] == answer.content
    assert choice["finishReason"] == answer.finish_reason
    assert final["usage"]["totalTokens"] == 17
    neutral = {"id": "", "created": 0}
    assert final | neutral == whole(deltas, "camel") | neutral


@pytest.mark.parametrize("deltas", WHOLE.values(), ids=WHOLE)
def test_every_key_is_camel_case(deltas: list[Delta]) -> None:
    for answer in (whole(deltas, "camel"), frames(write(deltas, "camel"))):
        found = set(keys(answer))
        assert {"finishReason", "promptTokens", "cachedTokens", "systemFingerprint"} <= found
        assert all(to_camel(key) == key and "_" not in key for key in found)
    assert {"toolCalls", "topLogprobs", "reasoningContent"} <= set(
        keys(whole(WHOLE["everything"], "camel"))
    )


@pytest.mark.parametrize("case", CASES)
def test_values_are_never_respelled(case: Case) -> None:
    snake_case = '{"snake_case": {"finish_reason": "tool_calls"}}'
    deltas = [
        Delta("finish_reason", "tool_calls", logprobs=[entry("top_p", -1, top_k=-2)]),
        Delta(tool_calls=[ToolCallDelta(0, "call_a_b", "get_weather", snake_case)]),
        end("tool_calls"),
    ]
    *chunks, _ = frames(write(deltas, case))
    for answer in (whole(deltas, case), chunks):
        assert {"finish_reason", "tool_calls", "top_p", "top_k", "call_a_b"} <= set(leaves(answer))
        assert {"my_model:1b", "get_weather", snake_case} <= set(leaves(answer))


# The shape


@pytest.mark.compat("chat.response.id", "chat.response.created")
@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_one_completion_of_now(case: Case) -> None:
    before = int(time.time())
    chunks = frames(write(TOOL_CALLS, case, include_usage=True))
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "my_model:1b")
    }
    assert before <= chunks[0]["created"] <= time.time()
    assert chunks[0]["id"] != frames(write(TEXT, case))[0]["id"]
    assert whole(TEXT, case)["id"] != whole(TEXT, case)["id"]


@pytest.mark.compat(
    "chat.response.choices[].delta.role",
    "chat.response.choices[].delta.content",
    "chat.response.choices[].delta.refusal",
)
@pytest.mark.parametrize("case", CASES)
def test_the_role_comes_first_and_once(case: Case) -> None:
    first, *others = frames(write(TEXT, case, include_usage=True))
    (choice,) = first["choices"]
    assert choice["delta"] == {"role": "assistant", "content": "", "refusal": None}
    deltas = [choice.get("delta", {}) for chunk in others for choice in chunk["choices"]]
    assert all("role" not in delta for delta in deltas)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("deltas", [[], [Delta()], [Delta(""), end(None, Usage())]])
def test_an_answer_without_anything_is_still_an_answer(deltas: list[Delta], case: Case) -> None:
    chunks = frames(write(deltas, case))
    assert len(chunks) == 2
    reason = "finishReason" if case == "camel" else "finish_reason"
    assert chunks[-1]["choices"][0][reason] == "stop"
    completion = whole(deltas, case)
    assert completion["choices"][0]["message"]["content"] == ""
    assert completion["choices"][0][reason] == "stop"
    assert set(leaves(completion["usage"])) == {0}


@pytest.mark.compat("chat.response.choices[].message.content")
def test_content_beside_tool_calls_is_null_if_there_is_none() -> None:
    call = ToolCallDelta(0, "call_1", "f", "{}")
    assert chat_message(Delta(tool_calls=[call]))["content"] is None
    assert chat_message(Delta("x", tool_calls=[call]))["content"] == "x"
    assert chat_message(Delta())["content"] == ""


@pytest.mark.compat(
    "chat.response.choices[].message.tool_calls[].index",
    "chat.response.choices[].delta.tool_calls[].id",
    "chat.response.choices[].delta.tool_calls[].type",
    "chat.response.choices[].delta.tool_calls[].function.name",
    "chat.response.choices[].delta.tool_calls[].function.arguments",
)
def test_the_pieces_of_a_call_are_told_apart_by_their_index() -> None:
    chunks = frames(write(TOOL_CALLS, "snake"))
    pieces = [
        piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert pieces == [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city_name"'},
        },
        {"index": 0, "function": {"arguments": ':"Paris"}'}},
        {
            "index": 1,
            "id": "call_2",
            "type": "function",
            "function": {"name": "get_time", "arguments": "{}"},
        },
    ]
    (choice,) = whole(TOOL_CALLS, "snake")["choices"]
    assert all("index" not in call for call in choice["message"]["tool_calls"])


@pytest.mark.compat("chat.response.choices[].message.reasoning_content")
def test_reasoning_has_both_of_its_names() -> None:
    message = chat_message(Delta("42", "Six times seven."))
    assert message["reasoning"] == message["reasoning_content"] == "Six times seven."
    assert "reasoning" not in chat_message(Delta("42"))


@pytest.mark.compat("chat.response.choices[].logprobs.refusal")
def test_a_token_without_text_still_has_its_log_probability() -> None:
    _, chunk, _ = frames(write([Delta(logprobs=[entry("<|end|>", -1)]), end()], "snake"))
    (choice,) = chunk["choices"]
    assert choice["delta"] == {"content": ""}
    assert choice["logprobs"] == {"content": [entry("<|end|>", -1)], "refusal": None}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "error", [UpstreamError("Broke off."), InvalidRequest("Bad.", param="max_tokens", code="a_b")]
)
def test_a_failure_is_openais_envelope_in_every_case(error: GatewayError, case: Case) -> None:
    stream = ChatCompletionStream("m", case, include_usage=True)
    begun = stream.feed(Delta("x"))
    *chunks, failure = frames(begun + stream.fail(error))
    assert len(chunks) == 2
    assert failure == error.envelope()
    assert frames(ChatCompletionStream("m", case, include_usage=True).fail(error)) == [failure]
    assert strictly(WholeChatCompletion("m", case).fail(error)) == failure


# What OpenAI's own client makes of it


@few
@given(case=st.sampled_from(["both", "snake"]), deltas=answers(), include_usage=st.booleans())
def test_openais_types_take_everything_and_know_every_key(
    case: Case, deltas: list[Delta], include_usage: bool
) -> None:
    known = {"reasoning", "reasoning_content"} | (PLAN if case == "both" else set())
    completion = whole(deltas, case)
    parsed = ChatCompletion.model_validate(completion, strict=True)
    assert extras(parsed) <= known
    assert parsed.model_dump(exclude_unset=True) == completion
    for chunk in frames(write(deltas, case, include_usage=include_usage)):
        parsed_chunk = ChatCompletionChunk.model_validate(chunk, strict=True)
        assert extras(parsed_chunk) <= known
        assert parsed_chunk.model_dump(exclude_unset=True) == chunk


@few
@given(case=st.sampled_from(["both", "snake"]), deltas=answers(), include_usage=st.booleans())
def test_what_openais_client_gathers_from_a_stream_is_the_whole_completion(
    case: Case, deltas: list[Delta], include_usage: bool
) -> None:
    state = ChatCompletionStreamState()
    for chunk in frames(write(deltas, case, include_usage=include_usage)):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    gathered: dict[str, Any] = state.current_completion_snapshot.to_dict()
    completion = whole(deltas, "snake")
    (choice,), (expected,) = gathered["choices"], completion["choices"]
    for call in choice["message"].get("tool_calls") or ():
        del call["index"]
        call["function"].pop("parsed_arguments", None)
    # A stream begins with empty content, before it is known that none will come.
    expected["message"]["content"] = expected["message"]["content"] or ""
    for name, value in expected["message"].items():
        assert choice["message"][name] == value
    assert choice["finish_reason"] == expected["finish_reason"]
    if expected["logprobs"] is not None:
        assert choice["logprobs"]["content"] == expected["logprobs"]["content"]
    if include_usage or case == "both":
        assert without_plan(gathered["usage"]) == completion["usage"]


@few
@given(answers())
def test_the_final_response_is_the_whole_completion(deltas: list[Delta]) -> None:
    *_, final = frames(write(deltas, "camel"))
    neutral = {"id": "", "created": 0}
    assert final | neutral == whole(deltas, "camel") | neutral


@few
@given(answers())
def test_camel_case_changes_keys_and_never_values(deltas: list[Delta]) -> None:
    camel, snake = whole(deltas, "camel"), whole(deltas, "snake")
    assert list(leaves(camel))[1:] == list(leaves(snake))[1:]  # but for the id
    assert list(keys(camel)) == [to_camel(key) for key in keys(snake)]


# No content forges a frame


@pytest.mark.compat("chat.response.choices[].delta.content")
@few
@given(
    case=st.sampled_from(CASES), pieces=st.lists(texts), include_usage=st.booleans(), model=texts
)
def test_any_text_arrives_as_it_is_in_as_many_frames_as_it_was_split_into(
    case: Case, pieces: list[str], include_usage: bool, model: str
) -> None:
    deltas = [*map(Delta, pieces), end()]
    chunks = frames(write(deltas, case, include_usage=include_usage, model=model))
    extra_usage = include_usage and case != "camel"
    assert len(chunks) == 1 + len(list(filter(None, pieces))) + 1 + extra_usage
    got = [
        choice["delta"].get("content", "")
        for chunk in chunks
        for choice in chunk["choices"]
        if "delta" in choice
    ]
    assert "".join(got) == "".join(pieces)
    assert [text for text in got if text] == [text for text in pieces if text]
    assert all(chunk["model"] == model for chunk in chunks)
    message = strictly(write_whole(deltas, case, model=model))["choices"][0]["message"]
    assert message["content"] == "".join(pieces)


@few
@given(case=st.sampled_from(CASES), deltas=answers())
def test_nothing_in_an_answer_forges_a_frame(case: Case, deltas: list[Delta]) -> None:
    spoken = [
        delta
        for delta in deltas
        if delta.content or delta.reasoning or delta.tool_calls or delta.logprobs
    ]
    assert len(frames(write(deltas, case))) == 1 + len(spoken) + 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("include_usage", [True, False])
@pytest.mark.parametrize("deltas", [TEXT, REASONING, TOOL_CALLS, [end()]])
def test_a_stream_that_begins_early_and_is_numbered(
    case: Case, deltas: list[Delta], *, include_usage: bool
) -> None:
    writer = ChatCompletionStream(
        "my_model:1b",
        case,
        include_usage=include_usage,
        first={"session_id": "conv_1"},
        is_early=True,
        is_numbered=True,
    )
    begin = writer.begin()
    (first,) = frames(begin + b"data: [DONE]\n\n")
    assert first["choices"][0]["delta"]["role"] == "assistant"
    stream = begin + b"".join(map(writer.feed, deltas))
    writer.last["truncated_messages"] = 2
    found = frames(stream + writer.finish())
    number, id_, truncated = (
        ("sequenceNumber", "sessionId", "truncatedMessages")
        if case == "camel"
        else ("sequence_number", "session_id", "truncated_messages")
    )
    assert [chunk.pop(number) for chunk in found] == list(range(len(found)))
    assert [chunk.pop(id_, None) for chunk in found] == ["conv_1"] + [None] * (len(found) - 1)
    assert [chunk.pop(truncated, None) for chunk in found] == [None] * (len(found) - 1) + [2]
    # Apart from that it is the same stream.
    plain = frames(write(deltas, case, include_usage=include_usage))
    for chunk in [*found, *plain]:
        del chunk["id"], chunk["created"]
    assert found == plain


@pytest.mark.parametrize("case", CASES)
@given(deltas=answers())
@few
def test_a_stream_in_one_chunk_is_what_openais_client_gathers(
    case: Case, deltas: list[Delta]
) -> None:
    writer = ChatCompletionStream("m", case, include_usage=False, created=17, is_numbered=True)
    (chunk,) = frames(writer.in_one(fold(deltas)) + b"data: [DONE]\n\n")
    assert chunk["created"] == 17
    if case != "camel":
        stream = write(deltas, case, model="m")
        whole = ChatCompletionStreamState()
        once = ChatCompletionStreamState()
        for each in frames(stream):
            whole.handle_chunk(ChatCompletionChunk.model_validate(each))
        once.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        one, other = (
            state.current_completion_snapshot.choices[0].message for state in (once, whole)
        )
        assert (one.content or "") == (other.content or "")
        assert [
            (call.id, call.function.name, call.function.arguments) for call in one.tool_calls or ()
        ] == [
            (call.id, call.function.name, call.function.arguments)
            for call in other.tool_calls or ()
        ]
