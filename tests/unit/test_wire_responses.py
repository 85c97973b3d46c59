from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from django_ollama_openai._wire import response_tools, responses
from django_ollama_openai._wire.base import WireModel
from django_ollama_openai._wire.case import camel_keys, to_camel
from django_ollama_openai._wire.chat import Function, FunctionCall, JSONObjectFormat
from django_ollama_openai._wire.generation import SamplingRequest
from django_ollama_openai._wire.response_tools import AllowedTools, FunctionTool, OtherTool
from django_ollama_openai._wire.responses import (
    AssistantInput,
    CompactionItem,
    CustomToolCallItem,
    CustomToolCallOutput,
    FunctionCallItem,
    FunctionCallOutput,
    InputItem,
    ItemReference,
    JSONSchemaFormat,
    OtherItem,
    ReasoningItem,
    ResponsesRequest,
    SystemInput,
    ToolsItem,
    UserInput,
)
from django_ollama_openai.exceptions import InvalidRequest
from tests.response_requests import (
    CALL,
    CUSTOM,
    CUSTOM_CALL,
    CUSTOM_OUTPUT,
    FULL,
    GRAMMAR,
    HELLO,
    NAMESPACE,
    OUTPUT,
    PICTURE,
    TEXT,
    TOOL,
    UNSUPPORTED,
    asking,
    items,
    numbered,
    parse,
)
from tests.wire import any_json, models_within, notation, paths, replaced

pytestmark = pytest.mark.once


def says(*parts: Any, role: str = "user") -> dict[str, Any]:
    return items(HELLO, {"role": role, "content": list(parts)})


def read(item: Any) -> InputItem:
    parsed = parse(items(item)).input
    assert isinstance(parsed, list)
    return parsed[0]


def refused(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    return caught.value


# Spelling


def test_every_field_of_every_model_is_read_in_both_spellings() -> None:
    snake, camel = parse(FULL), parse(camel_keys(FULL))
    assert snake == camel
    for request in (snake, camel):
        for model in models_within(request):
            assert not model.model_extra
            if type(model).__module__ in (responses.__name__, response_tools.__name__):
                assert model.model_fields_set == set(type(model).model_fields)
    # What is a base, or another's, or stands for another of its kind, aside.
    models = {type(model) for model in models_within(snake)}
    known = {
        value
        for module in (responses, response_tools)
        for value in vars(module).values()
        if isinstance(value, type)
    }
    missing = {model for model in known if issubclass(model, WireModel)} - models
    assert missing == {
        WireModel,
        SamplingRequest,
        FunctionCall,
        JSONObjectFormat,
        Function,
        response_tools.OtherReference,
    }


@pytest.mark.parametrize(
    "name", [name for name in ResponsesRequest.model_fields if to_camel(name) != name]
)
def test_each_field_alone_is_read_in_camel_case(name: str) -> None:
    needs: dict[str, Any] = {}
    if name in ("stream_options", "tool_choice"):
        needs = {"stream": True} if name == "stream_options" else {"tools": [NAMESPACE]}
    request = parse(asking(**{to_camel(name): camel_keys(FULL[name])}, **needs))
    assert request.model_fields_set == {"input", name, *needs}


def test_the_contents_of_schemas_arguments_and_metadata_are_no_fields() -> None:
    schema = {"type": "object", "properties": {"max_tokens": {}, "maxTokens": {}, "a_b": {}}}
    request = parse(
        asking(
            tools=[{**TOOL, "parameters": schema}],
            text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
            metadata={"a_b": "1", "aB": "2"},
        )
    )
    (offered,) = request.offered_tools
    assert isinstance(offered.tool, FunctionTool)
    assert offered.tool.parameters == schema
    assert request.text is not None
    assert isinstance(request.text.format, JSONSchemaFormat)
    assert request.text.format.schema_ == schema
    assert request.metadata == {"a_b": "1", "aB": "2"}


def test_what_is_declared_is_what_was_sent() -> None:
    sent = {name: value for name, value in FULL.items() if value is not None}
    assert parse(FULL).dump_known() == {
        **sent,
        "input": [
            {**item, "content": [TEXT, {**PICTURE, "detail": "low"}, item["content"][2]]}
            if item.get("role") == "user"
            else item
            for item in FULL["input"]
        ],
    }


# What is accepted


def test_null_is_the_same_as_absent() -> None:
    for field in ResponsesRequest.model_fields.keys() - {"input"}:
        assert getattr(parse(asking(**{field: None})), field) is None, field
        assert getattr(parse(asking()), field) is None, field


def test_unknown_keys_are_accepted_and_kept_at_every_level() -> None:
    request = parse(
        {
            "input": [{**HELLO, "id": "msg_1", "status": "completed"}],
            "tools": [{"type": "mcp", "server_label": "x", "serverUrl": "https://x.test"}],
            "reasoning": {"mode": "pro"},
            "brandNew": [{"x": None}],
        }
    )
    assert request.model_extra == {"brandNew": [{"x": None}]}
    assert request.reasoning is not None
    assert request.reasoning.model_extra == {"mode": "pro"}
    assert request.tools is not None
    assert isinstance(request.tools[0], OtherTool)
    assert request.tools[0].model_dump() == {
        "type": "mcp",
        "server_label": "x",
        "serverUrl": "https://x.test",
    }
    assert isinstance(request.input, list)
    assert request.input[0].model_extra == {"id": "msg_1", "status": "completed"}


@pytest.mark.parametrize("text", ["", "Hello", " \n\x85\u2028"])
def test_the_input_may_be_a_text(text: str) -> None:
    assert parse({"input": text}).input == text


@pytest.mark.compat(
    "responses.request.input[].type",
    "responses.request.input[].content[].type",
    "responses.request.input[].execution",
)
@pytest.mark.parametrize(
    ("item", "kind"),
    numbered(
        [
            ({"role": "user", "content": "x"}, UserInput),
            ({"type": None, "role": "user", "content": "x"}, UserInput),
            ({"type": "message", "role": "user", "content": []}, UserInput),
            ({"role": "assistant", "content": "x"}, AssistantInput),
            ({"role": "assistant", "content": "x", "phase": "commentary"}, AssistantInput),
            ({"role": "system", "content": "x"}, SystemInput),
            ({"role": "developer", "content": [TEXT]}, SystemInput),
            (CALL, FunctionCallItem),
            ({**CALL, "id": "fc_1", "status": "completed"}, FunctionCallItem),
            (OUTPUT, FunctionCallOutput),
            ({**OUTPUT, "output": [TEXT, TEXT]}, FunctionCallOutput),
            ({"type": "reasoning", "id": "rs_1", "summary": []}, ReasoningItem),
            ({"type": "reasoning", "encrypted_content": "x"}, ReasoningItem),
            ({"type": "reasoning", "content": None, "summary": None}, ReasoningItem),
            (CUSTOM_CALL, CustomToolCallItem),
            ({**CUSTOM_OUTPUT, "output": [TEXT]}, CustomToolCallOutput),
            ({"type": "additional_tools", "role": "developer", "tools": [TOOL]}, ToolsItem),
            (
                {"type": "tool_search_output", "tools": [], "execution": "server"},
                ToolsItem,
            ),
            ({"type": "web_search_call", "id": "ws_1"}, OtherItem),
            ({"type": "compaction", "encrypted_content": "x"}, CompactionItem),
            ({"type": "item_reference", "id": "msg_1"}, ItemReference),
            ({"type": None, "id": "msg_1"}, ItemReference),
            ({"id": "msg_1"}, ItemReference),
            ({"type": "brand_new", "role": "user"}, OtherItem),
        ]
    ),
)
def test_an_item_is_what_its_type_and_role_say(item: dict[str, Any], kind: type[InputItem]) -> None:
    assert type(read(item)) is kind


@pytest.mark.compat("responses.request.include", "responses.request.max_output_tokens")
@pytest.mark.parametrize(
    ("field", "value"),
    numbered(
        [
            ("temperature", 0),
            ("temperature", 2),
            ("top_p", 0),
            ("top_p", 1.0),
            ("max_output_tokens", 1),
            ("max_output_tokens", 2**31 - 1),
            ("max_tool_calls", 1),
            ("top_logprobs", 0),
            ("top_logprobs", 20),
            ("tools", []),
            ("tool_choice", "none"),
            ("tool_choice", "auto"),
            ("tool_choice", "required"),
            ("truncation", "disabled"),
            ("include", ["reasoning.encrypted_content", "anything.else"]),
            ("metadata", {}),
            ("metadata", {str(number) * 8: "x" * 512 for number in range(16)}),
            *(
                ("service_tier", tier)
                for tier in ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
            ),
            ("stop", "x"),
            ("seed", -(2**63)),
            ("frequency_penalty", -2),
            ("presence_penalty", 2),
            ("n", 1),
            ("conversation", "conv_1"),
            ("stream", False),
            ("text", {}),
            ("text", {"format": {"type": "text"}}),
            ("text", {"format": {"type": "json_object"}, "verbosity": "high"}),
            *(("reasoning", {"summary": kind}) for kind in ("auto", "concise", "detailed")),
            *(
                ("reasoning", {"effort": effort})
                for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
            ),
        ]
    ),
)
def test_values_at_the_edge_are_accepted(field: str, value: Any) -> None:
    got = getattr(parse(asking(**{field: value})), field)
    assert (got.model_dump(exclude_unset=True) if isinstance(got, BaseModel) else got) == value


@pytest.mark.parametrize(
    ("reasoning", "text"),
    [
        ({}, ""),
        ({"content": [{"type": "reasoning_text", "text": "a"}]}, "a"),
        ({"summary": [{"type": "summary_text", "text": text} for text in "ab"]}, "a\nb"),
        (
            {
                "content": [{"type": "reasoning_text", "text": "whole"}],
                "summary": [{"type": "summary_text", "text": "short"}],
            },
            "whole",
        ),
    ],
    ids=["neither", "reasoning", "summary", "both"],
)
def test_the_text_of_reasoning_is_itself_or_its_summary(
    reasoning: dict[str, Any], text: str
) -> None:
    item = read({"type": "reasoning", **reasoning})
    assert isinstance(item, ReasoningItem)
    assert item.text == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    body = items({"type": "function_call_output", "call_id": text, "output": text})
    for ascii_only in (True, False):
        encoded = json.dumps(body, ensure_ascii=ascii_only).encode()
        given = ResponsesRequest.parse(encoded).input
        assert isinstance(given, list)
        (item,) = given
        assert isinstance(item, FunctionCallOutput)
        assert (item.output, item.call_id) == (text, text)


# What is refused


@pytest.mark.compat(
    "responses.request.text.format.name",
    "responses.request.text.format.schema",
    "responses.request.tools[].name",
)
@pytest.mark.parametrize(
    ("body", "param"),
    numbered(
        [
            ({}, "input"),
            (items({}), "input[0].type"),
            (items({"type": "message", "content": "x"}), "input[0].role"),
            (items({"role": "user"}), "input[0].content"),
            (says({}), "input[1].content[0].type"),
            (says({"type": "input_text"}), "input[1].content[0].text"),
            (says({"type": "input_image"}), "input[1].content[0].image_url"),
            (says({"type": "input_audio"}), "input[1].content[0].input_audio"),
            (says({"type": "input_audio", "input_audio": {"format": "wav"}}), ".input_audio.data"),
            (says({"type": "output_text"}, role="assistant"), "input[1].content[0].text"),
            (says({"type": "refusal"}, role="assistant"), "input[1].content[0].refusal"),
            (items({"type": "function_call", "name": "f", "call_id": "c"}), "input[0].arguments"),
            (items({"type": "function_call", "name": "f", "arguments": ""}), "input[0].call_id"),
            (items({"type": "function_call", "call_id": "c", "arguments": ""}), "input[0].name"),
            (items({"type": "function_call_output", "output": "x"}), "input[0].call_id"),
            (items({"type": "function_call_output", "call_id": "c"}), "input[0].output"),
            (items({"type": "reasoning", "summary": [{"text": "x"}]}), "input[0].summary[0].type"),
            (asking(tools=[{"name": "f"}]), "tools[0].type"),
            # The shape of chat completions
            (asking(tools=[{"type": "function", "function": {"name": "f"}}]), "tools[0].name"),
            (asking(tool_choice={}), "tool_choice.type"),
            (asking(tool_choice={"type": "function"}), "tool_choice.name"),
            (asking(tool_choice={"type": "allowed_tools", "mode": "auto"}), "tool_choice.tools"),
            (asking(text={"format": {}}), "text.format.type"),
            (asking(text={"format": {"type": "json_schema", "schema": {}}}), "text.format.name"),
            (asking(text={"format": {"type": "json_schema", "name": "n"}}), "text.format.schema"),
        ]
    ),
)
def test_what_is_missing_is_named(body: Any, param: str) -> None:
    error = refused(body)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.param or "").endswith(param)
    assert error.message == f"Missing required parameter: '{error.param}'."


WRONG_FIELDS: dict[str, list[Any]] = {
    "model": [5, ["m"], ""],
    "input": [None, 5, {}, [], ["x"], [None], [5], [[]]],
    "instructions": [5, ["x"]],
    "temperature": ["0.5", True, -0.1, 2.1],
    "top_p": ["1", -0.1, 1.1],
    "max_output_tokens": ["5", 0, -1, 5.0, True, 2**31],
    "max_tool_calls": [0, "1"],
    "top_logprobs": [-1, 21, "2", True],
    "truncation": ["Auto", True, ""],
    "include": ["x", {}, [5], ["x"] * 101],
    "metadata": [
        [],
        "x",
        {"a": 5},
        {"a": None},
        {"a": "x" * 513},
        {"a" * 65: "x"},
        {str(number): "x" for number in range(17)},
    ],
    "parallel_tool_calls": [0, "false"],
    "reasoning": ["low", {"effort": "huge"}, {"summary": True}, {"generate_summary": "none"}],
    "text": ["text", {"format": "text"}, {"format": {"type": "xml"}}, {"verbosity": "loud"}],
    "tools": [{}, "x", ["f"], [{"type": 5}], [{"type": None}], [{**TOOL, "name": ""}]],
    "tool_choice": [
        "any",
        5,
        [],
        {"type": "custom", "name": "f"},
        {"type": "function", "name": 5},
    ],
    "stream": [1, "true"],
    "store": [1, "true"],
    "background": [1, "true"],
    "conversation": [5, {}, {"id": None}],
    "previous_response_id": [5, {}],
    "prompt_cache_key": [5],
    "safety_identifier": [5],
    "service_tier": [5, "brand_new", ""],
    "seed": [0.5, "1"],
    "stop": [5, ["x"] * 5],
    "frequency_penalty": [2.1, "0"],
    "presence_penalty": [-2.1],
    "user": [5, {}],
    "think": ["xhigh"],
    "keep_alive": ["1d"],
    "options": [{"num_gpu": 1}],
    "truncate": ["yes"],
    "shift": ["yes"],
}

WRONG_ITEMS: list[tuple[dict[str, Any], str]] = [
    (items(HELLO, {"role": "wizard", "content": "x"}), "input[1].role"),
    (items({"role": None, "type": "message", "content": "x"}), "input[0].role"),
    (items({"role": ["user"], "content": "x"}), "input[0].role"),
    (items({"type": 5}), "input[0].type"),
    (items({"type": ["message"]}), "input[0].type"),
    *(
        (items({"role": role, "content": content}), "input[0].content")
        for role in ("user", "assistant", "system", "developer")
        for content in (None, 5, {"type": "input_text", "text": "x"})
    ),
    (items({**OUTPUT, "output": None}), "input[0].output"),
    (items({**OUTPUT, "output": {"a": 1}}), "input[0].output"),
    (items({**OUTPUT, "output": [{"type": "output_text"}]}), "input[0].output[0].type"),
    (items({**OUTPUT, "callId": 5, "call_id": 5}), "input[0].call_id"),
    (items({**CALL, "arguments": {}}), "input[0].arguments"),
    (items({**CALL, "arguments": []}), "input[0].arguments"),
    (items({**CALL, "name": 5}), "input[0].name"),
    (items({"type": "reasoning", "summary": "x"}), "input[0].summary"),
    (items({"type": "reasoning", "content": [{"type": "text"}]}), "input[0].content[0].type"),
    (items({"type": "reasoning", "encrypted_content": 5}), "input[0].encrypted_content"),
    (says(TEXT, {**TEXT, "text": 5}), "input[1].content[1].text"),
    (says("x"), "input[1].content[0]"),
    (says({"type": "text", "text": "x"}), "input[1].content[0].type"),
    (says({"type": "output_text", "text": "x"}), "input[1].content[0].type"),
    (says(PICTURE, role="system"), "input[1].content[0].type"),
    (says(PICTURE, role="assistant"), "input[1].content[0].type"),
    (says({**PICTURE, "image_url": {"url": "x"}}), "input[1].content[0].image_url"),
    (says({**PICTURE, "detail": "huge"}), "input[1].content[0].detail"),
    (says({**PICTURE, "file_id": "file_1"}), "input[1].content[0].file_id"),
    (says({"type": "input_image", "file_id": "file_1"}), "input[1].content[0].file_id"),
    (says({"type": "input_file", "file_data": "x"}), "input[1].content[0]"),
    (says({"type": "input_file", "file_id": "x"}, role="developer"), "input[1].content[0]"),
    (
        says({"type": "input_audio", "input_audio": {"data": "x", "format": "ogg"}}),
        "input[1].content[0].input_audio.format",
    ),
    (asking(stream_options={}), "stream_options"),
    (asking(stream_options={"include_obfuscation": 1}, stream=True), "include_obfuscation"),
    (asking(tools=[TOOL, {**TOOL, "parameters": "{}"}]), "tools[1].parameters"),
    (asking(tools=[{**TOOL, "strict": 1}]), "tools[0].strict"),
    (items({**CUSTOM_CALL, "input": 5}), "input[0].input"),
    (items({**CUSTOM_OUTPUT, "output": None}), "input[0].output"),
    (items({"type": "additional_tools", "tools": [{"type": 5}]}), "input[0].tools[0].type"),
    (asking(tools=[{**CUSTOM, "name": ""}]), "tools[0].name"),
    (asking(tools=[{**CUSTOM, "format": {"type": "x"}}]), "tools[0].format.type"),
    (asking(tools=[{**CUSTOM, "format": {**GRAMMAR, "syntax": "x"}}]), "tools[0].format.syntax"),
    (asking(tools=[{**NAMESPACE, "tools": [{"name": "f"}]}]), "tools[0].tools[0].type"),
]


@pytest.mark.compat(
    "responses.request.input[].content[].file_id",
    "responses.request.input[].arguments",
    "responses.request.text.format.type",
    "responses.request.tool_choice.type",
    "responses.request.tool_choice.server_label",
)
@pytest.mark.parametrize(
    ("body", "param"),
    numbered(
        [
            *((asking(**{name: v}), name) for name, values in WRONG_FIELDS.items() for v in values),
            *WRONG_ITEMS,
        ]
    ),
)
def test_a_wrong_value_is_named(body: dict[str, Any], param: str) -> None:
    error = refused(body)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert error.param is not None
    assert error.param.startswith(param) or error.param.endswith(param)
    assert f"'{error.param}'" in error.message
    assert "pydantic" not in error.message


@pytest.mark.compat("responses.request.input[type]")
def test_references_to_items_are_found_and_replaced() -> None:
    request = parse(items(HELLO, {"id": "msg_1"}, {"type": "item_reference", "id": "rs_1"}))
    assert request.item_references == [("input[1]", "msg_1"), ("input[2]", "rs_1")]
    hello, *_ = request.input_items
    answer = {"type": "message", "role": "assistant", "content": "Hi", "id": "msg_1", "phase": "x"}
    replaced = request.with_input([hello, answer])
    assert replaced.item_references == []
    assert replaced.input_items == [hello, answer]
    assert replaced.after([answer]).input_items == [answer, hello, answer]


@pytest.mark.compat("responses.request.conversation", "responses.request.input")
@pytest.mark.parametrize(
    ("source", "id"),
    [
        ({"previous_response_id": "resp_1"}, None),
        ({"conversation": "conv_1"}, "conv_1"),
        ({"conversation": {"id": "conv_1"}}, "conv_1"),
        ({"prompt": {"id": "pmpt_1"}}, None),
    ],
)
def test_the_input_may_come_from_elsewhere(source: dict[str, Any], id: str | None) -> None:
    for body in (source, {**source, "input": None}):
        request = parse(body)
        assert (request.input, request.input_items, request.conversation_id) == (None, [], id)
        assert request.after([HELLO]).input_items == [{"type": "message", **HELLO}]


@pytest.mark.compat("responses.request.conversation", "responses.request.previous_response_id")
def test_a_response_follows_another_or_belongs_to_a_conversation() -> None:
    error = refused(asking(conversation="conv_1", previous_response_id="resp_1"))
    assert (error.status, error.code) == (400, "mutually_exclusive_parameters")
    assert error.param == "previous_response_id"


@pytest.mark.compat("responses.request.max_tokens, messages, response_format, …")
@pytest.mark.parametrize(
    ("name", "value", "own_name"),
    [
        ("messages", [HELLO], "input"),
        ("max_tokens", 16, "max_output_tokens"),
        ("max_completion_tokens", 0, "max_output_tokens"),
        ("response_format", {"type": "json_object"}, "text.format"),
        ("reasoning_effort", "low", "reasoning.effort"),
        ("logprobs", True, "top_logprobs"),
        ("functions", [{"name": "f"}], "tools"),
        ("function_call", "auto", "tool_choice"),
    ],
)
def test_a_field_of_chat_completions_is_refused_with_the_right_one(
    name: str, value: Any, own_name: str
) -> None:
    for spelling in {name, to_camel(name)}:
        for body in ({spelling: value}, asking(**{spelling: value})):
            error = refused(body)
            assert (error.param, error.code) == (spelling, "unsupported_parameter")
            assert f"Use '{own_name}'" in error.message
        assert parse(asking(**{spelling: None})).input == "Hello"


@pytest.mark.compat(
    "responses.request.input[].content[].type",
    "responses.request.input[].content[].file_data",
    "responses.request.input[].content[].file_url",
    "responses.request.input[].content[].filename",
)
@pytest.mark.parametrize("role", ["user", "system"])
def test_a_file_is_refused_with_what_to_send_instead(role: str) -> None:
    error = refused(says(TEXT, {"type": "input_file", "filename": "a.pdf"}, role=role))
    assert error.param == "input[1].content[1]"
    assert "'input_file'" in error.message
    assert "'input_text'" in error.message


@pytest.mark.compat("responses.request.tool_choice.name")
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "g"},
        {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": name} for name in "fg"],
        },
    ],
    ids=["named", "allowed"],
)
@pytest.mark.parametrize("tools", numbered([[TOOL], [TOOL, {"type": "g"}], [], None]))
def test_a_function_that_is_chosen_has_to_be_among_the_tools(choice: Any, tools: Any) -> None:
    error = refused(asking(tools=tools, tool_choice=choice))
    assert (error.status, error.param) == (400, "tool_choice")
    assert "'g'" in error.message or "'f'" in error.message
    request = parse(asking(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=choice))
    assert request.tool_choice is not None
    assert not isinstance(request.tool_choice, str)
    assert request.tool_choice.dump_known() == choice


@pytest.mark.compat("responses.request.tool_choice.tools")
@pytest.mark.parametrize("tools", numbered([[], [{"type": 5}], ["f"], [TOOL]]))
def test_which_tools_are_allowed_is_read_strictly(tools: list[Any]) -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": tools}
    if tools == [TOOL]:
        assert isinstance(parse(asking(tools=[TOOL], tool_choice=choice)).tool_choice, AllowedTools)
    else:
        error = refused(asking(tools=[TOOL], tool_choice=choice))
        assert (error.param or "").startswith("tool_choice.tools")


@pytest.mark.compat("responses.request.input")
@pytest.mark.parametrize(
    ("body", "param"),
    numbered(
        [
            (items(*[HELLO] * 10_001), "input"),
            (says(*[TEXT] * 1001), "input[1].content"),
            (says(*[TEXT] * 1001, role="developer"), "input[1].content"),
            (
                says(*[{"type": "refusal", "refusal": ""}] * 1001, role="assistant"),
                "input[1].content",
            ),
            (items({**OUTPUT, "output": [TEXT] * 1001}), "input[0].output"),
            (
                items(
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": ""}] * 1001}
                ),
                "input[0].summary",
            ),
            (asking(tools=[TOOL] * 1001), "tools"),
            (
                asking(
                    tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [TOOL] * 1001}
                ),
                "tool_choice.tools",
            ),
        ]
    ),
)
def test_there_are_limits_to_how_many(body: dict[str, Any], param: str) -> None:
    error = refused(body)
    assert error.param == param
    limit = 10_000 if param == "input" else 1000
    assert error.message.endswith(f" at most {limit} items.")


@pytest.mark.parametrize("item", [b"0", b"{}"])
@pytest.mark.parametrize(
    ("before", "param"),
    numbered(
        [
            (b'{"input":[', "input[0]"),
            (b'{"input":[{"role":"user","content":[', "input[0].content[0]"),
            (b'{"input":[{"role":"assistant","content":[', "input[0].content[0]"),
            (b'{"input":[{"type":"reasoning","summary":[', "input[0].summary[0]"),
            (b'{"input":[{"type":"reasoning","content":[', "input[0].content[0]"),
            (b'{"input":"x","tools":[', "tools[0]"),
            (b'{"input":"x","include":[', "include[0]"),
        ]
    ),
)
def test_a_million_errors_take_no_longer_than_one(item: bytes, before: bytes, param: str) -> None:
    after = b"]" + b"}]" * (before.count(b"[") - 1) + b"}"
    # Of objects no more are read.
    count = 1_000_000 if item == b"0" else 90_000
    body = before + b",".join([item] * count) + after
    started = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.parse(body)
    # Each error would take a microsecond and a kilobyte: seconds, and a gigabyte.
    assert time.process_time() - started < 1
    assert (caught.value.param or "").startswith(param)


def test_many_pairs_of_metadata_are_not_read() -> None:
    body = {"input": "x", "metadata": {str(number): number for number in range(90_000)}}
    encoded = json.dumps(body).encode()
    started = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.parse(encoded)
    assert time.process_time() - started < 1
    assert caught.value.param == "metadata"


@given(st.binary() | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        ResponsesRequest.parse(body)
    except InvalidRequest as error:
        assert error.message


@settings(max_examples=2 * settings().max_examples)
@given(st.sampled_from(list(paths(FULL))), any_json)
def test_anything_anywhere_is_refused_where_it_is(path: tuple[Any, ...], value: Any) -> None:
    body = replaced(FULL, path, value)
    try:
        parse(body)
    except InvalidRequest as error:
        if error.param is not None:
            where = notation(path)
            together = {"stream": "stream_options", "tools": "tool_choice"}
            # A changed role or type makes another field of the same item wrong.
            whole = where.partition(".")[0]
            assert (
                error.param.startswith(whole)
                or where.startswith(error.param)
                or error.param == together.get(whole.partition("[")[0])
            )


# What the gateway asks it


@pytest.mark.compat(
    "responses.request.background",
    "responses.request.conversation",
    "responses.request.prompt",
    "responses.request.audio, logit_bias, modalities, n, prediction, web_search_options",
)
def test_what_no_engine_here_can_do_is_named() -> None:
    assert parse(asking()).unsupported_parameters() == []
    assert parse({**FULL, "background": True}).unsupported_parameters() == [
        "background",
        *UNSUPPORTED,
    ]
    stateful = parse({**FULL, "background": True}).unsupported_parameters(stateful=True)
    assert stateful == UNSUPPORTED[1:]


@pytest.mark.compat("responses.request.background", "responses.request.service_tier")
@pytest.mark.parametrize(
    "fields",
    numbered(
        [
            {"tools": [TOOL]},
            {"tools": [TOOL, {"type": "web_search"}, NAMESPACE, CUSTOM]},
            {"background": False},
            {"n": 1, "logit_bias": {}, "modalities": ["text"]},
            {"conversation": None, "prompt": None},
            {"max_tool_calls": 3, "service_tier": "flex", "prompt_cache_key": "k"},
            {"safety_identifier": "s", "user": "u", "metadata": {"a": "b"}, "store": True},
            {"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]},
            {"include": ["message.output_text.logprobs"], "previous_response_id": "resp_1"},
        ]
    ),
)
def test_what_does_not_change_the_answer_is_not(fields: dict[str, Any]) -> None:
    assert parse(asking(**fields)).unsupported_parameters() == []


def test_a_request_without_them_has_the_rest_of_it() -> None:
    request = parse({**FULL, "background": True})
    less = request.without(request.unsupported_parameters())
    assert less.unsupported_parameters() == []
    dropped = {"background", *UNSUPPORTED}
    expected = {name: value for name, value in request.dump_known().items() if name not in dropped}
    assert less.dump_known() == expected


@pytest.mark.compat(
    "responses.request.input[].tools",
    "responses.request.tools[].type",
    "responses.request.tools[type]",
)
def test_functions_and_custom_tools_are_offered_wherever_they_come_from() -> None:
    more = {"type": "tool_search_output", "tools": [{**TOOL, "name": "g"}, {"type": "mcp"}]}
    tools = [{"type": "web_search"}, {**NAMESPACE, "tools": [TOOL, {"type": "x"}, CUSTOM]}, CUSTOM]
    request = parse({"input": [HELLO, more], "tools": tools})
    assert [(offered.origin, offered.full_name) for offered in request.offered_tools] == [
        ("tools[1].tools[0]", ("n", "f")),
        ("tools[1].tools[2]", ("n", "c")),
        ("tools[2]", (None, "c")),
        ("input[1].tools[0]", (None, "g")),
    ]
    assert request.hosted_tools == ["web_search", "x", "mcp"]


def test_of_a_tool_that_comes_twice_the_last_one_counts() -> None:
    again = {"type": "additional_tools", "tools": [{**NAMESPACE, "tools": [CUSTOM]}]}
    request = parse({"input": [HELLO, again, again], "tools": [NAMESPACE]})
    assert [(offered.origin, offered.full_name) for offered in request.offered_tools] == [
        ("tools[0].tools[0]", ("n", "f")),
        ("input[2].tools[0].tools[0]", ("n", "c")),
    ]


@pytest.mark.compat(
    "responses.request.tool_choice.type", "responses.request.tool_choice.server_label"
)
@pytest.mark.parametrize(
    ("choice", "demanded"),
    numbered(
        [
            ({"type": "web_search"}, "web_search"),
            ({"type": "mcp", "server_label": "x"}, "mcp"),
            ("required", None),
            ("auto", None),
            (
                {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]},
                "mcp",
            ),
            ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}, None),
            (
                {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}, TOOL]},
                None,
            ),
        ]
    ),
)
def test_a_choice_may_demand_a_tool_that_is_not_run_here(choice: Any, demanded: str | None) -> None:
    request = parse(asking(tools=[{"type": "web_search"}, TOOL], tool_choice=choice))
    assert request.required_hosted_tool == demanded
    assert ("tool_choice" in request.unsupported_parameters()) is (demanded is not None)
    only = parse(asking(tools=[{"type": "web_search"}], tool_choice="required"))
    assert only.required_hosted_tool == "web_search"


def test_a_request_without_them_is_still_for_its_model() -> None:
    routed = parse(FULL).routed_to("engine:1b", {"num_ctx": 4096}).without(["prompt"])
    assert (routed.model, routed.engine_options) == ("engine:1b", {"num_ctx": 4096})


@pytest.mark.compat("responses.request.include")
@pytest.mark.parametrize(
    ("fields", "expected"),
    numbered(
        [
            ({}, False),
            ({"top_logprobs": 0}, False),
            ({"top_logprobs": 1}, True),
            ({"include": []}, False),
            ({"include": ["reasoning.encrypted_content"]}, False),
            ({"include": ["message.output_text.logprobs"]}, True),
            ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, True),
        ]
    ),
)
def test_whether_log_probabilities_are_asked_for(fields: dict[str, Any], expected: bool) -> None:
    assert parse(asking(**fields)).includes_logprobs is expected


@pytest.mark.compat(
    "responses.request.reasoning.summary", "responses.request.reasoning.generate_summary"
)
@pytest.mark.parametrize(
    ("reasoning", "expected"),
    numbered(
        [
            (None, None),
            ({}, None),
            ({"effort": "low"}, None),
            ({"summary": "auto"}, "auto"),
            ({"generate_summary": "concise"}, "concise"),
            ({"summary": "detailed", "generate_summary": "concise"}, "detailed"),
        ]
    ),
)
def test_which_summary_is_asked_for(reasoning: Any, expected: str | None) -> None:
    assert parse(asking(reasoning=reasoning)).summary == expected


@pytest.mark.compat("responses.request.tools[].type")
def test_a_tool_is_a_function_only_if_it_says_so() -> None:
    tools = parse(asking(tools=[TOOL, {"type": "mcp", "name": "f"}])).tools
    assert tools is not None
    assert [type(tool) for tool in tools] == [FunctionTool, OtherTool]
