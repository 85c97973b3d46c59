"""``v1/responses`` through the official OpenAI client, on both servers, and with a store."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel
from pytest_django.fixtures import Settings

from django_ollama_openai.auth import Caller
from django_ollama_openai.response_store import BaseResponseStore
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import Answer, Close, OllamaServer, Reply, error, line, recorded
from tests.recordings import load
from tests.servers import KEY, Site

MODEL = "smollm2:135m"
TOOLS_MODEL = "team/tools:small"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Get weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CALL = {"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}


@pytest.mark.compat("responses.request.metadata")
def test_a_response_in_one_piece(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Hello", " wörld"], prompt_tokens=12))
    response = client.responses.create(
        model=MODEL,
        instructions="Be brief.",
        input="Say hello.",
        temperature=0.5,
        max_output_tokens=50,
        metadata={"a_b": "c"},
        store=True,
    )
    assert response.output_text == "Hello wörld"
    assert (response.status, response.model) == ("completed", MODEL)
    assert response.to_dict()["store"] is False
    assert response.metadata == {"a_b": "c"}
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (12, 2)
    sent = ollama.chats()[0].body
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello."},
    ]
    assert sent["options"] == {"temperature": 0.5, "num_predict": 50}


@pytest.mark.compat("responses.request.stream", "responses.event.type", "responses.stream.order")
def test_the_events_of_a_stream(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Hel", "lo\x85\u2028"], thinking=["Hm"], tool_calls=[CALL]))
    stream = client.responses.create(model=TOOLS_MODEL, input="Hi", tools=[WEATHER], stream=True)
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == ["reasoning", "message", "function_call"]
    assert last.response.output_text == "Hello\x85\u2028"


@pytest.mark.compat(
    "responses.response.output[].content[].text", "responses.stream.text after a tool call"
)
def test_text_after_a_tool_call_is_kept(client: openai.OpenAI, ollama: OllamaServer) -> None:
    def part(**message: Any) -> Any:
        return line({"model": MODEL, "message": {"content": "", **message}, "done": False})

    end = line({"message": {"content": ""}, "done": True, "done_reason": "stop"})
    ollama.reply(
        Reply([part(content="Let me see."), part(tool_calls=[CALL]), part(content="Done."), end])
    )
    with client.responses.stream(model=TOOLS_MODEL, input="Hi", tools=[WEATHER]) as stream:
        response = stream.get_final_response()
    assert [item.type for item in response.output] == ["message", "function_call", "message"]
    assert response.output_text == "Let me see.Done."


@pytest.mark.compat(
    "responses.request.input[].call_id",
    "responses.request.tools[].description",
    "responses.request.tools[].parameters",
    "responses.request.tools[].strict",
)
def test_a_round_trip_with_tools(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer([], thinking=["Hm."], tool_calls=[CALL]), Answer(["Sunny."]))
    first = client.responses.create(model=TOOLS_MODEL, input="Weather?", tools=[WEATHER])
    reasoning, call = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Rome"})
    items: Any = [
        {"role": "user", "content": "Weather?"},
        reasoning.to_dict(),
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "21C"},
    ]
    second = client.responses.create(model=TOOLS_MODEL, input=items, tools=[WEATHER])
    assert second.output_text == "Sunny."
    sent = ollama.chats()[1].body
    assert sent["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "function": {
                        "index": 0,
                        "name": "get_weather",
                        "arguments": {"city": "Rome"},
                    },
                }
            ],
        },
        {
            "role": "tool",
            "content": "21C",
            "tool_call_id": "call_1",
            "tool_name": "get_weather",
        },
    ]
    nested = {key: value for key, value in WEATHER.items() if key != "type"}
    assert sent["tools"] == [{"type": "function", "function": nested}]


@pytest.mark.compat("responses.request.tool_choice")
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool(client: openai.OpenAI, ollama: OllamaServer, stream: bool) -> None:
    call = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    ollama.reply(Answer(["I would rather not."]), Answer([call]))
    answer: Any = client.responses.create(
        model=TOOLS_MODEL, input="Hi", tools=[WEATHER], tool_choice="required", stream=stream
    )
    response = list(answer)[-1].response if stream else answer
    (item,) = response.output
    assert (item.type, item.name, item.arguments) == (
        "function_call",
        "get_weather",
        '{"city": "Rome"}',
    )


NAMESPACE: Any = {
    "type": "namespace",
    "name": "editor",
    "description": "Changes files.",
    "tools": [{"type": "custom", "name": "patch", "description": "Apply a patch."}],
}


@pytest.mark.compat(
    "responses.request.input[].namespace",
    "responses.request.input[type]",
    "responses.request.text.verbosity",
    "responses.request.tools[type]",
    "responses.response.output[].namespace",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_with_tools_of_every_kind(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    called = {"index": 0, "name": "editor__patch", "arguments": {"input": '+ "é"\n'}}
    ollama.reply(Answer([], tool_calls=[{"id": "call_7", "function": called}]), Answer(["Done."]))
    tools: Any = [{"type": "web_search"}, NAMESPACE, WEATHER, {"type": "image_generation"}]

    def ask(*items: Any) -> tuple[openai.types.responses.Response, str]:
        raw = client.responses.with_raw_response.create(
            model=TOOLS_MODEL,
            input=[{"role": "user", "content": "Go"}, *items],
            tools=tools,
            text={"verbosity": "low"},
            stream=stream,
        )
        answer: Any = raw.parse()
        return (
            list(answer)[-1].response if stream else answer,
            raw.headers["x-ignored-parameters"],
        )

    first, ignored = ask()
    assert ignored == "tools.web_search, tools.image_generation"
    (call,) = first.output
    assert call.type == "custom_tool_call"
    assert (call.namespace, call.name, call.input) == ("editor", "patch", '+ "é"\n')
    second, ignored = ask(
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        call.to_dict(),
        {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "ok"},
    )
    assert ignored == "tools.web_search, tools.image_generation, input.web_search_call"
    assert second.output_text == "Done."
    _, sent = ollama.chats()
    names = [tool["function"]["name"] for tool in sent.body["tools"]]
    assert names == ["editor__patch", "get_weather"]
    _, answer, result = sent.body["messages"]
    assert answer["tool_calls"] == [{"id": "call_7", "function": called}]
    assert (result["tool_name"], result["content"]) == ("editor__patch", "ok")


@pytest.mark.compat(
    "responses.request.frequency_penalty, presence_penalty, seed, stop",
)
def test_options_of_chat_completions_that_engines_have(
    client: openai.OpenAI, ollama: OllamaServer
) -> None:
    options = {"seed": 7, "stop": ["x"], "frequency_penalty": 0.5, "presence_penalty": -0.5}
    client.responses.create(model=TOOLS_MODEL, input="Hi", extra_body=options)
    assert ollama.chats()[0].body["options"] == options


class City(BaseModel):
    name: str


@pytest.mark.compat("responses.request.text.format.type")
@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(client: openai.OpenAI, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(Answer(['{"name"', ': "Rome"}']))
    if stream:
        with client.responses.stream(model=MODEL, input="A city", text_format=City) as events:
            response = events.get_final_response()
    else:
        response = client.responses.parse(model=MODEL, input="A city", text_format=City)
    assert response.output_parsed == City(name="Rome")
    assert ollama.chats()[0].body["format"]["properties"]["name"] == {
        "title": "Name",
        "type": "string",
    }


@pytest.mark.compat("responses.request.text.format.type")
def test_json_mode(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["{}"]))
    client.responses.create(model=MODEL, input="JSON!", text={"format": {"type": "json_object"}})
    assert ollama.chats()[0].body["format"] == "json"


@pytest.mark.compat(
    "responses.request.max_output_tokens", "responses.response.incomplete_details.reason"
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_off_is_incomplete(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(Answer(["Hel"], done_reason="length"))
    answer: Any = client.responses.create(
        model=MODEL, input="Hi", max_output_tokens=16, stream=stream
    )
    if stream:
        last = list(answer)[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"


@pytest.mark.compat("responses.stream.failure in mid-stream")
def test_a_stream_that_breaks_off_has_failed(client: openai.OpenAI, ollama: OllamaServer) -> None:
    half = line({"model": MODEL, "message": {"content": "Hel"}, "done": False})
    ollama.reply(Reply([half, Close()]))
    *_, last = client.responses.create(model=MODEL, input="Hi", stream=True)
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert last.response.output_text == "Hel"


@pytest.mark.compat(
    "responses.request.model",
    "responses.request.previous_response_id",
    "responses.request.tool_choice.type",
    "responses.request.truncation",
    "responses.stream.failure before the first event",
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_before_the_first_event_are_a_status(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    def ask(**fields: Any) -> Any:
        return client.responses.create(
            **{"model": MODEL, "input": "Hi", "stream": stream, **fields}
        )

    with pytest.raises(openai.NotFoundError) as missing:
        ask(model="gone")
    assert missing.value.code == "model_not_found"
    ollama.reply(recorded(load("chat_long_notruncate")))
    with pytest.raises(openai.BadRequestError) as too_long:
        ask()
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")
    ollama.reply(error(500, "boom"))
    with pytest.raises(openai.InternalServerError) as broken:
        ask()
    assert broken.value.status_code == 502
    with pytest.raises(openai.BadRequestError) as unknown:
        ask(previous_response_id="resp_1")
    assert unknown.value.param == "previous_response_id"
    assert "not stored" in unknown.value.message
    assert "your input" in too_long.value.message
    for choice in ({"type": "web_search"}, "required"):
        with pytest.raises(openai.BadRequestError, match="the tool 'web_search'") as search:
            ask(tools=[{"type": "web_search"}], tool_choice=choice)
        assert (search.value.code, search.value.param) == ("unsupported_parameter", "tool_choice")


def test_signals(site: Site, client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Hel", "lo"], prompt_tokens=3))
    raw = client.responses.with_raw_response.create(model=MODEL, input="Hi")
    started, finished = site.signals(raw.headers["x-request-id"], 2)
    assert (started["event"], finished["event"]) == ("started", "finished")
    assert finished["content"] == "Hello"
    assert finished["usage"]["completion_tokens"] == 2


# A store


class Kept(BaseResponseStore):
    """Keeps responses in memory, each for the caller that it was for."""

    conversations: dict[tuple[str, str], list[dict[str, Any]]] = {}  # noqa: RUF012
    responses: list[dict[str, Any]] = []  # noqa: RUF012

    def load(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        return self.conversations.get((response_id, caller.key_name or ""))

    def save(self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller) -> None:
        self.responses.append(response)
        key = (response["id"], caller.key_name or "")
        self.conversations[key] = [*items, *response["output"]]


class Full(Kept):
    """Has no room left."""

    def save(self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller) -> None:
        raise OSError("no room at /secret/path")


@pytest.fixture
def stored(settings: Settings, ollama: OllamaServer) -> OllamaServer:
    settings.OLLAMA_OPENAI = {
        "HOST": ollama.url,
        "API_KEYS": [{"KEY": KEY, "NAME": "ada"}, {"KEY": "sk-other", "NAME": "bob"}],
        "RESPONSE_STORE": f"{__name__}.Kept",
        "DEFAULT_MODEL": MODEL,
    }
    Kept.conversations.clear()
    Kept.responses.clear()
    return ollama


@pytest.fixture(params=CLIENTS, ids=IDS)
def ask(request: pytest.FixtureRequest) -> Any:
    """A request by either of Django's clients, and the response object in its answer."""
    send = sender(request.param)

    def ask(key: str = KEY, **body: Any) -> Any:
        return send("POST", "/ai/v1/responses", body, headers={"Authorization": f"Bearer {key}"})

    return ask


def last_event(response: Any) -> Any:
    *_, data = response.getvalue().decode().strip().split("\ndata: ")
    return json.loads(data)


@pytest.mark.compat(
    "responses.request.previous_response_id",
    "responses.request.store",
    "responses.response.previous_response_id",
    "responses.response.store",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_what_is_stored(
    ask: Any, stored: OllamaServer, stream: bool
) -> None:
    stored.reply(Answer(["Rome."]), Answer(["Of course."]))
    answer = ask(input="Which city?", stream=stream)
    first = last_event(answer)["response"] if stream else answer.json()
    assert first["store"] is True
    assert Kept.responses[0]["output"] == first["output"]
    second = ask(input="Sure?", previous_response_id=first["id"])
    assert second.json()["previous_response_id"] == first["id"]
    assert stored.chats()[1].body["messages"] == [
        {"role": "user", "content": "Which city?"},
        {"role": "assistant", "content": "Rome."},
        {"role": "user", "content": "Sure?"},
    ]
    assert len(Kept.responses) == 2
    assert len(Kept.conversations[second.json()["id"], "ada"]) == 4


@pytest.mark.compat("responses.request.input[type]", "responses.request.store")
def test_items_of_every_kind_are_stored_and_come_back(ask: Any, stored: OllamaServer) -> None:
    called = {"index": 0, "name": "editor__patch", "arguments": {"input": "+ a"}}
    stored.reply(Answer([], tool_calls=[{"id": "call_7", "function": called}]), Answer(["Done."]))
    search = {"type": "web_search_call", "id": "ws_1", "action": {"query": "rome"}}
    tools = {"type": "additional_tools", "role": "developer", "tools": [NAMESPACE]}
    hidden = {"type": "compaction", "encrypted_content": "gAA"}
    user = {"type": "message", "role": "user", "content": "Go"}
    model = {"model": "smollm2-tools:135m"}
    first = ask(input=[user, tools, search, hidden], **model).json()
    assert first["output"][0]["type"] == "custom_tool_call"
    result = {"type": "custom_tool_call_output", "call_id": "call_7", "output": "ok"}
    second = ask(input=[result], previous_response_id=first["id"], **model)
    assert second.headers["x-ignored-parameters"] == "input.compaction"
    assert Kept.conversations[second.json()["id"], "ada"][:4] == [user, tools, search, hidden]
    sent = stored.chats()[1].body
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["editor__patch"]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][1]["content"] == "Web search: rome"


@pytest.mark.compat("responses.request.input[type]")
@pytest.mark.parametrize("has_store", [True, False])
@pytest.mark.parametrize(
    "reference", [{"type": "item_reference", "id": "msg_1"}, {"type": None, "id": "msg_1"}]
)
def test_a_reference_to_an_item_is_refused_with_the_reason(
    ask: Any,
    stored: OllamaServer,
    settings: Settings,
    reference: dict[str, Any],
    has_store: bool,
) -> None:
    if not has_store:
        settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "RESPONSE_STORE": None}
    response = ask(input=[{"role": "user", "content": "Hi"}, reference])
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "input[1]"
    assert "items are not stored" in error["message"]
    assert "send the item itself (many clients do with 'store': false)" in error["message"]
    assert stored.chats() == []


@pytest.mark.compat("responses.request.input")
def test_a_conversation_goes_on_without_input(ask: Any, stored: OllamaServer) -> None:
    first = ask(input="Hi").json()
    second = ask(previous_response_id=first["id"])
    assert second.status_code == 200
    roles = [message["role"] for message in stored.chats()[1].body["messages"]]
    assert roles == ["user", "assistant"]


@pytest.mark.parametrize("fields", [{"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}, {}])
def test_what_is_left_of_a_request_must_have_input(
    ask: Any, stored: OllamaServer, settings: Settings, fields: dict[str, Any]
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "UNSUPPORTED_PARAMETERS": "ignore"}
    response = ask(**fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")


@pytest.mark.compat("responses.request.store")
def test_what_is_not_to_be_stored_is_not(ask: Any, stored: OllamaServer) -> None:
    assert ask(input="Hi", store=False).json()["store"] is False
    assert Kept.responses == []


@pytest.mark.compat("responses.request.previous_response_id")
def test_a_response_of_another_owner_does_not_exist(ask: Any, stored: OllamaServer) -> None:
    first = ask(input="Hi").json()
    for response in (
        ask(key="sk-other", input="Hi", previous_response_id=first["id"]),
        ask(input="Hi", previous_response_id="resp_none"),
    ):
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["code"] == "previous_response_not_found"
        assert error["param"] == "previous_response_id"


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_stored_has_failed(
    ask: Any, stored: OllamaServer, settings: Settings, stream: bool
) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "RESPONSE_STORE": f"{__name__}.Full"}
    response = ask(input="Hi", stream=stream)
    content = response.getvalue().decode()
    assert "secret" not in content
    assert "could not be stored" in content
    assert response.status_code == (200 if stream else 500)
    assert ("event: response.failed\n" in content) is stream
    assert "event: response.completed\n" not in content
