from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.offered_tools import ToolNames
from django_ollama_openai._translation.responses_request import (
    chat_request,
    ignored_parts,
    to_responses_error,
    to_responses_param,
)
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.responses import ResponsesRequest
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    UnsupportedParameter,
    UpstreamError,
)
from tests.response_requests import (
    CUSTOM,
    CUSTOM_CALL,
    CUSTOM_OUTPUT,
    FULL,
    GRAMMAR,
    NAMESPACE,
    TOOL,
    asking,
    items,
    numbered,
    parse,
)

USER = {"role": "user", "content": "Hello"}
PNG = "data:image/png;base64,iVBORw0KGgo="


def said(text: str, **fields: Any) -> dict[str, Any]:
    """An answer, as it stands in the output of a response."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [part],
        **fields,
    }


def thought(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


def call(id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def output(id: str, text: str = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def made(id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    """The call in a chat completion request."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def returned(id: str, text: str = "done") -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": id}


def answer(content: Any = None, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", **({} if content is None else {"content": content}), **fields}


def messages(*given: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat_request(parse(items(*given))).dump_known()["messages"]
    return found


def parameters(**fields: Any) -> dict[str, Any]:
    request = chat_request(parse(asking(**fields)))
    declared = request.dump_known()
    del declared["messages"]
    return declared


# Messages


@pytest.mark.compat("responses.request.input", "responses.request.temperature")
def test_a_text_is_a_message_of_the_user() -> None:
    assert chat_request(parse(asking())).dump_known() == {"messages": [USER]}


@pytest.mark.compat("responses.request.instructions")
def test_instructions_come_first() -> None:
    request = chat_request(parse(items(USER) | {"instructions": "Be brief."}))
    assert request.dump_known() == {"messages": [{"role": "system", "content": "Be brief."}, USER]}
    request = chat_request(parse(asking(instructions="")))
    assert request.dump_known()["messages"][0] == {"role": "system", "content": ""}


@pytest.mark.compat("responses.request.input[].role")
@pytest.mark.parametrize("role", ["user", "system", "developer", "assistant"])
def test_a_message_keeps_its_role_and_text(role: str) -> None:
    assert messages({"role": role, "content": "x"}) == [{"role": role, "content": "x"}]


@pytest.mark.compat("responses.request.input[].content")
@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_parts_stay_parts_unless_there_is_only_one(role: str) -> None:
    one, two = ({"type": "input_text", "text": text} for text in ("a", "b"))
    assert messages({"role": role, "content": [one]}) == [{"role": role, "content": "a"}]
    assert messages({"role": role, "content": [one, two]}) == [
        {"role": role, "content": [{"type": "text", "text": text} for text in ("a", "b")]}
    ]


def test_a_message_without_parts_is_an_empty_one() -> None:
    assert messages({"role": "user", "content": []}) == [{"role": "user", "content": []}]


@pytest.mark.compat(
    "responses.request.input",
    "responses.request.input[].content",
    "responses.request.input[].content[].refusal",
    "responses.request.input[].content[].annotations",
    "responses.request.input[].content[].logprobs",
    "responses.request.input[].id",
    "responses.request.input[].status",
    "responses.request.input[].name",
    "responses.request.input[].arguments",
    "responses.request.input[].encrypted_content",
)
@pytest.mark.parametrize(
    ("given_items", "expected"),
    numbered(
        [
            # One turn is one message.
            ([said("a")], [answer("a")]),
            ([thought("r"), said("a")], [answer("a", reasoning_content="r")]),
            ([call("1")], [answer(tool_calls=[made("1")])]),
            ([thought("r"), call("1")], [answer(reasoning_content="r", tool_calls=[made("1")])]),
            (
                [thought("r"), said("a"), call("1", "f", '{"x": 1}'), call("2", "g")],
                [
                    answer(
                        "a",
                        reasoning_content="r",
                        tool_calls=[made("1", "f", '{"x": 1}'), made("2", "g")],
                    )
                ],
            ),
            # Texts side by side are parts of it.
            (
                [said("a"), said("b")],
                [answer([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
            ),
            (
                [said("a", content=[{"type": "refusal", "refusal": "no"}])],
                [answer([{"type": "refusal", "refusal": "no"}])],
            ),
            # Text that comes after calls cannot stand in their message.
            ([call("1"), said("a")], [answer(tool_calls=[made("1")]), answer("a")]),
            (
                [call("1"), said("a"), call("2")],
                [answer(tool_calls=[made("1")]), answer("a", tool_calls=[made("2")])],
            ),
            # Reasoning goes to what it led to.
            (
                [thought("r"), call("1"), thought("s"), call("2")],
                [answer(reasoning_content="r\ns", tool_calls=[made("1"), made("2")])],
            ),
            (
                [thought("r"), call("1"), thought("s"), said("a")],
                [
                    answer(reasoning_content="r", tool_calls=[made("1")]),
                    answer("a", reasoning_content="s"),
                ],
            ),
            ([said("a"), thought("r")], [answer("a", reasoning_content="r")]),
            ([thought("r")], [answer(reasoning_content="r")]),
            ([thought("r"), thought("s"), said("a")], [answer("a", reasoning_content="r\ns")]),
            # What only OpenAI can read says nothing here.
            ([USER, {"type": "reasoning", "encrypted_content": "gAA"}, USER], [USER, USER]),
            (
                [{"type": "reasoning", "summary": [], "encrypted_content": "gAA"}, call("1")],
                [answer(tool_calls=[made("1")])],
            ),
            # Whatever is not the model's ends its turn.
            ([said("a"), USER, said("b")], [answer("a"), USER, answer("b")]),
            (
                [thought("r"), USER, said("b")],
                [answer(reasoning_content="r"), USER, answer("b")],
            ),
            (
                [call("1"), output("1"), call("2"), output("2"), said("a")],
                [
                    answer(tool_calls=[made("1")]),
                    returned("1"),
                    answer(tool_calls=[made("2")]),
                    returned("2"),
                    answer("a"),
                ],
            ),
            (
                [call("1"), call("2"), output("2", "b"), output("1", "a")],
                [
                    answer(tool_calls=[made("1"), made("2")]),
                    returned("2", "b"),
                    returned("1", "a"),
                ],
            ),
            ([output("0")], [returned("0")]),
            ([call("1", "f", "")], [answer(tool_calls=[made("1", "f", "")])]),
        ]
    ),
)
def test_items_become_messages(given_items: list[Any], expected: list[Any]) -> None:
    assert messages(*given_items) == expected


def test_reasoning_that_cannot_be_read_is_no_input() -> None:
    with pytest.raises(InvalidRequest, match=r"^'input' must contain a message ") as raised:
        messages({"type": "reasoning", "encrypted_content": "gAA"})
    assert raised.value.param == "input"


@pytest.mark.compat("responses.request.input[].output")
def test_the_output_of_a_call_may_be_in_parts() -> None:
    parts = [{"type": "input_text", "text": text} for text in ("a", "b")]
    (message,) = messages({**output("1"), "output": parts})
    assert message["content"] == [{"type": "text", "text": text} for text in ("a", "b")]
    (message,) = messages({**output("1"), "output": [{"type": "input_image", "image_url": PNG}]})
    assert message["content"] == [{"type": "image_url", "image_url": {"url": PNG}}]


@pytest.mark.compat("responses.request.input[].summary")
def test_a_summary_stands_in_for_reasoning_that_is_not_told() -> None:
    summary = [{"type": "summary_text", "text": text} for text in ("a", "b")]
    (message,) = messages({"type": "reasoning", "summary": summary, "encrypted_content": "x"})
    assert message == {"role": "assistant", "reasoning_content": "a\nb"}


@pytest.mark.compat(
    "responses.request.input[].content[].image_url", "responses.request.input[].content[].detail"
)
@pytest.mark.parametrize("detail", [{}, {"detail": "low"}], ids=["no detail", "detail"])
def test_a_picture_is_the_part_that_chat_completions_have(detail: dict[str, str]) -> None:
    picture = {"type": "input_image", "image_url": PNG, **detail}
    text = {"type": "input_text", "text": "What is it?"}
    request = parse(items({"role": "user", "content": [text, picture]}))
    assert chat_request(request).dump_known()["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": PNG, **detail}},
            ],
        }
    ]


@pytest.mark.compat("responses.request.input[].content[].input_audio")
def test_a_recording_is_the_part_that_chat_completions_have() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    request = parse(items({"role": "user", "content": [audio]}))
    assert chat_request(request).dump_known()["messages"] == [{"role": "user", "content": [audio]}]


# Parameters


@pytest.mark.compat(
    "responses.request.parallel_tool_calls",
    "responses.request.reasoning.effort",
    "responses.request.stream_options.include_obfuscation",
    "responses.request.temperature",
    "responses.request.text.verbosity",
    "responses.request.top_logprobs",
    "responses.request.top_p",
    "responses.request.truncation",
    "responses.request.options, keep_alive, shift, think, truncate",
)
@pytest.mark.parametrize(
    ("fields", "expected"),
    numbered(
        [
            ({"model": "m"}, {"model": "m"}),
            ({"temperature": 0, "top_p": 1}, {"temperature": 0, "top_p": 1}),
            ({"max_output_tokens": 16}, {"max_completion_tokens": 16}),
            ({"stream": True, "stream_options": {}}, {"stream": True}),
            (
                {"stream": True, "stream_options": {"include_obfuscation": True}},
                {"stream": True},
            ),
            ({"stream": False}, {"stream": False}),
            ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
            ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
            ({"reasoning": {"summary": "auto"}}, {}),
            ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
            ({"text": {"format": {"type": "text"}}}, {"response_format": {"type": "text"}}),
            (
                {"text": {"format": {"type": "json_object"}}},
                {"response_format": {"type": "json_object"}},
            ),
            ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
            ({"top_logprobs": 0}, {}),
            ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
            ({"include": ["reasoning.encrypted_content"]}, {}),
            ({"truncation": "auto"}, {"truncate": True}),
            ({"truncation": "auto", "truncate": False}, {"truncate": True}),
            ({"truncation": "disabled"}, {}),
            ({"truncation": "disabled", "truncate": True}, {"truncate": True}),
            ({"truncate": False}, {"truncate": False}),
            ({"think": "high", "keep_alive": "5m"}, {"think": "high", "keep_alive": "5m"}),
            ({"shift": True}, {"shift": True}),
            ({"options": {"numCtx": 8192}}, {"options": {"num_ctx": 8192}}),
            (
                {"seed": 1, "stop": ["x"], "frequency_penalty": 1, "presence_penalty": -1},
                {"seed": 1, "stop": ["x"], "frequency_penalty": 1, "presence_penalty": -1},
            ),
            ({"tools": []}, {}),
            ({"tool_choice": "none"}, {"tool_choice": "none"}),
        ]
    ),
)
def test_parameters_get_the_names_of_chat_completions(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert parameters(**fields) == expected


@pytest.mark.compat("responses.request.user")
def test_who_asks_and_what_for_goes_on() -> None:
    request = chat_request(parse(asking(user="u", metadata={"a_b": "c"})))
    assert request.model_extra == {"user": "u", "metadata": {"a_b": "c"}}


@pytest.mark.compat(
    "responses.request.text.format.schema",
    "responses.request.text.format.description",
    "responses.request.text.format.strict",
)
def test_a_schema_is_nested_and_otherwise_left_alone() -> None:
    schema = {"type": "object", "properties": {"a_b": {"anyOf": [{"$ref": "#/$defs/x"}]}}}
    format_ = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    assert parameters(text={"format": format_}) == {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, "strict": True},
        }
    }
    request = chat_request(parse(asking(text={"format": {**format_, "description": "d"}})))
    assert request.response_format is not None
    assert request.response_format.model_dump(by_alias=True)["json_schema"]["description"] == "d"


@pytest.mark.compat("responses.request.tools[].type")
def test_tools_are_nested_and_only_functions_go_on() -> None:
    bare = {"type": "function", "name": "g", "strict": None}
    assert parameters(tools=[{"type": "web_search"}, TOOL, bare]) == {
        "tools": [
            {"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}},
            {"type": "function", "function": {"name": "g"}},
        ]
    }


@pytest.mark.compat(
    "responses.request.tool_choice.type",
    "responses.request.tool_choice.mode",
    "responses.request.tool_choice.tools",
    "responses.request.tool_choice.name",
)
def test_the_choice_of_a_tool_is_nested() -> None:
    named = {"type": "function", "function": {"name": "f"}}
    choice = parameters(tools=[TOOL], tool_choice={"type": "function", "name": "f"})["tool_choice"]
    assert choice == named
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [TOOL]}
    assert parameters(tools=[TOOL], tool_choice=allowed)["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [named]},
    }


@pytest.mark.compat(
    "responses.request.access_programs",
    "responses.request.background_options",
    "responses.request.context_management",
    "responses.request.image",
    "responses.request.max_tool_calls",
    "responses.request.moderation",
    "responses.request.prompt_cache_options",
    "responses.request.prompt_cache_retention",
    "responses.request.reasoning.context",
    "responses.request.reasoning.mode",
)
def test_what_has_no_counterpart_is_left_out() -> None:
    nothing = {
        "store": True,
        "max_tool_calls": 3,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "service_tier": "flex",
        "background": True,
        "n": 2,
        "conversation": "conv_1",
        "prompt": {"id": "pmpt_1"},
        "access_programs": {"cyber": "x"},
        "background_options": {"completion_window": "24h"},
        "context_management": [{"type": "compaction"}],
        "image": {"context_compression": "x"},
        "moderation": {"model": "m"},
        "prompt_cache_options": {"mode": "implicit"},
        "prompt_cache_retention": "24h",
        "reasoning": {"context": "auto", "mode": "pro"},
        "brand_new": 1,
    }
    request = chat_request(parse(asking(**nothing)))
    assert request.dump_known() == {"messages": [USER]}
    assert request.model_extra == {}


@pytest.mark.compat(
    "responses.request.input[].content[].prompt_cache_breakpoint",
    "responses.request.input[].phase",
    "responses.request.input[].async",
    "responses.request.input[].caller",
    "responses.request.tools[].async",
    "responses.request.tools[].allowed_callers",
    "responses.request.tools[].defer_loading",
    "responses.request.tools[].output_schema",
)
def test_what_only_openai_reads_is_left_out_of_items_and_tools() -> None:
    text = {"type": "input_text", "text": "u", "prompt_cache_breakpoint": {"mode": "explicit"}}
    extra = {"async": True, "caller": {"type": "direct"}}
    assert messages(
        {"role": "user", "content": [text], "phase": "commentary"},
        said("a", phase="final_answer"),
        {**call("1"), **extra},
        {**output("1"), **extra, "name": "f", "namespace": "x"},
    ) == [{"role": "user", "content": "u"}, answer("a", tool_calls=[made("1")]), returned("1")]
    tool = {
        **TOOL,
        "async": True,
        "allowed_callers": ["direct"],
        "defer_loading": True,
        "output_schema": {},
    }
    assert parameters(tools=[tool]) == parameters(tools=[TOOL])


# Namespaces and custom tools


INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def functions(request: ResponsesRequest) -> dict[str, dict[str, Any]]:
    return {
        tool.function.name: tool.function.dump_known() for tool in chat_request(request).tools or ()
    }


@pytest.mark.compat("responses.request.tools[].type", "responses.request.tools[].format")
def test_a_custom_tool_is_a_function_with_one_string() -> None:
    plain = {"type": "custom", "name": "p", "format": {"type": "text"}}
    request = parse(asking(tools=[CUSTOM, plain]))
    c, p = functions(request).values()
    assert p == {"name": "p", "parameters": INPUT}
    (schema,) = c["parameters"].pop("properties").values()
    assert c == {
        "name": "c",
        "description": "d",
        "parameters": {key: INPUT[key] for key in ("type", "required", "additionalProperties")},
    }
    assert schema["type"] == "string"
    assert "lark" in schema["description"]
    assert GRAMMAR["definition"] in schema["description"]
    assert chat_request(request).custom_tools == {"c", "p"}


@pytest.mark.compat("responses.request.tools[].type", "responses.request.tools[].tools")
def test_a_tool_of_a_namespace_has_a_name_that_a_model_can_write() -> None:
    long = {**NAMESPACE, "name": "mcp__" + "x" * 60}
    dotted = {**NAMESPACE, "name": "a.b", "description": None}
    taken = {**TOOL, "name": "n__f"}
    offered = functions(parse(asking(tools=[NAMESPACE, long, dotted, taken])))
    assert len(offered) == 7
    assert {"n__c", "n__f"} < set(offered)
    assert offered["n__f"] == {key: value for key, value in taken.items() if key != "type"}
    for name, function in offered.items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)
        assert function["description"].endswith("d")
    # Of all its tools the first one has the description of a namespace.
    assert sum(function["description"] == "d\n\nd" for function in offered.values()) == 2


def test_more_items_of_one_answer_than_a_message_has_parts_are_joined() -> None:
    searches = [
        {"type": "web_search_call", "id": str(n), "action": {"query": f"q{n}"}} for n in range(600)
    ]
    texts = [{"role": "assistant", "content": f"a{n}"} for n in range(600)]
    mixed = [item for pair in zip(searches, texts, strict=True) for item in pair]
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    _, answer_ = chat_request(parse(items(USER, *mixed, refusal))).dump_known()["messages"]
    text, refused = answer_["content"]
    lines = [f"Web search: q{n}\na{n}" for n in range(600)]
    assert text == {"type": "text", "text": "\n".join(lines)}
    assert refused == {"type": "refusal", "refusal": "No."}


def test_no_tool_is_lost_whose_joined_name_another_has() -> None:
    def namespace(name: str, *members: str) -> dict[str, Any]:
        return {**NAMESPACE, "name": name, "tools": [{**TOOL, "name": each} for each in members]}

    tools = [{**TOOL, "name": "a__b__c"}, namespace("a__b", "c"), namespace("a", "b__c")]
    tools += [namespace("a_", "b__c"), namespace("x.y", "z"), namespace("x", "y__z")]
    # The names that these get are taken.
    tools += [{**TOOL, "name": name} for name in functions(parse(asking(tools=tools)))]
    request = parse(asking(tools=tools))
    names = ToolNames(request)
    offered = functions(request)
    assert len(offered) == len(request.offered_tools) == len(names.tools) == 11
    for tool in request.offered_tools:
        name, namespace_ = tool.tool.name, tool.full_name[0]
        expected = {"name": name} if namespace_ is None else {"name": name, "namespace": namespace_}
        assert names.name_fields(names.engine_name(namespace_, name)) == expected


@pytest.mark.compat(
    "responses.request.input[].call_id",
    "responses.request.input[].namespace",
    "responses.request.input[].input",
)
def test_calls_have_the_names_under_which_their_tools_are_offered() -> None:
    of_custom = {**CUSTOM_CALL, "namespace": "n"}
    given = [{**call("1"), "namespace": "n"}, {**call("3"), "namespace": "gone"}, of_custom]
    request = parse({"input": [*given, CUSTOM_OUTPUT], "tools": [NAMESPACE, TOOL]})
    answer_, result = chat_request(request).dump_known()["messages"]
    assert answer_["tool_calls"] == [
        made("1", "n__f"),
        made("3", "gone__f"),
        made("call_2", "n__c", '{"input": "a"}'),
    ]
    assert result == returned("call_2", "1")


def test_a_search_for_tools_has_found_those_that_are_offered() -> None:
    search = {"type": "tool_search_call", "call_id": "1", "arguments": {"query": "q"}}
    tools = [TOOL, NAMESPACE, {"type": "mcp"}]
    found = {"type": "tool_search_output", "call_id": "1", "tools": tools}
    request = chat_request(parse(items(USER, search, found)))
    *_, result = request.dump_known()["messages"]
    assert result == returned("1", "f\nn__f\nn__c")
    assert [tool.function.name for tool in request.tools or ()] == ["f", "n__f", "n__c"]


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "f"}, "f"),
        ({"type": "function", "name": "f", "namespace": "n"}, "n__f"),
        ({"type": "custom", "name": "c"}, "n__c"),
    ],
    ids=["function", "namespace", "custom"],
)
def test_a_choice_has_the_name_under_which_its_tool_is_offered(choice: Any, name: str) -> None:
    nested = {"type": "function", "function": {"name": name}}
    tools = [NAMESPACE, TOOL, {"type": "mcp"}]
    assert parameters(tools=tools, tool_choice=choice)["tool_choice"] == nested
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}, choice]}
    assert parameters(tools=tools, tool_choice=allowed)["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [nested]},
    }
    none = {**allowed, "tools": [{"type": "mcp"}]}
    assert parameters(tools=tools, tool_choice=none)["tool_choice"] == "none"


# What others have made


@pytest.mark.compat("responses.request.input[type]")
@pytest.mark.parametrize(
    ("item", "expected"),
    numbered(
        [
            (
                {"type": "local_shell_call", "call_id": "1", "action": {"command": ["ls"]}},
                [answer(tool_calls=[made("1", "local_shell", '{"command": ["ls"]}')])],
            ),
            ({"type": "local_shell_call_output", "id": "1", "output": "a"}, [returned("1", "a")]),
            (
                {
                    "type": "shell_call_output",
                    "call_id": "1",
                    "output": [{"stdout": "a", "stderr": "b", "outcome": {"type": "timeout"}}],
                },
                [returned("1", "a\nb")],
            ),
            (
                {"type": "apply_patch_call", "call_id": "1", "operation": {"path": "x"}},
                [answer(tool_calls=[made("1", "apply_patch", '{"path": "x"}')])],
            ),
            (
                {"type": "apply_patch_call_output", "call_id": "1", "status": "completed"},
                [returned("1", "completed")],
            ),
            (
                {"type": "tool_search_call", "call_id": "1", "arguments": {"query": "é"}},
                [answer(tool_calls=[made("1", "tool_search", '{"query": "é"}')])],
            ),
            (
                {"type": "program", "call_id": "1", "id": "2", "code": "x()"},
                [answer(tool_calls=[made("1", "program", '{"input": "x()"}')])],
            ),
            (
                {
                    "type": "mcp_call",
                    "id": "1",
                    "name": "f",
                    "arguments": "{}",
                    "output": "a",
                    "error": None,
                },
                [answer(tool_calls=[made("1")]), returned("1", "a")],
            ),
            (
                {
                    "type": "web_search_call",
                    "action": {"type": "search", "query": "rome", "queries": ["rome", "paris"]},
                },
                [answer("Web search: rome\nparis")],
            ),
            (
                {
                    "type": "file_search_call",
                    "queries": ["q"],
                    "results": [{"text": "found", "filename": "x", "score": 1}],
                },
                [answer("File search: q\nfound")],
            ),
            (
                {
                    "type": "code_interpreter_call",
                    "code": "1+1",
                    "outputs": [{"type": "logs", "logs": "2"}],
                },
                [answer("Code: 1+1\n2")],
            ),
            (
                {"type": "brand_new", "content": [{"type": "text", "text": "a"}]},
                [answer("a")],
            ),
        ]
    ),
)
def test_what_can_be_read_in_the_items_of_others_stays(
    item: dict[str, Any], expected: list[Any]
) -> None:
    assert messages(USER, item) == [USER, *expected]
    assert ignored_parts(parse(items(USER, item))) == ()


@pytest.mark.compat("responses.request.input[].encrypted_content", "responses.request.input[type]")
@pytest.mark.parametrize(
    ("item", "name"),
    numbered(
        [
            *(
                ({"type": type, "id": "x", "encrypted_content": "gAA"}, f"input.{type}")
                for type in (
                    "compaction",
                    "compaction_trigger",
                    "computer_call",
                    "mcp_list_tools",
                    "mcp_approval_request",
                    "image_generation_call",
                    "web_search_call",
                    "reasoning",
                    "brand_new",
                )
            ),
            # Not as they should be
            ({"type": "mcp_call", "id": "1", "name": 5, "arguments": "{}"}, "input.mcp_call"),
            ({"type": "shell_call", "call_id": 5, "action": {}}, "input.shell_call"),
            (
                {"type": "tool_search_call", "id": "1", "arguments": {"a": 1}},
                "input.tool_search_call",
            ),
            ({"type": "X-é\r\nSet-Cookie: a", "x": 1}, "input"),
        ]
    ),
)
def test_items_that_nobody_here_can_read_are_left_out_and_named(
    item: dict[str, Any], name: str
) -> None:
    request = parse(items(USER, item, item, said("a")))
    assert chat_request(request).dump_known()["messages"] == [USER, answer("a")]
    assert ignored_parts(request) == (name,)


@pytest.mark.compat("responses.request.tools[type]")
def test_hosted_tools_are_left_out_and_named() -> None:
    tools = [{"type": "web_search"}, NAMESPACE, {"type": "mcp"}, {"type": "web_search"}]
    assert ignored_parts(parse(asking(tools=tools))) == ("tools.web_search", "tools.mcp")
    many = [{"type": f"t{number}"} for number in range(1000)]
    assert len(ignored_parts(parse(asking(tools=many)))) == 32


# Errors


def restated(request: ResponsesRequest, error: GatewayError) -> str | None:
    to_responses_error(request, error)
    return error.param


CONVERSATION = parse(
    {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "u"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "v"},
                    {"type": "input_image", "image_url": PNG},
                    {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                ],
            },
            thought("r"),
            said("a"),
            call("1"),
            call("2"),
            {**output("1"), "output": [{"type": "input_text", "text": text} for text in "ab"]},
            output("2"),
        ],
        "tools": [{"type": "web_search"}, TOOL],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TOOL]},
        "truncation": "auto",
        "top_logprobs": 1,
    }
)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("messages", "input"),
        ("messages[0]", "instructions"),
        ("messages[0].content", "instructions"),
        ("messages[1]", "input[0]"),
        ("messages[1].role", "input[0].role"),
        ("messages[1].content", "input[0].content"),
        ("messages[2].content", "input[1].content"),
        ("messages[2].content[0].text", "input[1].content[0].text"),
        ("messages[2].content[1]", "input[1].content[1]"),
        ("messages[2].content[1].image_url", "input[1].content[1].image_url"),
        ("messages[2].content[1].image_url.url", "input[1].content[1].image_url"),
        ("messages[2].content[1].image_url.detail", "input[1].content[1].detail"),
        ("messages[2].content[2].input_audio.data", "input[1].content[2].input_audio.data"),
        ("messages[3]", "input[2]"),
        ("messages[3].reasoning_content", "input[2]"),
        ("messages[3].content", "input[3].content"),
        ("messages[3].tool_calls", "input[4]"),
        ("messages[3].tool_calls[1]", "input[5]"),
        ("messages[3].tool_calls[1].id", "input[5].call_id"),
        ("messages[3].tool_calls[1].function", "input[5]"),
        ("messages[3].tool_calls[1].function.arguments", "input[5].arguments"),
        ("messages[4].tool_call_id", "input[6].call_id"),
        ("messages[4].content", "input[6].output"),
        ("messages[4].content[1].text", "input[6].output[1].text"),
        ("messages[5].content", "input[7].output"),
        ("messages[99].content", "input[99].content"),
        ("max_completion_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
        ("reasoning_effort", "reasoning.effort"),
        ("verbosity", "text.verbosity"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema.a_b[0]", "text.format.schema.a_b[0]"),
        ("tools", "tools"),
        ("tools[0]", "tools[1]"),
        ("tools[0].function.parameters.a[0]", "tools[1].parameters.a[0]"),
        ("tool_choice", "tool_choice"),
        ("tool_choice.allowed_tools.mode", "tool_choice.mode"),
        ("tool_choice.allowed_tools.tools[0].function.name", "tool_choice.tools[0].name"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("logprobs", "top_logprobs"),
        ("truncate", "truncation"),
        ("options.num_ctx", "options.num_ctx"),
        ("tools[0].function.parameters.a[b].c", "tools[1].parameters.a[b].c"),
        ("metadata.a[0", "metadata.a[0"),
        ("", ""),
    ],
)
def test_an_error_names_the_field_that_was_sent(param: str, expected: str) -> None:
    error = InvalidRequest(f"Invalid value for '{param}': no.", param=param)
    assert to_responses_param(CONVERSATION, param) == expected
    assert restated(CONVERSATION, error) == expected
    assert error.message == f"Invalid value for '{expected}': no."


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({}, "messages[0].content", "input"),
        ({}, "messages[0]", "input"),
        ({"instructions": "x"}, "messages[1].content", "input"),
        ({"include": ["message.output_text.logprobs"]}, "logprobs", "include"),
        ({"truncate": True}, "truncate", "truncate"),
    ],
)
def test_what_a_field_was_depends_on_the_request(
    fields: dict[str, Any], param: str, expected: str
) -> None:
    assert restated(parse(asking(**fields)), InvalidRequest("No.", param=param)) == expected


def test_an_error_of_any_kind_keeps_its_kind() -> None:
    error = ContextLengthExceeded(
        "There is no room for your messages. Please reduce the length of the messages.",
        param="messages",
    )
    assert restated(CONVERSATION, error) == "input"
    assert error.code == "context_length_exceeded"
    assert error.message == (
        "There is no room for your input. Please reduce the length of the input."
    )
    unsupported = UnsupportedParameter("Not 'reasoning_effort'.", param="reasoning_effort")
    to_responses_error(CONVERSATION, unsupported)
    assert unsupported.envelope()["error"] == {
        "message": "Not 'reasoning.effort'.",
        "type": "invalid_request_error",
        "param": "reasoning.effort",
        "code": "unsupported_parameter",
    }


def test_an_error_that_names_no_field_stays_as_it_is() -> None:
    error = UpstreamError("The engine broke off.")
    assert restated(CONVERSATION, error) is None
    assert error.message == "The engine broke off."


@pytest.mark.parametrize(
    ("body", "param"),
    numbered(
        [
            # Only the encrypted reasoning of somebody else: nothing to answer.
            (items({"type": "reasoning", "encrypted_content": "gAA"}), "input"),
            # With the instructions there is one message more.
            ({**items(*[USER] * 10_000), "instructions": "x"}, "input"),
            # In one message there are too many calls.
            (items(USER, *[call(str(number)) for number in range(1001)]), "input[1]"),
        ]
    ),
)
def test_what_only_the_chat_completion_shows_is_told_of_the_input(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_request(parse(body))
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message
    assert "messages" not in caught.value.message


# Any of them

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
turn = st.one_of(
    texts.map(thought),
    texts.map(said),
    st.builds(call, texts, texts, st.sampled_from(["{}", '{"a": 1}', ""])),
)
others = st.one_of(
    st.builds(output, texts, texts),
    st.builds(lambda text: {"role": "user", "content": text}, texts),
    st.builds(lambda text: {"role": "developer", "content": text}, texts),
)


def flat(message: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a chat message says, in the order in which a model reads it."""
    content = message.get("content") or []
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return [
        *(("reasoning", text) for text in message.get("reasoning_content", "").split("\n") if text),
        *((message["role"], text) for text in parts if text),
        *(("call", made["id"]) for made in message.get("tool_calls", ())),
    ]


def flat_item(item: dict[str, Any]) -> list[tuple[str, Any]]:
    if item.get("type") == "reasoning":
        return [("reasoning", text) for text in item["content"][0]["text"].split("\n") if text]
    if item.get("type") == "function_call":
        return [("call", item["call_id"])]
    if item.get("type") == "function_call_output":
        return [("tool", item["output"])] if item["output"] else []
    content = item["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return [(item["role"], text)] if text else []


@pytest.mark.compat("responses.request.input[].content[].text")
@given(st.lists(turn | others, min_size=1, max_size=12))
def test_nothing_is_lost_and_the_order_is_kept(given_items: list[dict[str, Any]]) -> None:
    expected = [fact for item in given_items for fact in flat_item(item)]
    if not expected and all(item.get("type") == "reasoning" for item in given_items):
        return
    found = [fact for message in messages(*given_items) for fact in flat(message)]
    # Reasoning stands before what its message says, so it may move ahead within a turn.
    assert [fact for fact in found if fact[0] != "reasoning"] == [
        fact for fact in expected if fact[0] != "reasoning"
    ]
    assert [fact for fact in found if fact[0] == "reasoning"] == [
        fact for fact in expected if fact[0] == "reasoning"
    ]


@given(st.lists(turn, min_size=1, max_size=8))
def test_a_turn_is_as_few_messages_as_its_order_allows(given_items: list[dict[str, Any]]) -> None:
    kinds = [item["type"] for item in given_items]
    spoken = [kind for kind in kinds if kind != "reasoning"]
    breaks = list(itertools.pairwise(spoken)).count(("function_call", "message"))
    if spoken:
        assert len(messages(*given_items)) == 1 + breaks


def test_every_field_comes_through_together() -> None:
    request = chat_request(parse(FULL).without(["prompt", "conversation"]))
    assert isinstance(request, ChatCompletionRequest)
    assert json.loads(json.dumps(request.dump_known())) == request.dump_known()
    assert [message.role for message in request.messages] == [
        "system",
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "tool",
    ]
