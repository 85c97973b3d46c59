"""``tool_choice`` and ``parallel_tool_calls`` on an engine that knows neither."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Set
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.tool_choice import (
    ToolChoiceAdapter,
    honoured,
    tool_choice_adapter,
)
from django_ollama_openai._wire.chat import ChatCompletionRequest, JSONSchemaFormat, content_text
from django_ollama_openai._wire.delta import Delta, ToolCallDelta, Usage, fold
from django_ollama_openai.exceptions import InvalidRequest, UpstreamError

OLLAMA = frozenset({"tools", "response_format"})


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


WEATHER, TIME = tool("weather", city={"type": "string"}), tool("time")


def asking(choice: Any = None, **changes: Any) -> ChatCompletionRequest:
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
        **changes,
    }
    return ChatCompletionRequest.parse(json.dumps(body).encode())


class Engine:
    """Says what it is told to, attempt by attempt, and keeps what it was asked."""

    def __init__(self, *answers: list[Delta]) -> None:
        self._answers = list(answers)
        self.asked: list[ChatCompletionRequest] = []

    def answer(
        self, request: ChatCompletionRequest, adapter: ToolChoiceAdapter | None
    ) -> Iterator[Delta]:
        for each in (request,) if adapter is None else adapter.requests():
            self.asked.append(each)
            for delta in self._answers.pop(0):
                yield delta if adapter is None else adapter.feed(delta)
        assert self._answers == []


def run(
    request: ChatCompletionRequest, *answers: list[Delta], native: frozenset[str] = OLLAMA
) -> tuple[list[ChatCompletionRequest], list[Delta]]:
    engine = Engine(*answers)
    deltas = list(engine.answer(request, tool_choice_adapter(request, native)))
    return engine.asked, deltas


def text(*pieces: str, reason: str = "stop", usage: Usage = Usage(10, 2)) -> list[Delta]:  # noqa: B008
    return [*map(Delta, pieces), Delta(finish_reason=reason, usage=usage, tokens=0)]


def calls(*names: str) -> list[Delta]:
    pieces = [ToolCallDelta(i, f"call_{i}", name, "{}") for i, name in enumerate(names)]
    end = Delta(finish_reason="tool_calls", usage=Usage(10, 3), tokens=0)
    return [*(Delta(tool_calls=[piece]) for piece in pieces), end]


def names(delta: Delta) -> list[str | None]:
    return [call.name for call in delta.tool_calls]


# What the engine decides


@pytest.mark.parametrize("choice", [None, "auto"])
def test_the_engine_decides(choice: str | None) -> None:
    (asked,), deltas = run(asking(choice), calls("weather", "time"))
    assert asked.tools is not None
    assert asked.tool_choice is None
    assert names(fold(deltas)) == ["weather", "time"]


def test_an_engine_that_knows_the_parameter_gets_it() -> None:
    request = asking("required", parallel_tool_calls=False)
    native = OLLAMA | {"tool_choice", "parallel_tool_calls"}
    (asked,), deltas = run(request, calls("weather", "time"), native=native)
    assert asked is request
    assert names(fold(deltas)) == ["weather", "time"]


def test_without_tools_there_is_nothing_to_choose() -> None:
    request = asking("none", tools=None)
    (asked,), deltas = run(request, text("Hello"))
    assert asked is request
    assert fold(deltas).content == "Hello"


@pytest.mark.compat("chat.request.parallel_tool_calls")
def test_calls_that_are_not_parallel() -> None:
    _, deltas = run(asking(parallel_tool_calls=False), calls("weather", "time", "time"))
    answer = fold(deltas)
    assert names(answer) == ["weather"]
    assert answer.finish_reason == "tool_calls"


# None


def test_none_hides_the_tools_and_keeps_the_history() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "now"},
    ]
    request = asking("none", messages=history)
    (asked,), deltas = run(request, text("Now."))
    assert asked.tools is None
    assert asked.messages == request.messages
    assert fold(deltas).content == "Now."


@pytest.mark.compat("chat.request.tool_choice")
def test_none_discards_what_looks_like_a_call() -> None:
    _, deltas = run(asking("none"), [Delta("I might."), *calls("weather")])
    answer = fold(deltas)
    assert (answer.content, answer.tool_calls, answer.finish_reason) == ("I might.", [], "stop")
    assert answer.usage == Usage(10, 3)


# Named


def test_a_named_function_is_written_as_structured_output() -> None:
    (asked,), deltas = run(
        asking(named("weather"), logprobs=True), text('{"ci', 'ty":', ' "Rome"}')
    )
    assert (asked.tools, asked.tool_choice, asked.logprobs) == (None, None, None)
    assert isinstance(asked.response_format, JSONSchemaFormat)
    assert asked.response_format.json_schema.schema_ == WEATHER["function"]["parameters"]
    system, user = asked.messages
    assert "'weather'" in content_text(system.content)
    assert "time" not in content_text(system.content)
    assert user.content == "Hi"
    pieces = [call for delta in deltas for call in delta.tool_calls]
    assert [(piece.index, piece.name) for piece in pieces] == [(0, "weather"), (0, None), (0, None)]
    assert pieces[0].id is not None
    assert [piece.arguments for piece in pieces] == ['{"ci', 'ty":', ' "Rome"}']
    answer = fold(deltas)
    assert (answer.content, answer.finish_reason) == ("", "stop")


def test_the_instruction_joins_the_system_message() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Hi"},
    ]
    (asked,), _ = run(asking(named("time"), messages=messages), text("{}"))
    assert [message.role for message in asked.messages] == ["system", "user"]
    assert content_text(asked.messages[0].content).startswith("Be brief.\n\nCall the function")


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    (asked,), _ = run(asking(named("now"), tools=tools), text("{}"))
    assert isinstance(asked.response_format, JSONSchemaFormat)
    assert asked.response_format.json_schema.schema_ == {"type": "object", "properties": {}}


def test_a_named_call_that_is_cut_off() -> None:
    _, deltas = run(asking(named("time")), text('{"a', reason="length"))
    answer = fold(deltas)
    assert answer.tool_calls[0].arguments == '{"a'
    assert answer.finish_reason == "length"


def test_a_named_call_of_which_nothing_came() -> None:
    _, deltas = run(asking(named("time")), text(reason="length"))
    (call,) = fold(deltas).tool_calls
    assert (call.name, call.arguments) == ("time", "")


def piece(index: int, arguments: str, name: str | None = None) -> Delta:
    call = ToolCallDelta(index, name and f"call_{index}", name, arguments)
    return Delta(tool_calls=[call])


END = Delta(finish_reason="tool_calls")


@pytest.mark.parametrize(
    ("answer", "arguments"),
    [
        ([piece(0, '{"a":', "time"), piece(0, "1}"), END], ['{"a":', "1}"]),
        (
            [*text("Let ", "me ")[:2], piece(0, "{}", "weather"), piece(1, "{}", "time"), END],
            ["{}"],
        ),
        ([piece(0, "{}", "time"), Delta("And "), piece(1, "{1}", "time"), END], ["{}"]),
        (
            [piece(0, "{}", "weather"), Delta(" \n"), Delta('{"a":'), Delta("1}"), END],
            ['{"a":', "1}"],
        ),
        ([Delta("{}"), piece(0, "{1}", "time"), END], ["{}"]),
        ([Delta("no "), Delta("{call"), Delta("}"), END], ["no {call}"]),
        ([piece(0, "{}", "weather"), END], [""]),
    ],
    ids=["found", "after text", "twice", "another", "after an object", "text", "none"],
)
@pytest.mark.parametrize("is_deprecated", [False, True])
def test_a_named_call_that_the_engine_finds_itself(
    answer: list[Delta], arguments: list[str], is_deprecated: bool
) -> None:
    request = asking(named("time"))
    if is_deprecated:
        functions = [WEATHER["function"], TIME["function"]]
        request = asking(tools=None, functions=functions, function_call={"name": "time"})
    _, deltas = run(request, deepcopy(answer))
    pieces = [call for delta in deltas for call in delta.tool_calls]
    assert [each.arguments for each in pieces] == arguments
    assert [(each.index, each.name) for each in pieces] == [
        (0, None if number else "time") for number in range(len(pieces))
    ]
    assert [each.id is None for each in pieces] == [bool(n) for n in range(len(pieces))]
    whole = fold(deltas)
    assert (whole.content, whole.finish_reason) == ("", "stop")


def test_a_named_call_after_thinking() -> None:
    _, deltas = run(asking(named("time")), [Delta(reasoning="Hm."), *text("{}")])
    answer = fold(deltas)
    assert answer.reasoning == "Hm."
    assert names(answer) == ["time"]


# Required


def test_required_takes_the_call_that_comes() -> None:
    (asked,), deltas = run(asking("required"), [Delta("Let me see."), *calls("weather", "time")])
    assert asked.tools is not None
    assert asked.tool_choice is None
    answer = fold(deltas)
    assert (answer.content, names(answer)) == ("Let me see.", ["weather", "time"])
    assert answer.finish_reason == "tool_calls"


def written(*pieces: str, reason: str = "stop") -> list[Delta]:
    return text(*pieces, reason=reason, usage=Usage(20, 5, reasoning_tokens=1))


@pytest.mark.compat("chat.request.tool_choice (required)")
def test_required_asks_again_if_no_call_comes() -> None:
    first, second = text("I would ", "rather not."), written('{"name":"time","arguments":{}}')
    (asked, again), deltas = run(asking("required"), first, second)
    assert asked.tools is not None
    assert again.tools is None
    assert isinstance(again.response_format, JSONSchemaFormat)
    branches = again.response_format.json_schema.schema_["anyOf"]
    assert [branch["properties"]["name"] for branch in branches] == [
        {"const": "weather"},
        {"const": "time"},
    ]
    assert branches[0]["properties"]["arguments"] == WEATHER["function"]["parameters"]
    answer = fold(deltas)
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")
    (call,) = answer.tool_calls
    assert (call.name, call.arguments) == ("time", "{}")
    assert call.id is not None


def test_calls_that_the_engine_finds_in_the_second_answer_are_kept() -> None:
    second = [Delta("Well,"), *calls("unknown", "time", "weather"), Delta(tokens=0)]
    _, deltas = run(asking("required"), text("No."), second)
    answer = fold(deltas)
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [
        ("time", "{}"),
        ("weather", "{}"),
    ]


def test_what_the_parameters_refer_to_is_kept() -> None:
    def node(kind: str) -> dict[str, Any]:
        tool = {"name": kind, "parameters": {**NODE, "$defs": {"kind": {"const": kind}}}}
        return {"type": "function", "function": tool}

    tools = [node("a"), node("b")]
    (_, again), _ = run(
        asking("required", tools=tools), text("No."), written('{"name": "a", "arguments": {}}')
    )
    assert again.output_schema is not None
    for name, kind in ("aa", "bb", "ab"):
        call = {"name": name, "arguments": {"kind": kind, "next": {"kind": kind}}}
        assert jsonschema_rs.is_valid(again.output_schema, call) is (name == kind)
    (asked,), _ = run(asking(named("b"), tools=tools), text("{}"))
    assert asked.output_schema is not None
    assert jsonschema_rs.is_valid(asked.output_schema, {"kind": "b", "next": {"kind": "b"}})
    for choice in ("required", named("b"), allowed("required", "b")):
        wrong = [tool("a"), {"type": "function", "function": {"name": "b", "parameters": LOST}}]
        with pytest.raises(InvalidRequest) as raised:
            run(asking(choice, tools=wrong), text("No."), text(), native=OLLAMA)
        assert raised.value.param == "tools[1].function.parameters.properties.a.$ref"


NODE: dict[str, Any] = {
    "type": "object",
    "properties": {"kind": {"$ref": "#/$defs/kind"}, "next": {"$ref": "#"}},
    "additionalProperties": False,
}
LOST: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/nothing"}}}


def test_required_in_one_piece() -> None:
    whole = Delta("No.", reasoning="Hm.", finish_reason="stop", usage=Usage(1, 1))
    call = Delta('{ "name" : "time", "arguments" : {"a": {}} }', finish_reason="stop")
    _, deltas = run(asking("required"), [whole], [call])
    answer = fold(deltas)
    assert (answer.reasoning, answer.content) == ("Hm.", "")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("time", '{"a": {}}')]


def test_an_answer_that_is_cut_off_before_its_call_is_not_asked_for_again() -> None:
    logprobs = [{"token": "a"}]
    first = [Delta("a", logprobs=logprobs), *text("b", reason="length")]
    _, deltas = run(asking("required"), first)
    answer = fold(deltas)
    assert (answer.content, answer.finish_reason) == ("ab", "length")
    assert answer.logprobs == logprobs


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.integers() | st.text('} \n"\\a', max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)


@given(ARGUMENTS, st.sampled_from([None, 0, 2]), st.randoms(use_true_random=False))
def test_a_written_call_is_passed_on_however_it_is_cut(
    arguments: dict[str, Any], indent: int | None, random: Any
) -> None:
    document = json.dumps({"name": 'we"ather', "arguments": arguments}, indent=indent) + "\n"
    cuts = sorted(random.choices(range(len(document) + 1), k=random.randint(0, 12)))
    pieces = [document[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    request = asking("required", tools=[tool('we"ather')])
    _, deltas = run(request, text("No."), written(*pieces))
    answer = fold(deltas)
    (call,) = answer.tool_calls
    assert call.name == 'we"ather'
    assert json.loads(call.arguments) == arguments
    assert answer.content == ""


def test_the_arguments_of_a_written_call_are_streamed() -> None:
    pieces = ['{"name": "time", "arg', 'uments": {"a": ', '1, "b": ', "2}", "}"]
    _, deltas = run(asking("required"), text("No."), written(*pieces))
    streamed = [call.arguments for delta in deltas for call in delta.tool_calls]
    # What may be the end of the call waits.
    assert streamed == ["", '{"a":', ' 1, "b":', " 2", "}"]


@pytest.mark.parametrize("cut", ['{"name": "time", "arguments": {"a": {}', '{"name": "ti', ""])
def test_a_written_call_that_is_cut_off(cut: str) -> None:
    _, deltas = run(asking("required"), text("No."), written(cut, reason="length"))
    answer = fold(deltas)
    assert answer.finish_reason == "length"
    assert "".join(call.arguments for call in answer.tool_calls) in ('{"a": {}', "")


def test_a_model_that_writes_blanks_for_ever_takes_no_more_time_for_each() -> None:
    pieces = ['{"name": "time", "arguments": {"a": {}', *[" \n"] * 50_000, "}", "}"]
    started = time.process_time()
    _, deltas = run(asking("required"), text("No."), written(*pieces))
    # Going over all of them again each time takes far longer.
    assert time.process_time() - started < 4
    (call,) = fold(deltas).tool_calls
    assert json.loads(call.arguments) == {"a": {}}


@pytest.mark.parametrize(
    "name",
    ['"tim\ne"', '"tim\\e"', '"\\ud800"', '""', '"sun"'],
    ids=["line end", "escape", "surrogate", "empty", "unknown"],
)
def test_only_a_function_that_there_is_can_be_called(name: str) -> None:
    with pytest.raises(UpstreamError, match="did not call a function"):
        run(asking("required"), text("No."), written(f'{{"name": {name}, "arguments": {{}}}}'))


@pytest.mark.parametrize("nonsense", ["I cannot.", "{}", '{"name": 5}', "x" * 2000])
def test_a_model_that_will_not_call_is_an_error(nonsense: str) -> None:
    with pytest.raises(UpstreamError, match="did not call a function"):
        run(asking("required"), text("No."), written(nonsense))


# Allowed tools


@pytest.mark.compat("chat.request.tool_choice.allowed_tools.mode")
def test_only_the_allowed_tools_are_offered() -> None:
    (asked,), _ = run(asking(allowed("auto", "time")), text("Hello"))
    assert [tool.function.name for tool in asked.tools or ()] == ["time"]
    assert asked.tool_choice is None


@pytest.mark.compat("chat.request.tool_choice.allowed_tools.mode")
def test_one_of_the_allowed_tools_is_required() -> None:
    answers = text("No."), written('{"name": "time", "arguments": {}}')
    (asked, again), _ = run(asking(allowed("required", "time")), *answers)
    assert [tool.function.name for tool in asked.tools or ()] == ["time"]
    assert isinstance(again.response_format, JSONSchemaFormat)
    assert len(again.response_format.json_schema.schema_["anyOf"]) == 1


# What can be honoured


@pytest.mark.parametrize(
    ("choice", "native", "expected"),
    [
        ("none", {"tools"}, {"tool_choice", "parallel_tool_calls"}),
        ("required", {"tools"}, {"parallel_tool_calls"}),
        (named("time"), {"tools"}, {"parallel_tool_calls"}),
        (allowed("auto", "time"), {"tools"}, {"tool_choice", "parallel_tool_calls"}),
        (allowed("required", "time"), {"tools"}, {"parallel_tool_calls"}),
        ("required", OLLAMA, {"tool_choice", "parallel_tool_calls"}),
        ("none", {"response_format"}, set()),
    ],
    # The order of a set differs between processes.
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, Set) else str(value),
)
def test_what_is_honoured_for_an_engine(choice: Any, native: set[str], expected: set[str]) -> None:
    assert honoured(asking(choice), frozenset(native)) == expected
