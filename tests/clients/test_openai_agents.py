"""OpenAI's Agents SDK, with its own model and settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import agents
import httpx2
import openai
import pytest
from agents import Agent, Runner, function_tool

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
from tests.ollama_server import OllamaServer
from tests.servers import KEY, Site


def get_weather(place: Place, days: int | None) -> str:
    """Get the weather."""
    return forecast(place.city)


WEATHER = function_tool(get_weather)


@pytest.fixture(autouse=True)
def _default_client(any_model_site: Site, async_http_client: httpx2.AsyncClient) -> Iterator[None]:
    client = openai.AsyncOpenAI(
        base_url=any_model_site.base_url, api_key=KEY, http_client=async_http_client
    )
    agents.set_default_openai_client(client, use_for_tracing=False)
    # It would tell OpenAI of every run.
    agents.set_tracing_disabled(True)
    yield
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
