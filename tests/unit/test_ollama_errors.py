from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.ollama_errors import (
    context_message,
    ollama_error,
    operator_text,
)
from django_ollama_openai._translation.openai_errors import openai_error
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UnsupportedParameter,
    UpstreamError,
    UpstreamUnavailable,
)
from tests.recordings import load, names

TOO_LONG = {
    "code": 400,
    "message": "request (831 tokens) exceeds the available context size (256 tokens)",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 831,
    "n_ctx": 256,
}
TOO_LONG_MESSAGE = (
    "This model's maximum context length is 256 tokens. However, your messages resulted in 831 "
    "tokens. Please reduce the length of the messages."
)


def body(error: Any) -> bytes:
    return json.dumps({"error": error}).encode()


ENDPOINT, PARAMETER = "unsupported_endpoint", "unsupported_parameter"
NO_ROOM = "This model's context has no room for your input. Please reduce the length of the input."
PARAMS = {"embed": "input", "generate": "prompt"}
"""What each endpoint reads; the others read messages."""

RECORDED: dict[str, tuple[type[GatewayError], str]] = {
    "chat_404": (
        ModelNotFound,
        "The model 'asked' does not exist or you do not have access to it.",
    ),
    "chat_badjson": (InvalidRequest, "unexpected EOF"),
    "chat_badoption": (UpstreamError, "The engine failed with status 500."),
    "chat_badtype": (
        InvalidRequest,
        "json: cannot unmarshal string into Go struct field ChatRequest.messages of type "
        "[]api.Message",
    ),
    "chat_embedmodel": (InvalidRequest, "This model does not support chat completions."),
    "chat_format_bad": (InvalidRequest, "Invalid schema for 'response_format'."),
    "chat_images_unsupported": (
        UnsupportedParameter,
        "This model does not support image and audio input, which is in 'messages'.",
    ),
    "chat_long_notruncate": (ContextLengthExceeded, TOO_LONG_MESSAGE),
    "chat_nomodel": (InvalidRequest, "model is required"),
    "chat_think_unsupported": (UnsupportedParameter, "This model does not support thinking."),
    "chat_tools_unsupported": (UnsupportedParameter, "This model does not support tools."),
    "embed_404": (
        ModelNotFound,
        "The model 'asked' does not exist or you do not have access to it.",
    ),
    "embed_chatmodel": (InvalidRequest, "This model does not support embeddings."),
    "embed_long_notruncate": (ContextLengthExceeded, NO_ROOM),
    "generate_suffix_unsupported": (UnsupportedParameter, "This model does not support 'suffix'."),
    "method_405": (UpstreamError, "The engine failed with status 405."),
    "route_404": (UpstreamError, "The engine failed with status 404."),
    "show_404": (
        ModelNotFound,
        "The model 'asked' does not exist or you do not have access to it.",
    ),
}


def test_every_recorded_failure_is_covered() -> None:
    assert {name for name in names() if load(name).status != 200} == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_the_error_for_a_recorded_failure(name: str) -> None:
    recording = load(name)
    param = PARAMS.get(name.partition("_")[0], "messages")
    error = ollama_error(recording.status, recording.body, model="asked", param=param)
    assert (type(error), error.message) == RECORDED[name]


@pytest.mark.compat("errors.status.502, 503, 504")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, UpstreamError),
        (403, UpstreamError),
        (404, ModelNotFound),
        (405, UpstreamError),
        (429, UpstreamUnavailable),
        (499, UpstreamError),
        (500, UpstreamError),
        (501, UpstreamError),
        (502, UpstreamError),
        (503, UpstreamUnavailable),
        (None, UpstreamError),
    ],
)
def test_the_status_decides(status: int | None, kind: type[GatewayError]) -> None:
    assert type(ollama_error(status, body("text"), model="m")) is kind


@pytest.mark.parametrize("status", [401, 403])
def test_ollamas_own_key_is_not_the_callers(status: int) -> None:
    error = ollama_error(status, body("unauthorized"))
    assert (error.status, error.code) == (502, "bad_upstream")


SECRET = "open /root/.ollama/models/blobs/sha256-abc: dial tcp 10.1.2.3:11434"


@pytest.mark.compat("errors.response.error.message")
@pytest.mark.parametrize("status", [401, 403, 404, 429, 499, 500, 501, 502, 503, None])
@pytest.mark.parametrize("error", [SECRET, {"message": SECRET}, json.dumps({"error": SECRET})])
def test_the_engines_own_failures_are_not_repeated(status: int | None, error: Any) -> None:
    told = ollama_error(status, body(error), model="m")
    assert "/root" not in told.message
    assert "10.1.2.3" not in told.message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("plain", "plain"),
        ("", "The engine refused the request."),
        ('{"error": {"message": "inner", "type": "invalid_request_error"}}', "inner"),
        ('{"error": {"message": ""}}', "The engine refused the request."),
        ('{"error": "inner"}', '{"error": "inner"}'),
        ("{broken", "{broken"),
        ("5", "5"),
        ({"message": "object"}, "object"),
    ],
)
def test_a_refusal_is_passed_on_however_it_is_wrapped(error: Any, message: str) -> None:
    told = ollama_error(400, body(error))
    assert (type(told), told.message) == (InvalidRequest, message)


@pytest.mark.compat("errors.status.400 (context)")
@pytest.mark.parametrize("status", [400, 500, 503, None])
@pytest.mark.parametrize(
    "error", [TOO_LONG, json.dumps({"error": TOO_LONG})], ids=["once", "twice"]
)
def test_a_prompt_that_is_too_long_has_an_error_of_its_own(status: int | None, error: Any) -> None:
    told = ollama_error(status, body(error))
    assert type(told) is ContextLengthExceeded
    assert (told.message, told.param) == (TOO_LONG_MESSAGE, "messages")


@pytest.mark.parametrize("detail", [{}, {"n_ctx": 5}, {"n_prompt_tokens": "8", "n_ctx": None}])
def test_a_prompt_that_is_too_long_may_lack_its_figures(detail: dict[str, Any]) -> None:
    assert context_message(detail, "input") == NO_ROOM
    assert "your messages" in context_message(detail)


@pytest.mark.parametrize("param", ["messages", "prompt", "input"])
@pytest.mark.parametrize(
    "error",
    [
        TOO_LONG,
        "the input length exceeds the context length",
        "input after truncation exceeds maximum context length",
        "input exceeds maximum context length and cannot be truncated further",
        "the prompt is longer than the context length currently available to the model; shorten it",
    ],
    ids=["llama-server", "embed", "embed, truncated", "embed, cut", "generate"],
)
def test_what_is_too_long_is_named_as_the_request_names_it(error: Any, param: str) -> None:
    told = ollama_error(400, body(error), param=param)
    assert (type(told), told.param) == (ContextLengthExceeded, param)
    assert f"your {param}" in told.message


@pytest.mark.compat("completions.request.suffix")
@pytest.mark.parametrize(
    ("status", "text", "lack", "param", "code"),
    [
        (400, '"m" does not support chat', "chat completions", "model", ENDPOINT),
        (400, '"m" does not support generate', "completions", "model", ENDPOINT),
        (
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
            "embeddings",
            "model",
            ENDPOINT,
        ),
        (400, "hub.corp.internal/m does not support insert", "'suffix'", "suffix", PARAMETER),
        (
            400,
            '"/srv/secret/x.gguf" does not support thinking',
            "thinking",
            "reasoning_effort",
            PARAMETER,
        ),
        (501, "hub.corp.internal/m does not support tools", "tools", "tools", PARAMETER),
        (
            400,
            "Multimodal data provided, but model does not support multimodal requests.",
            "image and audio input, which is in 'messages[1].content[2]'",
            "messages[1].content[2]",
            PARAMETER,
        ),
    ],
)
def test_what_a_model_lacks(
    status: int, text: str, lack: str, param: str | None, code: str | None
) -> None:
    told = ollama_error(
        status,
        body(text),
        model="asked",
        think_param="reasoning_effort",
        media_param="messages[1].content[2]",
    )
    assert told.status == 400
    message = f"This model does not support {lack}."
    assert (told.message, told.param, told.code) == (message, param, code)


CONVERSION = '"json_schema": JSON schema conversion failed:\nUnrecognized schema: {"type":"odd"}'
SCHEMA = {"schema_param": "tools[1].function.parameters"}


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("invalid JSON schema in format", "Invalid schema for '{}'."),
        ("failed to parse grammar", "Invalid schema for '{}'."),
        (CONVERSION, 'Invalid schema for \'{}\': Unrecognized schema: {{"type":"odd"}}.'),
        (
            json.dumps({"error": {"code": 400, "message": CONVERSION}}),
            'Invalid schema for \'{}\': Unrecognized schema: {{"type":"odd"}}.',
        ),
    ],
)
@pytest.mark.parametrize(
    ("context", "param"), [({}, "response_format"), (SCHEMA, SCHEMA["schema_param"])]
)
def test_a_schema_that_cannot_be_enforced_is_the_requests_fault(
    status: int, text: str, message: str, context: Any, param: str
) -> None:
    told = ollama_error(status, body(text), model="m", **context)
    assert (told.status, told.param, told.code) == (400, param, "invalid_json_schema")
    assert told.message == message.format(param)


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("json: cannot unmarshal string into Go struct field ChatRequest.messages of", "messages"),
        ("json: cannot unmarshal number into Go struct field ChatRequest.tools.type of", "tools"),
        ("json: cannot unmarshal number into Go struct field ChatRequest.format of", "schema"),
        ("json: cannot unmarshal number into Go struct field ChatRequest.stream of", None),
        ("model is required", "model"),
        ("invalid input type", "input"),
        ("invalid options", None),
    ],
)
def test_the_field_that_a_refusal_is_about(text: str, param: str | None) -> None:
    assert ollama_error(400, body(text), schema_param="schema").param == param


@pytest.mark.parametrize(
    ("model", "known_as"),
    [
        ("llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
        ("Llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
        ("llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"),
        ("me/mine", "registry.ollama.ai/me/mine:latest"),
        ("hf.co:443/me/mine", "hf.co:443/me/mine:latest"),
    ],
)
def test_a_model_is_named_as_it_was_asked_for(model: str, known_as: str) -> None:
    for name in (known_as, f"hub.corp.internal:5000/team/{model}"):
        told = ollama_error(400, body(f"{name} is not ready"), model=model)
        assert told.message == f"{model} is not ready"


SERVERS_OWN = [
    "model requires more memory, see http://gpu:11434",
    "no answer of gpu-1:11434",
    "no answer of 10.1.2.3",
    "no answer of [fe80::1]",
    "lookup gpu-1: no such host",
    "cannot read hub.corp.internal/team/model",
    "no answer of gpu.internal",
    "stat /srv/secret/x: no such file",
    "Failed to load image '/srv/secret'",
    "cannot open file:/srv/secret",
    "cannot open ~/models",
    "cannot open C:\\models",
    "cannot open \\\\host\\models",
    "error parsing tool call: raw='sk-verysecret'",
    "Authorization: Bearer x",
    "api_key=x",
    "blob sha256-4c7d1a0a8b2f4e5d9c3b7a6f1e0d2c4b",
]


@pytest.mark.parametrize("text", SERVERS_OWN)
@pytest.mark.parametrize("refused", [ollama_error, openai_error], ids=["Ollama", "OpenAI"])
def test_a_refusal_that_names_something_of_the_server_is_for_operators(
    refused: Any, text: str
) -> None:
    told = refused(400, body(text), model="m")
    assert (type(told), told.message) == (InvalidRequest, "The engine refused the request.")
    assert told.engine_message == operator_text(text)
    schema = refused(
        400, body(f"JSON schema error at {text}"), model="m", schema_param="response_format"
    )
    assert schema.message == "Invalid schema for 'response_format'."


@pytest.mark.parametrize(
    "text",
    [
        "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.X",
        "Error resolving ref #/$defs/x at line 12:34 and/or application/json </tool>",
        "llama3.2:1b takes 0.5 to 1/2; messages[0].content.text: 1.5.",
        "temperature: must be in (0, 1], json::parse: [10:20]",
    ],
)
def test_other_refusals_are_passed_on_word_for_word(text: str) -> None:
    for told in (ollama_error(400, body(text)), openai_error(400, body(text))):
        assert (told.message, told.engine_message) == (text, "")


@pytest.mark.parametrize(
    "text",
    [
        'do embedding request: Post "http://127.0.0.1:41234/v1/embeddings": EOF',
        "dial tcp 127.0.0.1:41234: connect: connection refused",
        "error reading: localhost:41234",
    ],
)
def test_failures_that_embed_calls_the_clients_are_not_repeated(text: str) -> None:
    told = ollama_error(400, body(text), param="input")
    assert type(told) is UpstreamError
    assert "41234" not in told.message
    refusal = ollama_error(400, body("embedding contains NaN or Inf values"), param="input")
    assert refusal.message == "embedding contains NaN or Inf values"


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "type", "message", "n_ctx", "n_prompt_tokens"]),
            inner | st.just("exceed_context_size_error"),
        )
        | inner.map(json.dumps)
    ),
    max_leaves=8,
)


@given(
    st.none() | st.integers(100, 599),
    st.binary() | any_json.map(body) | any_json.map(lambda value: json.dumps(value).encode()),
)
def test_any_body_at_all_is_some_error(status: int | None, data: bytes) -> None:
    error = ollama_error(status, data, model="m")
    assert isinstance(error, GatewayError)
    assert isinstance(error.message, str)
    assert error.message
