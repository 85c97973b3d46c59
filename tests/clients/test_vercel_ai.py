"""The AI SDK of Vercel, with its provider for OpenAI and the one for what is compatible."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clients.node_client import ClientError, NodeClient, Run
from tests.clients.scripts import (
    ANSWER,
    BROKEN,
    CALLS,
    CITY,
    CITY_ANSWER,
    EMBEDDING_MODEL,
    MODEL,
    REASONED_ANSWER,
    TEXT,
    THINKING_MODEL,
    TOOLS_MODEL,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    assert_call_was_required,
    assert_round_trip,
    required_call,
)
from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, Site


@pytest.fixture(scope="module")
def client(node_directory: Path) -> Iterator[NodeClient]:
    with NodeClient(node_directory / "ai.mjs") as client:
        yield client


@pytest.fixture
def run(client: NodeClient, site: Site) -> Run:
    return partial(client.run, baseURL=site.base_url, apiKey=KEY, model=MODEL)


@pytest.fixture(params=["openai", "openai-responses", "openai-compatible"])
def ask(request: pytest.FixtureRequest, run: Run) -> Run:
    """With each kind of model; items of a conversation are not referred to."""
    stateless = {"openai": {"store": False}} if request.param == "openai-responses" else None
    return partial(run, provider=request.param, providerOptions=stateless)


def function_sent(body: Any) -> Any:
    """The one function that the model was offered."""
    (tool,) = body["tools"]
    return tool.get("function", {name: value for name, value in tool.items() if name != "type"})


def schema_sent(body: Any) -> Any:
    if "text" in body:
        return body["text"]["format"]["schema"]
    return body["response_format"]["json_schema"]["schema"]


def failure_code(body: Any) -> str:
    """OpenAI enumerates the codes of a response that failed."""
    return "server_error" if "input" in body else "bad_upstream"


def test_chat(ask: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    seen = ask("chat")
    assert (seen["text"], seen["steps"], seen["warnings"]) == (TEXT, ["stop"], [])
    assert (seen["usage"]["inputTokens"], seen["usage"]["outputTokens"]) == (12, 5)
    assert ollama.chats()[0].body["messages"] == [{"role": "user", "content": "Say hello."}]
    assert ollama.chats()[0].body["options"]["temperature"] == 0.5


def test_a_stream(ask: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    seen = ask("stream")
    assert (seen["text"], seen["steps"], seen["warnings"]) == (TEXT, ["stop"], [])
    assert seen["deltas"] == list(ANSWER.content)
    assert (seen["usage"]["inputTokens"], seen["usage"]["outputTokens"]) == (12, 5)


@pytest.mark.parametrize(("case", "stream"), [("tools", False), ("toolsStream", True)])
def test_tools(ask: Run, ollama: OllamaServer, case: str, stream: bool) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    seen = ask(case, model=TOOLS_MODEL)
    assert seen["text"] == WEATHER_TEXT
    assert (seen["steps"], seen["warnings"]) == (["tool-calls", "stop"], [])
    assert_round_trip(ollama, stream=stream)
    function = function_sent(seen["sent"][0])
    place = function["parameters"]["properties"]["place"]
    assert place["properties"]["country"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["tools"] == [{"type": "function", "function": function}]


def test_a_required_tool(ask: Run, ollama: OllamaServer) -> None:
    call = CALLS[0]["function"]
    ollama.reply(*required_call(call["name"], call["arguments"]))
    seen = ask("requiredTool", model=TOOLS_MODEL)
    assert seen["inputs"] == [call["arguments"]]
    parameters = function_sent(seen["sent"][0])["parameters"]
    assert_call_was_required(ollama, "get_weather", parameters)


@pytest.mark.parametrize("streams", [False, True])
def test_later_turns_refer_to_items_that_are_stored(
    any_model_site: Site, client: NodeClient, ollama: OllamaServer, streams: bool
) -> None:
    weather = Answer([], thinking=["They", " ask."], tool_calls=CALLS)
    ollama.reply(weather, WEATHER_ANSWERS[1], REASONED_ANSWER, ANSWER)
    prompts = ["The weather?", "And 3 and 3?", "Thanks."]
    seen = client.run(
        "turns",
        baseURL=any_model_site.base_url,
        apiKey=KEY,
        model="gpt-5",
        prompts=prompts,
        streams=streams,
        providerOptions={"openai": {"reasoningSummary": "auto"}},
    )
    assert seen["texts"] == [WEATHER_TEXT, "6", TEXT]
    assert seen["reasoning"][1] == "3 and 3"
    referred = [
        [item["type"] for item in body["input"] if item.get("type") == "item_reference"]
        for body in seen["sent"]
    ]
    assert [len(each) for each in referred] == [0, 1, 1, 3]
    (*_, last) = ollama.chats()
    messages = last.body["messages"]
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[1]["thinking"] == "They ask."
    assert (messages[4]["content"], messages[6]["content"]) == (WEATHER_TEXT, "6")


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
def test_embeddings(run: Run, ollama: OllamaServer, provider: str) -> None:
    seen = run("embeddings", provider=provider, model=EMBEDDING_MODEL)
    assert [len(embedding) for embedding in seen["embeddings"]] == [384, 384]
    assert seen["usage"] == {"tokens": 3 + 4}
    assert [request.body["input"] for request in ollama.embeds()] == [["hello", "big world"]]


@pytest.mark.parametrize("case", ["chat", "stream"])
def test_reasoning(run: Run, ollama: OllamaServer, case: str) -> None:
    ollama.reply(REASONED_ANSWER)
    seen = run(case, provider="openai-compatible", model=THINKING_MODEL)
    assert (seen["reasoning"], seen["text"]) == ("3 and 3", "6")


@pytest.mark.parametrize("case", ["structured", "structuredStream", "object"])
def test_structured_output(ask: Run, ollama: OllamaServer, case: str) -> None:
    ollama.reply(CITY_ANSWER)
    seen = ask(case)
    assert (seen["output"], seen["warnings"]) == (CITY.model_dump(), [])
    schema = schema_sent(seen["sent"][0])
    assert schema["properties"]["country"]["properties"]["code"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["format"] == schema


@pytest.mark.parametrize("case", ["chat", "stream", "structuredStream"])
def test_a_wrong_key(ask: Run, ollama: OllamaServer, case: str) -> None:
    with pytest.raises(ClientError, match="Incorrect API key") as raised:
        ask(case, apiKey="wrong")
    assert (raised.value.kind, raised.value.status) == ("APICallError", 401)
    assert ollama.requests == []


@pytest.mark.parametrize("case", ["chat", "stream", "structuredStream"])
def test_an_unknown_model(ask: Run, case: str) -> None:
    with pytest.raises(ClientError, match="'missing' does not exist") as raised:
        ask(case, model="missing")
    assert (raised.value.kind, raised.value.status) == ("APICallError", 404)


def test_a_failure_in_mid_stream(ask: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    with pytest.raises(ClientError, match="failed while generating") as raised:
        ask("stream")
    assert raised.value.code == failure_code(raised.value.seen["sent"][0])
    assert raised.value.seen["deltas"] == ["Hel"]
    assert raised.value.seen["steps"] == ["error"]


def test_a_failure_in_mid_stream_of_structured_output(ask: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    with pytest.raises(ClientError, match="failed while generating") as raised:
        ask("structuredStream")
    assert raised.value.code == failure_code(raised.value.seen["sent"][0])
