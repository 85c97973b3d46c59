"""openai-python, synchronous and asynchronous."""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients.scripts import (
    ANSWER,
    BROKEN,
    CALLS,
    CITY,
    CITY_ANSWER,
    CUT_OFF,
    EMBEDDING_MODEL,
    IMAGE,
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
from tests.ollama_server import Answer, Hold, OllamaServer, Reply, line
from tests.servers import KEY, Site

ASK = [{"role": "user", "content": "Say hello."}]


class GetWeather(BaseModel):
    """Get the weather."""

    place: Place
    days: int | None


WEATHER = openai.pydantic_function_tool(GetWeather, name="get_weather")


@pytest.fixture(
    params=[(openai.OpenAI, "http_client"), (openai.AsyncOpenAI, "async_http_client")],
    ids=["sync", "async"],
)
def client(request: pytest.FixtureRequest, site: Site) -> Any:
    """Both have the same methods: see ``settled``, ``items`` and ``entered``."""
    kind, transport = request.param
    return kind(
        base_url=site.base_url,
        api_key=KEY,
        max_retries=0,
        http_client=request.getfixturevalue(transport),
    )


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any) -> AsyncIterator[Any]:
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def test_models(client: Any) -> None:
    ids = [model.id async for model in items(client.models.list())]
    assert {MODEL, TOOLS_MODEL} <= set(ids)
    assert (await settled(client.models.retrieve(TOOLS_MODEL))).id == TOOLS_MODEL


async def test_chat(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    completion = await settled(
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=0.5)
    )
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 12 + 5
    assert ollama.chats()[0].body["messages"] == ASK
    assert ollama.chats()[0].body["options"]["temperature"] == 0.5


async def test_a_stream(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    stream = await settled(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    chunks = [chunk async for chunk in items(stream)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_stream_helper(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    async with entered(client.chat.completions.stream(model=MODEL, messages=ASK)) as stream:
        events = [event async for event in items(stream)]
        completion = await settled(stream.get_final_completion())
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == TEXT
    assert [event.content for event in events if event.type == "content.done"] == [TEXT]
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"


async def test_tools(client: Any, ollama: OllamaServer, sent: list[Any]) -> None:
    async def ask(messages: list[Any]) -> Any:
        completion = await settled(
            client.chat.completions.create(model=TOOLS_MODEL, messages=messages, tools=[WEATHER])
        )
        return completion.choices[0]

    ollama.reply(*WEATHER_ANSWERS)
    choice = await ask(ASK)
    assert choice.finish_reason == "tool_calls"
    final = await ask([*ASK, choice.message, *results(choice.message)])
    assert final.message.content == WEATHER_TEXT
    assert_round_trip(ollama, stream=False)
    assert ollama.chats()[0].body["tools"] == sent[0]["tools"] == [WEATHER]


async def test_tools_in_the_stream_helper(
    client: Any, ollama: OllamaServer, sent: list[Any]
) -> None:
    async def ask(messages: list[Any]) -> tuple[list[Any], Any]:
        manager = client.chat.completions.stream(
            model=TOOLS_MODEL, messages=messages, tools=[WEATHER]
        )
        async with entered(manager) as stream:
            events = [event async for event in items(stream)]
            return events, (await settled(stream.get_final_completion())).choices[0]

    ollama.reply(*WEATHER_ANSWERS)
    events, choice = await ask(ASK)
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.index for event in done] == [0, 1]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [call.id for call in calls] == [call["id"] for call in CALLS]
    for call, parsed in zip(CALLS, (call.function.parsed_arguments for call in calls), strict=True):
        assert parsed == GetWeather.model_validate(call["function"]["arguments"])
    _, final = await ask([*ASK, choice.message, *results(choice.message)])
    assert final.message.content == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    assert ollama.chats()[0].body["tools"] == sent[0]["tools"] == [WEATHER]


def results(message: Any) -> list[dict[str, Any]]:
    """The messages that answer the calls in ``message``."""
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": forecast(json.loads(call.function.arguments)["place"]["city"]),
        }
        for call in message.tool_calls
    ]


async def test_structured_output(client: Any, ollama: OllamaServer, sent: list[Any]) -> None:
    ollama.reply(CITY_ANSWER)
    completion = await settled(
        client.chat.completions.parse(model=MODEL, messages=ASK, response_format=City)
    )
    assert completion.choices[0].message.parsed == CITY
    schema = sent[0]["response_format"]["json_schema"]["schema"]
    assert schema["$defs"]["Country"]["properties"]["code"]["enum"] == ["FR", "IT"]
    assert ollama.chats()[0].body["format"] == schema


async def test_structured_output_in_the_stream_helper(
    client: Any, ollama: OllamaServer, sent: list[Any]
) -> None:
    ollama.reply(CITY_ANSWER)
    manager = client.chat.completions.stream(model=MODEL, messages=ASK, response_format=City)
    async with entered(manager) as stream:
        events = [event async for event in items(stream)]
        completion = await settled(stream.get_final_completion())
    partial = [event.parsed for event in events if event.type == "content.delta"]
    assert partial[-1] == CITY.model_dump()
    assert completion.choices[0].message.parsed == CITY
    assert ollama.chats()[0].body["format"] == sent[0]["response_format"]["json_schema"]["schema"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_tool(client: Any, ollama: OllamaServer, stream: bool) -> None:
    call = CALLS[0]["function"]
    ollama.reply(*required_call(call["name"], call["arguments"]))
    options = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required"}
    choice = await finished(client, stream, **options)
    assert choice.finish_reason == "tool_calls"
    (made,) = choice.message.tool_calls
    assert json.loads(made.function.arguments) == call["arguments"]
    assert_call_was_required(ollama, "get_weather", WEATHER["function"]["parameters"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_named_tool(client: Any, ollama: OllamaServer, stream: bool) -> None:
    arguments = json.dumps(CALLS[0]["function"]["arguments"])
    ollama.reply(Answer([arguments[:5], arguments[5:]]))
    named = {"type": "function", "function": {"name": "get_weather"}}
    choice = await finished(client, stream, messages=ASK, tools=[WEATHER], tool_choice=named)
    (made,) = choice.message.tool_calls
    assert (made.function.name, made.function.arguments) == ("get_weather", arguments)
    (request,) = ollama.chats()
    assert request.body["format"] == WEATHER["function"]["parameters"]


async def finished(client: Any, stream: bool, **options: Any) -> Any:
    """The choice that is made, at once or in a stream."""
    completions = client.chat.completions
    if not stream:
        return (await settled(completions.create(model=TOOLS_MODEL, **options))).choices[0]
    async with entered(completions.stream(model=TOOLS_MODEL, **options)) as events:
        return (await settled(events.get_final_completion())).choices[0]


async def test_two_choices_in_a_stream(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["He", "ads"]), Answer(["Ta", "ils"]))
    async with entered(client.chat.completions.stream(model=MODEL, messages=ASK, n=2)) as stream:
        completion = await settled(stream.get_final_completion())
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert {choice.message.content for choice in completion.choices} == {"Heads", "Tails"}
    assert [request.body["messages"] for request in ollama.chats()] == [ASK, ASK]


async def test_an_image(client: Any, ollama: OllamaServer) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
    ]
    await settled(
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    )
    (message,) = ollama.chats()[0].body["messages"]
    assert message == {"role": "user", "content": "What is this?", "images": [IMAGE]}


async def test_raw_responses(client: Any) -> None:
    response = await settled(
        client.chat.completions.with_raw_response.create(
            model=MODEL, messages=ASK, extra_headers={"x-request-id": "mine-1"}
        )
    )
    assert response.headers["x-request-id"] == "mine-1"
    assert (await settled(response.parse())).choices[0].message.content == "Hello!"
    completion = await settled(client.chat.completions.create(model=MODEL, messages=ASK))
    assert completion._request_id


async def test_streaming_responses(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    manager = client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASK, stream=True, extra_headers={"x-request-id": "mine-2"}
    )
    async with entered(manager) as response:
        assert response.headers["x-request-id"] == "mine-2"
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in items(response.iter_lines()) if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == TEXT


async def test_a_wrong_key(client: Any, ollama: OllamaServer) -> None:
    stranger = client.with_options(api_key="wrong")
    for stream in (False, True):
        with pytest.raises(openai.AuthenticationError) as raised:
            await settled(
                stranger.chat.completions.create(model=MODEL, messages=ASK, stream=stream)
            )
        assert raised.value.code == "invalid_api_key"
        assert raised.value.request_id
    assert ollama.requests == []


async def test_an_unknown_model(client: Any) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as raised:
            await settled(
                client.chat.completions.create(model="missing", messages=ASK, stream=stream)
            )
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_a_failure_in_mid_stream(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN, BROKEN)
    content = ""
    with pytest.raises(openai.APIError, match="failed while generating"):
        async for chunk in items(
            await settled(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
        ):
            content += chunk.choices[0].delta.content or ""
    assert content == "Hel"
    async with entered(client.chat.completions.stream(model=MODEL, messages=ASK)) as stream:
        with pytest.raises(openai.APIError, match="failed while generating"):
            await settled(stream.get_final_completion())


# v1/responses


async def test_a_response(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    response = await settled(
        client.responses.create(
            model=MODEL, instructions="Be brief.", input="Say hello.", temperature=0.5
        )
    )
    assert (response.output_text, response.status) == (TEXT, "completed")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (12, 5)
    sent = ollama.chats()[0].body
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, *ASK]
    assert sent["options"]["temperature"] == 0.5


async def test_the_stream_helper_of_a_response(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    async with entered(client.responses.stream(model=MODEL, input=ASK)) as stream:
        events = [event async for event in items(stream)]
        response = await settled(stream.get_final_response())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == list(ANSWER.content)
    assert (events[-1].type, response.output_text) == ("response.completed", TEXT)
    assert ollama.chats()[0].body["messages"] == ASK


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_of_a_response(
    client: Any, ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    async def ask(given: list[Any]) -> Any:
        options = {"model": TOOLS_MODEL, "input": given, "tools": [WEATHER]}
        if not stream:
            return await settled(client.responses.parse(**options))
        async with entered(client.responses.stream(**options)) as events:
            return await settled(events.get_final_response())

    ollama.reply(*WEATHER_ANSWERS)
    calls = (await ask(ASK)).output
    for call, made in zip(CALLS, calls, strict=True):
        assert (made.type, made.call_id) == ("function_call", call["id"])
        assert made.parsed_arguments == GetWeather.model_validate(call["function"]["arguments"])
    outputs = [
        {
            "type": "function_call_output",
            "call_id": made.call_id,
            "output": forecast(made.parsed_arguments.place.city),
        }
        for made in calls
    ]
    assert (await ask([*ASK, *calls, *outputs])).output_text == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    (flat,) = sent[0]["tools"]
    nested = {name: value for name, value in flat.items() if name != "type"}
    assert ollama.chats()[0].body["tools"] == [{"type": "function", "function": nested}]


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_output_of_a_response(
    client: Any, ollama: OllamaServer, sent: list[Any], stream: bool
) -> None:
    ollama.reply(CITY_ANSWER)
    options = {"model": MODEL, "input": ASK, "text_format": City}
    if stream:
        async with entered(client.responses.stream(**options)) as events:
            response = await settled(events.get_final_response())
    else:
        response = await settled(client.responses.parse(**options))
    assert response.output_parsed == CITY
    assert ollama.chats()[0].body["format"] == sent[0]["text"]["format"]["schema"]


async def test_an_incomplete_response(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(CUT_OFF, CUT_OFF)
    options = {"model": MODEL, "input": ASK, "max_output_tokens": 16}
    response = await settled(client.responses.create(**options))
    assert (response.status, response.output_text) == ("incomplete", "Hel")
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await settled(client.responses.create(**options, stream=True))
    *_, last = [event async for event in items(stream)]
    assert (last.type, last.response.output_text) == ("response.incomplete", "Hel")
    for request in ollama.chats():
        assert request.body["options"]["num_predict"] == 16


async def test_a_failed_response(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    stream = await settled(client.responses.create(model=MODEL, input=ASK, stream=True))
    *_, last = [event async for event in items(stream)]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.code == "server_error"
    assert "failed while generating" in last.response.error.message
    assert last.response.output_text == "Hel"


# v1/embeddings


async def test_embeddings(client: Any, ollama: OllamaServer, sent: list[Any]) -> None:
    async def embed(**options: Any) -> Any:
        return await settled(client.embeddings.create(model=EMBEDDING_MODEL, **options))

    packed = await embed(input=["hello", "big world"])
    plain = await embed(input=["hello", "big world"], encoding_format="float")
    assert [body["encoding_format"] for body in sent] == ["base64", "float"]
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
    assert packed.usage.total_tokens == 3 + 4
    (short,) = (await embed(input="hello", dimensions=8)).data
    assert len(short.embedding) == 8
    assert [request.body["input"] for request in ollama.embeds()] == [
        ["hello", "big world"],
        ["hello", "big world"],
        ["hello"],
    ]
    assert ollama.embeds()[2].body["dimensions"] == 8


# v1/completions


@pytest.mark.parametrize("stream", [False, True])
async def test_completions(client: Any, ollama: OllamaServer, stream: bool) -> None:
    ollama.reply(ANSWER, ANSWER)
    answer = await settled(
        client.completions.create(model=MODEL, prompt="Once", n=2, stream=stream)
    )
    texts = {0: "", 1: ""}
    for part in [part async for part in items(answer)] if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] += choice.text
    assert texts == {0: TEXT, 1: TEXT}
    assert [request.body["prompt"] for request in ollama.generates()] == ["Once", "Once"]


# What is stored


@pytest.mark.compat("chat.request.metadata", "chat.request.store", "chat.response.metadata")
async def test_stored_completions(client: Any, ollama: OllamaServer) -> None:
    run = uuid.uuid4().hex
    ollama.reply(*[ANSWER] * 3)
    completions = client.chat.completions
    made = []
    for number in range(3):
        metadata = {"run": run, "number": str(number)}
        made.append(
            await settled(
                completions.create(
                    model=MODEL, messages=ASK, store=True, metadata=metadata, stream=number == 1
                )
            )
        )
    made[1], *_ = [chunk async for chunk in items(made[1])]
    ids = [each.id for each in made]
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        pages = completions.list(limit=1, order=order, metadata={"run": run}, model=MODEL)
        assert [each.id async for each in items(pages)] == expected
    changed = await settled(completions.update(ids[1], metadata={"run": run, "kept": "yes"}))
    assert (await settled(completions.retrieve(ids[1]))) == changed
    assert changed.choices[0].message.content == TEXT
    assert changed.metadata == {"run": run, "kept": "yes"}
    assert (await settled(completions.list(metadata={"kept": "no"}))).data == []
    deleted = await settled(completions.delete(ids[0]))
    assert (deleted.id, deleted.deleted) == (ids[0], True)
    with pytest.raises(openai.NotFoundError):
        await settled(completions.retrieve(ids[0]))


async def test_messages_of_a_stored_completion(client: Any, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    picture = {"url": f"data:image/png;base64,{IMAGE}", "detail": "low"}
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": picture}]
    messages = [
        {"role": "system", "content": "Be brief."},
        *ASK,
        {"role": "user", "content": parts},
    ]
    create, list = client.chat.completions.create, client.chat.completions.messages.list
    made = await settled(create(model=MODEL, messages=messages, store=True))
    seen = [message async for message in items(list(made.id, limit=1))]
    assert [message.id for message in seen] == [f"{made.id}-{number}" for number in range(3)]
    assert [message.content for message in seen] == ["Be brief.", "Say hello.", None]
    assert [part.to_dict() for part in seen[2].content_parts] == parts
    # They can be sent on as they are.
    ollama.reply(ANSWER)
    again = {"role": "user", "content": [part.to_dict() for part in seen[2].content_parts]}
    await settled(create(model=MODEL, messages=[again]))
    assert ollama.chats()[1].body["messages"] == ollama.chats()[0].body["messages"][2:]


@pytest.mark.compat("responses.request.background", "responses.request.conversation")
async def test_a_conversation_that_lasts(client: Any, ollama: OllamaServer) -> None:
    """Begun with items, answered in three ways, read page by page, compacted and deleted."""
    begin = [{"role": "user", "content": str(number)} for number in range(3)]
    metadata = {"project_id": "1"}
    conversation = await settled(client.conversations.create(items=begin, metadata=metadata))
    ollama.reply(*WEATHER_ANSWERS, ANSWER)
    asked = {"model": TOOLS_MODEL, "conversation": conversation.id}
    tool = {"type": "function", **WEATHER["function"]}
    called = await settled(client.responses.create(input="The weather?", tools=[tool], **asked))
    outputs = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": forecast(json.loads(call.arguments)["place"]["city"]),
        }
        for call in called.output
    ]
    stream = await settled(client.responses.create(input=outputs, stream=True, **asked))
    *_, last = [event async for event in items(stream)]
    assert last.response.output_text == WEATHER_TEXT
    waiting = await settled(
        client.responses.create(input="Thanks.", background=True, stream=True, **asked)
    )
    events = [event async for event in items(waiting)]
    id = events[0].response.id
    for after in (0, len(events) - 2):
        rest = await settled(client.responses.retrieve(id, stream=True, starting_after=after))
        assert [event async for event in items(rest)] == events[after + 1 :]
    finished = await settled(client.responses.retrieve(id))
    assert (finished.status, finished.output_text) == ("completed", TEXT)
    # A response that has finished stays as it is.
    assert (await settled(client.responses.cancel(id))).status == "completed"

    kinds = ["message"] * 4 + ["function_call"] * 2 + ["function_call_output"] * 2 + ["message"] * 3
    for order, expected in (("asc", kinds), ("desc", kinds[::-1])):
        pages = client.conversations.items.list(conversation.id, limit=2, order=order)
        seen = [item async for item in items(pages)]
        assert [item.type for item in seen] == expected
        assert len({item.id for item in seen}) == len(kinds)
    more = [{"role": "user", "content": "More."}]
    (added,) = (await settled(client.conversations.items.create(conversation.id, items=more))).data
    at = {"conversation_id": conversation.id}
    assert (await settled(client.conversations.items.retrieve(added.id, **at))) == added
    left = await settled(client.conversations.items.delete(added.id, **at))
    assert (left.id, left.metadata) == (conversation.id, metadata)
    with pytest.raises(openai.NotFoundError):
        await settled(client.conversations.items.retrieve(added.id, **at))

    own = client.responses.input_items.list(last.response.id, limit=1, order="asc")
    assert [item.output async for item in items(own)] == [each["output"] for each in outputs]
    count = await settled(client.responses.input_tokens.count(input="Thanks.", **asked))
    assert count.input_tokens > 0
    ollama.reply(Answer(["They spoke of the weather."]))
    compacted = await settled(
        client.responses.compact(model=TOOLS_MODEL, previous_response_id=id, input="Go on.")
    )
    ollama.reply(ANSWER)
    # The client takes a message of the user for one of the model.
    window = [item.to_dict(warnings=False) for item in compacted.output]
    assert window[-1]["type"] == "compaction"
    again = await settled(client.responses.create(model=MODEL, input=[*window, *more]))
    assert again.output_text == TEXT
    assert "They spoke of the weather." in json.dumps(ollama.chats()[-1].body["messages"])

    changed = await settled(client.conversations.update(conversation.id, metadata={"a": "b"}))
    assert (await settled(client.conversations.retrieve(conversation.id))) == changed
    await settled(client.responses.delete(id))
    assert (await settled(client.conversations.delete(conversation.id))).deleted
    with pytest.raises(openai.NotFoundError):
        await settled(client.conversations.retrieve(conversation.id))
    with pytest.raises(openai.NotFoundError):
        [item async for item in items(client.conversations.items.list(conversation.id))]


@pytest.mark.compat("responses.request.background")
async def test_a_response_in_the_background_can_be_cancelled(
    client: Any, ollama: OllamaServer
) -> None:
    ollama.reply(Reply([line({"message": {"content": "Hel"}, "done": False}), Hold()]))
    running = await settled(client.responses.create(model=MODEL, input="Go.", background=True))
    assert running.status in ("queued", "in_progress")
    ollama.wait_for_chat()
    cancelled = await settled(client.responses.cancel(running.id))
    assert (cancelled.id, cancelled.status) == (running.id, "cancelled")
    assert ollama.wait_for_released()
