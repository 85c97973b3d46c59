"""What of a request goes to an engine that speaks OpenAI's API, and what does not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.openai_payload import (
    openai_chat_payload,
    openai_completion_payload,
    openai_embeddings_payload,
)
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai.backends import OpenAIBackend
from django_ollama_openai.exceptions import InvalidRequest

HELLO = {"role": "user", "content": "Hello"}
SUPPORTED = OpenAIBackend.supported_parameters
PARAMETERS = {"type": "object", "properties": {}}
FUNCTION = {"name": "f", "description": "d", "parameters": PARAMETERS, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}


def chat(
    *messages: dict[str, Any],
    engine: Any = None,
    lacks: Any = (),
    streamed: Any = False,
    **fields: Any,
) -> dict[str, Any]:
    body = {"model": "public", "messages": messages or [HELLO], **fields}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    routed = request.routed_to("m", engine or {})
    return openai_chat_payload(routed, SUPPORTED - set(lacks), stream=streamed)


def completion(
    engine: Any = None,
    lacks: Any = (),
    streamed: Any = False,
    **fields: Any,
) -> dict[str, Any]:
    body = {"model": "public", "prompt": "a", **fields}
    request = CompletionRequest.parse(json.dumps(body).encode()).routed_to("m", engine or {})
    return openai_completion_payload(request, SUPPORTED - set(lacks), stream=streamed)


def embeddings(engine: Any = None, lacks: Any = (), **fields: Any) -> dict[str, Any]:
    body = {"model": "public", "input": "a", **fields}
    request = EmbeddingsRequest.parse(json.dumps(body).encode()).routed_to("m", engine or {})
    return openai_embeddings_payload(request, SUPPORTED - set(lacks))


def message(**fields: Any) -> dict[str, Any]:
    sent: list[dict[str, Any]] = chat(fields)["messages"]
    (only,) = sent
    return only


# Requests for a chat


def test_a_plain_request_carries_nothing_that_the_client_did_not_send() -> None:
    assert chat() == {"model": "m", "messages": [HELLO], "stream": False}


def test_usage_is_asked_for_in_every_stream() -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert chat(streamed=True) == {"model": "m", "messages": [HELLO], **usage}
    # Whatever the client says about its own.
    for options in (None, {}, {"include_usage": False}, {"include_obfuscation": True}):
        assert chat(streamed=True, stream=True, stream_options=options) == chat(streamed=True)
        assert chat(stream=True, stream_options=options) == chat()


SENT: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 2,
    "max_completion_tokens": 5,
    "presence_penalty": -0.5,
    "reasoning_effort": "low",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object", "minProperties": 1}},
    },
    "seed": -1,
    "stop": ["a", "b"],
    "temperature": 0,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "top_p": 1,
}


@pytest.mark.compat("chat.request.logit_bias")
def test_what_the_engine_is_to_be_asked_for_goes_on_as_it_came() -> None:
    assert chat(**SENT) == {"model": "m", "messages": [HELLO], "stream": False, **SENT}


CAMEL: dict[str, Any] = {
    "topP": 0.5,
    "maxCompletionTokens": 5,
    "frequencyPenalty": 1,
    "responseFormat": {"type": "json_object"},
    "toolChoice": {"type": "function", "function": {"name": "f"}},
    "parallelToolCalls": False,
    "tools": [TOOL],
    "reasoningEffort": "high",
    "topLogprobs": 1,
    "logprobs": True,
    "logitBias": {"1": 1},
}


def test_what_came_in_camel_case_goes_on_in_snake_case() -> None:
    snake = {
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name): value
        for name, value in CAMEL.items()
    }
    assert chat(**CAMEL) == {"model": "m", "messages": [HELLO], "stream": False, **snake}


STAYS: dict[str, Any] = {
    "n": 2,
    "user": "alice",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "modalities": ["text"],
    # Models without it refuse it.
    "verbosity": "low",
    "audio": {"voice": "alloy"},
    "function_call": "auto",
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "think": True,
    "truncate": True,
    "keep_alive": 5,
    "options": {"num_ctx": 5},
    "top_k": 5,
    "guided_json": {},
    "chat_template": "{{ messages }}",
    "add_generation_prompt": False,
    "cache_prompt": False,
    "model_path": "x",
    "engine_options": {"x": 1},
    "_engine_options": {"x": 1},
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_for_the_engine_does_not_go_on(name: str) -> None:
    assert chat(**{name: STAYS[name]}) == chat()


@pytest.mark.parametrize("name", sorted(set(SENT) - {"tools"}))
def test_null_is_as_good_as_nothing(name: str) -> None:
    assert chat(**{name: None}) == chat()


def test_unknown_keys_do_not_go_on_at_any_depth() -> None:
    odd: dict[str, Any] = {"x-secret": 1}
    sent = chat(
        {"role": "system", "content": [{"type": "text", "text": "a", **odd}], **odd},
        {"role": "user", "content": [picture(**odd)], **odd},
        {"role": "assistant", "tool_calls": [{**call(), **odd}], **odd},
        {"role": "tool", "content": "a", "tool_call_id": "c", **odd},
        tools=[{**TOOL, "function": {**FUNCTION, **odd}, **odd}],
        tool_choice={"type": "function", "function": {"name": "f", **odd}, **odd},
        response_format={"type": "json_object", **odd},
    )
    assert "x-secret" not in json.dumps(sent)


def test_what_belongs_to_a_schema_stays_in_it() -> None:
    parameters = {"type": "object", "x-order": ["b", "a"], "properties": {"maxTokens": {}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert chat(tools=[tool])["tools"] == [tool]


LACKS = [
    ("logit_bias", {"logit_bias": {"1": 1}}),
    ("logprobs", {"logprobs": True, "top_logprobs": 1}),
    ("parallel_tool_calls", {"parallel_tool_calls": True}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("reasoning_effort", {"reasoning": {"effort": "low"}}),
    ("response_format", {"response_format": {"type": "text"}}),
    ("tool_choice", {"tool_choice": "auto"}),
]


@pytest.mark.parametrize(("name", "fields"), LACKS)
def test_what_the_engine_lacks_does_not_go_on(name: str, fields: dict[str, Any]) -> None:
    tools = {"tools": [TOOL]}
    assert chat(**tools, **fields) != chat(**tools)
    assert chat(lacks=(name,), **tools, **fields) == chat(**tools)


def test_what_a_subclass_adds_goes_on() -> None:
    body = json.dumps({"messages": [HELLO], "verbosity": "low", "prediction": {"x": 1}}).encode()
    request = ChatCompletionRequest.parse(body).routed_to("m", {})
    sent = openai_chat_payload(request, {"verbosity", "prediction"}, stream=False)
    assert (sent["verbosity"], sent["prediction"]) == ("low", {"x": 1})


@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
@pytest.mark.parametrize("choice", ["none", "auto"])
def test_of_no_tools_nothing_is_said(tools: dict[str, Any], choice: str) -> None:
    """OpenAI refuses each of these without tools, which others do not mind."""
    assert chat(**tools, tool_choice=choice, parallel_tool_calls=True) == chat()


def test_the_choice_among_some_of_the_tools() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    }
    assert chat(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice


def test_the_effort_goes_by_openais_name() -> None:
    sent = chat(reasoning={"effort": "high"})
    assert sent == {**chat(), "reasoning_effort": "high"}
    assert chat(reasoning={"effort": "high"}, reasoning_effort="low")["reasoning_effort"] == "low"


# The site's options and the output limit


def test_the_sites_options_go_on_and_the_request_wins() -> None:
    engine = {"top_k": 40, "temperature": 0.2, "chat_template_kwargs": {"enable_thinking": False}}
    assert chat(engine=engine) == {**chat(), **engine}
    assert chat(engine=engine, temperature=1) == {**chat(), **engine, "temperature": 1}
    for name in ("model", "messages", "stream", "stream_options"):
        assert chat(engine={name: "x"}, streamed=True) == chat(streamed=True)


def test_the_sites_options_are_not_changed() -> None:
    engine = {"max_tokens": 5}
    chat(engine=engine, max_tokens=6)
    assert engine == {"max_tokens": 5}


@pytest.mark.parametrize("theirs", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("ours", ["max_tokens", "max_completion_tokens"])
def test_a_limit_wins_over_the_sites_by_whichever_name(ours: str, theirs: str) -> None:
    assert chat(engine={theirs: 5}) == {**chat(), theirs: 5}
    assert chat(engine={theirs: 5}, **{ours: 6}) == {**chat(), ours: 6}


def test_of_two_limits_the_newer_name_counts() -> None:
    assert chat(max_tokens=5, max_completion_tokens=6) == {**chat(), "max_completion_tokens": 6}


# Messages


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_messages_go_on_as_they_came(role: str) -> None:
    assert message(role=role, content="a\u2028") == {"role": role, "content": "a\u2028"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert message(role=role, content=parts) == {"role": role, "content": parts}


def test_the_role_that_few_templates_know() -> None:
    assert message(role="developer", content="a") == {"role": "system", "content": "a"}


def test_names_of_speakers_do_not_go_on() -> None:
    assert message(role="user", content="a", name="alice") == {"role": "user", "content": "a"}


def call(arguments: str = "{}", **fields: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **fields}


def test_a_call_and_its_result() -> None:
    asked = {"role": "assistant", "tool_calls": [call('{"a": 1}'), call('{"b": 2}')]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
    assert chat(asked, result)["messages"] == [asked, result]
    assert chat({**asked, "content": None}, result)["messages"] == [asked, result]
    said = {**asked, "content": "Let me see."}
    assert chat(said, result)["messages"] == [said, result]


def test_a_call_always_has_its_type() -> None:
    without = {name: value for name, value in call().items() if name != "type"}
    assert message(role="assistant", tool_calls=[without])["tool_calls"] == [call()]


@pytest.mark.parametrize("arguments", ["", " ", "\n", None])
def test_empty_arguments_are_an_empty_object(arguments: Any) -> None:
    assert message(role="assistant", tool_calls=[call(arguments)])["tool_calls"] == [call("{}")]


@pytest.mark.compat("chat.request.messages[].tool_calls[].function.arguments")
@pytest.mark.parametrize("arguments", ['{"city": "Par', " I cannot. ", "null", ' {"a": NaN}\n'])
def test_arguments_go_on_to_the_letter(arguments: str) -> None:
    asked = {"role": "assistant", "tool_calls": [call(arguments)]}
    assert message(**asked) == asked


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_tool_always_has_an_object_of_parameters(parameters: Any) -> None:
    function = {"name": "f", **({"parameters": parameters} if parameters is not None else {})}
    (sent,) = chat(tools=[{"type": "function", "function": function}])["tools"]
    assert sent["function"] == {"name": "f", "parameters": PARAMETERS}


@pytest.mark.compat("chat.request.response_format.schema")
def test_a_schema_beside_json_object_goes_on_as_openai_has_it() -> None:
    sent = chat(response_format={"type": "json_object", "schema": PARAMETERS})
    json_schema = {"name": "answer", "schema": PARAMETERS}
    assert sent["response_format"] == {"type": "json_schema", "json_schema": json_schema}
    lacking = chat(lacks=["response_format"], response_format={"type": "json_object", "schema": {}})
    assert lacking == chat()


@pytest.mark.parametrize(
    "fields", [{}, {"content": None}, {"content": ""}, {"content": []}, {"tool_calls": []}]
)
def test_an_answer_without_anything_has_an_empty_text(fields: dict[str, Any]) -> None:
    assert message(role="assistant", **fields) == {"role": "assistant", "content": ""}


def test_refusals_are_texts() -> None:
    refused = {"role": "assistant", "content": "No."}
    assert message(role="assistant", content=None, refusal="No.") == refused
    assert message(role="assistant", content="No.", refusal="Never.") == refused
    assert message(role="assistant", content="No.", refusal="") == refused
    part = {"type": "refusal", "refusal": "No."}
    text = {"type": "text", "text": "No."}
    assert message(role="assistant", content=[part]) == {"role": "assistant", "content": [text]}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_the_reasoning_of_an_earlier_answer_goes_back_by_its_name(name: str) -> None:
    thought = {"role": "assistant", "content": "a", name: "hm"}
    assert message(**thought) == thought


@pytest.mark.compat("chat.request.function_call", "chat.request.functions")
def test_functions_from_before_tools() -> None:
    asked = {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": '}}
    result = {"role": "function", "name": "f", "content": None}
    orphan = {"role": "function", "name": "g", "content": "x"}
    sent = chat(HELLO, asked, result, orphan, functions=[FUNCTION], function_call={"name": "f"})
    (_, made, answered, last) = sent["messages"]
    (only,) = made["tool_calls"]
    assert only == {**call('{"a": '), "id": only["id"]}
    assert set(made) == {"role", "tool_calls"}
    assert answered == {"role": "tool", "tool_call_id": only["id"], "content": ""}
    assert last == orphan
    assert sent["tools"] == [TOOL]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}


# Pictures and sounds

PNG = b"\x89PNG\r\n\x1a\n\xfb\xff"


def picture(data: bytes = PNG, kind: str = "image/png", **fields: Any) -> dict[str, Any]:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, **fields}}


@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_picture_goes_on_as_its_data(role: str) -> None:
    more = {"tool_call_id": "c"} if role == "tool" else {}
    parts = [{"type": "text", "text": "What?"}, picture(detail="low"), picture()]
    assert message(role=role, content=parts, **more) == {"role": role, "content": parts, **more}


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode()}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode().rstrip('=')}",
        f"data:image/png;base64,{base64.b64encode(PNG).decode().replace('+', '%2B')}",
        f"DATA:image/PNG;name=a.png;base64,{base64.b64encode(PNG).decode()}",
        "data:image/png,%89PNG%0D%0A%1A%0A%FB%FF",
    ],
    ids=["base64url", "no padding", "escaped base64", "capitals", "escaped"],
)
def test_however_it_was_written_it_goes_on_in_plain_base64(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert message(role="user", content=[part])["content"] == [picture()]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM", "image/png"),
    ],
)
def test_a_picture_is_of_the_type_that_its_data_is_of(data: bytes, kind: str) -> None:
    (sent,) = message(role="user", content=[picture(data, "image/x-whatever")])["content"]
    assert sent == picture(data, kind)


def test_a_picture_that_was_fetched_goes_on_as_its_data() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
    request = ChatCompletionRequest.parse(body)
    with pytest.raises(InvalidRequest, match="send a data URI"):
        openai_chat_payload(request, SUPPORTED, stream=False)
    ((_, image),) = request.remote_images
    image.set_data(PNG)
    sent = openai_chat_payload(request, SUPPORTED, stream=False)
    assert sent["messages"][0]["content"] == [picture(detail="low")]


@given(st.binary(min_size=1), st.booleans(), st.booleans())
def test_no_byte_of_a_sound_is_lost(data: bytes, is_url_safe: bool, is_padded: bool) -> None:
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    text = encode(data).decode()
    given_audio = {"data": text if is_padded else text.rstrip("="), "format": "wav"}
    (sent,) = message(role="user", content=[{"type": "input_audio", "input_audio": given_audio}])[
        "content"
    ]
    assert sent["input_audio"] == {"data": base64.b64encode(data).decode(), "format": "wav"}


# Completions


def test_a_plain_completion() -> None:
    assert completion() == {"model": "m", "prompt": "a", "max_tokens": 16, "stream": False}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert completion(streamed=True) == {**completion(), **usage}


COMPLETION: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 1},
    "logprobs": 2,
    "max_tokens": 5,
    "presence_penalty": 1,
    "prompt": [1, 2, 3],
    "seed": 5,
    "stop": "x",
    "suffix": "z",
    "temperature": 0.5,
    "top_p": 0.5,
}


@pytest.mark.compat("completions.request.logit_bias")
def test_what_is_asked_of_a_completion_goes_on_as_it_came() -> None:
    assert completion(**COMPLETION) == {"model": "m", "stream": False, **COMPLETION}


@pytest.mark.parametrize("name", ["logit_bias", "logprobs", "suffix"])
def test_what_the_engine_lacks_of_completions_does_not_go_on(name: str) -> None:
    assert completion(lacks=(name,), **{name: COMPLETION[name]}) == completion()


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"echo": True},
        {"best_of": 1},
        {"user": "alice"},
        {"top_k": 5},
        {"options": {"num_ctx": 5}},
        {"suffix": None},
    ],
    ids=repr,
)
def test_what_does_not_go_on_of_completions(fields: dict[str, Any]) -> None:
    assert completion(**fields) == completion()


def test_log_probabilities_without_alternatives_are_asked_for_with_one() -> None:
    assert completion(logprobs=0)["logprobs"] == 1


def test_the_limit_of_a_completion() -> None:
    assert completion(engine={"max_tokens": 7})["max_tokens"] == 7
    assert completion(engine={"max_tokens": 7}, max_tokens=5)["max_tokens"] == 5
    assert completion(engine={"top_k": 7, "prompt": "x"}) == {**completion(), "top_k": 7}


# Embeddings


@pytest.mark.compat("embeddings.request.input (tokens)")
@pytest.mark.parametrize("given_input", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_embeddings(given_input: Any) -> None:
    assert embeddings(input=given_input, dimensions=5) == {
        "model": "m",
        "input": given_input,
        "encoding_format": "float",
        "dimensions": 5,
    }


def test_what_does_not_go_on_of_embeddings() -> None:
    plain = {"model": "m", "input": "a", "encoding_format": "float"}
    assert embeddings(encoding_format="base64", user="alice", extra=1, truncate=True) == plain
    assert embeddings(lacks=("dimensions",), dimensions=5) == plain
    assert embeddings(engine={"truncate_prompt_tokens": 5, "encoding_format": "base64"}) == {
        **plain,
        "truncate_prompt_tokens": 5,
    }
