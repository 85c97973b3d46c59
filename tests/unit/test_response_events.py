from __future__ import annotations

import json
import re
import time
from typing import Any, get_args

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from django_ollama_openai._translation.response_events import ResponseStream, WholeResponse
from django_ollama_openai._translation.response_object import spelled
from django_ollama_openai._translation.responses_request import chat_request
from django_ollama_openai._wire.case import Case, to_camel
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold
from django_ollama_openai._wire.responses import ResponsesRequest
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
)
from tests.deltas import (
    GOLDEN,
    LOGPROBS,
    PLAN,
    REASONING,
    TEXT,
    TOOL_CALLS,
    UPDATE,
    end,
    entry,
    extras,
    few,
    hold_to_golden,
    keys,
    leaves,
    snippets,
    without_plan,
)
from tests.response_requests import FULL, NAMESPACE, TOOL, UNSUPPORTED, asking, parse
from tests.wire import strictly, texts

pytestmark = pytest.mark.once

CASES: tuple[Case, ...] = get_args(Case)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

ASK = parse(asking(stream=True))
SUMMARY = parse(asking(stream=True, reasoning={"summary": "auto"}))
EVERYTHING = parse({**FULL, "metadata": {"a_b": "c"}}).without(UNSUPPORTED)
"""A request with every field that an answer tells again."""

UNKNOWN = {"store", "bytes", "name", "status", "frequency_penalty", "presence_penalty"}
"""What OpenAI sends and its Python types do not know: ``store`` and the penalties of a response,
the ``bytes`` in the log probabilities of a piece of text, the ``name`` with the arguments of a
call, the ``status`` of a call of a custom tool."""

CUT = [Delta("It was the best of"), end("length", Usage(12, 4))]
AFTER_A_CALL = [*TOOL_CALLS[:-1], Delta("Both are"), Delta(" on their way."), end("stop")]

TOOLS = parse(asking(stream=True, tools=[NAMESPACE, TOOL]))
NAMESPACED = [
    Delta(tool_calls=[ToolCallDelta(0, "call_1", "n__f", '{"a": 1}')]),
    Delta(tool_calls=[ToolCallDelta(1, "call_2", "n__c", "", is_custom=True)]),
    Delta(tool_calls=[ToolCallDelta(2, "call_3", "f", "{}")]),
    Delta(tool_calls=[ToolCallDelta(1, arguments='a "text"', is_custom=True)]),
    end("tool_calls"),
]

STREAMS: dict[str, tuple[list[Delta], ResponsesRequest]] = {
    "text": (TEXT, ASK),
    "reasoning": (REASONING, ASK),
    "summary": (REASONING, SUMMARY),
    "tool_calls": (AFTER_A_CALL, ASK),
    "namespaced": (NAMESPACED, TOOLS),
    "logprobs": (LOGPROBS, ASK),
    "incomplete": (CUT, ASK),
}
WHOLE: dict[str, tuple[list[Delta], ResponsesRequest]] = {
    "text": (TEXT, ASK),
    "incomplete": (CUT, ASK),
    "everything": ([*REASONING[:2], *LOGPROBS[:2], *AFTER_A_CALL], EVERYTHING),
}


def stream(
    deltas: list[Delta],
    case: Case = "snake",
    request: ResponsesRequest = ASK,
    *,
    model: str = "my_model:1b",
    stored: bool = False,
) -> bytes:
    writer = ResponseStream(request, model, case, stored=stored)
    return b"".join([*map(writer.feed, deltas), writer.finish()])


def write_whole(
    deltas: list[Delta], case: Case = "snake", request: ResponsesRequest = ASK
) -> bytes:
    writer = WholeResponse(request, "my_model:1b", case)
    assert b"".join(map(writer.feed, deltas)) == b""
    return writer.finish()


def whole(
    deltas: list[Delta], case: Case = "snake", request: ResponsesRequest = ASK
) -> dict[str, Any]:
    response: dict[str, Any] = strictly(write_whole(deltas, case, request))
    return response


def told(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, read strictly: each has a name, and then data on one line."""
    # Readers that take more than "\n" for a line end see the same.
    assert data.decode().splitlines() == data.decode().split("\n")[:-1]
    assert data.endswith(b"\n\n")
    found = []
    for event in data.decode().removesuffix("\n\n").split("\n\n"):
        name, value = event.split("\n")
        parsed = strictly(value.removeprefix("data: "))
        assert (name, value[:6]) == (f"event: {parsed['type']}", "data: ")
        found.append(parsed)
    return found


def only(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == f"response.{kind}"]


def neutral(value: Any) -> Any:
    """``value`` without what differs from one time to the next."""
    if isinstance(value, dict):
        return {
            key: None if key in ("id", "created_at", "completed_at") else neutral(item)
            for key, item in value.items()
        }
    return [neutral(item) for item in value] if isinstance(value, list) else value


# Golden files: exactly what clients get. UPDATE_GOLDEN=1 writes them anew.


def normalised(data: bytes) -> str:
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"{match[1]}{numbers.setdefault(match[0], len(numbers))}"

    text = re.sub(r"\b((?:resp|msg|rs|fc|ctc)_)[0-9a-f]{32}\b", numbered, data.decode())
    assert numbers
    return re.sub(r'("(?:created|completed)(?:_at|At)":)\d+', r"\g<1>1700000000", text)


@pytest.mark.compat(
    "responses.event.type", "responses.event.summary_index", "responses.event.status"
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_golden_one(name: str, case: Case) -> None:
    deltas, request = STREAMS[name]
    hold_to_golden(f"responses/{name}.{case}.sse", normalised(stream(deltas, case, request)))


@pytest.mark.parametrize("case", CASES)
def test_a_stream_that_fails_is_the_golden_one(case: Case) -> None:
    writer = ResponseStream(ASK, "my_model:1b", case)
    data = writer.feed(TEXT[0]) + writer.fail(UpstreamError("The engine broke off."))
    hold_to_golden(f"responses/failure.{case}.sse", normalised(data))


@pytest.mark.compat(
    "responses.response.object",
    "responses.response.output[].role",
    "responses.response.output[].phase",
    "responses.response.output[].content[].annotations",
    "responses.response.output[].content[].refusal",
    "responses.response.output[].encrypted_content",
    "responses.response.output[].async",
    "responses.response.output[].caller",
    "responses.response.reasoning.generate_summary",
    "responses.response.reasoning.context",
    "responses.response.reasoning.mode",
    "responses.response.access_programs",
    "responses.response.conversation",
    "responses.response.image",
    "responses.response.input_transformations",
    "responses.response.moderation",
    "responses.response.prompt",
    "responses.response.prompt_cache_diagnostics",
    "responses.response.prompt_cache_options",
    "responses.response.prompt_cache_retention",
    "responses.response.tool_usage",
    "responses.response.frequency_penalty, presence_penalty",
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_response_is_the_golden_one(name: str, case: Case) -> None:
    deltas, request = WHOLE[name]
    response = strictly(normalised(write_whole(deltas, case, request)))
    hold_to_golden(
        f"responses/{name}.{case}.json", json.dumps(response, indent=2, ensure_ascii=False) + "\n"
    )


@pytest.mark.skipif(UPDATE, reason="they are being written")
def test_every_golden_file_is_held_to() -> None:
    streams = {f"{name}.{case}.sse" for name in [*STREAMS, "failure"] for case in CASES}
    wholes = {f"{name}.{case}.json" for name in WHOLE for case in CASES}
    assert {path.name for path in (GOLDEN / "responses").iterdir()} == streams | wholes


# A response that is stored


def endings(**options: Any) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """The last bytes of a stream that breaks off in each way, and the response then."""
    found = {}
    for name, arguments in {
        "fail": [UpstreamError("Down.")],
        "interrupt": [],
        "cancel": [],
    }.items():
        writer = ResponseStream(ASK, "m", "snake", stored=True, **options)
        data = writer.begin() + writer.feed(Delta("Hel", usage=Usage(3, 1)))
        last = getattr(writer, name)(*arguments)
        # What is stored is what the client gets, whatever ends the delivery.
        assert writer.fail(UpstreamError("Other.")) == writer.finish() == last
        found[name] = data + last, writer.response
    return found


@pytest.mark.compat("responses.response.status", "responses.response.background")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("way", "status", "event"),
    [
        ("fail", "failed", "failed"),
        ("interrupt", "incomplete", "incomplete"),
        ("cancel", "cancelled", "incomplete"),
    ],
)
def test_a_response_that_breaks_off_keeps_its_output(
    way: str, status: str, event: str, background: bool
) -> None:
    data, response = endings(background=background)[way]
    events = told(data)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert events[-1] == {
        "type": f"response.{event}",
        "response": response,
        "sequence_number": len(events) - 1,
    }
    assert (response["status"], response["background"]) == (status, background)
    (item,) = response["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hel")
    assert response["completed_at"] is response["incomplete_details"] is None
    assert (response["usage"] is None) is (way == "cancel")
    assert Response.model_validate(response).output_text == "Hel"
    for each in events:
        EVENT.validate_python(each)


@pytest.mark.compat("responses.event.type")
def test_a_response_in_the_background_is_queued_until_the_engine_answers() -> None:
    writer = ResponseStream(ASK, "m", "snake", response_id="resp_1", background=True)
    queued = told(writer.begin())
    assert [event["type"] for event in queued] == ["response.created", "response.queued"]
    assert {event["response"]["status"] for event in queued} == {"queued"}
    assert {event["response"]["id"] for event in queued} == {"resp_1"}
    assert writer.response["status"] == "queued"
    first, added, *_ = told(writer.feed(TEXT[0]))
    assert (first["type"], first["response"]["status"]) == ("response.in_progress", "in_progress")
    assert added["item"]["status"] == "in_progress"
    (item,) = writer.response["output"]
    assert (item["status"], item["content"][0]["text"]) == ("in_progress", "Hello")
    assert told(writer.finish())[-1]["sequence_number"] == 9
    idle = ResponseStream(ASK, "m", "snake", background=True)
    assert [event["type"] for event in told(idle.cancel())] == [
        "response.created",
        "response.queued",
        "response.incomplete",
    ]


@pytest.mark.parametrize("early", [False, True])
def test_only_an_early_stream_begins_before_the_engine_has_answered(early: bool) -> None:
    writer = ResponseStream(ASK, "m", "snake", is_early=early)
    begun = writer.begin()
    assert bool(begun) is early
    events = told(begun + writer.feed(TEXT[0]) + writer.finish())
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert WholeResponse(ASK, "m", "snake", is_early=early).begin() == b""


@pytest.mark.compat("responses.response.conversation")
def test_a_response_names_its_conversation() -> None:
    writer = WholeResponse(ASK, "m", "snake", conversation="conv_1")
    assert writer.response["conversation"] == {"id": "conv_1"}
    assert strictly(writer.cancel())["status"] == "cancelled"


# The contract of spellings


@pytest.mark.compat("responses.response.promptTokens, completionTokens, totalTokens")
@pytest.mark.parametrize(("deltas", "request_"), WHOLE.values(), ids=WHOLE)
def test_both_is_openais_and_the_plans_three_beside_it(
    deltas: list[Delta], request_: ResponsesRequest
) -> None:
    response = whole(deltas, "both", request_)
    usage = response["usage"]
    assert usage["promptTokens"] == usage["input_tokens"] == 12
    assert usage["completionTokens"] == usage["output_tokens"] > 0
    assert usage["totalTokens"] == usage["total_tokens"] == 12 + usage["output_tokens"]
    assert PLAN & set(keys(response)) == PLAN - {"finishReason"}
    assert neutral(without_plan(response)) == neutral(whole(deltas, "snake", request_))


@pytest.mark.parametrize(("deltas", "request_"), STREAMS.values(), ids=STREAMS)
def test_both_gives_the_plans_figures_where_usage_is(
    deltas: list[Delta], request_: ResponsesRequest
) -> None:
    *others, last = told(stream(deltas, "both", request_))
    assert not PLAN & set(keys(others))
    assert last["response"]["usage"]["totalTokens"] == last["response"]["usage"]["total_tokens"]


@pytest.mark.parametrize(("deltas", "request_"), STREAMS.values(), ids=STREAMS)
def test_snake_is_openais_to_the_letter(deltas: list[Delta], request_: ResponsesRequest) -> None:
    events = told(stream(deltas, "snake", request_))
    assert all(re.fullmatch("[a-z_]+", key) for key in keys(events))


@pytest.mark.parametrize(("deltas", "request_"), STREAMS.values(), ids=STREAMS)
def test_camel_case_is_for_every_key_and_for_no_value(
    deltas: list[Delta], request_: ResponsesRequest
) -> None:
    camel = told(normalised(stream(deltas, "camel", request_)).encode())
    snake = told(normalised(stream(deltas, "snake", request_)).encode())
    assert list(leaves(camel)) == list(leaves(snake))
    assert list(keys(camel)) == [to_camel(key) for key in keys(snake)]
    assert {"sequenceNumber", "outputIndex", "inputTokensDetails"} <= set(keys(camel))


@pytest.mark.parametrize("case", CASES)
def test_what_the_client_has_written_is_never_respelled(case: Case) -> None:
    schema = {"type": "object", "properties": {"snake_case": {"any_of": [{"a_b": 1}]}}}
    request = parse(
        asking(
            metadata={"snake_case": "finish_reason"},
            instructions="output_text",
            tools=[{**TOOL, "name": "get_weather", "parameters": schema}],
            text={"format": {"type": "json_schema", "name": "a_b", "schema": schema}},
        )
    )
    deltas = [Delta(tool_calls=[ToolCallDelta(0, "call_a_b", "get_weather", '{"a_b": 1}')]), end()]
    last = told(stream(deltas, case, request))[-1]["response"]
    for response in (whole(deltas, case, request), last):
        assert response["metadata"] == {"snake_case": "finish_reason"}
        assert response["tools"][0]["parameters"] == schema
        assert response["text"]["format"]["schema"] == schema
        assert response["output"][0]["arguments"] == '{"a_b": 1}'
        assert {"get_weather", "call_a_b", "output_text"} <= set(leaves(response))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", WHOLE)
def test_the_object_that_is_stored_is_in_snake_case_whatever_is_sent(name: str, case: Case) -> None:
    deltas, request = WHOLE[name]
    for kind in (WholeResponse, ResponseStream):
        writer = kind(request, "my_model:1b", case, stored=True)
        sent = b"".join([*map(writer.feed, deltas), writer.finish()])
        response = writer.response
        assert neutral(response) == neutral(whole(deltas, "snake", request)) | {"store": True}
        last = strictly(sent) if kind is WholeResponse else told(sent)[-1]["response"]
        assert spelled(response, case) == last


# The object


@pytest.mark.compat(
    "responses.request.max_tool_calls",
    "responses.request.metadata",
    "responses.request.parallel_tool_calls",
    "responses.request.prompt_cache_key",
    "responses.request.safety_identifier",
    "responses.request.service_tier",
    "responses.request.top_logprobs",
    "responses.request.top_p",
    "responses.request.user",
    "responses.response.instructions",
    "responses.response.max_output_tokens",
    "responses.response.max_tool_calls",
    "responses.response.metadata",
    "responses.response.parallel_tool_calls",
    "responses.response.reasoning.effort",
    "responses.response.reasoning.summary",
    "responses.response.safety_identifier",
    "responses.response.service_tier",
    "responses.response.prompt_cache_key",
    "responses.response.background",
    "responses.response.temperature",
    "responses.response.top_p",
    "responses.response.top_logprobs",
    "responses.response.text",
    "responses.response.truncation",
    "responses.response.user",
    "responses.response.frequency_penalty, presence_penalty",
)
def test_a_response_tells_again_what_was_sent_or_what_holds() -> None:
    response = whole([end()])
    assert {name for name, value in response.items() if value is None} == {
        "conversation",
        "error",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "user",
    }
    holds = {
        "frequency_penalty": 0,
        "metadata": {},
        "presence_penalty": 0,
        "service_tier": "default",
        "temperature": 1,
        "top_logprobs": 0,
        "top_p": 1,
        "truncation": "disabled",
    }
    assert {name: response[name] for name in holds} == holds
    assert response["text"] == {"format": {"type": "text"}}
    assert (response["tools"], response["tool_choice"]) == ([], "auto")
    assert response["parallel_tool_calls"] is True
    assert response["store"] is response["background"] is False

    response = whole([end()], request=EVERYTHING)
    same = (
        "instructions",
        "frequency_penalty",
        "max_output_tokens",
        "max_tool_calls",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt_cache_key",
        "safety_identifier",
        "temperature",
        "text",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    )
    assert {name: response[name] for name in same} == {name: FULL[name] for name in same}
    # Hosted tools are not used.
    assert response["tools"] == [TOOL, NAMESPACE]
    # The tier that is asked for is never the one that there is.
    assert (FULL["service_tier"], response["service_tier"]) == ("auto", "default")
    assert response["metadata"] == {"a_b": "c"}
    assert response["reasoning"] == {"effort": "low", "summary": "auto"}


NUMBER, TEXT_OR_NONE = (int, float), (str, type(None))

REQUIRED: dict[str, Any] = {
    "id": str,
    "object": str,
    "created_at": int,
    "completed_at": (int, type(None)),
    "status": str,
    "incomplete_details": (dict, type(None)),
    "model": str,
    "previous_response_id": TEXT_OR_NONE,
    "instructions": TEXT_OR_NONE,
    "output": list,
    "error": (dict, type(None)),
    "tools": list,
    "tool_choice": (str, dict),
    "truncation": str,
    "parallel_tool_calls": bool,
    "text": dict,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": int,
    "temperature": NUMBER,
    "reasoning": (dict, type(None)),
    "usage": (dict, type(None)),
    "max_output_tokens": (int, type(None)),
    "max_tool_calls": (int, type(None)),
    "store": bool,
    "background": bool,
    "conversation": (dict, type(None)),
    "service_tier": str,
    "metadata": dict,
    "safety_identifier": TEXT_OR_NONE,
    "prompt_cache_key": TEXT_OR_NONE,
}
"""What the response object of the Open Responses specification has to have."""


@pytest.mark.parametrize(("deltas", "request_"), STREAMS.values(), ids=STREAMS)
def test_every_response_object_has_what_clients_require(
    deltas: list[Delta], request_: ResponsesRequest
) -> None:
    events = told(stream(deltas, request=request_))
    objects = [event["response"] for event in events if "response" in event]
    assert len(objects) == 3
    for response in [*objects, whole(deltas, request=request_)]:
        wrong = {name for name, kind in REQUIRED.items() if not isinstance(response[name], kind)}
        assert wrong == set()


@pytest.mark.compat("responses.response.tools")
def test_a_tool_is_told_with_all_its_fields() -> None:
    request = parse(asking(tools=[{"type": "function", "name": "f"}]))
    nothing = {"description": None, "parameters": None, "strict": None}
    assert whole([end()], request=request)["tools"] == [
        {"type": "function", "name": "f", **nothing}
    ]


@pytest.mark.compat("responses.request.tool_choice", "responses.response.tool_choice")
@pytest.mark.parametrize("choice", ["none", "auto", "required", {"type": "function", "name": "f"}])
def test_the_choice_of_a_tool_is_told_as_it_was_sent(choice: Any) -> None:
    request = parse(asking(tools=[TOOL], tool_choice=choice))
    assert whole([end()], request=request)["tool_choice"] == choice


@pytest.mark.compat("responses.request.model", "responses.response.model")
def test_the_model_goes_by_its_public_name() -> None:
    request = parse(asking(model="other")).routed_to("engine:1b", {})
    events = told(stream(TEXT, request=request, model="public"))
    assert {event["response"]["model"] for event in events if "response" in event} == {"public"}


@pytest.mark.compat("responses.response.store")
@pytest.mark.parametrize("stored", [True, False])
def test_what_is_not_stored_is_not_said_to_be(stored: bool) -> None:
    request = parse(asking(store=not stored))
    for event in told(stream(TEXT, request=request, stored=stored)):
        if "response" in event:
            assert event["response"]["store"] is stored


@pytest.mark.compat(
    "responses.response.id",
    "responses.response.created_at",
    "responses.response.completed_at",
    "responses.response.output[].id",
)
def test_a_response_is_of_now_and_its_ids_are_its_own() -> None:
    before = int(time.time())
    one, other = whole(TOOL_CALLS), whole(TOOL_CALLS)
    assert before <= one["created_at"] <= one["completed_at"] <= time.time()
    ids = [item["id"] for response in (one, other) for item in [response, *response["output"]]]
    assert len(set(ids)) == len(ids) == 8
    assert all(re.fullmatch("(resp|msg|fc)_[0-9a-f]{32}", id) for id in ids)


@pytest.mark.compat(
    "responses.response.usage.input_tokens",
    "responses.response.usage.input_tokens_details.cached_tokens",
    "responses.response.usage.input_tokens_details.cache_write_tokens",
    "responses.response.usage.input_tokens_details.cache_write_tokens_details",
    "responses.response.usage.output_tokens",
    "responses.response.usage.output_tokens_details.reasoning_tokens",
    "responses.response.usage.total_tokens",
)
def test_usage_is_told_in_all_its_parts() -> None:
    usage = Usage(12, 5, cached_tokens=8, reasoning_tokens=3)
    assert whole([Delta("x"), end(usage=usage)])["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 17,
    }


# The items


@pytest.mark.compat(
    "responses.response.output",
    "responses.response.output[].type",
    "responses.response.output[].status",
)
def test_the_parts_of_an_answer_are_items_in_the_order_in_which_they_came() -> None:
    output = whole([*REASONING[:2], *AFTER_A_CALL])["output"]
    assert [item["type"] for item in output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    assert {item["status"] for item in output} == {"completed"}
    assert [call["call_id"] for call in output[2:4]] == ["call_1", "call_2"]
    assert [item["content"][0]["text"] for item in (output[1], output[4])] == [
        "One moment.",
        "Both are on their way.",
    ]


def test_within_one_delta_reasoning_comes_first_and_calls_last() -> None:
    call = ToolCallDelta(0, "call_1", "f", "{}")
    output = whole([Delta("text", "reasoning", [call]), end()])["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]


@pytest.mark.compat(
    "responses.request.reasoning.summary",
    "responses.response.output[].content",
    "responses.response.output[].content[].type",
    "responses.response.output[].summary",
)
def test_reasoning_stands_where_the_client_reads_it() -> None:
    (reasoning, _) = whole(REASONING)["output"]
    assert reasoning["summary"] == []
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Six times seven."}]
    (summary, _) = whole(REASONING, request=SUMMARY)["output"]
    assert summary["summary"] == [{"type": "summary_text", "text": "Six times seven."}]
    assert summary["content"] == []
    effort = parse(asking(reasoning={"effort": "low"}))
    assert whole(REASONING, request=effort)["output"][0]["content"] == reasoning["content"]


@pytest.mark.parametrize("deltas", [[], [Delta()], [Delta(""), end(None, Usage())]])
def test_an_answer_without_anything_is_still_an_answer(deltas: list[Delta]) -> None:
    response = whole(deltas)
    assert (response["status"], response["output"]) == ("completed", [])
    assert response["usage"]["total_tokens"] == 0
    kinds = [event["type"] for event in told(stream(deltas))]
    assert kinds == ["response.created", "response.in_progress", "response.completed"]


@pytest.mark.compat(
    "responses.response.completed_at",
    "responses.response.status",
    "responses.response.incomplete_details.reason",
    "responses.response.output[].status",
)
@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_is_incomplete(finish_reason: str, reason: str) -> None:
    deltas = [*TOOL_CALLS[:-1], Delta("and"), end(finish_reason)]
    response = whole(deltas)
    assert response["status"] == "incomplete"
    assert response["completed_at"] is None
    assert response["incomplete_details"] == {"reason": reason}
    assert response["usage"]["total_tokens"] == 17
    assert [item["status"] for item in response["output"]] == ["completed"] * 3 + ["incomplete"]
    events = told(stream(deltas))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-2]["item"]["status"] == "incomplete"


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", None, "anything"])
def test_an_answer_that_ended_otherwise_is_complete(finish_reason: str | None) -> None:
    response = whole([Delta("x"), end(finish_reason)])
    assert response["status"] == "completed"
    assert response["incomplete_details"] is None
    assert response["output"][0]["status"] == "completed"


# Log probabilities


@pytest.mark.compat("responses.response.output[].content[].logprobs", "responses.event.logprobs")
def test_log_probabilities_go_with_their_text() -> None:
    a, e = entry("a", -0.5, a=-0.5, top_p=-1.25), entry("é", -1.5)
    events = told(stream(LOGPROBS))
    assert [event["logprobs"] for event in only(events, "output_text.delta")] == [[a], [e]]
    (done,) = only(events, "output_text.done")
    (part,) = only(events, "content_part.done")
    assert done["logprobs"] == part["part"]["logprobs"] == [a, e]
    assert whole(LOGPROBS)["output"][0]["content"][0]["logprobs"] == [a, e]


def test_a_token_without_text_still_has_its_log_probability() -> None:
    last = entry("<|end|>", -1)
    deltas = [Delta("a", logprobs=[entry("a", -1)]), Delta(logprobs=[last]), end()]
    events = told(stream(deltas))
    assert [event["delta"] for event in only(events, "output_text.delta")] == ["a", ""]
    assert only(events, "output_text.done")[0]["logprobs"] == [entry("a", -1), last]


@pytest.mark.parametrize(
    "delta",
    [
        Delta(logprobs=[entry("<think>", -1)]),
        Delta(reasoning="x", logprobs=[entry("x", -1)]),
        Delta(tool_calls=[ToolCallDelta(0, "call_1", "f", "{}")], logprobs=[entry("{}", -1)]),
    ],
    ids=["nothing", "reasoning", "a call"],
)
@pytest.mark.parametrize("before", [[], [Delta("text")]], ids=["first", "after text"])
def test_tokens_of_anything_but_text_have_no_log_probabilities(
    delta: Delta, before: list[Delta]
) -> None:
    if before and not (delta.reasoning or delta.tool_calls):
        return
    response = whole([*before, delta, end()])
    assert "logprobs" not in set(keys(response)) or response["output"][0]["content"][0] == {
        "type": "output_text",
        "text": "text",
        "annotations": [],
        "logprobs": [],
    }
    assert len(response["output"]) == len(before) + bool(delta.reasoning or delta.tool_calls)


# Calls


def calls(*pieces: tuple[int, str], between: dict[int, Delta] | None = None) -> list[Delta]:
    begun: set[int] = set()
    deltas = []
    for number, (index, arguments) in enumerate(pieces):
        first = index not in begun
        begun.add(index)
        piece = ToolCallDelta(index, arguments=arguments)
        if first:
            piece.id, piece.name = f"call_{index}", f"f{index}"
        deltas.append(Delta(tool_calls=[piece]))
        if between and number in between:
            deltas.append(between[number])
    return deltas


@pytest.mark.compat("responses.event.arguments", "responses.event.name")
def test_a_call_is_done_as_soon_as_something_else_begins() -> None:
    events = told(stream([*calls((0, '{"a":'), (0, "1}"), (1, "{}")), end()]))
    kinds = [event["type"].removeprefix("response.") for event in events[2:-1]]
    arguments = "function_call_arguments"
    assert kinds == [
        "output_item.added",
        f"{arguments}.delta",
        f"{arguments}.delta",
        f"{arguments}.done",
        "output_item.done",
        "output_item.added",
        f"{arguments}.delta",
        f"{arguments}.done",
        "output_item.done",
    ]
    done, _ = only(events, f"{arguments}.done")
    assert (done["name"], done["arguments"]) == ("f0", '{"a":1}')


@pytest.mark.compat("responses.response.output[].name", "responses.response.output[].arguments")
def test_calls_whose_pieces_come_by_turns_are_put_together() -> None:
    deltas = calls((0, ""), (1, '{"b":'), (0, '{"a":'), (1, "2}"), (0, "1}"), (2, "{}"))
    output = whole([*deltas, end()])["output"]
    assert [call["arguments"] for call in output] == ['{"a":1}', '{"b":2}', "{}"]
    check(told(stream([*deltas, end()])))


def test_a_call_goes_on_after_a_text_in_between() -> None:
    deltas = calls((0, '{"a":'), (0, "1}"), between={0: Delta("wait")})
    output = whole([*deltas, end()])["output"]
    assert [item["type"] for item in output] == ["function_call", "message"]
    assert output[0]["arguments"] == '{"a":1}'


def test_what_follows_whole_arguments_is_no_part_of_them() -> None:
    deltas = calls((0, '{"a":1}'), (1, "{}"), (0, "{}"), (0, "\n"))
    output = whole([*deltas, end()])["output"]
    assert [call["arguments"] for call in output] == ['{"a":1}', "{}"]


def test_a_call_without_arguments_has_none_and_no_piece() -> None:
    events = told(stream([*calls((0, "")), end()]))
    assert only(events, "function_call_arguments.delta") == []
    (done,) = only(events, "function_call_arguments.done")
    assert done["arguments"] == ""


@pytest.mark.parametrize("arguments", ["{" * 5000 + "}", '{"a": 1e999}', '{"a"}', "}"])
def test_arguments_that_are_no_json_do_no_harm(arguments: str) -> None:
    output = whole([*calls((0, arguments), (1, "{}")), end()])["output"]
    assert [call["arguments"] for call in output] == [arguments, "{}"]


@pytest.mark.compat(
    "responses.response.output[].input",
    "responses.response.output[].namespace",
    "responses.event.input",
)
def test_calls_of_custom_tools_and_of_namespaces_are_told_as_such() -> None:
    items = check(told(stream(NAMESPACED, request=TOOLS)))
    named = [{key: item.get(key) for key in ("type", "namespace", "name")} for item in items]
    assert named == [
        {"type": "function_call", "namespace": "n", "name": "f"},
        {"type": "custom_tool_call", "namespace": "n", "name": "c"},
        {"type": "function_call", "namespace": None, "name": "f"},
    ]
    assert items[1]["input"] == 'a "text"'
    assert neutral(whole(NAMESPACED, request=TOOLS)["output"]) == neutral(items)


@pytest.mark.compat("responses.response.output[].call_id")
def test_a_call_has_an_id_even_if_the_engine_gave_none() -> None:
    (call,) = whole([Delta(tool_calls=[ToolCallDelta(0, None, "f", "{}")]), end()])["output"]
    assert call["call_id"].startswith("call_")


# Failures


@pytest.mark.compat(
    "responses.response.status",
    "responses.response.error.code",
    "responses.response.error.message",
    "responses.response.error.param",
    "responses.response.error.type",
    "responses.response.error.misalignment",
    "responses.stream.failure in mid-stream",
)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamError("Broke off."), "server_error"),
        (UpstreamTimeout("Too late."), "server_error"),
        (GatewayError("Crashed."), "server_error"),
        (InvalidRequest("Bad.", param="input", code="a_b"), "invalid_prompt"),
        (ContextLengthExceeded("Too long."), "invalid_prompt"),
        (
            type("RateLimited", (GatewayError,), {"status": 429})("Slow down."),
            "rate_limit_exceeded",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("case", CASES)
def test_a_stream_that_fails_ends_with_the_failed_response(
    error: GatewayError, code: str, case: Case
) -> None:
    writer = ResponseStream(ASK, "m", case)
    before = b"".join(map(writer.feed, TOOL_CALLS[:2]))
    *_, last = told(before + writer.fail(error))
    assert last["type"] == "response.failed"
    response = last["response"]
    assert response["status"] == writer.response["status"] == "failed"
    assert response["error"] == {"code": code, "message": error.message}
    assert response["usage"] is None
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["arguments"] == '{"city_name"'
    EVENT.validate_python({**last, "response": writer.response, "sequence_number": 1}, strict=True)


def test_a_stream_that_fails_at_once_still_begins() -> None:
    events = told(ResponseStream(ASK, "m", "snake").fail(UpstreamError("Down.")))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    check(events)


def test_a_failure_after_the_usage_tells_it() -> None:
    writer = ResponseStream(ASK, "m", "snake")
    writer.feed(Delta("x", usage=Usage(3, 1)))
    (last,) = told(writer.fail(UpstreamError("Broke off.")))
    assert last["response"]["usage"]["total_tokens"] == 4


@pytest.mark.parametrize("case", CASES)
def test_a_whole_response_that_fails_is_openais_envelope(case: Case) -> None:
    error = InvalidRequest("Bad.", param="max_output_tokens", code="a_b")
    writer = WholeResponse(ASK, "m", case)
    assert writer.feed(Delta("x")) == b""
    assert strictly(writer.fail(error)) == error.envelope()
    assert writer.response["status"] == "failed"
    assert writer.response["output"][0]["status"] == "incomplete"


# Any answer at all


def check(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold a stream, in snake_case, to what clients may rely on; the items of the last event."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, in_progress, *between, last = events
    assert (created["type"], in_progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == in_progress["response"]
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["output"] == []
    assert last["type"] == f"response.{last['response']['status']}"
    assert last["response"]["id"] == created["response"]["id"]
    items: list[dict[str, Any]] = last["response"]["output"]
    steps: dict[int, list[dict[str, Any]]] = {}
    for event in between:
        index = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert index == len(steps)
            steps[index] = []
        steps[index].append(event)
    assert len(items) == len(steps)
    for index, item in enumerate(items):
        _check_item(item, steps[index], failed=last["type"] == "response.failed")
    return items


def _check_item(item: dict[str, Any], steps: list[dict[str, Any]], *, failed: bool) -> None:
    added, *inner = steps
    assert added["item"]["status"] == "in_progress"
    assert (added["item"]["id"], added["item"]["type"]) == (item["id"], item["type"])
    if failed and item["status"] == "incomplete":
        assert not [event for event in inner if event["type"].endswith(".done")]
        return
    *inner, done = inner
    assert done["type"] == "response.output_item.done"
    assert done["item"] == item
    assert item["status"] in ("completed", "incomplete")
    assert {event["item_id"] for event in inner} == {item["id"]}
    if item["type"] == "custom_tool_call":
        event, field = "response.custom_tool_call_input", "input"
        assert added["item"]["input"] == ""
        *inner, whole_text = inner
        assert whole_text["input"] == item["input"]
        assert added["item"]["call_id"] == item["call_id"]
    elif item["type"] == "function_call":
        event, field = "response.function_call_arguments", "arguments"
        assert added["item"]["arguments"] == ""
        *inner, whole_text = inner
        assert whole_text["arguments"] == item["arguments"]
        assert whole_text["name"] == item["name"] == added["item"]["name"]
        assert added["item"]["call_id"] == item["call_id"]
    else:
        event, field, place = {
            "output_text": ("response.output_text", "text", "content"),
            "reasoning_text": ("response.reasoning_text", "text", "content"),
            "summary_text": ("response.reasoning_summary_text", "text", "summary"),
        }[_part(item)["type"]]
        part_event = "reasoning_summary_part" if place == "summary" else "content_part"
        assert added["item"][place] == []
        part_added, *inner, whole_text, part_done = inner
        assert part_added["type"] == f"response.{part_event}.added"
        assert part_done["type"] == f"response.{part_event}.done"
        assert part_added["part"]["text"] == ""
        assert part_added["part"]["type"] == part_done["part"]["type"]
        assert part_done["part"] == _part(item)
        for step in (part_added, *inner, whole_text, part_done):
            assert step[f"{place}_index"] == 0
        logprobs = [found for step in inner for found in step.get("logprobs", ())]
        assert logprobs == part_done["part"].get("logprobs", [])
    assert whole_text["type"] == f"{event}.done"
    assert {step["type"] for step in inner} <= {f"{event}.delta"}
    assert "".join(step["delta"] for step in inner) == whole_text[field]


def _part(item: dict[str, Any]) -> dict[str, Any]:
    (part,) = item.get("content") or item["summary"]
    found: dict[str, Any] = part
    return found


pieces = snippets | st.sampled_from(['{"a":', "1}", "{}", "}", "{", " \n"])
words = st.builds(
    Delta,
    content=snippets,
    reasoning=st.just("") | snippets,
    logprobs=st.none() | st.lists(st.builds(entry, snippets, st.floats(-9, 0)), max_size=2),
)


@st.composite
def answers(draw: st.DrawFn, *, ended: bool = True) -> list[Delta]:
    """The deltas of an answer; texts, reasoning and the pieces of calls come in any order."""
    begun: dict[int, bool] = {}
    deltas: list[Delta] = []
    for word in draw(st.lists(words, max_size=8)):
        for _ in range(draw(st.integers(0, 2))):
            index = draw(st.integers(0, 2))
            piece = ToolCallDelta(index, arguments=draw(pieces))
            if index not in begun:
                begun[index] = True
                piece.id, piece.name = f"call_{index}", "f" + draw(snippets)
            word.tool_calls.append(piece)
        deltas.append(word)
    if ended:
        reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", None]))
        deltas.append(end(reason, draw(st.none() | st.builds(Usage, *[st.integers(0, 9)] * 4))))
    return deltas


requests = st.sampled_from([ASK, SUMMARY, EVERYTHING])


@pytest.mark.compat(
    "responses.response.output[type]",
    "responses.event.type (of reasoning)",
    "responses.event.sequence_number",
    "responses.event.response",
    "responses.event.item",
    "responses.event.item_id",
    "responses.event.output_index",
    "responses.event.content_index",
    "responses.event.part",
    "responses.event.text",
    "responses.event.[type]",
    "responses.stream.order",
)
@given(answers(), requests)
def test_any_answer_is_a_stream_that_clients_can_follow(
    deltas: list[Delta], request: ResponsesRequest
) -> None:
    check(told(stream(deltas, request=request)))


@given(answers(ended=False), requests)
def test_any_answer_that_fails_is_a_valid_stream(
    deltas: list[Delta], request: ResponsesRequest
) -> None:
    writer = ResponseStream(request, "m", "snake")
    data = b"".join(map(writer.feed, deltas)) + writer.fail(UpstreamError("Broke off."))
    items = check(told(data))
    assert writer.response["output"] == items
    assert "in_progress" not in set(leaves(items))


@pytest.mark.compat("responses.response.output[].content[].text")
@given(answers(), requests)
def test_nothing_of_an_answer_is_lost(deltas: list[Delta], request: ResponsesRequest) -> None:
    answer = fold(deltas)
    found = {"message": "", "reasoning": ""}
    arguments: dict[str, str] = {}
    for item in whole(deltas, request=request)["output"]:
        if item["type"] == "function_call":
            arguments[item["call_id"]] = item["arguments"]
        else:
            found[item["type"]] += _part(item)["text"]
    assert found == {"message": answer.content, "reasoning": answer.reasoning}
    assert len(arguments) == len(answer.tool_calls)
    for call in answer.tool_calls:
        given_ = arguments[call.id or ""]
        if given_ != call.arguments:
            assert call.arguments.startswith(given_)
            assert isinstance(json.loads(given_), dict)


@pytest.mark.compat("responses.event.response")
@few
@given(st.sampled_from(CASES), answers(), requests)
def test_a_stream_ends_with_what_would_have_been_sent_in_one_piece(
    case: Case, deltas: list[Delta], request: ResponsesRequest
) -> None:
    *_, last = told(normalised(stream(deltas, case, request)).encode())
    response = strictly(normalised(write_whole(deltas, case, request)))
    assert _without_ids(last["response"]) == _without_ids(response)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items() if key != "id"}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


@pytest.mark.compat("responses.event.delta")
@given(st.lists(texts), texts)
def test_any_text_arrives_as_it_is_in_as_many_events_as_it_was_split_into(
    split: list[str], model: str
) -> None:
    for case in CASES:
        events = told(stream([*map(Delta, split), end()], case, model=model))
        got = [event["delta"] for event in only(events, "output_text.delta")]
        assert got == [text for text in split if text]
        assert events[-1]["response"]["model"] == model
        for done in only(events, "output_text.done"):
            assert done["text"] == "".join(split)


# What OpenAI's own types and clients make of it


@few
@given(st.sampled_from(["both", "snake"]), answers(), requests)
def test_openais_types_take_everything_and_know_every_key(
    case: Case, deltas: list[Delta], request: ResponsesRequest
) -> None:
    known = UNKNOWN | (PLAN if case == "both" else set())
    response = whole(deltas, case, request)
    parsed = Response.model_validate(response, strict=True)
    assert extras(parsed) <= known
    assert parsed.model_dump(exclude_unset=True, by_alias=True) == response
    for event in told(stream(deltas, case, request)):
        parsed_event = EVENT.validate_python(event, strict=True)
        assert parsed_event.type == event["type"]
        assert extras(parsed_event) <= known
        assert parsed_event.model_dump(exclude_unset=True, by_alias=True) == event


class Weather(BaseModel):
    """Tell the weather."""

    city: str
    days: int = 1


class Gateway:
    """Answers OpenAI's client with ``deltas``, or with those before a failure, in small chunks."""

    def __init__(self, case: Case, deltas: list[Delta], error: GatewayError | None = None) -> None:
        self.requests: list[ResponsesRequest] = []
        self._case = case
        self._deltas = deltas
        self._error = error

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url="http://gateway.test/v1",
            api_key="key",
            max_retries=0,
            http_client=openai.DefaultHttpx2Client(transport=httpx2.MockTransport(self._answer)),
        )

    def _answer(self, http_request: httpx2.Request) -> httpx2.Response:
        request = ResponsesRequest.parse(http_request.read())
        self.requests.append(request)
        assert chat_request(request).messages
        kind = ResponseStream if request.stream else WholeResponse
        writer = kind(request, request.model or "", self._case)
        data = b"".join(map(writer.feed, self._deltas))
        data += writer.finish() if self._error is None else writer.fail(self._error)
        content_type = "text/event-stream" if request.stream else "application/json"
        chunks = (data[start : start + 7] for start in range(0, len(data), 7))
        return httpx2.Response(
            200 if self._error is None or request.stream else self._error.status,
            headers={"content-type": content_type},
            content=chunks,
        )


openai_cases = pytest.mark.parametrize("case", ["both", "snake"])


@openai_cases
def test_openais_client_streams_a_text(case: Case) -> None:
    client = Gateway(case, TEXT).client()
    with client.responses.stream(model="m", input="Hello") as events:
        snapshots = [e.snapshot for e in events if e.type == "response.output_text.delta"]
        response = events.get_final_response()
    assert snapshots == ["Hello", "Hello, wörld!\n"]
    assert response.output_text == "Hello, wörld!\n"
    assert response.status == "completed"
    assert response.model == "m"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 8
    assert (response.usage.total_tokens, response.error) == (17, None)


@openai_cases
def test_openais_client_reads_a_plain_stream_to_its_end_without_done(case: Case) -> None:
    client = Gateway(case, TEXT).client()
    with client.responses.create(model="m", input="Hello", stream=True) as events:
        types = [event.type for event in events]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"


@openai_cases
@pytest.mark.parametrize("streamed", [True, False])
def test_openais_client_parses_an_answer_into_a_model(case: Case, streamed: bool) -> None:
    gateway = Gateway(case, [Delta('{"city": "Par'), Delta('is", "days": 3}'), end()])
    if streamed:
        with gateway.client().responses.stream(
            model="m", input="Where?", text_format=Weather
        ) as events:
            done = [event for event in events if event.type == "response.output_text.done"]
            response = events.get_final_response()
        assert [event.parsed for event in done] == [Weather(city="Paris", days=3)]
    else:
        response = gateway.client().responses.parse(model="m", input="Where?", text_format=Weather)
    assert response.output_parsed == Weather(city="Paris", days=3)
    (request,) = gateway.requests
    assert request.text is not None
    assert response.text is not None
    assert response.text.to_dict() == request.text.dump_known()


@openai_cases
@pytest.mark.parametrize("streamed", [True, False])
def test_openais_client_gets_calls_with_their_arguments_parsed(case: Case, streamed: bool) -> None:
    deltas = [
        Delta("One moment."),
        Delta(tool_calls=[ToolCallDelta(0, "call_1", "Weather", '{"city":')]),
        Delta(tool_calls=[ToolCallDelta(0, arguments='"Paris","days":1}')]),
        Delta(tool_calls=[ToolCallDelta(1, "call_2", "Weather", '{"city":"Rome","days":2}')]),
        end("tool_calls"),
    ]
    gateway = Gateway(case, deltas)
    tools = [openai.pydantic_function_tool(Weather)]
    client = gateway.client()
    if streamed:
        with client.responses.stream(model="m", input="Go", tools=tools) as events:
            snapshots = [
                event.snapshot
                for event in events
                if event.type == "response.function_call_arguments.delta"
            ]
            response = events.get_final_response()
        assert snapshots == ['{"city":', '{"city":"Paris","days":1}', '{"city":"Rome","days":2}']
    else:
        response = client.responses.parse(model="m", input="Go", tools=tools)
    message, *calls_ = response.output
    assert message.type == "message"
    assert response.output_text == "One moment."
    parsed = [
        (call.call_id, call.parsed_arguments) for call in calls_ if call.type == "function_call"
    ]
    assert parsed == [
        ("call_1", Weather(city="Paris", days=1)),
        ("call_2", Weather(city="Rome", days=2)),
    ]
    (tool,) = response.tools
    assert tool.to_dict() == gateway.requests[0].offered_tools[0].tool.dump_known()


@openai_cases
def test_openais_client_sends_a_turn_back_as_it_got_it(case: Case) -> None:
    gateway = Gateway(case, [*REASONING[:2], *TOOL_CALLS])
    client = gateway.client()
    first = client.responses.create(model="m", input="Go")
    results: list[Any] = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "done"}
        for item in first.output
        if item.type == "function_call"
    ]
    again: list[Any] = [{"role": "user", "content": "Go"}, *first.output, *results]
    client.responses.create(model="m", input=again)
    assert chat_request(gateway.requests[1]).dump_known()["messages"] == [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "Six times seven.",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in fold(TOOL_CALLS).tool_calls
            ],
        },
        {"role": "tool", "content": "done", "tool_call_id": "call_1"},
        {"role": "tool", "content": "done", "tool_call_id": "call_2"},
    ]


@openai_cases
@pytest.mark.parametrize("summary", [True, False])
def test_openais_client_gets_the_reasoning(case: Case, summary: bool) -> None:
    client = Gateway(case, REASONING).client()
    reasoning: Any = {"effort": "low", **({"summary": "auto"} if summary else {})}
    with client.responses.stream(model="m", input="Go", reasoning=reasoning) as events:
        got = [
            event.delta
            for event in events
            if event.type == "response.reasoning_text.delta"
            or event.type == "response.reasoning_summary_text.delta"
        ]
        response = events.get_final_response()
    assert got == ["Six times ", "seven."]
    item, _ = response.output
    assert item.type == "reasoning"
    texts_ = [part.text for part in (item.summary if summary else item.content or [])]
    assert texts_ == ["Six times seven."]
    assert response.output_text == "42"
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 4


@openai_cases
@pytest.mark.parametrize("streamed", [True, False])
def test_openais_client_sees_that_an_answer_was_cut(case: Case, streamed: bool) -> None:
    client = Gateway(case, CUT).client()
    if streamed:
        with client.responses.stream(model="m", input="Go", max_output_tokens=16) as events:
            *_, last = events
        assert last.type == "response.incomplete"
        response: Response = last.response
    else:
        response = client.responses.create(model="m", input="Go", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "It was the best of"
    assert response.max_output_tokens == 16


@openai_cases
def test_openais_client_sees_that_a_stream_has_failed(case: Case) -> None:
    client = Gateway(case, TEXT[:1], UpstreamError("The engine broke off.")).client()
    # The text is cut: to parse it would hide the failure.
    with client.responses.stream(model="m", input="Go", text_format=Weather) as events:
        *_, last = events
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            events.get_final_response()
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert last.response.error.message == "The engine broke off."
    assert last.response.output_text == "Hello"


def test_openais_client_raises_what_fails_in_one_piece() -> None:
    client = Gateway("both", TEXT[:1], InvalidRequest("No.", param="input")).client()
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="m", input="Go")
    assert (caught.value.param, caught.value.type) == ("input", "invalid_request_error")


@few
@given(answers(), requests)
def test_what_openais_client_gathers_from_a_stream_is_the_whole_response(
    deltas: list[Delta], request: ResponsesRequest
) -> None:
    data = stream(deltas, "both", request)

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)

    with (
        openai.DefaultHttpx2Client(transport=httpx2.MockTransport(answer)) as http,
        openai.OpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http) as client,
        client.responses.stream(model="m", input="Go") as events,
    ):
        *_, last = events
    gathered: Any = last.to_dict(warnings=False)
    expected = told(data)[-1]["response"]
    for item in gathered["response"]["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    assert gathered["response"] == expected
