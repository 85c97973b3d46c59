"""A real engine that speaks OpenAI's API behind the site, llama.cpp's own server: what the official
client gets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import LlamaCppBackend
from tests.llama_server import ENGINE_KEY, LlamaServer, llama_server
from tests.servers import KEY, SERVERS, Site, serve

pytestmark = [pytest.mark.llamacpp, pytest.mark.once]

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 6000}]
STORY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Write a very long story about a lighthouse."}
]
PARIS = "The capital of France is"
PARIS_TOKENS = [504, 3575, 282, 4649, 314]

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def earlier(city: str) -> list[ChatCompletionMessageParam]:
    """A round that shows the small model how a tool is called. It also tells no type of the call,
    as clients may."""
    arguments = json.dumps({"city": city})
    call: Any = {"id": city, "function": {"name": "get_weather", "arguments": arguments}}
    return [
        {"role": "user", "content": f"Weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": city, "content": "Sunny."},
        {"role": "assistant", "content": "Sunny."},
    ]


ASKING: list[ChatCompletionMessageParam] = [
    *[message for city in ("Rome", "London", "Madrid") for message in earlier(city)],
    {"role": "user", "content": "Weather in Paris?"},
]


def backend(url: str, **options: Any) -> dict[str, Any]:
    return {
        "BACKEND": "django_ollama_openai.backends.OpenAIBackend",
        "BASE_URL": url,
        "OPTIONS": {"api_key": ENGINE_KEY, **options},
    }


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaServer]:
    with llama_server() as server:
        yield server


@pytest.fixture(scope="module")
def embedder() -> Iterator[LlamaServer]:
    with llama_server("vectors", pooling="MEAN") as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest,
    engine: LlamaServer,
    embedder: LlamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    options = {
        "API_KEYS": [KEY],
        "BACKENDS": {
            "default": backend(engine.base_url),
            "plain": backend(
                engine.base_url,
                unsupported_parameters=["tool_choice", "parallel_tool_calls"],
                json_arguments=True,
            ),
            "embedder": backend(embedder.base_url),
            "locked": backend(engine.base_url, api_key="sk-wrong"),
            "lost": backend(f"{engine.base_url}/nowhere"),
            "down": backend("http://127.0.0.1:9/v1"),
        },
        "MODELS": {
            "small": {"MODEL": "smollm2", "OPTIONS": {"temperature": 0}},
            "plain": {"MODEL": "smollm2", "BACKEND": "plain", "OPTIONS": {"temperature": 0}},
            "vectors": {"BACKEND": "embedder"},
            "locked": {"MODEL": "smollm2", "BACKEND": "locked"},
            "lost": {"MODEL": "smollm2", "BACKEND": "lost"},
            "down": {"MODEL": "smollm2", "BACKEND": "down"},
        },
        "STREAM_KEEPALIVE_SECONDS": 0.5,
    }
    with serve(request.param, tmp_path_factory.mktemp(request.param), options) as running:
        yield running


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=60) as connected:
        yield connected


def joined(stream: Any) -> tuple[str, Any, Any]:
    """The text of a stream, its finish reason and its usage."""
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, choices[-1].finish_reason, chunks[-1].usage


# Chats


def test_the_model_is_listed_with_what_its_engine_says(client: openai.OpenAI) -> None:
    card: Any = client.models.retrieve("small").to_dict()
    assert card["owned_by"] == "llamacpp"
    metadata = card["metadata"]
    assert (metadata["context_length"], metadata["embedding_length"]) == (4096, 576)
    assert metadata["size"] > 50_000_000
    assert metadata["backend"] == "default"


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="small", messages=HELLO, max_tokens=8)
    text, reason, usage = joined(
        client.chat.completions.create(
            model="small",
            messages=HELLO,
            max_completion_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    (choice,) = whole.choices
    assert choice.message.content == text != ""
    assert choice.finish_reason == reason
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == usage.prompt_tokens > 5
    assert whole.usage.completion_tokens == usage.completion_tokens <= 8


def test_every_role_and_form_of_a_message(client: openai.OpenAI) -> None:
    refusal: Any = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    completion = client.chat.completions.create(
        model="small",
        messages=[
            {"role": "developer", "content": "You are polite."},
            {"role": "user", "content": [{"type": "text", "text": "Say"}]},
            {"role": "assistant", "content": None, "refusal": "What?"},
            {"role": "user", "content": "Hello."},
            refusal,
            {"role": "user", "content": "Please."},
            {"role": "assistant", "content": None},
            {"role": "user", "content": "Go on."},
        ],
        max_tokens=2,
        tools=[],
    )
    assert completion.choices[0].message.content


def test_log_probabilities(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )
    (choice,) = completion.choices
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    assert "".join(entry.token for entry in entries) == choice.message.content
    for entry in entries:
        assert entry.logprob <= 0
        assert entry.token == entry.top_logprobs[0].token
        assert len(entry.top_logprobs) == 2


def test_structured_output(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "Name a city as JSON."}],
        max_tokens=40,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "schema": {
                    "type": "object",
                    "properties": {"city": {"enum": ["Paris", "Rome"]}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        },
    )
    content = completion.choices[0].message.content or ""
    assert json.loads(content)["city"] in ("Paris", "Rome")


def test_stop_sequences_and_several_choices(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "Repeat: a e i o u"}],
        stop=["a", "e", "i", "o"],
        max_tokens=20,
        n=2,
        seed=5,
    )
    assert [choice.index for choice in completion.choices] == [0, 1]
    for choice in completion.choices:
        assert not set("aeio") & set(choice.message.content or "")
        assert choice.finish_reason == "stop"


# Tools


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("model", ["small", "plain"])
def test_a_tool_and_its_result(client: openai.OpenAI, model: str, choice: Any) -> None:
    first = client.chat.completions.create(
        model=model, messages=ASKING, tools=[WEATHER], tool_choice=choice, max_tokens=60
    )
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert list(json.loads(call.function.arguments)) == ["city"]
    assert first.choices[0].finish_reason == "tool_calls"
    told: list[Any] = [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    second = client.chat.completions.create(
        model=model,
        tools=[WEATHER],
        tool_choice="none",
        max_tokens=4,
        messages=[*ASKING, *told],
    )
    assert second.choices[0].message.content
    assert not second.choices[0].message.tool_calls


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("model", ["small", "plain"])
def test_a_tool_in_a_stream(client: openai.OpenAI, model: str, choice: Any) -> None:
    with client.chat.completions.stream(
        model=model, messages=ASKING, tools=[WEATHER], tool_choice=choice, max_tokens=60
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls or []
    assert call.function.name == "get_weather"
    assert list(json.loads(call.function.arguments)) == ["city"]


# The other endpoints


@pytest.mark.parametrize("arguments", ['{"city": "Par', "Paris", "", "[]"])
def test_arguments_that_a_model_wrote(client: openai.OpenAI, arguments: str) -> None:
    call: Any = {"id": "c", "function": {"name": "get_weather", "arguments": arguments}}
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Sunny."},
    ]
    asked: dict[str, Any] = {"messages": messages, "max_tokens": 2}
    assert client.chat.completions.create(model="plain", **asked).choices
    if arguments not in ("", "[]"):
        # Engines that take any text get it to the letter. This one does not.
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model="smollm2", **asked)
        assert raised.value.param == "messages"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"type": "wrong"}, "response_format", "unrecognized type wrong"),
        ({"pattern": "^a{99999}$"}, "response_format", "Invalid schema"),
        ({"type": "wrong"}, "tools", "unrecognized type wrong"),
    ],
)
def test_a_schema_that_the_engine_does_not_know(
    client: openai.OpenAI, fields: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", **fields}}}
    json_schema: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    asked: Any = {"tools": [tool]} if param == "tools" else {"response_format": json_schema}
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="smollm2", messages=HELLO, stream=stream, **asked)
    assert raised.value.param == param
    assert words in raised.value.message
    assert "template" not in raised.value.message


@pytest.mark.compat("completions.request.prompt (tokens)")
@pytest.mark.parametrize("prompt", [PARIS, PARIS_TOKENS], ids=["text", "tokens"])
def test_completions(client: openai.OpenAI, prompt: Any) -> None:
    asked: dict[str, Any] = {"model": "small", "prompt": prompt, "max_tokens": 2}
    whole = client.completions.create(**asked, logprobs=1)
    (choice,) = whole.choices
    assert (choice.text, choice.finish_reason) == (" Paris.", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [" Paris", "."]
    assert [list(tops) for tops in choice.logprobs.top_logprobs or []] == [[" Paris"], ["."]]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 2)
    pieces = list(client.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == " Paris."


def test_embeddings_are_those_of_the_same_model_in_the_process(client: openai.OpenAI) -> None:
    inputs = ["The sky is blue.", "Ducks swim in the pond, and so do geese."]
    served = client.embeddings.create(model="vectors", input=inputs)
    request = EmbeddingsRequest.parse(json.dumps({"input": inputs}).encode())
    in_process = LlamaCppBackend(name="smollm2", threads=1, embeddings=True, pooling="mean")
    with closing(in_process):
        expected = in_process.embed(request.routed_to("smollm2", {}))
    for entry, vector in zip(served.data, expected.vectors, strict=True):
        assert entry.embedding == pytest.approx(vector, abs=1e-3)
    assert served.usage.prompt_tokens == expected.usage.prompt_tokens


def test_a_response(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="small", input="Say hello.", max_output_tokens=16)
    assert whole.output_text
    assert whole.usage is not None
    assert 0 < whole.usage.output_tokens <= 16
    events = list(
        client.responses.create(
            model="small", input="Say hello.", max_output_tokens=16, stream=True
        )
    )
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == whole.output_text
    assert events[-1].type in ("response.completed", "response.incomplete")


# Failures


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="small", messages=LONG, stream=stream)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")
    assert "maximum context length is 4096 tokens" in raised.value.message
    assert "resulted in 60" in raised.value.message


def test_inputs_and_prompts_that_are_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model="small", prompt="word " * 6000)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model="vectors", input="word " * 6000)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")


def test_what_the_model_is_not_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model="small", input="x")
    assert (raised.value.code, raised.value.param) == ("unsupported_endpoint", "model")
    png = "data:image/png;base64,iVBORw0KGgo="
    picture: Any = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": png}}]}
    with pytest.raises(openai.BadRequestError, match="does not support image input"):
        client.chat.completions.create(model="small", messages=[picture])


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("locked", 502, "The engine rejected the gateway's credentials."),
        ("lost", 502, "The engine does not have this endpoint."),
        ("down", 503, "The engine cannot be reached. Try again later."),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_the_site_cannot_use(
    site: Site, client: openai.OpenAI, model: str, status: int, message: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert raised.value.status_code == status
    assert message in raised.value.message
    shown = raised.value.response.text + site.log()
    assert not any(secret in shown for secret in (ENGINE_KEY, "sk-wrong"))
    assert "127.0.0.1" not in raised.value.response.text


@pytest.mark.parametrize("server", SERVERS)
def test_an_engine_that_dies_in_the_middle_of_its_answer(
    server: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with llama_server() as dying:
        options = {"API_KEYS": [KEY], "BACKENDS": {"default": backend(dying.base_url)}}
        with (
            serve(server, tmp_path_factory.mktemp("dying"), options) as running,
            openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client,
        ):
            stream = client.chat.completions.create(model="smollm2", messages=STORY, stream=True)
            pieces = iter(stream)
            next(pieces)
            dying.process.kill()
            with pytest.raises(
                openai.APIError, match="connection to the engine was lost"
            ) as raised:
                list(pieces)
            assert raised.value.code == "bad_upstream"


# Hang-ups


def busy(engine: LlamaServer) -> int:
    """How many requests the engine works on."""
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    slots = httpx.get(f"{engine.url}/slots", headers=headers, timeout=60).raise_for_status().json()
    return sum(slot["is_processing"] for slot in slots)


def wait_for(engine: LlamaServer, count: int) -> bool:
    deadline = time.monotonic() + 30
    while busy(engine) != count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_disconnect_frees_the_engine(client: openai.OpenAI, engine: LlamaServer) -> None:
    for _ in range(3):
        stream = client.chat.completions.create(model="small", messages=STORY, stream=True)
        next(iter(stream))
        assert wait_for(engine, 1)
        stream.close()
        # Sooner than the story ends.
        assert wait_for(engine, 0)
