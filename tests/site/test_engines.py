"""The same cases through the official OpenAI client for every engine: the scripted Ollama, the
model inside the process, the same model in llama.cpp's own server, and the real Ollama at
``$OLLAMA_LIVE_HOST``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from django_ollama_openai.backends._llamacpp import SMOLLM2_OPTIONS
from tests.llama_server import ENGINE_KEY, llama_server
from tests.ollama_server import Answer, OllamaServer, Reply, recorded
from tests.recordings import load
from tests.servers import KEY, serve

pytestmark = pytest.mark.once

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello in a sentence."}]
TOO_LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 400_000}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = {"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}


@dataclass(frozen=True)
class Engine:
    """A site in front of an engine."""

    client: openai.OpenAI
    models: dict[str, list[str]]
    """The names of its models, and what each can do."""
    scripted: OllamaServer | None

    def able_to(self, *capabilities: str, unable: str = "") -> str:
        """Its smallest model that can do this, and not that."""
        return next(
            name
            for name, has in self.models.items()
            if set(capabilities) <= set(has) and unable not in has
        )

    def script(self, *replies: Reply | Answer) -> None:
        """What the scripted Ollama says next; the others know what to say themselves."""
        if self.scripted is not None:
            self.scripted.reset()
            self.scripted.reply(*replies)


@contextmanager
def running(kind: str, scripted: OllamaServer) -> Iterator[dict[str, Any]]:
    """The engine's entry in ``BACKENDS``, and the engine as long as it is needed."""
    if kind == "embedded":
        # Its threads wait by spinning: with one for each core they are in the way of other tests.
        yield {
            "BACKEND": "django_ollama_openai.backends.LlamaCppBackend",
            "OPTIONS": {"threads": 1},
        }
    elif kind == "served":
        with llama_server() as server:
            yield {
                "BACKEND": "django_ollama_openai.backends.OpenAIBackend",
                "BASE_URL": server.base_url,
                "OPTIONS": {"api_key": ENGINE_KEY, "unsupported_parameters": ["tools"]},
            }
    else:
        host = scripted.url if kind == "scripted" else os.environ["OLLAMA_LIVE_HOST"]
        yield {"BACKEND": "django_ollama_openai.backends.OllamaBackend", "HOST": host}


OLLAMAS = ["scripted", pytest.param("live", marks=pytest.mark.live)]
ENGINES = [
    *OLLAMAS,
    pytest.param("embedded", marks=pytest.mark.llamacpp),
    pytest.param("served", marks=pytest.mark.llamacpp),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    kind: str = request.param
    settings: dict[str, Any] = {"API_KEYS": [KEY]}
    if kind == "served":
        settings["MODELS"] = {"smollm2": {"OPTIONS": SMOLLM2_OPTIONS}}
        # It answers by whatever name it is asked.
        settings["ALLOWED_MODELS"] = ["smollm2"]
    ollama_server.reset()
    with (
        running(kind, ollama_server) as backend,
        serve(
            "uvicorn", tmp_path_factory.mktemp(kind), {**settings, "BACKENDS": {"default": backend}}
        ) as site,
        openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=120) as client,
    ):
        cards: list[dict[str, Any]] = [card.to_dict() for card in client.models.list()]
        cards.sort(key=lambda card: card["metadata"]["size"])
        # OpenAI's API does not tell what a model is capable of.
        models = {card["id"]: card["metadata"]["capabilities"] or ["completion"] for card in cards}
        yield Engine(client, models, ollama_server if kind == "scripted" else None)


def test_models(engine: Engine) -> None:
    for name in engine.models:
        card = engine.client.models.retrieve(name)
        metadata: Any = card.to_dict()["metadata"]
        assert (card.id, card.object) == (name, "model")
        assert card.created > 1_600_000_000
        assert metadata["size"] > 1_000_000
        assert metadata["context_length"] > 0
        assert metadata["backend"] == "default"


def test_an_answer_in_one_piece(engine: Engine) -> None:
    engine.script(Answer(["Hello", " there."], prompt_tokens=36))
    model = engine.able_to("completion")
    completion = engine.client.chat.completions.create(model=model, messages=HELLO, max_tokens=200)
    (choice,) = completion.choices
    assert completion.model == model
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 5
    assert 0 < completion.usage.completion_tokens <= 200


def test_a_stream(engine: Engine) -> None:
    engine.script(Answer(["Hello", " there", "."], prompt_tokens=36))
    stream = engine.client.chat.completions.create(
        model=engine.able_to("completion"),
        messages=[
            {"role": "developer", "content": "You are polite."},
            {"role": "user", "content": [{"type": "text", "text": "Say"}]},
            {"role": "assistant", "content": "What?"},
            {"role": "user", "content": "Hello."},
        ],
        max_tokens=50,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert len({chunk.id for chunk in (*chunks, last)}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert len([text for text in texts if text]) > 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] in ("stop", "length")
    assert not any(reasons[:-1])
    assert last.choices == []
    assert last.usage is not None
    assert 0 < last.usage.completion_tokens <= 50


def test_an_output_limit(engine: Engine) -> None:
    engine.script(Answer(["a", "b", "c"], done_reason="length"))
    completion = engine.client.chat.completions.create(
        model=engine.able_to("completion"), messages=HELLO, max_completion_tokens=3
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3


def test_stop_sequences(engine: Engine) -> None:
    engine.script(Answer(["H"]))
    completion = engine.client.chat.completions.create(
        model=engine.able_to("completion"),
        messages=[{"role": "user", "content": "Repeat: a e i o u"}],
        stop=["a", "e", "i", "o"],
        max_tokens=50,
    )
    content = completion.choices[0].message.content or ""
    assert not set("aeio") & set(content)
    assert completion.choices[0].finish_reason == "stop"


def test_log_probabilities(engine: Engine) -> None:
    engine.script(recorded(load("chat_logprobs")))
    completion = engine.client.chat.completions.create(
        model=engine.able_to("completion"),
        messages=HELLO,
        max_tokens=3,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert bytes(entry.bytes or []).decode("utf-8", "replace")
        assert len(entry.top_logprobs) == 2


def test_structured_output(engine: Engine) -> None:
    engine.script(Answer(['{"city"', ': "Paris"}']))
    completion = engine.client.chat.completions.create(
        model=engine.able_to("completion"),
        messages=[{"role": "user", "content": "Name a city as JSON."}],
        max_tokens=100,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "schema": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "maxLength": 20}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        },
    )
    assert list(json.loads(completion.choices[0].message.content or "")) == ["city"]


@pytest.mark.parametrize("engine", OLLAMAS, indirect=True)
def test_tools_and_their_results(engine: Engine) -> None:
    model = engine.able_to("tools")
    asking: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the weather in Paris? Use the tool."}
    ]
    engine.script(Answer([], tool_calls=[CALL]), Answer(["Sunny."]))
    first = engine.client.chat.completions.create(model=model, messages=asking, tools=[WEATHER])
    calls = first.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert list(json.loads(call.function.arguments)) == ["city"]
    assert first.choices[0].finish_reason == "tool_calls"
    second = engine.client.chat.completions.create(
        model=model,
        tools=[WEATHER],
        messages=[
            *asking,
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "22 degrees and sunny"},
        ],
    )
    assert second.choices[0].message.content


def test_a_model_that_knows_no_tools(engine: Engine) -> None:
    model = engine.able_to("completion", unable="tools")
    with pytest.raises(openai.BadRequestError, match="support"):
        engine.client.chat.completions.create(model=model, messages=HELLO, tools=[WEATHER])


def test_a_prompt_that_is_too_long(engine: Engine) -> None:
    engine.script(recorded(load("chat_long_notruncate")))
    with pytest.raises(openai.BadRequestError) as raised:
        engine.client.chat.completions.create(
            model=engine.able_to("completion"), messages=TOO_LONG, max_tokens=5
        )
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")


def test_a_model_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        engine.client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_disconnect_frees_the_engine(engine: Engine) -> None:
    long = Answer([f"{number} " for number in range(1000)], pause=0.02)
    engine.script(*[long] * 4)
    model = engine.able_to("completion")
    story: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Write a very long story about a lighthouse."}
    ]
    for _ in range(4):
        stream = engine.client.chat.completions.create(model=model, messages=story, stream=True)
        next(iter(stream))
        stream.close()
    # None of them is still in the way of the next: four stories take minutes.
    engine.script(Answer(["Hello."]))
    started = time.monotonic()
    engine.client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)
    assert time.monotonic() - started < 30
