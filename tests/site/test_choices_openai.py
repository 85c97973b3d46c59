"""``n``, ``tool_choice`` and media through the official OpenAI client, on both servers."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.ollama_server import Answer, Close, OllamaServer, Reply, line, recorded
from tests.recordings import load

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Heads or tails?"}]
MODEL = "smollm2:135m"
TOOLS_MODEL = "team/tools:small"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def tool(name: str) -> ChatCompletionToolParam:
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def called(name: str) -> dict[str, Any]:
    return {"id": f"call_{name}", "function": {"name": name, "arguments": {"city": "Rome"}}}


# n


@pytest.mark.compat(
    "chat.request.n", "chat.response.usage.prompt_tokens", "chat.response.usage.completion_tokens"
)
def test_several_choices_in_one_piece(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(*[Answer(["Heads"], prompt_tokens=5)] * 3)
    completion = client.chat.completions.create(model=MODEL, messages=ASK, n=3, seed=7)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert [choice.message.content for choice in completion.choices] == ["Heads"] * 3
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (15, 3)
    # With one seed all would be the same.
    assert sorted(chat.body["options"]["seed"] for chat in ollama.chats()) == [7, 8, 9]


@pytest.mark.compat("chat.request.n")
def test_several_choices_in_a_stream(client: openai.OpenAI, ollama: OllamaServer) -> None:
    answers = [Answer(["He", "ads"], pause=0.05), Answer(["Ta", "ils"], pause=0.05)]
    ollama.reply(*answers)
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, n=2, stream=True, stream_options={"include_usage": True}
    )
    texts, reasons, arrived = {0: "", 1: ""}, {}, []
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
            if choice.delta.content:
                arrived.append(choice.index)
    assert sorted(texts.values()) == ["Heads", "Tails"]
    assert reasons == {0: "stop", 1: "stop"}
    # They come at the same time, not one after the other.
    assert arrived not in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_the_choices_are_asked_for_at_the_same_time(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    ollama.reply(*[Answer(["x"], pause=30)] * 4)
    asking = threading.Thread(target=_ignoring_errors, args=(client, 4))
    asking.start()
    ollama.wait_for_chat(4)
    asking.join()


def _ignoring_errors(client: openai.OpenAI, n: int) -> None:
    try:
        client.with_options(timeout=1).chat.completions.create(model=MODEL, messages=ASK, n=n)
    except openai.APITimeoutError:
        return


@pytest.mark.compat("chat.stream.a client that hangs up")
@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_frees_the_engine_of_all_choices(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(*[Answer(["x"] * 1000, pause=0.05 if stream else 30)] * 3)
    if stream:
        answer = client.chat.completions.create(model=MODEL, messages=ASK, n=3, stream=True)
        next(iter(answer))
        answer.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).chat.completions.create(model=MODEL, messages=ASK, n=3)
    ollama.wait_for_chat(3)
    for chat in ollama.chats():
        assert chat.hung_up.wait(60)


@pytest.mark.parametrize("stream", [False, True])
def test_one_choice_that_fails_fails_all(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    half = line({"model": MODEL, "message": {"content": "He"}, "done": False})
    ollama.reply(Answer(["x"] * 1000, pause=0.05), Reply([half, Close()]))
    with pytest.raises(openai.APIError) as raised:
        list(client.chat.completions.create(model=MODEL, messages=ASK, n=2, stream=stream))
    assert raised.value.code == "bad_upstream"
    assert all(chat.hung_up.wait(60) or chat.answered.is_set() for chat in ollama.chats())


@pytest.mark.compat("chat.request.n")
def test_there_is_a_limit_to_the_choices(client: openai.OpenAI, ollama: OllamaServer) -> None:
    with pytest.raises(
        openai.BadRequestError, match="asks for 33 choices; this site allows 32"
    ) as raised:
        client.chat.completions.create(model=MODEL, messages=ASK, n=33)
    assert raised.value.param == "n"
    assert ollama.chats() == []


# tool_choice


@pytest.mark.compat("chat.request.tool_choice")
@pytest.mark.parametrize("stream", [False, True])
def test_no_tools(client: openai.OpenAI, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(Answer(["Rain."], tool_calls=[called("weather")]))
    answer = ask(client, stream, tool_choice="none")
    assert answer == ("Rain.", [], "stop")
    assert "tools" not in ollama.chats()[0].body


@pytest.mark.compat("chat.request.tool_choice.function.name")
@pytest.mark.parametrize("stream", [False, True])
def test_a_named_tool(client: openai.OpenAI, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(Answer(['{"city"', ': "Rome"}']))
    choice = {"type": "function", "function": {"name": "time"}}
    answer = ask(client, stream, tool_choice=choice)
    assert answer == ("", [("time", '{"city": "Rome"}')], "stop")
    sent = ollama.chats()[0].body
    assert "tools" not in sent
    assert sent["format"] == tool("time")["function"]["parameters"]
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


@pytest.mark.compat("chat.request.tool_choice (required)")
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool(client: openai.OpenAI, ollama: OllamaServer, stream: bool) -> None:
    call = '{"name": "weather", "arguments": {"city": "Rome"}}'
    ollama.reply(Answer(["I would rather not."]), Answer([call[:20], call[20:]]))
    answer = ask(client, stream, tool_choice="required")
    assert answer == ("", [("weather", '{"city": "Rome"}')], "tool_calls")
    first, second = (chat.body for chat in ollama.chats())
    assert "format" not in first
    assert "tools" not in second
    assert len(second["format"]["anyOf"]) == 2


@pytest.mark.compat(
    "chat.request.parallel_tool_calls", "chat.request.tool_choice.allowed_tools.tools"
)
@pytest.mark.parametrize("stream", [False, True])
def test_some_tools_of_which_one_is_called(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(Answer([], tool_calls=[called("time"), called("time")]))
    reference = {"type": "function", "function": {"name": "time"}}
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [reference]},
    }
    answer = ask(client, stream, tool_choice=choice, parallel_tool_calls=False)
    assert answer == ("", [("time", '{"city":"Rome"}')], "tool_calls")
    (sent,) = (chat.body for chat in ollama.chats())
    assert sent["tools"] == [tool("time")]


def ask(
    client: openai.OpenAI, stream: bool, **fields: Any
) -> tuple[str, list[tuple[str | None, str]], str | None]:
    """The content, the calls and the finish reason of an answer with two tools at hand."""
    create: Any = client.chat.completions.create
    tools = [tool("weather"), tool("time")]
    answer = create(model=TOOLS_MODEL, messages=ASK, tools=tools, stream=stream, **fields)
    if not stream:
        (choice,) = answer.choices
        calls = choice.message.tool_calls or ()
        called = [(call.function.name, call.function.arguments) for call in calls]
        return choice.message.content or "", called, choice.finish_reason
    content, reason = "", None
    pieces: dict[int, tuple[str | None, str]] = {}
    for chunk in answer:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or ():
            name, arguments = pieces.get(call.index, (call.function.name, ""))
            pieces[call.index] = name, arguments + (call.function.arguments or "")
    return content, [pieces[index] for index in sorted(pieces)], reason


@pytest.mark.compat("chat.request.function_call", "chat.request.functions")
@pytest.mark.parametrize("named", [False, True])
def test_functions_from_before_tools(
    client: openai.OpenAI, ollama: OllamaServer, named: bool
) -> None:
    ollama.reply(
        Answer(['{"city": "Rome"}'])
        if named
        else Answer([], tool_calls=[called("weather"), called("time")]),
    )
    functions: Any = [tool(name)["function"] for name in ("time", "weather")]
    choice: Any = {"function_call": {"name": "weather"}} if named else {}
    asked: dict[str, Any] = {"model": TOOLS_MODEL, "messages": ASK, "functions": functions}
    message = client.chat.completions.create(**asked, **choice).choices[0].message
    assert message.tool_calls is None
    assert message.function_call is not None
    assert message.function_call.name == "weather"
    assert json.loads(message.function_call.arguments) == {"city": "Rome"}
    ollama.reply(Answer([], tool_calls=[called("weather")]), Answer(["Sunny."]))
    chunks = list(client.chat.completions.create(**asked, stream=True))
    pieces = [chunk.choices[0].delta.function_call for chunk in chunks]
    assert "".join(piece.name or "" for piece in pieces if piece) == "weather"
    assert chunks[-1].choices[0].finish_reason == "function_call"
    result: Any = {"role": "function", "name": "weather", "content": "22 degrees"}
    again = {**asked, "messages": [*ASK, message.to_dict(), result]}
    assert client.chat.completions.create(**again).choices[0].message.content == "Sunny."
    assert [each["role"] for each in ollama.chats()[-1].body["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]


@pytest.mark.parametrize("endpoint", ["chat", "text"])
def test_a_large_request_is_not_multiplied(
    client: openai.OpenAI, ollama: OllamaServer, endpoint: str
) -> None:
    text = "x" * (2 * 2**20)
    with pytest.raises(openai.BadRequestError, match="too large for 16 choices") as raised:
        if endpoint == "chat":
            content: list[ChatCompletionMessageParam] = [{"role": "user", "content": text}]
            client.chat.completions.create(model=MODEL, messages=content, n=16)
        else:
            client.completions.create(model=MODEL, prompt=text, n=16, echo=True)
    assert raised.value.param == "n"
    assert ollama.requests == []


# Media


@pytest.mark.compat("chat.request.messages[].content[].image_url.detail")
def test_a_picture(client: openai.OpenAI, ollama: OllamaServer) -> None:
    url = f"data:image/png;base64,{PNG}"
    content: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    (sent,) = ollama.chats()[0].body["messages"]
    assert sent == {"role": "user", "content": "What is this?", "images": [PNG, "UklGRg=="]}


def test_a_picture_for_a_model_that_sees_nothing(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    ollama.reply(recorded(load("chat_images_unsupported")))
    url = f"data:image/png;base64,{PNG}"
    content: Any = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError, match="does not support image") as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert refused.value.param == "messages[0].content[1]"


@pytest.mark.compat("chat.request.messages[].content[].image_url.url")
def test_a_picture_at_an_address_is_not_fetched_unless_the_site_says_so(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    content: Any = [{"type": "image_url", "image_url": {"url": f"{ollama.url}/a.png"}}]
    with pytest.raises(openai.BadRequestError, match="does not fetch images") as raised:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert raised.value.param == "messages[0].content[0].image_url.url"
    assert ollama.requests == []


# What Ollama can do beyond OpenAI's API


@pytest.mark.compat(
    "chat.request.options",
    "chat.request.keep_alive",
    "chat.request.think",
    "chat.request.truncate",
    "chat.request.shift",
)
def test_the_engines_own_options(client: openai.OpenAI, ollama: OllamaServer) -> None:
    client.chat.completions.create(
        model="gpt-4o-mini",
        messages=ASK,
        temperature=0.5,
        extra_body={
            "options": {"num_ctx": 2048, "top_k": 3, "temperature": 1},
            "keep_alive": "10m",
            "think": False,
            "truncate": True,
            "shift": True,
        },
    )
    sent = ollama.chats()[0].body
    assert sent["options"] == {"num_ctx": 2048, "top_k": 3, "temperature": 0.5}
    assert (sent["keep_alive"], sent["think"]) == ("10m", False)
    assert sent["truncate"] is sent["shift"] is True
    for options, param in (
        ({"num_gpu": 99}, "options.num_gpu"),
        ({"num_ctx": 32_769}, "options.num_ctx"),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(
                model=MODEL, messages=ASK, extra_body={"options": options}
            )
        assert raised.value.param == param
    assert len(ollama.chats()) == 1


@pytest.mark.compat("chat.request.messages[].tool_call_id")
def test_arguments_are_json_in_a_round_trip(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer([], tool_calls=[called("time")]), Answer(["Noon."]))
    first = client.chat.completions.create(
        model=TOOLS_MODEL, messages=ASK, tools=[tool("time")], tool_choice="auto"
    )
    message: Any = first.choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    result: ChatCompletionMessageParam = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": [{"type": "text", "text": "12:00"}],
    }
    client.chat.completions.create(
        model=TOOLS_MODEL, messages=[*ASK, message, result], tools=[tool("time")]
    )
    *_, told = ollama.chats()[1].body["messages"]
    assert told == {
        "role": "tool",
        "content": "12:00",
        "tool_call_id": "call_time",
        "tool_name": "time",
    }
