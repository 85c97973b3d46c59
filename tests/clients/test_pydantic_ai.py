"""pydantic-ai."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import httpx2
import pytest
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAICompaction,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.scripts import (
    ANSWER,
    BROKEN,
    CITY,
    CITY_ANSWER,
    CUT_OFF,
    MODEL,
    REASONED_ANSWER,
    TEXT,
    THINKING_MODEL,
    TOOLS_MODEL,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    City,
    Place,
    assert_call_was_required,
    assert_round_trip,
    forecast,
    required_call,
)
from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, Site

MakeAgent: TypeAlias = Callable[..., Agent[None, Any]]

ASK = "Say hello."


def get_weather(place: Place, days: int | None) -> str:
    """Get the weather."""
    return forecast(place.city)


@pytest.fixture
def make_agent(site: Site, async_http_client: httpx2.AsyncClient) -> MakeAgent:
    def make_agent(
        model: str = MODEL,
        *,
        kind: type[OpenAIChatModel | OpenAIResponsesModel] = OpenAIChatModel,
        key: str = KEY,
        **options: Any,
    ) -> Agent[None, Any]:
        provider = OpenAIProvider(
            base_url=site.base_url, api_key=key, http_client=async_http_client
        )
        return Agent(kind(model, provider=provider), **options)

    return make_agent


async def test_chat(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    result = await make_agent(model_settings={"temperature": 0.5}).run(ASK)
    assert result.output == TEXT
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 5)
    assert ollama.chats()[0].body["messages"] == [{"role": "user", "content": ASK}]
    assert ollama.chats()[0].body["options"]["temperature"] == 0.5


async def test_a_stream(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    async with make_agent().run_stream(ASK) as result:
        deltas = [delta async for delta in result.stream_text(delta=True, debounce_by=None)]
    assert deltas == list(ANSWER.content)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 5)


async def test_tools(make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    result = await make_agent(TOOLS_MODEL, tools=[get_weather]).run(ASK)
    assert result.output == WEATHER_TEXT
    assert_round_trip(ollama, stream=False)
    tools = sent[0]["tools"]
    place = tools[0]["function"]["parameters"]["$defs"]["Place"]
    assert place["properties"]["country"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["tools"] == tools


async def test_tools_in_a_stream(
    make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any]
) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    async with make_agent(TOOLS_MODEL, tools=[get_weather]).run_stream(ASK) as result:
        assert await result.get_output() == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    assert ollama.chats()[0].body["tools"] == sent[0]["tools"]


async def test_reasoning_comes_and_goes_back(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    ollama.reply(REASONED_ANSWER, REASONED_ANSWER)
    agent = make_agent(THINKING_MODEL)
    first = await agent.run(ASK)
    assert (first.response.thinking, first.response.text) == ("3 and 3", "6")
    async with agent.run_stream(ASK, message_history=first.all_messages()) as second:
        assert await second.get_output() == "6"
    assert second.response.thinking == "3 and 3"
    assert ollama.chats()[1].body["messages"] == [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "6", "thinking": "3 and 3"},
        {"role": "user", "content": ASK},
    ]


async def test_structured_output(
    make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any]
) -> None:
    ollama.reply(CITY_ANSWER, CITY_ANSWER)
    agent = make_agent(output_type=NativeOutput(City))
    assert (await agent.run(ASK)).output == CITY
    async with agent.run_stream(ASK) as result:
        assert await result.get_output() == CITY
    schema = sent[0]["response_format"]["json_schema"]["schema"]
    assert schema["$defs"]["Country"]["properties"]["code"]["enum"] == ["FR", "IT"]
    assert [request.body["format"] for request in ollama.chats()] == [schema] * 2


@pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])
async def test_structured_output_through_a_tool(
    make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any], kind: Any
) -> None:
    ollama.reply(*required_call("final_result", CITY.model_dump()))
    assert (await make_agent(TOOLS_MODEL, kind=kind, output_type=City).run(ASK)).output == CITY
    (tool,) = sent[0]["tools"]
    assert sent[0]["tool_choice"] == "required"
    parameters = tool.get("function", tool)["parameters"]
    assert_call_was_required(ollama, "final_result", parameters)


async def test_a_stream_of_structured_output_through_a_tool(
    make_agent: MakeAgent, ollama: OllamaServer
) -> None:
    ollama.reply(*required_call("final_result", CITY.model_dump()))
    async with make_agent(TOOLS_MODEL, output_type=City).run_stream(ASK) as result:
        assert await result.get_output() == CITY
    assert [request.body["stream"] for request in ollama.chats()] == [True, True]


async def test_a_response(make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(ANSWER, ANSWER)
    agent = make_agent(kind=OpenAIResponsesModel, instructions="Be brief.")
    result = await agent.run(ASK)
    assert result.output == TEXT
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 5)
    async with agent.run_stream(ASK) as stream:
        deltas = [delta async for delta in stream.stream_text(delta=True, debounce_by=None)]
    assert deltas == list(ANSWER.content)
    for body, request in zip(sent, ollama.chats(), strict=True):
        assert request.body["messages"] == [
            {"role": "system", "content": body["instructions"]},
            {"role": "user", "content": ASK},
        ]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_of_a_response(
    make_agent: MakeAgent, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    agent = make_agent(TOOLS_MODEL, kind=OpenAIResponsesModel, tools=[get_weather])
    if stream:
        async with agent.run_stream(ASK) as result:
            assert await result.get_output() == WEATHER_TEXT
    else:
        assert (await agent.run(ASK)).output == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)


async def test_reasoning_of_a_response_comes_and_goes_back(
    make_agent: MakeAgent, ollama: OllamaServer
) -> None:
    ollama.reply(REASONED_ANSWER, REASONED_ANSWER)
    agent = make_agent(THINKING_MODEL, kind=OpenAIResponsesModel)
    first = await agent.run(ASK)
    assert first.output == "6"
    assert (await agent.run(ASK, message_history=first.all_messages())).output == "6"
    assert ollama.chats()[1].body["messages"] == [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "6", "thinking": "3 and 3"},
        {"role": "user", "content": ASK},
    ]


async def test_a_wrong_key(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    agent = make_agent(key="wrong")
    with pytest.raises(ModelHTTPError, match="invalid_api_key") as raised:
        await agent.run(ASK)
    assert raised.value.status_code == 401
    with pytest.raises(ModelHTTPError, match="invalid_api_key"):
        async with agent.run_stream(ASK):
            pass
    assert ollama.requests == []


async def test_an_unknown_model(make_agent: MakeAgent) -> None:
    agent = make_agent("missing")
    with pytest.raises(ModelHTTPError, match="model_not_found") as raised:
        await agent.run(ASK)
    assert raised.value.status_code == 404
    with pytest.raises(ModelHTTPError, match="model_not_found"):
        async with agent.run_stream(ASK):
            pass


async def test_a_failure_in_mid_stream(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    deltas = []
    with pytest.raises(ModelHTTPError, match="failed while generating") as raised:
        async with make_agent().run_stream(ASK) as result:
            async for delta in result.stream_text(delta=True, debounce_by=None):
                deltas.append(delta)
    assert raised.value.in_stream
    assert deltas == ["Hel"]


# What is stored


@pytest.fixture
def make_stateful_agent(make_agent: MakeAgent) -> MakeAgent:
    return partial(make_agent, TOOLS_MODEL, kind=OpenAIResponsesModel, tools=[get_weather])


@pytest.mark.compat("responses.request.previous_response_id")
@pytest.mark.parametrize("stream", [False, True])
async def test_each_turn_continues_the_response_before(
    make_stateful_agent: MakeAgent, ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    agent = make_stateful_agent(model_settings={"openai_previous_response_id": "auto"})
    first = await answer(agent, ASK, stream)
    assert first.output == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    second = await answer(agent, "Thanks.", stream, message_history=first.all_messages())
    assert second.output == TEXT
    assert ["previous_response_id" in body for body in sent] == [False, True, True]
    assert [len(body["input"]) for body in sent] == [1, 2, 1]
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


@pytest.mark.compat("responses.request.conversation")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_at_the_server(
    make_stateful_agent: MakeAgent, ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    agent = make_stateful_agent()
    model = agent.model
    assert isinstance(model, OpenAIResponsesModel)
    conversation = await model.client.conversations.create()
    begun = OpenAIResponsesModelSettings(openai_conversation_id=conversation.id)
    first = await answer(agent, ASK, stream, model_settings=begun)
    assert first.output == WEATHER_TEXT
    history = first.all_messages()
    auto = OpenAIResponsesModelSettings(openai_conversation_id="auto")
    second = await answer(agent, "Thanks.", stream, message_history=history, model_settings=auto)
    assert second.output == TEXT
    assert [body.get("conversation") for body in sent[1:]] == [conversation.id] * 3
    assert [len(body["input"]) for body in sent[1:]] == [1, 2, 1]
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]
    items = [item.type async for item in model.client.conversations.items.list(conversation.id)]
    assert len(items) == 8


@pytest.mark.compat("responses.request.background")
@pytest.mark.parametrize("stream", [False, True])
async def test_the_background(
    make_agent: MakeAgent, ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    ollama.reply(ANSWER)
    agent = make_agent(kind=OpenAIResponsesModel)
    settings = OpenAIResponsesModelSettings(openai_background=True)
    result = await answer(agent, ASK, stream, model_settings=settings)
    assert result.output == TEXT
    assert (result.usage.input_tokens, result.usage.output_tokens) == (12, 5)
    assert [body["background"] for body in sent] == [True]
    assert len(ollama.chats()) == 1


async def test_tokens_are_counted_before(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    agent = make_agent(kind=OpenAIResponsesModel)
    limits = UsageLimits(input_tokens_limit=100, count_tokens_before_request=True)
    ollama.reply(ANSWER)
    assert (await agent.run(ASK, usage_limits=limits)).output == TEXT
    with pytest.raises(UsageLimitExceeded):
        await agent.run("word " * 1000, usage_limits=limits)
    assert len(ollama.chats()) == 1


async def test_a_history_is_compacted(make_agent: MakeAgent, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER, Answer(["They said hello."]), CUT_OFF)
    compaction = OpenAICompaction(message_count_threshold=2)
    agent = make_agent(kind=OpenAIResponsesModel, capabilities=[compaction], instructions="Hush.")
    first = await agent.run(ASK)
    second = await agent.run("Go on.", message_history=first.all_messages())
    assert second.output == "Hel"
    messages = json.dumps(ollama.chats()[2].body["messages"])
    assert "They said hello." in messages
    assert "Go on." in messages


async def answer(agent: Agent[None, Any], prompt: str, stream: bool, **options: Any) -> Any:
    if not stream:
        return await agent.run(prompt, **options)
    async with agent.run_stream(prompt, **options) as result:
        await result.get_output()
    return Finished(result)


class Finished:
    """The result of a stream, with the names of that of a run."""

    def __init__(self, result: Any) -> None:
        self.output = result.response.text
        self.usage = result.usage
        self.all_messages = result.all_messages
