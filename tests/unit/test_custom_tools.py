from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai._translation.chat_completion import (
    ChatCompletionStream,
    WholeChatCompletion,
)
from django_ollama_openai._translation.custom_tool_calls import CustomToolCalls
from django_ollama_openai._translation.tool_choice import tool_choice_adapter
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, fold
from django_ollama_openai.exceptions import InvalidRequest

GRAMMAR = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}
TOOL = {"type": "custom", "custom": {"name": "c", "description": "d", "format": GRAMMAR}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "custom", "custom": {"name": "c", "input": 'a "é"'}}


def parse(**fields: Any) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": "Hello"}]
    return ChatCompletionRequest.parse(json.dumps({"messages": messages, **fields}).encode())


# Requests


@pytest.mark.compat("chat.request.tools[].type", "chat.request.tools[].custom")
def test_a_custom_tool_is_offered_as_a_function_with_one_string() -> None:
    request = parse(tools=[FUNCTION, TOOL, {"type": "custom", "custom": {"name": "p"}}])
    function, custom, plain = request.dump_known()["tools"]
    assert function == FUNCTION
    assert plain == {
        "type": "function",
        "function": {
            "name": "p",
            "parameters": {
                "type": "object",
                "properties": {"input": {"type": "string"}},
                "required": ["input"],
                "additionalProperties": False,
            },
        },
    }
    assert custom["function"]["description"] == "d"
    (schema,) = custom["function"]["parameters"]["properties"].values()
    assert schema["type"] == "string"
    assert "regex" in schema["description"]
    assert schema["description"].endswith("\na+")
    assert request.custom_tools == {"c", "p"}


@pytest.mark.compat(
    "chat.request.messages[].tool_calls[].type", "chat.request.messages[].tool_calls[].custom"
)
def test_a_call_of_a_custom_tool_is_a_call_of_its_function() -> None:
    (message,) = parse(messages=[{"role": "assistant", "tool_calls": [CALL]}]).messages
    assert message.dump_known()["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "c", "arguments": '{"input": "a \\"é\\""}'},
        }
    ]


@pytest.mark.compat("chat.request.tool_choice.type", "chat.request.tool_choice.custom")
def test_a_custom_tool_may_be_chosen() -> None:
    choice = {"type": "custom", "custom": {"name": "c"}}
    function = {"type": "function", "function": {"name": "c"}}
    assert parse(tools=[TOOL], tool_choice=choice).dump_known()["tool_choice"] == function
    allowed = {"mode": "auto", "tools": [choice]}
    request = parse(tools=[TOOL], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert request.dump_known()["tool_choice"]["allowed_tools"]["tools"] == [function]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].custom"),
        ({"tools": [{"type": "custom", "custom": {"name": ""}}]}, "tools[0].custom.name"),
        (
            {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "x"}}}]},
            "tools[0].custom.format.type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "custom": {}}]}]},
            "messages[0].tool_calls[0].custom.name",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.custom"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "x"}}},
            "tool_choice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_custom_tool_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


# Answers


def calls(*pieces: str, name: str = "c", finish_reason: str = "tool_calls") -> list[Delta]:
    first, *others = pieces
    return [
        Delta(tool_calls=[ToolCallDelta(0, "call_1", name, first)]),
        *(Delta(tool_calls=[ToolCallDelta(0, arguments=piece)]) for piece in others),
        Delta(finish_reason=finish_reason),
    ]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (['{"input": "a\\n\\"é"}'], 'a\n"é'),
        (["", '{"inp', 'ut": "a', '}"}'], "a}"),
        (['{"input": ""}'], ""),
        # Models that do not keep to the schema
        (['{"patch": "a"}'], "a"),
        (["plain"], "plain"),
        (['{"a": "b", "c": "d"}'], '{"a": "b", "c": "d"}'),
        (['{"input": {"a": 1}}'], '{"input": {"a": 1}}'),
        (["[1]"], "[1]"),
        (["", ""], ""),
        # Cut off by its limit
        (['{"input": "a b'], "a b"),
        # What follows whole arguments is no part of them.
        (['{"input": "a"}', "{}"], "a"),
    ],
)
def test_the_text_of_a_custom_call_is_what_the_model_has_written(
    pieces: list[str], text: str
) -> None:
    custom = CustomToolCalls({"c"})
    answer = fold(map(custom.feed, calls(*pieces)))
    assert answer.tool_calls == [ToolCallDelta(0, "call_1", "c", text, is_custom=True)]


def test_whole_arguments_do_not_wait_and_functions_stay_as_they_are() -> None:
    first, *_ = map(CustomToolCalls({"c"}).feed, calls('{"input": "a"}'))
    assert first.tool_calls == [ToolCallDelta(0, "call_1", "c", "a", is_custom=True)]
    pieces = calls('{"a":', "1}", name="f")
    assert list(map(CustomToolCalls({"c"}).feed, calls('{"a":', "1}", name="f"))) == pieces


def test_only_requests_with_custom_tools_take_the_trouble() -> None:
    assert tool_choice_adapter(parse(tools=[FUNCTION]), frozenset({"tools", "tool_choice"})) is None
    choice = tool_choice_adapter(parse(tools=[TOOL]), frozenset({"tools", "tool_choice"}))
    assert choice is not None
    (first, _) = map(choice.feed, calls('{"input": "a"}'))
    assert first.tool_calls[0].is_custom


@pytest.mark.compat(
    "chat.response.choices[].message.tool_calls[].type",
    "chat.response.choices[].message.tool_calls[].custom",
)
def test_a_custom_call_is_written_as_one() -> None:
    custom = {"type": "custom", "custom": {"name": "c", "input": "a"}}
    answer = [Delta(tool_calls=[ToolCallDelta(0, "call_1", "c", "a", is_custom=True)])]
    whole = WholeChatCompletion("m", "snake")
    for delta in answer:
        whole.feed(delta)
    message = json.loads(whole.finish())["choices"][0]["message"]
    assert message["tool_calls"] == [{"id": "call_1", **custom}]
    held = Delta(tool_calls=[ToolCallDelta(0, arguments="b", is_custom=True)])
    stream = ChatCompletionStream("m", "snake", include_usage=False)
    chunks = [json.loads(line[6:]) for line in stream.feed(answer[0]).split(b"\n\n")[1:-1]]
    chunks += [json.loads(line[6:]) for line in stream.feed(held).split(b"\n\n")[:-1]]
    assert [chunk["choices"][0]["delta"]["tool_calls"] for chunk in chunks] == [
        [{"index": 0, "id": "call_1", **custom}],
        [{"index": 0, "custom": {"input": "b"}}],
    ]
