"""Clients that let the site keep their conversations, with the app that does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import httpx2
import openai
import pytest
from agents import Agent, OpenAIConversationsSession, Runner, SQLiteSession, function_tool
from agents.memory import OpenAIResponsesCompactionSession
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.node_client import NodeClient
from tests.clients.scripts import (
    CALLS,
    TOOLS_MODEL,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    Place,
    forecast,
)
from tests.conftest import site_options
from tests.contrib.access.sites import Database
from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, SERVERS_AND_LANE, Site, serve

CHAT = "django_ollama_openai.contrib.chat"
#: It thinks and has tools: some clients ask for both.
ENGINE_MODEL = "all:1b"
ANSWERS = [Answer(["Rome."]), Answer(["Yes."]), Answer(["No."])]
CONVERSATION = [("user", "Which city?"), ("assistant", "Rome."), ("user", "Sure?")]


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def running_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A site that keeps conversations, and has one model by all names."""
    options = {**site_options(ollama_server), "MODELS": {"*": {"MODEL": ENGINE_MODEL}}}
    directory = tmp_path_factory.mktemp(request.param.replace("+", "-"))
    database = Database(directory, options, {"SITE_APPS": CHAT})
    database.command("migrate", "-v", "0")
    environment: dict[str, Any] = database.environment
    with serve(request.param, directory, options, **environment) as site:
        yield site


@pytest.fixture
def engine(ollama: OllamaServer) -> OllamaServer:
    """A scripted Ollama with the model."""
    tag = ollama.models["smollm2-tools:135m"]
    capabilities = [*tag["capabilities"], "thinking"]
    named = {"name": ENGINE_MODEL, "model": ENGINE_MODEL, "capabilities": capabilities}
    ollama.models[ENGINE_MODEL] = {**tag, **named}
    return ollama


def texts(engine: OllamaServer, number: int) -> list[tuple[str, str]]:
    """The messages of a request to the engine."""
    messages = engine.chats()[number].body["messages"]
    return [(message["role"], message["content"]) for message in messages]


# OpenAI's Agents SDK


@pytest.fixture
def client(site: Site, async_http_client: httpx2.AsyncClient) -> Iterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(
        base_url=site.base_url, api_key=KEY, max_retries=0, http_client=async_http_client
    )
    agents.set_default_openai_client(client, use_for_tracing=False)
    agents.set_tracing_disabled(True)
    yield client
    agents.set_tracing_disabled(False)


async def test_an_agent_with_a_session_of_the_site(
    client: openai.AsyncOpenAI, engine: OllamaServer
) -> None:
    engine.reply(*ANSWERS)
    session = OpenAIConversationsSession(openai_client=client)
    agent = Agent(name="a")
    assert (await Runner.run(agent, "Which city?", session=session)).final_output == "Rome."
    assert (await Runner.run(agent, "Sure?", session=session)).final_output == "Yes."
    assert texts(engine, 1) == CONVERSATION
    items: list[Any] = await session.get_items()
    assert [item["role"] for item in items] == ["user", "assistant"] * 2
    newest: list[Any] = await session.get_items(limit=1)
    assert newest == items[-1:]
    popped: Any = await session.pop_item()
    assert popped["id"] == items[-1]["id"]
    await session.add_items([{"role": "user", "content": f"{number}"} for number in range(45)])
    assert len(await session.get_items()) == 48
    id = session.session_id
    await session.clear_session()
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(id)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_continues_a_response_or_a_conversation(
    client: openai.AsyncOpenAI, engine: OllamaServer, stream: bool
) -> None:
    def get_weather(place: Place, days: int | None) -> str:
        """Get the weather."""
        return forecast(place.city)

    agent = Agent(name="a", tools=[function_tool(get_weather)])

    async def run(text: str, **options: Any) -> Any:
        if not stream:
            return await Runner.run(agent, text, **options)
        streamed = Runner.run_streamed(agent, text, **options)
        async for _ in streamed.stream_events():
            pass
        return streamed

    conversation = await client.conversations.create()
    roles = ["user", "assistant", "tool", "tool", "assistant", "user"]
    for options in ({"conversation_id": conversation.id}, {"auto_previous_response_id": True}):
        before = len(engine.chats())
        engine.reply(*WEATHER_ANSWERS, Answer(["You are welcome."]))
        first = await run("The weather?", **options)
        assert first.final_output == WEATHER_TEXT
        if "conversation_id" not in options:
            options = {"previous_response_id": first.last_response_id}
        last = await run("Thanks.", **options)
        assert last.final_output == "You are welcome."
        assert [role for role, _ in texts(engine, before + 2)] == roles


async def test_an_agents_session_is_compacted(
    client: openai.AsyncOpenAI, engine: OllamaServer
) -> None:
    engine.reply(Answer(["Rome."]), Answer(["It is about Rome."]), Answer(["Yes."]))
    kept = SQLiteSession("a")
    session = OpenAIResponsesCompactionSession(
        session_id="a", underlying_session=kept, client=client
    )
    agent = Agent(name="a")
    await Runner.run(agent, "Which city?", session=session)
    await session.run_compaction({"force": True})
    kinds = [item.get("type", "message") for item in await session.get_items()]
    assert kinds == ["message", "compaction"]
    await Runner.run(agent, "Sure?", session=session)
    question, (_, summary), new = texts(engine, 2)
    assert question == ("user", "Which city?")
    assert summary.endswith("It is about Rome.")
    assert new == ("user", "Sure?")
    kept.close()


# The AI SDK of Vercel


@pytest.fixture(scope="module")
def node(node_directory: Path) -> Iterator[NodeClient]:
    with NodeClient(node_directory / "ai.mjs") as client:
        yield client


@pytest.mark.parametrize("case", ["tools", "toolsStream"])
def test_vercels_default_provider_refers_to_items(
    node: NodeClient, site: Site, engine: OllamaServer, case: str
) -> None:
    engine.reply(Answer(["Let me see."], tool_calls=CALLS), WEATHER_ANSWERS[1])
    seen = node.run(
        case,
        baseURL=site.base_url,
        apiKey=KEY,
        model=TOOLS_MODEL,
        provider="openai-responses",
        providerOptions=None,
    )
    assert seen["text"] == WEATHER_TEXT
    assert "item_reference" in [item.get("type") for item in seen["sent"][1]["input"]]
    messages = engine.chats()[1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["content"] == "Let me see."
    assert len(messages[1]["tool_calls"]) == len(CALLS)


# LangChain


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_continues_a_response(
    site: Site, engine: OllamaServer, http_client: httpx2.Client, sent: list[Any], stream: bool
) -> None:
    model = ChatOpenAI(
        model="any",
        base_url=site.base_url,
        api_key=SecretStr(KEY),
        use_previous_response_id=True,
        streaming=stream,
        max_retries=0,
        http_client=http_client,
    )
    engine.reply(*ANSWERS)
    messages: list[Any] = [HumanMessage("Which city?")]
    first = model.invoke(messages)
    assert isinstance(first, AIMessage)
    assert first.response_metadata["id"].startswith("resp_")
    second = model.invoke([*messages, first, HumanMessage("Sure?")])
    assert second.text == "Yes."
    assert len(sent[1]["input"]) == 1
    assert texts(engine, 1) == CONVERSATION


# pydantic-ai


@pytest.fixture
def make_agent(site: Site, async_http_client: httpx2.AsyncClient) -> Any:
    def make_agent(settings: OpenAIResponsesModelSettings) -> PydanticAgent[None, str]:
        provider = OpenAIProvider(
            base_url=site.base_url, api_key=KEY, http_client=async_http_client
        )
        return PydanticAgent(
            OpenAIResponsesModel("any", provider=provider),
            model_settings=settings,
        )

    return make_agent


async def test_pydantic_ai_continues_a_response(make_agent: Any, engine: OllamaServer) -> None:
    engine.reply(*ANSWERS)
    agent = make_agent({"openai_previous_response_id": "auto"})
    first = await agent.run("Which city?")
    second = await agent.run("Sure?", message_history=first.all_messages())
    assert (first.output, second.output) == ("Rome.", "Yes.")
    assert texts(engine, 1) == CONVERSATION


async def test_pydantic_ai_continues_a_conversation(
    make_agent: Any, site: Site, engine: OllamaServer
) -> None:
    with openai.OpenAI(base_url=site.base_url, api_key=KEY) as client:
        conversation = client.conversations.create()
        engine.reply(*ANSWERS)
        agent = make_agent({"openai_conversation_id": conversation.id})
        await agent.run("Which city?")
        assert (await agent.run("Sure?")).output == "Yes."
        assert texts(engine, 1) == CONVERSATION
        assert len(list(client.conversations.items.list(conversation.id))) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_pydantic_ai_in_the_background(
    make_agent: Any, engine: OllamaServer, stream: bool
) -> None:
    engine.reply(Answer(["Rome", "."], pause=0.2))
    agent = make_agent({"openai_background": True})
    if stream:
        async with agent.run_stream("Which city?") as result:
            output = await result.get_output()
    else:
        output = (await agent.run("Which city?")).output
    assert output == "Rome."
