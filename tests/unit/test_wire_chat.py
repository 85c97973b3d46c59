from __future__ import annotations

import json
import re
import time
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from django_ollama_openai._wire import chat
from django_ollama_openai._wire.base import WireModel
from django_ollama_openai._wire.case import camel_keys, to_camel
from django_ollama_openai._wire.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    FunctionCall,
    JSONSchemaFormat,
    ToolMessage,
)
from django_ollama_openai._wire.generation import GenerationRequest
from django_ollama_openai.exceptions import InvalidRequest
from tests.wire import GENERATION, any_json, models_within, notation, paths, replaced

pytestmark = pytest.mark.once

HELLO = {"role": "user", "content": "Hello"}

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a_b": 1}'}}

# Every field of every model. Schemas have keys without underscores only, so that the whole can be
# respelled mechanically.
FULL: dict[str, Any] = {
    **GENERATION,
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "u"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
                },
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "r"}],
            "reasoning_content": "because",
            "reasoning": "why not",
            "tool_calls": [CALL],
            "refusal": "no",
            "function_call": {"name": "f", "arguments": "{}"},
        },
        {"role": "tool", "content": "t", "tool_call_id": "call_1"},
        {"role": "function", "content": "f", "name": "f"},
    ],
    "max_completion_tokens": 8,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "parameters": {"type": "object"},
                "strict": True,
            },
        }
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    },
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "description": "d",
            "schema": {"type": "object"},
            "strict": True,
        },
    },
    "reasoning_effort": "low",
    "reasoning": {"effort": "high"},
    "n": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "audio": {"voice": "alloy", "format": "wav"},
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "web_search_options": {},
    "options": {
        "num_ctx": 1,
        "num_keep": 1,
        "num_predict": 1,
        "seed": 1,
        "stop": "x",
        "temperature": 1,
        "top_k": 1,
        "top_p": 1,
        "min_p": 0,
        "typical_p": 1,
        "repeat_last_n": 1,
        "repeat_penalty": 1,
        "presence_penalty": 1,
        "frequency_penalty": 1,
    },
}

# They cannot be combined with tools, which replace them.
FUNCTIONS: dict[str, Any] = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}


def parse(body: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.parse(json.dumps(body).encode())


def asking(**fields: Any) -> dict[str, Any]:
    return {"messages": [HELLO], **fields}


def says(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def calls(**function: Any) -> dict[str, Any]:
    return says(HELLO, {"role": "assistant", "tool_calls": [{**CALL, "function": function}]})


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ChatCompletionRequest.parse(body)
    return caught.value


# Spelling


@pytest.mark.compat("chat.request.maxTokens, topP, toolChoice, …")
def test_every_field_of_every_model_is_read_in_both_spellings() -> None:
    snake, camel = parse(FULL), parse(camel_keys(FULL))
    assert snake == camel
    for request in (snake, camel):
        for model in models_within(request):
            assert not model.model_extra
            fields = set(type(model).model_fields)
            assert model.model_fields_set == fields - (
                set(FUNCTIONS) if model is request else set()
            )
    # The two formats without fields of their own aside, that was all there is to a request.
    models = {type(model) for model in models_within(snake)}
    known = {value for value in vars(chat).values() if isinstance(value, type)}
    missing = {model for model in known if issubclass(model, WireModel)} - models
    # Custom tools have their own tests.
    missing = {model for model in missing if "Custom" not in model.__name__}
    bases = {WireModel, GenerationRequest, chat.SchemaFormat}
    assert missing == bases | {chat.TextFormat, chat.JSONObjectFormat}


def test_each_camel_case_name_differs_from_its_field() -> None:
    names = {name for name in ChatCompletionRequest.model_fields if to_camel(name) != name}
    assert {"top_p", "max_tokens", "tool_choice", "stream_options"} <= names
    for name in names - {"stream_options", "tool_choice", "top_logprobs", "function_call"}:
        request = parse(asking(**{to_camel(name): camel_keys({**FULL, **FUNCTIONS}[name])}))
        assert request.model_fields_set == {"messages", name}


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_field_that_is_given_twice_the_snake_case_one_counts(order: int) -> None:
    fields = [("max_tokens", 5), ("maxTokens", 9)][::order]
    assert parse(asking(**dict(fields))).max_tokens == 5


def test_the_contents_of_schemas_arguments_and_biases_are_no_fields() -> None:
    schema = {"type": "object", "properties": {"max_tokens": {}, "maxTokens": {}, "a_b": {}}}
    request = parse(
        asking(
            tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
            responseFormat={"type": "json_schema", "jsonSchema": {"name": "n", "schema": schema}},
        )
    )
    assert request.tools is not None
    assert request.tools[0].function.parameters == schema
    assert isinstance(request.response_format, JSONSchemaFormat)
    assert request.response_format.json_schema.schema_ == schema


# What is accepted


def test_null_is_the_same_as_absent() -> None:
    for field in ChatCompletionRequest.model_fields.keys() - {"messages"}:
        assert getattr(parse(asking(**{field: None})), field) is None, field
        assert getattr(parse(asking()), field) is None, field


def test_unknown_keys_are_accepted_and_kept_at_every_level() -> None:
    request = parse(
        {
            "messages": [{**HELLO, "name": "bob", "cache_control": {"type": "ephemeral"}}],
            "user": "u-1",
            "metadata": {"a": "b"},
            "store": True,
            "service_tier": "auto",
            "num_ctx": 4096,
            "brandNew": [{"x": None}],
        }
    )
    assert request.model_extra == {
        "user": "u-1",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "num_ctx": 4096,
        "brandNew": [{"x": None}],
    }
    assert request.messages[0].model_extra == {
        "name": "bob",
        "cache_control": {"type": "ephemeral"},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", 2),
        ("temperature", 1),
        ("top_p", 0),
        ("top_p", 1.0),
        ("frequency_penalty", -2),
        ("presence_penalty", 2),
        ("max_tokens", 1),
        ("max_completion_tokens", 2**31 - 1),
        ("seed", -(2**63)),
        ("seed", 2**63 - 1),
        ("stop", "a"),
        ("stop", ["a", "b", "c", "d"]),
        ("n", 128),
        ("tools", []),
        ("stream", False),
        ("logit_bias", {}),
        ("response_format", {"type": "text"}),
        ("response_format", {"type": "json_object", "schema_": None}),
        *(
            ("reasoning_effort", effort)
            for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
        ),
    ],
)
def test_values_at_the_edge_are_accepted(field: str, value: Any) -> None:
    read = getattr(parse(asking(**{field: value})), field)
    assert (read.model_dump() if isinstance(read, BaseModel) else read) == value


@pytest.mark.compat("chat.request.messages[].tool_calls[].function.arguments")
@pytest.mark.parametrize("arguments", ["", " \n", "{}", ' {"a": [1, {"b": null}]} '])
def test_arguments_may_be_empty_or_any_object(arguments: str) -> None:
    message = parse(calls(name="f", arguments=arguments)).messages[1]
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls is not None
    expected = json.loads(arguments.strip() or "{}")
    assert message.tool_calls[0].function.arguments_object() == expected


WRITTEN_ARGUMENTS = [
    "{",
    "nope",
    "[]",
    "5",
    "null",
    '"{}"',
    "{}{}",
    "{'a': 1}",
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"a": ' + "[" * 9999,
    '{"a": ' + "9" * 9999 + "}",
    *('{"a": [%s]}' % (sign + "9" * 309) for sign in ("", "-")),
    # What takes long to read is not read.
    '{"a":[%s[]]}' % ("[]," * 100_000),
    *('{"a":' * depth + "{}" + "}" * depth for depth in (201, 1000, 1_000_000)),
]


@pytest.mark.compat("chat.request.messages[].tool_calls[].function.arguments")
@pytest.mark.parametrize("arguments", WRITTEN_ARGUMENTS, ids=range(len(WRITTEN_ARGUMENTS)))
def test_arguments_are_accepted_whatever_a_model_wrote(arguments: str) -> None:
    started = time.process_time()
    (_, message) = parse(calls(name="f", arguments=arguments)).messages
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls is not None
    function = message.tool_calls[0].function
    assert function.arguments == arguments
    assert function.arguments_object() == {"arguments": arguments}
    assert time.process_time() - started < 1


def test_arguments_that_are_null_are_empty() -> None:
    (_, message) = parse(calls(name="f", arguments=None)).messages
    assert message.dump_known()["tool_calls"][0]["function"] == {"name": "f", "arguments": ""}
    schema = FunctionCall.model_json_schema()["properties"]["arguments"]
    assert schema["anyOf"] == [{"type": "string"}, {"type": "null"}]


@given(st.dictionaries(st.text(), st.none() | st.integers(-(2**63), 2**64) | st.text()))
def test_arguments_are_parsed_without_loss(arguments: dict[str, Any]) -> None:
    call = FunctionCall(name="f", arguments=json.dumps(arguments))
    assert call.arguments_object() == arguments


@pytest.mark.compat("chat.request.messages[].tool_calls[].type")
def test_a_message_may_have_the_type_of_its_tool_calls_left_out() -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    message = parse(says(HELLO, {"role": "assistant", "toolCalls": [call]})).messages[1]
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls is not None
    assert message.tool_calls[0].type == "function"


@pytest.mark.compat("chat.request.messages[].content (null)")
def test_an_assistant_message_may_be_without_content() -> None:
    for message in ({"role": "assistant"}, {"role": "assistant", "content": None}):
        assert parse(says(HELLO, message)).messages[1].content is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    for ascii_only in (True, False):
        body = says({"role": "tool", "content": text, "tool_call_id": text})
        message = ChatCompletionRequest.parse(
            json.dumps(body, ensure_ascii=ascii_only).encode()
        ).messages[0]
        assert isinstance(message, ToolMessage)
        assert (message.content, message.tool_call_id) == (text, text)


# What is refused

NOT_AN_OBJECT = [b"[]", b"null", b"1", b'"text"', b"true"]

NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"{]",
    b"model=m",
    b"{'messages': []}",
    b'{"messages": [{"role": "user", "content": "Hello"}]}}',
    b'{"messages": [{"role": "user", "content": "Hello"}],}',
    b'{"messages": [{"role": "user", "content": "line\nbreak"}]}',
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
    rb'{"messages": [{"role": "user", "content": "\ud800"}]}',
    json.dumps(asking()).encode("utf-16"),
    json.dumps(asking()).encode("utf-8-sig"),
    b'{"messages": [{"role": "user", "content": "Hello"}], "seed": ' + b"9" * 9999 + b"}",
    b'{"messages": [{"role": "user", "content": "Hello"}], "x": ' + b"9" * 9999 + b', "n": "y"}',
    b'{"messages": [{"role": "user", "content": "Hello"}], "x": -' + b"9" * 9999 + b"}",
]


@pytest.mark.parametrize("body", NOT_AN_OBJECT)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.param) == (400, None)
    assert error.message == "The request body must be a JSON object."


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.param) == (400, None)
    assert error.message.startswith("The request body is not valid JSON: ")


@pytest.mark.compat(
    "chat.request.response_format.json_schema.name",
    "chat.request.response_format.json_schema.schema",
    "chat.request.tools[].function.name",
)
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        (says(), "messages"),
        (says({"role": "user"}), "messages[0].content"),
        (says(HELLO, {"role": "tool", "content": "x"}), "messages[1].tool_call_id"),
        (says({"role": "function", "content": "x"}), "messages[0].name"),
        (says({"content": "x"}), "messages[0].role"),
        (says({"role": "user", "content": [{"text": "x"}]}), "messages[0].content[0].type"),
        (says({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
        (says({"role": "assistant", "content": [{}]}), "messages[0].content[0].type"),
        (
            says({"role": "assistant", "content": [{"type": "refusal"}]}),
            "messages[0].content[0].refusal",
        ),
        (calls(name="f"), "messages[1].tool_calls[0].function.arguments"),
        (calls(arguments="{}"), "messages[1].tool_calls[0].function.name"),
        (asking(tools=[{"function": {"name": "f"}}]), "tools[0].type"),
        (asking(tools=[{"type": "function"}]), "tools[0].function"),
        (asking(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
        (asking(response_format={}), "response_format.type"),
        (asking(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (
            asking(response_format={"type": "json_schema", "json_schema": {"schema": {}}}),
            "response_format.json_schema.name",
        ),
        (
            asking(response_format={"type": "json_schema", "json_schema": {"name": "n"}}),
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_is_missing_is_named(body: Any, param: str) -> None:
    error = refused(json.dumps(body).encode())
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert param in error.message
    if body != says():
        assert error.message == f"Missing required parameter: '{param}'."


TEXT = {"type": "text", "text": "x"}
WRONG = {"type": "text", "text": 5}

WRONG_ARGUMENTS: list[Any] = [{}, [], 5]

WRONG_FIELDS: dict[str, list[Any]] = {
    "model": [5, ["m"], {}],
    "temperature": ["0.5", True, -0.1, 2.1, []],
    "top_p": ["1", -0.1, 1.1],
    "max_tokens": ["5", 0, -1, 5.0, 5.5, True, 2**31, 10**100],
    "max_completion_tokens": ["5", 0, 1.5, 2**31],
    "seed": ["1", 1.5, True, 2**63, -(2**63) - 1, 10**100],
    "frequency_penalty": ["1", 2.1, -2.1],
    "presence_penalty": ["1", 2.1, -2.1],
    "stop": [5, {}, ["a", 5], [None], ["a"] * 5, True],
    "n": [0, -1, 129, "1", 1.0, True],
    "logprobs": [1, "true"],
    "stream": [1, "true", 0],
    "reasoning_effort": ["huge", "", "Low", True, 5],
    "logit_bias": [[], "x"],
    "parallel_tool_calls": [0, "false"],
    "verbosity": ["loud", 1, {}],
    "tools": [{}, "x"],
    "response_format": ["json", []],
}

PNG = "data:image/png;base64,AAAA"
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
SOUND = {"data": "AAAA", "format": "wav"}
AUDIO = {"type": "input_audio", "input_audio": SOUND}

WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    # messages
    ({"messages": None}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": {"role": "user", "content": "Hello"}}, "messages"),
    (says("Hello"), "messages[0]"),
    (says(HELLO, None), "messages[1]"),
    (says({"role": "wizard", "content": "x"}), "messages[0].role"),
    (says({"role": None, "content": "x"}), "messages[0].role"),
    (says({"role": 5, "content": "x"}), "messages[0].role"),
    (says({"role": ["user"], "content": "x"}), "messages[0].role"),
    (says({"role": "User", "content": "x"}), "messages[0].role"),
    *(
        (says(HELLO, {**more, "role": role, "content": content}), "messages[1].content")
        for role, more in [
            ("system", {}),
            ("developer", {}),
            ("user", {}),
            ("tool", {"tool_call_id": "call_1"}),
        ]
        for content in (None, 5, True, {"type": "text", "text": "x"})
    ),
    (says({"role": "assistant", "content": 5}), "messages[0].content"),
    (says({"role": "function", "name": "f", "content": 5}), "messages[0].content"),
    *(
        (says({**more, "role": role, "content": [TEXT, WRONG]}), "messages[0].content[1].text")
        for role, more in [
            ("system", {}),
            ("developer", {}),
            ("user", {}),
            ("assistant", {}),
            ("tool", {"tool_call_id": "call_1"}),
        ]
    ),
    (says({"role": "user", "content": ["x"]}), "messages[0].content[0]"),
    (says({"role": "user", "content": [{"type": "x"}]}), "messages[0].content[0].type"),
    (says({"role": "assistant", "content": [{"type": "x"}]}), "messages[0].content[0].type"),
    (
        says({"role": "user", "content": [{**IMAGE, "image_url": {"url": PNG, "detail": "x"}}]}),
        "messages[0].content[0].image_url.detail",
    ),
    (
        says({"role": "user", "content": [{**AUDIO, "input_audio": {**SOUND, "format": "ogg"}}]}),
        "messages[0].content[0].input_audio.format",
    ),
    (
        says({"role": "assistant", "content": [{"type": "refusal", "refusal": 5}]}),
        "messages[0].content[0].refusal",
    ),
    (says({"role": "assistant", "reasoning": 5}), "messages[0].reasoning"),
    (says({"role": "assistant", "reasoning_content": []}), "messages[0].reasoning_content"),
    (says({"role": "assistant", "tool_calls": {}}), "messages[0].tool_calls"),
    (says({"role": "assistant", "tool_calls": [5]}), "messages[0].tool_calls[0]"),
    (
        says({"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}),
        "messages[0].tool_calls[0].id",
    ),
    (
        says({"role": "assistant", "tool_calls": [CALL, {**CALL, "type": "x"}]}),
        "messages[0].tool_calls[1].type",
    ),
    (calls(name=5, arguments="{}"), "messages[1].tool_calls[0].function.name"),
    *(
        (calls(name="f", arguments=arguments), "messages[1].tool_calls[0].function.arguments")
        for arguments in WRONG_ARGUMENTS
    ),
    (says({"role": "tool", "content": "x", "tool_call_id": 5}), "messages[0].tool_call_id"),
    (says({"role": "tool", "content": "x", "toolCallId": 5}), "messages[0].toolCallId"),
    # A key that is called like the role is not a step of the path.
    (says({"role": "user", "user": "bob", "content": 5}), "messages[0].content"),
    (says({"role": "tool", "tool": {}, "content": "x"}), "messages[0].tool_call_id"),
    # sampling
    *(
        (asking(**{field: value}), field)
        for field, values in WRONG_FIELDS.items()
        for value in values
    ),
    (asking(logit_bias={"1": "x"}), "logit_bias.1"),
    (asking(topP="1"), "topP"),
    (asking(maxTokens=0), "maxTokens"),
    (asking(logprobs=True, top_logprobs=21), "top_logprobs"),
    (asking(logprobs=True, top_logprobs=-1), "top_logprobs"),
    (asking(logprobs=True, top_logprobs="2"), "top_logprobs"),
    (asking(top_logprobs=2), "top_logprobs"),
    (asking(top_logprobs=2, logprobs=False), "top_logprobs"),
    (asking(stream_options={"include_usage": True}), "stream_options"),
    (asking(stream_options={}, stream=False), "stream_options"),
    (asking(stream_options=5, stream=True), "stream_options"),
    (asking(stream_options={"include_usage": 1}, stream=True), "stream_options.include_usage"),
    (asking(streamOptions={"includeUsage": 1}, stream=True), "streamOptions.includeUsage"),
    # tools
    (asking(tools=["f"]), "tools[0]"),
    (asking(tools=[{"type": "web_search"}]), "tools[0].type"),
    (asking(tools=[{"type": "function", "function": "f"}]), "tools[0].function"),
    (asking(tools=[{"type": "function", "function": {"name": ""}}]), "tools[0].function.name"),
    (
        asking(tools=[FULL["tools"][0], {"type": "function", "function": {"name": 5}}]),
        "tools[1].function.name",
    ),
    (
        asking(tools=[{"type": "function", "function": {"name": "f", "parameters": "{}"}}]),
        "tools[0].function.parameters",
    ),
    (
        asking(tools=[{"type": "function", "function": {"name": "f", "strict": 1}}]),
        "tools[0].function.strict",
    ),
    # response_format
    (asking(response_format={"type": "xml"}), "response_format.type"),
    (asking(response_format={"type": None}), "response_format.type"),
    (asking(responseFormat={"type": "xml"}), "responseFormat.type"),
    (
        asking(response_format={"type": "json_schema", "json_schema": "x"}),
        "response_format.json_schema",
    ),
    (
        asking(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": 5}}),
        "response_format.json_schema.schema",
    ),
    (
        asking(responseFormat={"type": "json_schema", "jsonSchema": {"name": 5, "schema": {}}}),
        "responseFormat.jsonSchema.name",
    ),
]


@pytest.mark.compat(
    "chat.request.messages",
    "chat.request.messages[].role",
    "chat.request.messages[].content[].type",
    "chat.request.messages[].content[].image_url.detail",
    "chat.request.messages[].content[].input_audio.format",
    "chat.request.messages[].tool_calls[].type",
    "chat.request.messages[].tool_calls[].function.arguments",
    "chat.request.frequency_penalty",
    "chat.request.max_tokens",
    "chat.request.presence_penalty",
    "chat.request.reasoning_effort",
    "chat.request.response_format.type",
    "chat.request.seed",
    "chat.request.stop",
    "chat.request.tools[].type",
    "chat.request.top_logprobs",
    "errors.response.error.message",
)
@pytest.mark.parametrize(
    ("body", "param"),
    WRONG_VALUES,
    ids=[f"{number}-{param}" for number, (_, param) in enumerate(WRONG_VALUES)],
)
def test_a_wrong_value_is_named(body: dict[str, Any], param: str) -> None:
    error = refused(json.dumps(body).encode())
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert f"'{param}'" in error.message
    assert "pydantic" not in error.message


@pytest.mark.compat("chat.request.tool_choice.type")
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search_preview"},
        {"function": {"name": "f"}},
    ],
    ids=["web search", "no type"],
)
def test_another_choice_of_a_tool_is_refused(choice: dict[str, Any]) -> None:
    error = refused(json.dumps(asking(tools=FULL["tools"], tool_choice=choice)).encode())
    assert error.param == "tool_choice.type"


@pytest.mark.compat("chat.request.tool_choice.function.name")
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "g"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": name}} for name in "fg"],
            },
        },
    ],
    ids=["named", "allowed"],
)
def test_a_function_that_is_chosen_has_to_be_among_the_tools(choice: dict[str, Any]) -> None:
    f = FULL["tools"][0]
    g = {"type": "function", "function": {"name": "g"}}
    for tools in ([f], [], None):
        error = refused(json.dumps(asking(tools=tools, tool_choice=choice)).encode())
        assert error.param == "tool_choice"
    assert parse(asking(tools=[f, g], tool_choice=choice)).dump_known()["tool_choice"] == choice


def test_the_first_of_many_errors_is_reported() -> None:
    error = refused(json.dumps({"messages": [{"role": "user"}, {}], "n": 0}).encode())
    assert error.param == "n"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused_anywhere(number: float) -> None:
    # It would go on to the engine, which reads real JSON.
    schema = {"type": "number", "default": number}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    for fields in ({"tools": [tool]}, {"temperature": number}, {"x": number}):
        error = refused(json.dumps(asking(**fields)).encode())
        assert error.status == 400
        assert error.message.startswith("The request body is not valid JSON: ")


@pytest.mark.parametrize(
    "number",
    ["1e999", "-1e400", "9" * 400 + ".0", "1E+1000", "9" * 309, "-1" + "0" * 400],
)
def test_a_number_that_is_too_large_is_named_wherever_it_is(number: str) -> None:
    # It would be infinite, and could not be written as JSON again. Go reads no such integer.
    tool = '{"type": "function", "function": {"name": "f", "parameters": {"a": [1, {"b": %s}]}}}'
    start = '{"messages": [{"role": "user", "content": "Hello"}]'
    body = f'{start}, "tools": [{tool % number}]}}'
    error = refused(body.encode())
    assert error.param == "tools[0].function.parameters.a[1].b"
    assert refused(f'{start}, "temperature": {number}}}'.encode()).param == "temperature"
    assert refused(f'{start}, "anything": {number}}}'.encode()).param == "anything"


@pytest.mark.compat("chat.request.messages")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [HELLO] * 10_001}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 1001}]}, ""),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 1001}]}, ""),
        (asking(tools=[FULL["tools"][0]] * 1001), "tools"),
        (
            asking(
                tools=FULL["tools"],
                tool_choice={
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": []},
                },
            ),
            "tool_choice.allowed_tools.tools",
        ),
        (asking(logit_bias={str(number): 1 for number in range(1001)}), "logit_bias"),
    ],
    ids=["messages", "parts", "tool calls", "tools", "allowed tools", "biases"],
)
def test_there_are_limits_to_how_many(body: dict[str, Any], param: str) -> None:
    error = refused(json.dumps(body).encode())
    assert (error.param or "").startswith(param or "messages[0].")
    limit = re.search(r"at (?:most|least) (\d+) items?\.$|up to (\d+) keys\.$", error.message)
    assert limit is not None
    assert limit[1] or limit[2] in {"1", "1000", "10000"}


@pytest.mark.parametrize("item", [b"0", b"{}"])
@pytest.mark.parametrize(
    ("before", "param"),
    [
        (b'{"messages":[', "messages[0]"),
        (b'{"messages":[{"role":"user","content":[', "messages[0].content[0]"),
        (b'{"messages":[{"role":"assistant","content":[', "messages[0].content[0]"),
        (b'{"messages":[{"role":"assistant","tool_calls":[', "messages[0].tool_calls[0]"),
        (b'{"messages":[{"role":"user","content":"x"}],"tools":[', "tools[0]"),
    ],
)
def test_a_million_errors_take_no_longer_than_one(item: bytes, before: bytes, param: str) -> None:
    after = b"]" + b"}]" * (before.count(b"[") - 1 - before.count(b"]")) + b"}"
    # Of objects no more are read.
    count = 1_000_000 if item == b"0" else 90_000
    body = before + b",".join([item] * count) + after
    started = time.process_time()
    error = refused(body)
    # Each error would take a microsecond and a kilobyte: seconds, and a gigabyte.
    assert time.process_time() - started < 1
    assert (error.param or "").startswith(param)


HELLO_JSON = b'{"role":"user","content":"Hello"}'


@pytest.mark.parametrize(
    "fields",
    [
        b'"options":{%b}' % b",".join(b'"%d":0' % number for number in range(100_000)),
        b'"unknown":[%b]' % b",".join([b"[[[[[[[[[[]]]]]]]]]]"] * 10_000),
        b'"unknown":[%b]' % b",".join([b"{}"] * 100_000),
        b'"unknown":[%b":"]' % (b'"\\\\","\\"",' * 300_000),
        b'"unknown":{"\\\\":{"\\"":[%b]}}' % b",".join([b"[]"] * 100_000),
    ],
    ids=["keys", "arrays", "objects", "strings", "escapes"],
)
def test_a_body_that_takes_long_to_read_is_not_read(fields: bytes) -> None:
    started = time.process_time()
    error = refused(b'{"messages":[%b],"x":"%b",%b}' % (HELLO_JSON, b":" * 100_000, fields))
    assert time.process_time() - started < 1
    assert error.message == (
        "The request body is too complex: it may contain at most 100000 keys, objects and arrays."
    )


@pytest.mark.parametrize(
    "text",
    ['{"a": [', '\\": [{', "\\\\", '\\\\\\": {"a": '],
    ids=["json", "escaped", "slashes", "both"],
)
def test_what_looks_like_objects_within_a_text_is_text(text: str) -> None:
    request = parse({"messages": [{"role": "user", "content": text * 60_000}]})
    assert request.messages[0].content == text * 60_000


def test_a_number_that_is_too_large_is_soon_found_among_many() -> None:
    body = b'{"messages":[%b],"x":[%b1e999]}' % (HELLO_JSON, b"0," * 3_000_000)
    started = time.process_time()
    assert refused(body).param == "x[3000000]"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:" + ";" * 20_000_000 + ",AAAA", "at most 1000 characters before its data"),
        ("data:image/png," + "%41" * 5_000_000, "at most 100000 escapes"),
        ("data:image/png;base64," + "%" * 20_000_000, "at most 100000 escapes"),
    ],
    ids=["parameters", "escapes", "escapes of nothing"],
)
def test_a_data_uri_that_takes_long_to_read_is_not_read(url: str, reason: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
    started = time.process_time()
    error = refused(body)
    assert time.process_time() - started < 1
    assert error.param == "messages[0].content[0].image_url"
    assert reason in error.message


def test_what_is_declared_is_all_that_goes_on() -> None:
    body = {
        **FULL,
        "unknown": 1,
        "user": None,
        "messages": [{**message, "grammar": "x"} for message in FULL["messages"]],
        "response_format": {"type": "json_object", "schema": {"x": 1}, "grammar": "x"},
    }
    expected = {**FULL, "response_format": {"type": "json_object", "schema": {"x": 1}}}
    assert parse(body).dump_known() == expected
    assert parse(FULL).dump_known() == FULL


def test_a_call_is_declared_with_its_type() -> None:
    function = {"name": "f", "arguments": "{}"}
    body = {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}]}
    (message,) = parse(body).dump_known()["messages"]
    assert message["tool_calls"] == [{"id": "c", "type": "function", "function": function}]


def nested(depth: int) -> bytes:
    schema = b'{"a":' * depth + b"1" + b"}" * depth
    tool = b'{"type":"function","function":{"name":"f","parameters":{"a":%b}}}' % schema
    return b'{"messages":[{"role":"user","content":"Hello"}],"tools":[%b]}' % tool


# The body, its tools, one of them, its function and the parameters are levels of their own.
@pytest.mark.parametrize("depth", [1, 100, 195])
def test_what_is_nested_within_the_limit_can_be_written_again(depth: int) -> None:
    request = ChatCompletionRequest.parse(nested(depth))
    assert pydantic_core.to_json(request.model_dump(exclude_unset=True)) == nested(depth)


@pytest.mark.parametrize(
    "body",
    [
        *map(nested, (196, 250, 1000, 45_000)),
        b'{"messages": [], "x": ' + b"[" * 9999 + b"]" * 9999 + b"}",
        b'{"messages": ' + b"[" * 9999,
        b'{"messages": ' + b'{"a":' * 9999,
    ],
    ids=range(7),
)
def test_what_is_nested_too_deeply_is_refused(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.param) == (400, None)
    assert error.message == (
        "The request body is nested too deeply: it may have at most 200 levels."
    )


def test_what_has_too_many_levels_to_be_read_at_all_is_refused() -> None:
    for depth in (100_000, 1_000_000):
        assert "too complex: it may contain at most 100000 keys" in refused(nested(depth)).message


def arguments(depth: int) -> str:
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


def test_arguments_may_be_nested_as_deeply_as_a_body() -> None:
    request = parse(calls(name="f", arguments=arguments(200)))
    message = request.messages[1]
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls is not None
    parsed = message.tool_calls[0].function.arguments_object()
    assert pydantic_core.to_json(parsed).decode() == arguments(200)


@given(st.binary() | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        ChatCompletionRequest.parse(body)
    except InvalidRequest as error:
        assert error.message


PATHS = list(paths(FULL))


@settings(max_examples=2 * settings().max_examples)
@given(st.sampled_from(PATHS), any_json)
def test_anything_anywhere_is_refused_where_it_is(path: tuple[Any, ...], value: Any) -> None:
    body = replaced(FULL, path, value)
    try:
        ChatCompletionRequest.parse(json.dumps(body).encode())
    except InvalidRequest as error:
        if error.param is not None:
            together = {
                "stream": "stream_options",
                "logprobs": "top_logprobs",
                "tools": "tool_choice",
            }
            where = notation(path)
            # A changed role or type makes another field of the same message or tool wrong.
            whole = where.partition(".")[0]
            assert (
                error.param.startswith(whole)
                or where.startswith(error.param)
                or error.param == together.get(whole.partition("[")[0])
            )


# Functions, which are tools


@pytest.mark.compat("chat.request.function_call", "chat.request.functions")
@pytest.mark.parametrize(
    ("choice", "tool_choice"),
    [
        ({}, {}),
        ({"function_call": None}, {}),
        ({"function_call": "auto"}, {"tool_choice": "auto"}),
        ({"functionCall": "none"}, {"tool_choice": "none"}),
        (
            {"function_call": {"name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
    ],
)
def test_functions_are_tools(choice: dict[str, Any], tool_choice: dict[str, Any]) -> None:
    functions = [{"name": "f", "description": "d", "parameters": {"type": "object"}}, {"name": "g"}]
    request = parse(asking(functions=functions, **choice))
    tools = [{"type": "function", "function": function} for function in functions]
    assert request.dump_known({"tools", "tool_choice"}) == {"tools": tools, **tool_choice}
    assert request.client_param("tools") == "functions"
    for name in ("tools", "functions"):
        assert request.without([name]).tools is None


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({**FUNCTIONS, "tools": FULL["tools"]}, "functions", "Send only 'tools'"),
        ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "functions", "'tool_choice'"),
        ({"functions": [{"name": "f"}, {}]}, "functions[1].name", "Missing"),
        ({"functions": [{"name": "f", "parameters": 5}]}, "functions[0].parameters", "dict"),
        ({**FUNCTIONS, "function_call": {"name": "g"}}, "function_call", "'g'"),
        ({**FUNCTIONS, "function_call": "required"}, "function_call", "'none', 'auto'"),
        ({**FUNCTIONS, "function_call": {}}, "function_call.name", "Missing"),
        ({"function_call": {"name": "f"}}, "function_call", "'functions' are specified"),
    ],
)
def test_what_is_wrong_with_functions_is_named(
    fields: dict[str, Any], param: str, message: str
) -> None:
    error = refused(json.dumps(asking(**fields)).encode())
    assert (error.status, error.param) == (400, param)
    assert f"'{param}'" in error.message
    assert message in error.message


# Parameters of the Responses API


@pytest.mark.compat("chat.request.input, instructions, max_output_tokens, text")
@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("input", "Hello", "'messages'"),
        ("instructions", "Be brief.", "'system'"),
        ("max_output_tokens", 5, "'max_completion_tokens'"),
        ("maxOutputTokens", 5, "'max_completion_tokens'"),
        ("previous_response_id", "resp_1", "'messages'"),
        ("text", {"format": {"type": "json_object"}}, "'response_format'"),
    ],
)
def test_a_parameter_of_the_responses_api_names_the_one_here(
    name: str, value: Any, instead: str
) -> None:
    for body in (asking(**{name: value}), {name: value}):
        error = refused(json.dumps(body).encode())
        assert (error.status, error.param) == (400, name)
        assert f"'{name}'" in error.message
        assert instead in error.message
    assert parse(asking(**{name: None})).messages


# What a backend asks it


@pytest.mark.compat("chat.request.reasoning.effort")
@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"reasoning": {"effort": "high"}}, "high"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "low"),
        ({"reasoning": {}}, None),
        ({"reasoning": None}, None),
    ],
)
def test_the_effort_of_reasoning_has_another_name(fields: Any, effort: str | None) -> None:
    assert parse(asking(**fields)).reasoning_effort == effort


@pytest.mark.compat("chat.request.max_completion_tokens")
def test_the_newer_name_of_the_output_limit_wins() -> None:
    assert parse(asking()).output_limit is None
    assert parse(asking(max_tokens=5)).output_limit == 5
    assert parse(asking(max_completion_tokens=7)).output_limit == 7
    assert parse(asking(max_tokens=5, max_completion_tokens=7)).output_limit == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": None}, False),
        ({"include_usage": False}, False),
        ({"include_usage": True}, True),
        ({"includeUsage": True}, True),
    ],
)
def test_whether_usage_is_asked_for(options: dict[str, Any] | None, expected: bool) -> None:
    assert parse(asking(stream=True, stream_options=options)).include_usage is expected


def test_routing_gives_the_model_its_name_and_options_and_leaves_the_original() -> None:
    request = parse(asking(model="public", temperature=0.5))
    routed = request.routed_to("engine:1b", {"num_ctx": 4096})
    assert (routed.model, routed.engine_options) == ("engine:1b", {"num_ctx": 4096})
    assert (request.model, request.engine_options) == ("public", {})
    assert routed.messages == request.messages
    assert routed.temperature == 0.5
    assert routed.model_fields_set == {"model", "messages", "temperature"}


def test_engine_options_cannot_come_from_the_client() -> None:
    request = parse(asking(_engine_options={"num_ctx": 1}, engine_options={"num_ctx": 1}))
    assert request.engine_options == {}
