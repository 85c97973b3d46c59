"""openai-node."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
    TEXT,
    TOOLS_MODEL,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    assert_call_was_required,
    assert_round_trip,
    required_call,
)
from tests.ollama_server import OllamaServer
from tests.servers import KEY, Site


@pytest.fixture(scope="module")
def client(node_directory: Path) -> Iterator[NodeClient]:
    with NodeClient(node_directory / "openai.mjs") as client:
        yield client


@pytest.fixture
def run(client: NodeClient, site: Site) -> Run:
    return partial(client.run, baseURL=site.base_url, apiKey=KEY, model=MODEL)


def test_models(run: Run) -> None:
    seen = run("models", model=TOOLS_MODEL)
    assert {MODEL, TOOLS_MODEL} <= set(seen["models"])
    assert seen["model"]["id"] == TOOLS_MODEL


def test_chat(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    seen = run("chat")
    choice = seen["completion"]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (TEXT, "stop")
    assert seen["completion"]["usage"]["total_tokens"] == 12 + 5
    assert seen["requestId"]
    assert ollama.chats()[0].body["messages"] == seen["sent"][0]["messages"]
    assert ollama.chats()[0].body["options"]["temperature"] == 0.5


def test_a_stream(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    chunks = run("stream")["chunks"]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == TEXT
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_stream_helper(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    seen = run("streamHelper")
    assert seen["content"] == TEXT
    assert seen["completion"]["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_tools(run: Run, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    seen = run("tools", model=TOOLS_MODEL, stream=stream)
    assert seen["content"] == WEATHER_TEXT
    roles = [message["role"] for message in seen["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]
    assert_round_trip(ollama, stream=stream)
    tools = seen["sent"][0]["tools"]
    place = tools[0]["function"]["parameters"]["properties"]["place"]
    assert place["properties"]["country"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["tools"] == tools


@pytest.mark.parametrize("case", ["structured", "structuredStream"])
def test_structured_output(run: Run, ollama: OllamaServer, case: str) -> None:
    ollama.reply(CITY_ANSWER)
    seen = run(case)
    assert seen["parsed"] == CITY.model_dump()
    schema = seen["sent"][0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["country"]["properties"]["code"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["format"] == schema


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool(run: Run, ollama: OllamaServer, stream: bool) -> None:
    call = CALLS[0]["function"]
    ollama.reply(*required_call(call["name"], call["arguments"]))
    seen = run("requiredTool", model=TOOLS_MODEL, stream=stream)
    (choice,) = seen["completion"]["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (made,) = choice["message"]["tool_calls"]
    assert made["function"]["parsed_arguments"] == call["arguments"]
    (tool,) = seen["sent"][0]["tools"]
    assert_call_was_required(ollama, "get_weather", tool["function"]["parameters"])


def test_a_response(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    response = run("response")["response"]
    assert (response["output_text"], response["status"]) == (TEXT, "completed")
    assert response["usage"]["total_tokens"] == 12 + 5
    sent = ollama.chats()[0].body
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "Say hello."]
    assert sent["options"]["temperature"] == 0.5


def test_the_stream_of_a_response(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    seen = run("responseStream")
    events = seen["events"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(ANSWER.content),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert seen["response"]["output_text"] == TEXT
    assert ollama.chats()[0].body["messages"] == seen["sent"][0]["input"]


def test_tools_of_a_response(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    seen = run("responseTools", model=TOOLS_MODEL)
    assert [(call["call_id"], call["parsed_arguments"]) for call in seen["calls"]] == [
        (call["id"], call["function"]["arguments"]) for call in CALLS
    ]
    assert seen["response"]["output_text"] == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    (tool,) = ollama.chats()[0].body["tools"]
    assert tool["function"]["parameters"] == seen["sent"][0]["tools"][0]["parameters"]


def test_structured_output_of_a_response(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(CITY_ANSWER)
    seen = run("responseStructured")
    assert seen["parsed"] == CITY.model_dump()
    assert ollama.chats()[0].body["format"] == seen["sent"][0]["text"]["format"]["schema"]


def test_embeddings(run: Run, ollama: OllamaServer) -> None:
    seen = run("embeddings", model=EMBEDDING_MODEL)
    assert seen["sent"][0]["encoding_format"] == "base64"
    assert [len(item["embedding"]) for item in seen["packed"]["data"]] == [384, 384]
    assert seen["packed"]["usage"]["total_tokens"] == 3 + 4
    assert [len(item["embedding"]) for item in seen["short"]["data"]] == [8, 8]
    first, second = (request.body for request in ollama.embeds())
    assert first["input"] == second["input"] == ["hello", "big world"]
    assert second["dimensions"] == 8


def test_completions(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(*[ANSWER] * 4)
    seen = run("textCompletions")
    assert [choice["text"] for choice in seen["completion"]["choices"]] == [TEXT, TEXT]
    texts = ["", ""]
    for chunk in seen["chunks"]:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [TEXT, TEXT]
    assert [request.body["prompt"] for request in ollama.generates()] == ["Once"] * 4


@pytest.mark.parametrize("case", ["models", "chat", "stream", "streamHelper"])
def test_a_wrong_key(run: Run, ollama: OllamaServer, case: str) -> None:
    with pytest.raises(ClientError) as raised:
        run(case, apiKey="wrong")
    assert raised.value.kind == "AuthenticationError"
    assert (raised.value.status, raised.value.code) == (401, "invalid_api_key")
    assert ollama.requests == []


@pytest.mark.parametrize("case", ["models", "chat", "stream", "streamHelper"])
def test_an_unknown_model(run: Run, case: str) -> None:
    with pytest.raises(ClientError) as raised:
        run(case, model="missing")
    assert raised.value.kind == "NotFoundError"
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")
    assert raised.value.param == "model"


def test_a_failure_in_mid_stream(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    with pytest.raises(ClientError, match="failed while generating") as raised:
        run("stream")
    assert raised.value.kind == "APIError"
    content = [chunk["choices"][0]["delta"].get("content") for chunk in raised.value.seen["chunks"]]
    assert "".join(filter(None, content)) == "Hel"


def test_a_failure_in_mid_stream_reaches_the_stream_helper(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    with pytest.raises(ClientError, match="failed while generating") as raised:
        run("streamHelper")
    assert raised.value.seen["content"] == "Hel"
    assert "completion" not in raised.value.seen


def test_a_failure_in_mid_stream_of_a_response(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    *_, last = run("responseStream")["events"]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert "failed while generating" in last["response"]["error"]["message"]
