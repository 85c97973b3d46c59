"""OpenAI's Agents SDK, with its own model and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import agents
import httpx2
import openai
import pytest
from agents import (
    Agent,
    OpenAIConversationsSession,
    OpenAIResponsesCompactionSession,
    Runner,
    SQLiteSession,
    function_tool,
)

from tests.clients.scripts import (
    ANSWER,
    CITY,
    CITY_ANSWER,
    TEXT,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    City,
    Place,
    forecast,
)
from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, Site


def get_weather(place: Place, days: int | None) -> str:
    """Get the weather."""
    return forecast(place.city)


WEATHER = function_tool(get_weather)


@pytest.fixture(autouse=True)
def client(
    any_model_site: Site, async_http_client: httpx2.AsyncClient
) -> Iterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(
        base_url=any_model_site.base_url, api_key=KEY, http_client=async_http_client
    )
    agents.set_default_openai_client(client, use_for_tracing=False)
    # It would tell OpenAI of every run.
    agents.set_tracing_disabled(True)
    yield client
    agents.set_tracing_disabled(False)


async def test_an_agent_as_it_comes(ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(ANSWER)
    result = await Runner.run(Agent(name="a", instructions="Be brief."), "Say hello.")
    assert result.final_output == TEXT
    # Nobody has asked for these.
    assert sent[0]["text"]["verbosity"]
    assert sent[0]["reasoning"]["effort"]
    assert ollama.chats()[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello."},
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    agent = Agent(name="a", tools=[WEATHER])
    if stream:
        streamed = Runner.run_streamed(agent, "The weather?")
        kinds = [event.type async for event in streamed.stream_events()]
        assert kinds.count("run_item_stream_event") >= 5
        output = streamed.final_output
    else:
        output = (await Runner.run(agent, "The weather?")).final_output
    assert output == WEATHER_TEXT
    *_, last = ollama.chats()
    assert [message["role"] for message in last.body["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


async def test_structured_output(ollama: OllamaServer) -> None:
    ollama.reply(CITY_ANSWER)
    result = await Runner.run(Agent(name="a", output_type=City), "A city?")
    assert result.final_output == CITY


async def test_a_conversation(ollama: OllamaServer) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    agent = Agent(name="a", tools=[WEATHER])
    first = await Runner.run(agent, "The weather?")
    items = first.to_input_list()
    items.append({"role": "user", "content": "Thanks."})
    second = await Runner.run(agent, items)
    assert second.final_output == TEXT
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_a_conversation_at_the_server(ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    session = OpenAIConversationsSession()
    agent = Agent(name="a", tools=[WEATHER])
    first = await Runner.run(agent, "The weather?", session=session)
    assert first.final_output == WEATHER_TEXT
    second = await Runner.run(agent, "Thanks.", session=session)
    assert second.final_output == TEXT
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]
    kinds = [item["type"] for item in await session.get_items()]
    assert kinds == [
        "message",
        *["function_call"] * 2,
        *["function_call_output"] * 2,
        *["message"] * 3,
    ]
    assert [item["type"] for item in await session.get_items(limit=2)] == kinds[-2:]
    # It sends 20 at a time.
    await session.add_items([{"role": "user", "content": str(n)} for n in range(45)])
    items: list[Any] = await session.get_items()
    assert [item["content"][0]["text"] for item in items[-45:]] == [str(n) for n in range(45)]
    popped: Any = await session.pop_item()
    assert popped["content"][0]["text"] == "44"
    assert len(await session.get_items()) == len(kinds) + 44
    id = session.session_id
    await session.clear_session()
    with pytest.raises(openai.NotFoundError):
        await OpenAIConversationsSession(conversation_id=id).get_items()


@pytest.mark.compat("responses.request.conversation")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_by_its_id(
    client: openai.AsyncOpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    agent = Agent(name="a", tools=[WEATHER])
    id = (await client.conversations.create()).id
    for prompt, output in (("The weather?", WEATHER_TEXT), ("Thanks.", TEXT)):
        assert await final_output(agent, prompt, stream, conversation_id=id) == output
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


@pytest.mark.compat("responses.request.previous_response_id")
@pytest.mark.parametrize("stream", [False, True])
async def test_each_turn_continues_the_response_before(
    ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    agent = Agent(name="a", tools=[WEATHER])
    first = await result_of(agent, "The weather?", stream, auto_previous_response_id=True)
    assert first.final_output == WEATHER_TEXT
    # The results of the tools, and nothing that the server has already.
    assert [item["type"] for item in sent[1]["input"]] == ["function_call_output"] * 2
    second = await result_of(agent, "Thanks.", stream, previous_response_id=first.last_response_id)
    assert second.final_output == TEXT
    assert len(sent[2]["input"]) == 1
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


@pytest.mark.parametrize("mode", ["previous_response_id", "input"])
async def test_a_session_is_compacted(ollama: OllamaServer, sent: list[Any], mode: Any) -> None:
    ollama.reply(*WEATHER_ANSWERS, Answer(["They spoke of the weather."]), ANSWER)
    rows = SQLiteSession("s")
    session = OpenAIResponsesCompactionSession(
        "s",
        rows,
        compaction_mode=mode,
        should_trigger_compaction=lambda context: len(context["session_items"]) > 4,
    )
    agent = Agent(name="a", tools=[WEATHER])
    await Runner.run(agent, "The weather?", session=session)
    items: list[Any] = await session.get_items()
    assert items[-1]["type"] == "compaction"
    assert "weather" not in items[-1]["encrypted_content"]
    assert ("previous_response_id" in sent[2]) == (mode == "previous_response_id")
    assert (await Runner.run(agent, "Thanks.", session=session)).final_output == TEXT
    messages = json.dumps(ollama.chats()[3].body["messages"])
    assert "They spoke of the weather." in messages
    assert "sunny" not in messages
    rows.close()


async def result_of(agent: Agent[Any], prompt: str, stream: bool, **options: Any) -> Any:
    if not stream:
        return await Runner.run(agent, prompt, **options)
    result = Runner.run_streamed(agent, prompt, **options)
    async for _ in result.stream_events():
        pass
    return result


async def final_output(agent: Agent[Any], prompt: str, stream: bool, **options: Any) -> Any:
    return (await result_of(agent, prompt, stream, **options)).final_output
