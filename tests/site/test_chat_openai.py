"""``v1/chat/completions`` and ``v1/models`` through the official OpenAI client, on both servers."""

from __future__ import annotations

import json
import threading
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, Wait, error, line
from tests.site.test_streaming import DONE, part

pytestmark = pytest.mark.lane

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
MODEL = "smollm2:135m"

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "place": {
                    "type": "object",
                    "properties": {"city": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                    "$defs": {"x": {"enum": [1, 2]}},
                }
            },
            "required": ["place"],
        },
    },
}
CALL = {
    "id": "call_9mth0lrj",
    "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
}


@pytest.mark.compat("chat.response.usage.prompt_tokens", "chat.response.usage.completion_tokens")
def test_an_answer_in_one_piece(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Hello", " wörld", "\x85\u2028!"], prompt_tokens=12))
    completion = client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        temperature=0.5,
        top_p=0.9,
        max_tokens=50,
        stop=["\n\n"],
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        user="somebody",
        metadata={"a": "b"},
    )
    choice = completion.choices[0]
    assert choice.message.content == "Hello wörld\x85\u2028!"
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert completion.model == MODEL
    assert completion.usage is not None
    assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) == {
        "prompt_tokens": 12,
        "completion_tokens": 3,
    }
    sent = ollama.chats()[0].body
    assert sent["stream"] is False
    assert sent["options"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "num_predict": 50,
        "stop": ["\n\n"],
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
    }


@pytest.mark.compat("chat.request.stream")
def test_a_stream(client: openai.OpenAI, ollama: OllamaServer) -> None:
    tokens = ["Hello", " ", "wörld", "\x85\u2028\n\ndata: [DONE]\n\n", "!"]
    ollama.reply(Answer(tokens, done_reason="length"))
    chunks = list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(tokens)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert [reason for reason in reasons if reason] == ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.created for chunk in chunks}) == 1
    assert ollama.chats()[0].body["stream"] is True


@pytest.mark.compat("chat.request.stream_options.include_usage")
def test_a_stream_with_usage(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["a", "b"], prompt_tokens=5))
    *chunks, last = client.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 2)


@pytest.mark.compat(
    "chat.response.choices[].message.content",
    "chat.response.choices[].message.tool_calls[].function.name",
)
def test_tools_in_one_piece(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer([], tool_calls=[CALL]), Answer(["Sunny."]))
    completion = client.chat.completions.create(
        model="team/tools:small", messages=ASK, tools=[WEATHER]
    )
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.id == "call_9mth0lrj"
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert ollama.chats()[0].body["tools"] == [WEATHER]

    answer: Any = choice.message
    result: ChatCompletionMessageParam = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": "sunny, 21C",
    }
    client.chat.completions.create(
        model="team/tools:small", messages=[*ASK, answer, result], tools=[WEATHER]
    )
    assistant, tool = ollama.chats()[1].body["messages"][1:]
    assert assistant["tool_calls"] == [
        {
            "id": "call_9mth0lrj",
            "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
        }
    ]
    assert tool == {
        "role": "tool",
        "content": "sunny, 21C",
        "tool_call_id": "call_9mth0lrj",
        "tool_name": "get_weather",
    }


@pytest.mark.compat("chat.response.choices[].delta.tool_calls[].index")
def test_tools_in_a_stream(client: openai.OpenAI, ollama: OllamaServer) -> None:
    second = {"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Rome"}}}
    ollama.reply(Answer(["Let me see."], tool_calls=[CALL, second]))
    chunks = list(
        client.chat.completions.create(
            model="team/tools:small", messages=ASK, tools=[WEATHER], stream=True
        )
    )
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]
    assert calls[0].id == "call_9mth0lrj"
    assert calls[1].id is not None
    assert calls[1].id.startswith("call_")
    assert [json.loads(call.function.arguments or "") for call in calls if call.function] == [
        {"city": "Paris"},
        {"city": "Rome"},
    ]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.compat("chat.response.choices[].message.reasoning_content")
def test_the_reasoning_of_a_thinking_model(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["6"], thinking=["3 and", " 3"]))
    completion = client.chat.completions.create(
        model="thinker", messages=ASK, reasoning_effort="low"
    )
    message = completion.choices[0].message
    assert message.content == "6"
    assert getattr(message, "reasoning_content", None) == "3 and 3"
    assert ollama.chats()[0].body["think"] == "low"


@pytest.mark.compat("chat.request.model", "chat.response.model")
def test_a_public_name_hides_the_engines(client: openai.OpenAI, ollama: OllamaServer) -> None:
    completion = client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert completion.model == "gpt-4o-mini"
    sent = ollama.chats()[0].body
    assert sent["model"] == "smollm2:135m"
    assert sent["options"]["num_ctx"] == 8192


def test_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"gpt-4o-mini", "team/tools:small", "thinker", "smollm2:135m", "all-minilm:22m"} <= set(
        models
    )
    assert "gone" not in models
    metadata: Any = getattr(models["gpt-4o-mini"], "metadata", None)
    assert metadata["context_length"] == 8192
    assert metadata["capabilities"] == ["completion"]
    assert metadata["backend"] == "default"
    assert models["smollm2:135m"].created == 1795341844


@pytest.mark.parametrize("name", ["gpt-4o-mini", "team/tools:small", "smollm2:135m"])
def test_one_model(client: openai.OpenAI, name: str) -> None:
    model = client.models.retrieve(name)
    assert model.id == name
    assert model.object == "model"


@pytest.mark.compat(
    "errors.response.error.code",
    "errors.response.error.param",
    "errors.status.401",
    "errors.status.502, 503, 504",
    "http.header.Retry-After",
)
def test_errors_have_the_right_classes(client: openai.OpenAI, ollama: OllamaServer) -> None:
    def ask(**changes: Any) -> Any:
        return client.chat.completions.create(**{"model": MODEL, "messages": ASK, **changes})

    with pytest.raises(openai.BadRequestError) as bad:
        ask(temperature="hot")
    assert bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError) as unknown:
        client.with_options(api_key="wrong").models.list()
    assert unknown.value.code == "invalid_api_key"
    for model in ("missing", "gone"):
        with pytest.raises(openai.NotFoundError) as missing:
            ask(model=model)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert repr(model) in missing.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gone")
    ollama.reply(error(500, "open /root/.ollama/secret: no such file"))
    with pytest.raises(openai.InternalServerError) as broken:
        ask()
    assert broken.value.status_code == 502
    assert "secret" not in broken.value.message
    with pytest.raises(openai.InternalServerError) as dead:
        ask(model="dead")
    assert dead.value.status_code == 503
    assert dead.value.response.headers["retry-after"] == "5"
    assert "127.0.0.1" not in dead.value.message
    ollama.reply(Answer(pause=2))
    with pytest.raises(openai.InternalServerError) as late:
        ask(model="impatient")
    assert late.value.status_code == 504


@pytest.mark.compat("chat.stream.failure before the first delta", "errors.status.400 (context)")
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_400(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER], stream=stream)
    with pytest.raises(openai.BadRequestError) as public:
        client.chat.completions.create(
            model="gpt-4o-mini", messages=ASK, tools=[WEATHER], stream=stream
        )
    # The engine's own name of the model is none of the client's business.
    assert "This model does not support tools." in public.value.message
    ollama.reply(error(400, f"hub.corp.internal/team/{MODEL} is not ready"))
    with pytest.raises(openai.BadRequestError, match="- gpt-4o-mini is not ready"):
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=stream)
    nested = json.dumps(
        {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 831, "n_ctx": 256}}
    )
    ollama.reply(error(400, nested))
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=ASK, stream=stream)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    assert "831" in long.value.message


TIME: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "odd"}}}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": SCHEMA}, "response_format", "invalid_json_schema"),
        (
            {
                "tools": [WEATHER, TIME],
                "tool_choice": {"type": "function", "function": {"name": "get_time"}},
            },
            "tools[1].function.parameters",
            "invalid_json_schema",
        ),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"extra_body": {"think": True}}, "think", "unsupported_parameter"),
        ({"tools": [TIME]}, "tools", "unsupported_parameter"),
    ],
)
def test_a_refusal_names_the_field_that_the_client_sent(
    client: openai.OpenAI, ollama: OllamaServer, fields: dict[str, Any], param: str, code: str
) -> None:
    ollama.reply(error(500, "invalid JSON schema in format"))
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=ASK, **fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.compat("chat.stream.failure in mid-stream", "chat.stream.an engine that breaks off")
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ([line({"error": "llama runner process has terminated"})], "failed while generating"),
        ([Close()], "connection to the engine was lost"),
        ([], "ended before it was complete"),
    ],
    ids=["error line", "closed early", "no done"],
)
def test_an_error_in_mid_stream(
    client: openai.OpenAI, ollama: OllamaServer, ending: list[Any], message: str
) -> None:
    message_part = {"role": "assistant", "content": "Hel"}
    first = line({"model": MODEL, "message": message_part, "done": False})
    ollama.reply(Reply([first, Wait(0.1), *ending]))
    stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    content = ""
    with pytest.raises(openai.APIError, match=message) as raised:
        for chunk in stream:
            content += chunk.choices[0].delta.content or ""
    assert content == "Hel"
    assert raised.value.type == "server_error"
    assert raised.value.code == "bad_upstream"


@pytest.mark.compat("chat.stream.failure before the first delta")
@pytest.mark.parametrize(
    "reply",
    [
        Reply([]),
        Reply([Close()]),
        line({"error": "boom"}),
        line({"message": {"content": "half"}, "done": False}),
        line([1, 2]),
        Reply([], status=302, headers={"Location": "http://127.0.0.1:9/"}),
    ],
    ids=["empty", "closed", "error line", "not done", "odd", "redirect"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_makes_no_sense_is_502(
    client: openai.OpenAI, ollama: OllamaServer, reply: Any, stream: bool
) -> None:
    ollama.reply(reply if isinstance(reply, Reply) else Reply([reply]))
    with pytest.raises(openai.APIError) as raised:
        list(client.chat.completions.create(model=MODEL, messages=ASK, stream=stream))
    assert raised.value.code == "bad_upstream"


def test_many_at_once(client: openai.OpenAI, ollama: OllamaServer) -> None:
    count, gate = 12, threading.Event()
    ollama.reply(
        *(
            Reply([part(f"{number}"), Hold(gate), part(" tokens"), line(DONE)])
            for number in range(count)
        )
    )
    answers: list[str] = []

    def ask() -> None:
        stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        answers.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    # None of them ends before all have begun.
    ollama.wait_for_chat(count)
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"{number} tokens" for number in range(count))
