from __future__ import annotations

import base64
import json
from typing import Any

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.json_schema import portable_schema
from django_ollama_openai._translation.ollama_payload import (
    TOP_LEVEL_OPTIONS,
    ollama_chat_payload,
    ollama_completion_payload,
    ollama_embeddings_payload,
)
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.exceptions import InvalidRequest, UnsupportedParameter
from tests.recordings import load

HELLO = {"role": "user", "content": "Hello"}


def payload(
    *messages: dict[str, Any], engine: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    body = {"model": "m", "messages": messages or [HELLO], **fields}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    return ollama_chat_payload(request.routed_to("m", engine or {}), stream=False)


def completion(prompt: Any = "a", **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "prompt": prompt, **fields}
    return ollama_completion_payload(
        CompletionRequest.parse(json.dumps(body).encode()), stream=False
    )


def embeddings(input: Any = "a", **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "input": input, **fields}
    return ollama_embeddings_payload(EmbeddingsRequest.parse(json.dumps(body).encode()))


def message(**fields: Any) -> dict[str, Any]:
    translated: list[dict[str, Any]] = payload(fields)["messages"]
    (only,) = translated
    return only


def call(id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.compat("chat.request.temperature", "chat.request.top_p")
def test_a_plain_request_carries_nothing_that_the_client_did_not_send() -> None:
    assert payload() == {
        "model": "m",
        "messages": [HELLO],
        "stream": False,
        "truncate": False,
        "shift": False,
    }


@pytest.mark.parametrize("stream", [True, False])
def test_ollama_streams_as_the_caller_says_and_not_as_the_request_does(stream: bool) -> None:
    body = {"model": "m", "messages": [HELLO], "stream": not stream}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    assert ollama_chat_payload(request, stream=stream)["stream"] is stream
    body = {"model": "m", "prompt": "a", "stream": not stream}
    prompt = CompletionRequest.parse(json.dumps(body).encode())
    assert ollama_completion_payload(prompt, stream=stream)["stream"] is stream


# Messages


@pytest.mark.compat("chat.request.messages[].refusal")
def test_a_refusal_beside_the_content_is_the_text_of_the_answer() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I must not."}
    assert message(**refused) == {"role": "assistant", "content": "I must not."}


@pytest.mark.compat("chat.request.messages[].function_call")
def test_a_call_from_before_tools_had_ids_is_a_call() -> None:
    asked = {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    result = {"role": "function", "name": "f", "content": "x"}
    answer, told = payload(asked, result)["messages"]
    function = {"index": 0, "name": "f", "arguments": {"a": 1}}
    assert answer == {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    assert told == {"role": "tool", "content": "x", "tool_name": "f"}


def test_the_result_of_a_tool_may_have_pictures() -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": [picture()]}
    assert message(**result) == {
        "role": "tool",
        "content": "",
        "tool_call_id": "c",
        "images": [base64.b64encode(PNG).decode()],
    }


@pytest.mark.compat("chat.request.messages[].role", "responses.request.input[].role")
@pytest.mark.parametrize(
    ("role", "expected"),
    [("system", "system"), ("developer", "system"), ("user", "user"), ("assistant", "assistant")],
)
def test_roles(role: str, expected: str) -> None:
    assert message(role=role, content="x") == {"role": expected, "content": "x"}


PNG = b"\x89PNG\r\n\x1a\n"


def picture(data: bytes = PNG, kind: str = "image/png") -> dict[str, Any]:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.compat(
    "chat.request.messages[].content[].image_url.url",
    "responses.request.input[].content[].image_url",
)
@pytest.mark.parametrize(
    "kind", ["image/png", "image/gif", "image/bmp", "image/avif", "IMAGE/JPEG"]
)
def test_pictures_of_any_type_go_with_the_text_of_their_message(kind: str) -> None:
    what, now = {"type": "text", "text": "What"}, {"type": "text", "text": "now?"}
    parts = [what, picture(kind=kind), now]
    assert message(role="user", content=parts) == {
        "role": "user",
        "content": "What\nnow?",
        "images": [base64.b64encode(PNG).decode()],
    }


@pytest.mark.compat("chat.request.messages[].content[].input_audio.data")
def test_pictures_and_sounds_keep_their_order() -> None:
    sound = {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}
    parts = [picture(b"1"), {"type": "input_audio", "input_audio": sound}, picture(b"2")]
    images = message(role="user", content=parts)["images"]
    assert list(map(base64.b64decode, images)) == [b"1", b"RIFF", b"2"]


@given(st.binary(min_size=1), st.booleans(), st.booleans())
def test_no_byte_of_a_picture_is_lost(data: bytes, is_url_safe: bool, is_padded: bool) -> None:
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    encoded = encode(data).decode()
    url = f"data:image/png;base64,{encoded if is_padded else encoded.rstrip('=')}"
    part = {"type": "image_url", "image_url": {"url": url}}
    (sent,) = message(role="user", content=[part])["images"]
    assert base64.b64decode(sent, validate=True) == data


def test_a_picture_whose_data_is_not_base64() -> None:
    part = {
        "type": "image_url",
        "image_url": {"url": "data:image/svg+xml;charset=utf-8,%3Csvg/%3E"},
    }
    (sent,) = message(role="user", content=[part])["images"]
    assert base64.b64decode(sent) == b"<svg/>"


def test_a_picture_that_was_not_fetched_does_not_go_out() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}
    with pytest.raises(InvalidRequest, match="send a data URI"):
        message(role="user", content=[part])


@pytest.mark.compat("chat.request.messages[].content", "chat.request.messages[].content[].text")
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_the_parts_of_a_message_stay_one_message(role: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert message(role=role, content=parts)["content"] == "one\ntwo"
    assert message(role=role, content=parts[:1])["content"] == "one"
    assert message(role=role, content=[])["content"] == ""


@pytest.mark.compat("chat.request.messages[].content[].refusal")
def test_the_refusal_of_an_earlier_answer_is_a_part_of_it() -> None:
    parts = [{"type": "text", "text": "No."}, {"type": "refusal", "refusal": "I must not."}]
    assert message(role="assistant", content=parts)["content"] == "No.\nI must not."


@pytest.mark.compat("chat.request.messages[].content (null)")
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_an_answer_without_content_has_an_empty_one(content: dict[str, Any]) -> None:
    assert message(role="assistant", **content) == {"role": "assistant", "content": ""}


@pytest.mark.compat("chat.request.messages[].content[].text")
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_goes_out_byte_for_byte(text: str) -> None:
    assert message(role="user", content=text)["content"] == text
    assert message(role="user", content=[{"type": "text", "text": text}])["content"] == text
    assert completion(suffix=text).get("suffix", "") == text
    if text:
        assert completion(text)["prompt"] == text


@pytest.mark.compat("chat.request.messages[].reasoning_content")
@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "b"}, "b"),
        ({"reasoningContent": "a"}, "a"),
        ({"reasoning_content": "a", "reasoning": "b"}, "a"),
        ({"reasoning_content": "", "reasoning": "b"}, "b"),
        ({"reasoning_content": None}, None),
        ({"reasoning": ""}, None),
    ],
)
def test_the_reasoning_of_an_earlier_answer(fields: dict[str, Any], thinking: str | None) -> None:
    assert message(role="assistant", content="x", **fields).get("thinking") == thinking


@pytest.mark.compat(
    "chat.request.messages[].tool_calls[].id", "chat.request.messages[].tool_calls[].function.name"
)
def test_earlier_tool_calls_have_their_ids_and_their_arguments_as_an_object() -> None:
    calls = [call("call_1", "f", '{"a": {"b": [1, null]}}'), call("call_2", "g", "")]
    assert message(role="assistant", tool_calls=calls) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "function": {"index": 0, "name": "f", "arguments": {"a": {"b": [1, None]}}},
            },
            {"id": "call_2", "function": {"index": 1, "name": "g", "arguments": {}}},
        ],
    }


@pytest.mark.compat("chat.request.messages[].tool_calls[].function.arguments")
@pytest.mark.parametrize("text", ['{"city": "Par', "I cannot.", "null", "[1]", '{"a": NaN}'])
def test_arguments_that_are_no_object_are_sent_as_one(text: str) -> None:
    function = {"index": 0, "name": "f", "arguments": {"arguments": text}}
    sent = message(role="assistant", tool_calls=[call("call_1", "f", text)])
    assert sent["tool_calls"] == [{"id": "call_1", "function": function}]
    sent = message(role="assistant", function_call={"name": "f", "arguments": text})
    assert sent["tool_calls"] == [{"function": function}]


@pytest.mark.compat(
    "chat.request.messages[].tool_calls[].function.name", "chat.request.messages[].tool_call_id"
)
def test_the_result_of_a_tool_names_the_tool_of_its_call() -> None:
    messages = payload(
        HELLO,
        {"role": "assistant", "tool_calls": [call("call_1", "f"), call("call_2", "g")]},
        {"role": "tool", "content": "second", "tool_call_id": "call_2"},
        {"role": "tool", "content": [{"type": "text", "text": "1"}], "tool_call_id": "call_1"},
    )["messages"]
    assert messages[2:] == [
        {"role": "tool", "content": "second", "tool_call_id": "call_2", "tool_name": "g"},
        {"role": "tool", "content": "1", "tool_call_id": "call_1", "tool_name": "f"},
    ]


def test_of_calls_that_share_an_id_the_last_one_before_the_result_counts() -> None:
    result = {"role": "tool", "content": "x", "tool_call_id": "call_1"}
    messages = payload(
        HELLO,
        {"role": "assistant", "tool_calls": [call("call_1", "f")]},
        result,
        {"role": "assistant", "tool_calls": [call("call_1", "g"), call("call_1", "h")]},
        result,
        {"role": "assistant", "tool_calls": [call("call_1", "i")]},
    )["messages"]
    assert [entry["tool_name"] for entry in messages if entry["role"] == "tool"] == ["f", "h"]


def test_the_result_of_an_unknown_call_has_no_name() -> None:
    assert message(role="tool", content="x", tool_call_id="call_1") == {
        "role": "tool",
        "content": "x",
        "tool_call_id": "call_1",
    }


@pytest.mark.compat("chat.request.messages[].name")
def test_the_result_of_a_function_has_the_name_it_came_with() -> None:
    assert message(role="function", content=None, name="f") == {
        "role": "tool",
        "content": "",
        "tool_name": "f",
    }


# Tools

NESTED = load("chat_tools_nested_schema").request["json"]["tools"]

REFERENCES = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$defs": {"node_type": {"type": "object", "properties": {"next": {"$ref": "#"}}}},
                "type": "object",
                "properties": {
                    "camelCase": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                    "snake_case": {"type": "number", "minimum": 0.0, "maximum": 2**70},
                    "name": {"enum": ["é", "\u2028", 1, True, None]},
                },
                "patternProperties": {"^x_": {}},
                "required": [],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "g", "description": None, "strict": False}},
    {"type": "function", "function": {"name": "h"}, "cache_control": {"type": "ephemeral"}},
]


def schemas(tools: list[dict[str, Any]]) -> list[Any]:
    return [tool["function"].get("parameters") for tool in tools]


@pytest.mark.compat(
    "chat.request.tools[].function.name",
    "chat.request.tools[].function.description",
    "chat.request.tools[].function.parameters",
    "chat.request.tools[].function.strict",
)
@pytest.mark.parametrize("tools", [NESTED, REFERENCES], ids=["nested", "references"])
def test_tools_go_out_as_they_came(tools: list[dict[str, Any]]) -> None:
    sent = payload(tools=tools)["tools"]
    for tool in tools:
        # Ollama makes null of what is missing, and fails.
        tool["function"].setdefault("parameters", {"type": "object", "properties": {}})
    assert json.loads(pydantic_core.to_json(sent)) == tools
    # As text, since the order of a schema's properties is the order of the answer's.
    assert json.dumps(schemas(sent)) == json.dumps(schemas(tools))


@pytest.mark.compat("chat.request.tools[].function.parameters")
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"type": "object"}, {}),
        ({"type": None, "properties": None}, {}),
        ({"properties": {"a": {}}}, {"properties": {"a": {}}}),
        ({"type": "object", "additionalProperties": False}, {"additionalProperties": False}),
    ],
)
def test_a_tool_always_has_an_object_of_parameters(parameters: Any, expected: Any) -> None:
    function = {"name": "f", "parameters": parameters}
    for fields in (
        {"tools": [{"type": "function", "function": function}]},
        {"functions": [function]},
    ):
        (sent,) = payload(**fields)["tools"]
        assert sent["type"] == "function"
        assert sent["function"]["parameters"] == {"type": "object", "properties": {}, **expected}


@pytest.mark.parametrize("tools", [None, []])
def test_no_tools_are_no_tools(tools: list[Any] | None) -> None:
    assert "tools" not in payload(tools=tools)


# Format, thinking, log probabilities


SCHEMA = load("chat_format_schema").request["json"]["format"]


@pytest.mark.compat(
    "chat.request.response_format.type",
    "chat.request.response_format.json_schema.description",
    "chat.request.response_format.json_schema.schema",
    "chat.request.response_format.json_schema.strict",
    "chat.request.response_format.schema",
)
@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_object", "schema": None}, "json"),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        (
            {"type": "json_object", "schema": {"properties": {"next": {"$ref": "#"}}}},
            {
                "$ref": "#/$defs/schema",
                "$defs": {"schema": {"properties": {"next": {"$ref": "#/$defs/schema"}}}},
            },
        ),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "jsonSchema": {"name": "n", "schema": SCHEMA}}, SCHEMA),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": SCHEMA, "description": "d", "strict": False},
            },
            SCHEMA,
        ),
    ],
)
def test_the_format_of_the_answer(response_format: Any, expected: Any) -> None:
    assert payload(response_format=response_format).get("format") == expected


@pytest.mark.compat("chat.request.reasoning_effort", "responses.request.reasoning.effort")
@pytest.mark.parametrize(
    ("effort", "think"),
    [
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "max"),
        ("max", "max"),
    ],
)
def test_the_effort_of_reasoning(effort: str, think: str | bool) -> None:
    assert payload(reasoning_effort=effort)["think"] == think


def test_thinking_is_left_to_the_model_unless_the_client_says_something() -> None:
    assert "think" not in payload(reasoning_effort=None)


@pytest.mark.compat("chat.request.logprobs", "chat.request.top_logprobs")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"logprobs": False}, {}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
    ],
)
def test_log_probabilities(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = payload(**fields)
    assert {name: body[name] for name in ("logprobs", "top_logprobs") if name in body} == expected


# Options


@pytest.mark.compat(
    "chat.request.frequency_penalty",
    "chat.request.max_completion_tokens",
    "chat.request.max_tokens",
    "chat.request.presence_penalty",
    "chat.request.seed",
    "chat.request.stop",
    "chat.request.temperature",
    "chat.request.top_p",
)
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"top_p": 0}, {"top_p": 0}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -1}, {"seed": -1}),
        ({"frequency_penalty": 0}, {"frequency_penalty": 0}),
        ({"presence_penalty": -2}, {"presence_penalty": -2}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_completion_tokens": 6}, {"num_predict": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"num_predict": 6}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"temperature": 1, "topP": 0.5}, {"temperature": 1, "top_p": 0.5}),
    ],
)
def test_only_the_options_that_were_sent_go_out(
    fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert payload(**fields)["options"] == options


@pytest.mark.compat("chat.request.stop")
@pytest.mark.parametrize(
    ("stop", "expected"), [("", {}), ([], {}), (["", ""], {}), (["", "x"], {"stop": ["x"]})]
)
def test_stop_strings_that_are_empty_are_none(stop: Any, expected: dict[str, Any]) -> None:
    assert payload(stop=stop).get("options", {}) == expected
    assert payload(options={"stop": stop}).get("options", {}) == expected


def test_options_that_are_null_do_not_go_out() -> None:
    names = ("temperature", "top_p", "seed", "stop", "max_tokens", "frequency_penalty")
    assert "options" not in payload(**dict.fromkeys(names))


@pytest.mark.compat(
    "chat.request.metadata",
    "chat.request.moderation",
    "chat.request.prompt_cache_options",
    "chat.request.prompt_cache_retention",
    "chat.request.service_tier",
    "chat.request.store",
    "chat.request.stream_options.include_obfuscation",
    "chat.request.user",
)
@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"format": "json", "raw": True, "images": ["/etc/passwd"], "num_ctx": 1},
        {"stream_options": {"include_usage": True}, "stream": True, "n": 1, "tool_choice": "auto"},
        {"parallel_tool_calls": True, "logit_bias": {}, "verbosity": "low"},
        {"moderation": {"model": "m"}, "prompt_cache_key": "k", "safety_identifier": "s"},
        {"prompt_cache_options": {"mode": "implicit"}, "prompt_cache_retention": "24h"},
        {"stream_options": {"include_obfuscation": True}, "stream": True},
    ],
)
def test_what_ollama_has_no_place_for_does_not_go_out(fields: dict[str, Any]) -> None:
    assert payload(**fields) == payload()


@pytest.mark.compat(
    "chat.request.messages[].content[].prompt_cache_breakpoint",
    "chat.request.messages[].name",
    "chat.request.messages[].audio",
)
def test_no_message_carries_more_than_its_own_fields() -> None:
    extra = {"images": ["/etc/passwd"], "thinking": "x", "tool_name": "x", "name": "bob"}
    assert message(role="user", content="x", **extra) == {"role": "user", "content": "x"}
    text = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert message(role="user", content=[text]) == {"role": "user", "content": "x"}
    older = {"audio": {"id": "audio_1"}, "refusal": "No."}
    assert message(role="assistant", content="x", **older) == {"role": "assistant", "content": "x"}


# The engine's options


def test_engine_options_are_split_between_the_body_and_its_options() -> None:
    body = payload(
        engine={
            "num_ctx": 8192,
            "top_k": 40,
            "keep_alive": "10m",
            "think": True,
            "shift": False,
            "truncate": True,
        }
    )
    assert body["options"] == {"num_ctx": 8192, "top_k": 40}
    assert {name: body[name] for name in TOP_LEVEL_OPTIONS} == {
        "keep_alive": "10m",
        "think": True,
        "shift": False,
        "truncate": True,
    }


@pytest.mark.parametrize(
    ("engine", "fields", "expected"),
    [
        ({"temperature": 0.1}, {"temperature": 0.9}, {"temperature": 0.9}),
        ({"temperature": 0.1}, {"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.1}, {"temperature": None}, {"temperature": 0.1}),
        ({"num_predict": 10}, {"max_tokens": 5}, {"num_predict": 5}),
        ({"stop": ["a"]}, {"stop": "b"}, {"stop": ["b"]}),
        ({"num_ctx": 8}, {"seed": 1}, {"num_ctx": 8, "seed": 1}),
    ],
)
def test_the_request_wins_over_the_engine_options(
    engine: dict[str, Any], fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert payload(engine=engine, **fields)["options"] == expected


def test_the_request_wins_over_what_the_site_thinks_of_thinking() -> None:
    assert payload(engine={"think": True}, reasoning_effort="none")["think"] is False
    assert payload(engine={"think": "high"})["think"] == "high"


@pytest.mark.compat("chat.request.truncate")
def test_a_prompt_that_is_too_long_is_an_error_unless_the_site_says_otherwise() -> None:
    assert payload()["truncate"] is False
    assert payload(engine={"truncate": True})["truncate"] is True


def test_neither_the_request_nor_the_engine_options_are_changed() -> None:
    options = {"num_ctx": 8192, "keep_alive": "10m"}
    request = ChatCompletionRequest.parse(
        json.dumps({"messages": [HELLO], "temperature": 1}).encode()
    ).routed_to("m", options)
    first = ollama_chat_payload(request, stream=True)
    first["options"]["num_ctx"] = 1
    first["messages"].append(HELLO)
    assert ollama_chat_payload(request, stream=True)["options"] == {
        "num_ctx": 8192,
        "temperature": 1,
    }
    assert options == {"num_ctx": 8192, "keep_alive": "10m"}
    assert len(request.messages) == 1


@pytest.mark.parametrize("ref", ["#", "#/a"])
def test_a_schema_is_read_once_for_all_choices(ref: str) -> None:
    response_format = {"type": "json_object", "schema": {"items": {"$ref": ref}}}
    body = {"messages": [HELLO], "n": 2, "response_format": response_format}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    read = []

    def translate(schema: dict[str, Any], param: str) -> dict[str, Any]:
        read.append(param)
        return portable_schema(schema, param)

    outcomes: list[Any] = []
    for index in range(2):
        choice = request.routed_to("m", {}).for_choice(index)
        try:
            outcomes.append(choice.translated_schema(translate))
        except InvalidRequest as error:
            outcomes.append((error.message, error.param))
    assert outcomes[0] == outcomes[1]
    assert read == ["response_format.schema"]


# Completions


@pytest.mark.compat(
    "completions.request.prompt",
    "completions.request.frequency_penalty",
    "completions.request.presence_penalty",
    "completions.request.temperature",
    "completions.request.top_p",
)
def test_a_plain_prompt_is_continued_as_it_is() -> None:
    assert completion("The capital of France is") == {
        "model": "m",
        "prompt": "The capital of France is",
        "raw": True,
        "stream": False,
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 16},
    }


def test_it_is_the_request_that_a_real_server_was_sent() -> None:
    recorded = load("generate_raw").request["json"]
    body = completion(recorded["prompt"], model=recorded["model"], temperature=0, seed=1)
    assert body == {**recorded, "truncate": False, "shift": False}


@pytest.mark.compat("completions.request.suffix")
def test_a_suffix_takes_the_models_own_template() -> None:
    body = completion("def add(", suffix="return c")
    assert body["suffix"] == "return c"
    assert "raw" not in body
    assert completion(suffix=None) == completion(suffix="") == completion()


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        (None, {}),
        (0, {"logprobs": True, "top_logprobs": 0}),
        (5, {"logprobs": True, "top_logprobs": 5}),
    ],
)
def test_log_probabilities_of_a_completion(logprobs: int | None, expected: dict[str, Any]) -> None:
    body = completion(logprobs=logprobs)
    assert {name: body[name] for name in ("logprobs", "top_logprobs") if name in body} == expected


@pytest.mark.compat("completions.request.user")
@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "n": 3, "best_of": 3, "echo": True, "logit_bias": {}},
        {"format": "json", "images": ["/etc/passwd"], "system": "x", "template": "x"},
        {"context": [1], "num_ctx": 1, "raw": False, "_debug_render_only": True},
    ],
)
def test_a_completion_sends_nothing_that_ollama_lacks(fields: dict[str, Any]) -> None:
    assert completion(**fields) == completion()


# Embeddings


@pytest.mark.compat("embeddings.request.input", "embeddings.request.options, keep_alive, truncate")
@pytest.mark.parametrize(("input", "sent"), [("a", ["a"]), (["a", "b", "a"], ["a", "b", "a"])])
def test_inputs_go_out_in_order(input: Any, sent: list[str]) -> None:
    assert embeddings(input) == {"model": "m", "input": sent, "truncate": False}


@pytest.mark.compat("embeddings.request.dimensions", "embeddings.request.user")
def test_dimensions_go_out_and_the_encoding_does_not() -> None:
    assert embeddings(dimensions=8)["dimensions"] == 8
    assert embeddings(dimensions=None, encoding_format="base64", user="ada") == embeddings()


@pytest.mark.parametrize(("translate", "param"), [(completion, "prompt"), (embeddings, "input")])
@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
def test_there_is_no_place_for_tokens(translate: Any, param: str, tokens: Any) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        translate(tokens)
    assert caught.value.param == param
