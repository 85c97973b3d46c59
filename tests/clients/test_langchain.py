"""langchain-openai."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent
from typing import Any, TypeAlias

import httpx2
import openai
import pytest
import tiktoken
from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from docs.generated import DOCS
from tests.clients.scripts import (
    ANSWER,
    BROKEN,
    CALLS,
    CITY,
    CITY_ANSWER,
    EMBEDDING_MODEL,
    MODEL,
    TEXT,
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

MakeChat: TypeAlias = Callable[..., ChatOpenAI]

ASK = "Say hello."


def get_weather(place: Place, days: int | None) -> str:
    """Get the weather."""
    return forecast(place.city)


WEATHER = StructuredTool.from_function(get_weather)


@pytest.fixture
def connection(
    site: Site, http_client: httpx2.Client, async_http_client: httpx2.AsyncClient
) -> dict[str, Any]:
    return {
        "base_url": site.base_url,
        "api_key": SecretStr(KEY),
        "max_retries": 0,
        "http_client": http_client,
        "http_async_client": async_http_client,
    }


@pytest.fixture
def make_chat(connection: dict[str, Any]) -> MakeChat:
    def make_chat(model: str = MODEL, *, key: str = KEY, **options: Any) -> ChatOpenAI:
        return ChatOpenAI(model=model, **{**connection, "api_key": SecretStr(key)}, **options)

    return make_chat


async def test_chat(make_chat: MakeChat, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER, ANSWER)
    chat = make_chat(temperature=0.5)
    for answer in (chat.invoke(ASK), await chat.ainvoke(ASK)):
        assert answer.text == TEXT
        assert answer.response_metadata["finish_reason"] == "stop"
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 12 + 5
    for request in ollama.chats():
        assert request.body["messages"] == [{"role": "user", "content": ASK}]
        assert request.body["options"]["temperature"] == 0.5


async def test_a_stream(make_chat: MakeChat, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER, ANSWER)
    chat = make_chat(stream_usage=True)
    for chunks in (list(chat.stream(ASK)), [chunk async for chunk in chat.astream(ASK)]):
        assert [chunk.text for chunk in chunks if chunk.text] == list(ANSWER.content)
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        assert whole.response_metadata["finish_reason"] == "stop"
        assert whole.usage_metadata is not None
        assert whole.usage_metadata["total_tokens"] == 12 + 5


@pytest.mark.parametrize("streaming", [False, True])
def test_tools(make_chat: MakeChat, ollama: OllamaServer, sent: list[Any], streaming: bool) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    chat = make_chat(TOOLS_MODEL, streaming=streaming).bind_tools([WEATHER])
    messages: list[Any] = [("user", ASK)]
    answer = chat.invoke(messages)
    assert [(call["id"], call["args"]) for call in answer.tool_calls] == [
        (call["id"], call["function"]["arguments"]) for call in CALLS
    ]
    results = [WEATHER.invoke(call) for call in answer.tool_calls]
    assert chat.invoke([*messages, answer, *results]).text == WEATHER_TEXT
    assert_round_trip(ollama, stream=streaming)
    tools = sent[0]["tools"]
    place = tools[0]["function"]["parameters"]["properties"]["place"]
    assert place["properties"]["country"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["tools"] == tools


# The client dumps a type of the openai package that holds a model where that has declared nothing.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic.main")
async def test_structured_output(
    make_chat: MakeChat, ollama: OllamaServer, sent: list[Any]
) -> None:
    ollama.reply(CITY_ANSWER, CITY_ANSWER, CITY_ANSWER)
    chat = make_chat().with_structured_output(City)
    assert chat.invoke(ASK) == CITY
    assert await chat.ainvoke(ASK) == CITY
    assert list(chat.stream(ASK))[-1] == CITY
    schema = sent[0]["response_format"]["json_schema"]["schema"]
    assert schema["$defs"]["Country"]["properties"]["code"]["enum"] == ["FR", "IT"]
    assert [request.body["format"] for request in ollama.chats()] == [schema] * 3


def test_structured_output_through_a_tool(
    make_chat: MakeChat, ollama: OllamaServer, sent: list[Any]
) -> None:
    ollama.reply(CITY_ANSWER)
    chat = make_chat(TOOLS_MODEL).with_structured_output(City, method="function_calling")
    assert chat.invoke(ASK) == CITY
    assert sent[0]["tool_choice"] == {"type": "function", "function": {"name": "City"}}
    (request,) = ollama.chats()
    assert request.body["format"] == sent[0]["tools"][0]["function"]["parameters"]


def test_a_required_tool(make_chat: MakeChat, ollama: OllamaServer, sent: list[Any]) -> None:
    call = CALLS[0]["function"]
    ollama.reply(*required_call(call["name"], call["arguments"]))
    answer = make_chat(TOOLS_MODEL).bind_tools([WEATHER], tool_choice="any").invoke(ASK)
    assert [made["args"] for made in answer.tool_calls] == [call["arguments"]]
    assert sent[0]["tool_choice"] == "required"
    parameters = sent[0]["tools"][0]["function"]["parameters"]
    assert_call_was_required(ollama, "get_weather", parameters)


async def test_responses(make_chat: MakeChat, ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(*[ANSWER] * 3)
    chat = make_chat(use_responses_api=True)
    for answer in (chat.invoke(ASK), await chat.ainvoke(ASK)):
        assert answer.text == TEXT
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 12 + 5
    chunks = list(chat.stream(ASK))
    assert [chunk.text for chunk in chunks if chunk.text] == list(ANSWER.content)
    assert ["input" in body for body in sent] == [True] * 3
    for request in ollama.chats():
        assert request.body["messages"] == [{"role": "user", "content": ASK}]


@pytest.mark.parametrize("streaming", [False, True])
def test_tools_of_responses(make_chat: MakeChat, ollama: OllamaServer, streaming: bool) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    chat = make_chat(TOOLS_MODEL, use_responses_api=True, streaming=streaming)
    asking = chat.bind_tools([WEATHER])
    messages: list[Any] = [("user", ASK)]
    answer = asking.invoke(messages)
    results = [WEATHER.invoke(call) for call in answer.tool_calls]
    assert asking.invoke([*messages, answer, *results]).text == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)


async def test_embeddings(connection: dict[str, Any], ollama: OllamaServer) -> None:
    model = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False, **connection)
    vectors = model.embed_documents(["hello", "big world"])
    assert [len(vector) for vector in vectors] == [384, 384]
    assert await model.aembed_query("hello") == vectors[0]
    inputs = [request.body["input"] for request in ollama.embeds()]
    assert inputs == [["hello", "big world"], ["hello"]]


def test_embeddings_of_tokens(
    connection: dict[str, Any], ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The vocabulary would be downloaded.
    tokens = tiktoken.Encoding(
        "bytes",
        pat_str=".",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", tokens)
    model = OpenAIEmbeddings(model=EMBEDDING_MODEL, **connection)
    with pytest.raises(openai.BadRequestError, match="text") as raised:
        model.embed_query("hello")
    assert raised.value.param == "input"
    assert ollama.embeds() == []


async def test_completions(connection: dict[str, Any], ollama: OllamaServer) -> None:
    ollama.reply(*[ANSWER] * 3)
    model = OpenAI(model=MODEL, **connection)
    assert model.invoke("Once") == await model.ainvoke("Once") == TEXT
    assert list(filter(None, model.stream("Once"))) == list(ANSWER.content)
    assert [request.body["prompt"] for request in ollama.generates()] == ["Once"] * 3


async def test_a_wrong_key(make_chat: MakeChat, ollama: OllamaServer) -> None:
    chat = make_chat(key="wrong")
    with pytest.raises(openai.AuthenticationError):
        chat.invoke(ASK)
    with pytest.raises(openai.AuthenticationError):
        await chat.ainvoke(ASK)
    with pytest.raises(openai.AuthenticationError):
        list(chat.stream(ASK))
    assert ollama.requests == []


async def test_an_unknown_model(make_chat: MakeChat) -> None:
    chat = make_chat("missing")
    with pytest.raises(openai.NotFoundError, match="'missing' does not exist"):
        chat.invoke(ASK)
    with pytest.raises(openai.NotFoundError, match="'missing' does not exist"):
        await chat.ainvoke(ASK)
    with pytest.raises(openai.NotFoundError, match="'missing' does not exist"):
        list(chat.stream(ASK))


async def test_a_failure_in_mid_stream(make_chat: MakeChat, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN, BROKEN)
    chat = make_chat()
    content = ""
    with pytest.raises(openai.APIError, match="failed while generating"):
        for chunk in chat.stream(ASK):
            content += chunk.text
    with pytest.raises(openai.APIError, match="failed while generating"):
        async for chunk in chat.astream(ASK):
            content += chunk.text
    assert content == "HelHel"


GUIDE = (DOCS / "howto" / "langchain.rst").read_text()
PARIS_CALL = {"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}


@pytest.mark.parametrize(
    ("program", "model", "reply", "printed"),
    [
        ("chat.py", MODEL, Answer(["Paris."]), "Paris.\n"),
        ("tools.py", TOOLS_MODEL, Answer([], tool_calls=[PARIS_CALL]), "Sunny in Paris.\n"),
        (
            "structured.py",
            MODEL,
            Answer(['{"name": "Nice", "country": "France"}']),
            "name='Nice' country='France'\n",
        ),
        ("embed.py", EMBEDDING_MODEL, None, "384\n"),
    ],
)
def test_the_programs_of_the_guide(
    site: Site,
    ollama: OllamaServer,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    model: str,
    reply: Answer | None,
    printed: str,
) -> None:
    if reply is not None:
        ollama.reply(reply)
    shown = re.search(rf"^   :caption: {program}\n\n((?:   .*\n|\n)+)", GUIDE, re.MULTILINE)
    assert shown is not None
    code = re.sub('model="[^"]+"', f'model="{model}"', dedent(shown[1]))
    monkeypatch.setenv("OPENAI_BASE_URL", site.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == (printed, 0), done.stderr


@pytest.mark.compat("responses.request.previous_response_id")
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_server_keeps_the_conversation(
    make_chat: MakeChat, ollama: OllamaServer, sent: list[Any], streaming: bool
) -> None:
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    chat = make_chat(
        TOOLS_MODEL,
        use_previous_response_id=True,
        output_version="responses/v1",
        streaming=streaming,
    ).bind_tools([WEATHER])
    messages: list[Any] = [HumanMessage(ASK)]
    answer: Any = chat.invoke(messages)
    messages += [answer, *(WEATHER.invoke(call) for call in answer.tool_calls)]
    answer = await chat.ainvoke(messages)
    assert answer.text == WEATHER_TEXT
    messages += [answer, HumanMessage("Thanks.")]
    assert chat.invoke(messages).text == TEXT
    assert answer.response_metadata["id"] == sent[2]["previous_response_id"]
    # Only what is new.
    assert [len(body["input"]) for body in sent] == [1, 2, 1]
    assert_round_trip(ollama, stream=True, further=1)
    roles = [message["role"] for message in ollama.chats()[2].body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]
