"""What engines answer that speak OpenAI's API, in their own words, and what clients are told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._translation.openai_errors import engine_error, openai_error
from django_ollama_openai.exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.wire import any_json

SECRETS = ("/srv", "10.0.0.7", "sk-engine")


def told(status: int, body: Any, param: str = "messages") -> GatewayError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return openai_error(status, content, model="llama-3", param=param)


def openai(message: str, **fields: Any) -> dict[str, Any]:
    inner = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return {"error": {**inner, **fields}}


def bare(message: str, **fields: Any) -> dict[str, Any]:
    """As vLLM and SGLang answer without an envelope."""
    inner = {"object": "error", "message": message, "type": "BadRequestError", "param": None}
    return {**inner, "code": 400, **fields}


def llama_server(message: str, code: int, type: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": type, **fields}}


# A prompt that is too long

FIGURES: dict[str, tuple[int, Any]] = {
    "OpenAI": (
        400,
        openai(
            "This model's maximum context length is 512 tokens. However, your messages resulted in "
            "900 tokens (860 in the messages, 40 in the functions). Please reduce the length of "
            "the messages or functions.",
            param="messages",
            code="context_length_exceeded",
        ),
    ),
    "OpenAI's newer models": (
        400,
        openai(
            "Input tokens exceed the configured limit of 512 tokens. Your messages resulted in 900 "
            "tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        ),
    ),
    "OpenAI's embeddings": (
        400,
        openai(
            "This model's maximum context length is 512 tokens, however you requested 900 tokens "
            "(900 in your prompt; 0 for the completion). Please reduce your prompt; or completion "
            "length."
        ),
    ),
    "vLLM, long ago": (
        400,
        bare(
            "This model's maximum context length is 512 tokens. However, you requested 950 tokens "
            "(900 in the messages, 50 in the completion). Please reduce the length of the "
            "messages or completion."
        ),
    ),
    "vLLM": (
        400,
        openai(
            "This model's maximum context length is 512 tokens. However, your request has 900 "
            "input tokens. Please reduce the length of the input messages.",
            type="BadRequestError",
            code=400,
        ),
    ),
    "vLLM, lately": (
        400,
        openai(
            "This model's maximum context length is 512 tokens. However, you requested 50 output "
            "tokens and your prompt contains at least 900 input tokens, for a total of at least "
            "950 tokens. Please reduce the length of the input prompt or the number of requested "
            "output tokens.",
            type="BadRequestError",
            param="input_tokens",
            code=400,
        ),
    ),
    "vLLM with pictures": (
        400,
        bare(
            "The decoder prompt (length 900) is longer than the maximum model length of 512. Make "
            "sure that `max_model_len` is no smaller than the number of text tokens plus "
            "multimodal tokens."
        ),
    ),
    "SGLang": (
        400,
        bare("The input (900 tokens) is longer than the model's context length (512 tokens)."),
    ),
    "SGLang with the completion": (
        400,
        bare(
            "Requested token count exceeds the model's maximum context length of 512 tokens. You "
            "requested a total of 950 tokens: 900 tokens from the input messages and 50 tokens "
            "for the completion."
        ),
    ),
    "SGLang's limit": (
        400,
        bare("Input length (900 tokens) exceeds the maximum allowed length (512 tokens)."),
    ),
    "llama-server": (
        400,
        llama_server(
            "request (900 tokens) exceeds the available context size (512 tokens), try increasing "
            "it",
            400,
            "exceed_context_size_error",
            n_prompt_tokens=900,
            n_ctx=512,
        ),
    ),
    "llama-server's embeddings": (
        500,
        llama_server(
            "input (900 tokens) is too large to process. increase the physical batch size "
            "(current batch size: 512)",
            500,
            "server_error",
        ),
    ),
    "LiteLLM": (
        400,
        openai(
            "litellm.ContextWindowExceededError: litellm.BadRequestError: "
            "ContextWindowExceededError: OpenAIException - This model's maximum context length is "
            "512 tokens. However, your messages resulted in 900 tokens. Please reduce the length "
            "of the messages.. Received Model Group=llama-3\nAvailable Model Group Fallbacks=None",
            type=None,
            code="400",
        ),
    ),
}


@pytest.mark.parametrize(("status", "body"), FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("param", ["messages", "prompt", "input"])
def test_the_error_for_a_long_prompt_has_its_figures(
    status: int, body: dict[str, Any], param: str
) -> None:
    error = told(status, body, param)
    assert (type(error), error.param) == (ContextLengthExceeded, param)
    assert error.message == (
        f"This model's maximum context length is 512 tokens. However, your {param} resulted in 900 "
        f"tokens. Please reduce the length of the {param}."
    )


NO_FIGURES: dict[str, Any] = {
    "with the completion": bare(
        "This model's maximum context length is 512 tokens. However, you requested 950 tokens "
        "(450 in the messages, 500 in the completion). Please reduce the length of the messages "
        "or completion."
    ),
    "the completion alone": bare(
        "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum context "
        "length is 512 tokens and your request has 100 input tokens (500 > 512 - 100)."
    ),
    "the sum": bare("This model's maximum context length is 512 tokens. However, you requested 9."),
    "OpenAI's embeddings, lately": openai("Invalid 'input': maximum context length is 512 tokens."),
    "OpenAI's code": openai("Too much.", code="context_length_exceeded"),
    "OpenAI's responses": openai(
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again."
    ),
    "older llama-server": llama_server(
        "the request exceeds the available context size. try increasing the context size or "
        "enable context shift",
        400,
        "invalid_request_error",
    ),
    "LM Studio": {
        "error": "The number of tokens to keep from the initial prompt is greater than the context "
        "length."
    },
}


@pytest.mark.parametrize("body", NO_FIGURES.values(), ids=NO_FIGURES)
def test_without_figures_of_the_prompt_the_engine_says_itself_what_is_too_long(
    body: dict[str, Any],
) -> None:
    error = told(400, body)
    assert (type(error), error.param) == (ContextLengthExceeded, "messages")
    inner = body.get("error", body)
    assert error.message == (inner if isinstance(inner, str) else inner["message"])


def test_the_message_of_an_engines_failure_is_not_quoted() -> None:
    text = "/srv/model: the request exceeds the available context size"
    error = told(500, llama_server(text, 500, "server_error"))
    assert type(error) is ContextLengthExceeded
    assert "/srv" not in error.message
    assert "no room for your messages" in error.message


def test_a_refusal_for_its_length_does_not_name_the_server() -> None:
    error = told(400, openai("10.0.0.7: exceeds the context length", param="10.0.0.7"))
    assert type(error) is ContextLengthExceeded
    assert not any(secret in str(error.envelope()) for secret in SECRETS)
    refusal = told(400, openai("No.", param="10.0.0.7", code="sk-engine"))
    assert (refusal.message, refusal.param, refusal.code) == ("No.", None, None)


# A model that is missing, or is for something else

MISSING: dict[str, tuple[int, Any]] = {
    "OpenAI": (
        404,
        openai(
            "The model `llama-3` does not exist or you do not have access to it.",
            code="model_not_found",
        ),
    ),
    "OpenAI without its name": (404, openai("No such model.", code="model_not_found")),
    "OpenAI as a refusal": (400, openai("No such model.", code="model_not_found")),
    "vLLM, long ago": (
        404,
        bare("The model `llama-3` does not exist.", type="NotFoundError", code=404),
    ),
    "vLLM": (
        404,
        openai(
            "The model `llama-3` does not exist.", type="NotFoundError", param="model", code=404
        ),
    ),
    "Ollama": (404, openai('model "llama-3" not found, try pulling it first', type="api_error")),
    "a text": (404, {"detail": "Model llama-3 is not served here"}),
}


@pytest.mark.parametrize(("status", "body"), MISSING.values(), ids=MISSING)
def test_a_model_that_the_engine_lacks(status: int, body: Any) -> None:
    error = told(status, body)
    assert type(error) is ModelNotFound
    assert error.envelope() == ModelNotFound("llama-3").envelope()


NOT_THIS: dict[str, tuple[int, Any]] = {
    "OpenAI": (
        404,
        openai(
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
            "Did you mean to use v1/completions?",
            param="model",
        ),
    ),
    "vLLM": (400, bare("The model does not support Chat Completions API")),
    "llama-server": (
        501,
        llama_server(
            "This server does not support embeddings. Start it with `--embeddings`",
            501,
            "not_supported_error",
        ),
    ),
    "FastAPI": (405, {"detail": "Method Not Allowed"}),
}


@pytest.mark.parametrize(("status", "body"), NOT_THIS.values(), ids=NOT_THIS)
@pytest.mark.parametrize(
    ("param", "endpoint"),
    [("messages", "chat completions"), ("prompt", "completions"), ("input", "embeddings")],
)
def test_a_model_that_is_for_something_else(
    status: int, body: Any, param: str, endpoint: str
) -> None:
    error = told(status, body, param)
    assert error.message == f"This model does not support {endpoint}."
    assert (error.status, error.param, error.code) == (400, "model", "unsupported_endpoint")


def test_a_model_that_is_for_embeddings_only() -> None:
    text = "the current context does not support logits computation. skipping"
    error = told(500, llama_server(text, 500, "server_error"))
    assert error.message == "This model does not produce text."
    assert (error.status, error.param, error.code) == (400, "model", "unsupported_endpoint")


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_model_that_reads_texts_only(kind: str) -> None:
    text = f"{kind} input is not supported - hint: if this is unexpected, provide the mmproj"
    body = json.dumps(llama_server(text, 500, "server_error")).encode()
    error = openai_error(500, body, media_param="messages[0].content[1]")
    assert error.message == (
        f"This model does not support {kind} input, which is in 'messages[0].content[1]'."
    )
    assert (error.status, error.param) == (400, "messages[0].content[1]")


@pytest.mark.parametrize(
    "text",
    [
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "tools param requires --jinja flag",
    ],
)
def test_an_engine_that_was_started_without_tools(text: str) -> None:
    error = told(400, openai(text))
    assert (error.param, error.code) == ("tools", "unsupported_parameter")
    assert "--" not in error.message


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (400, '"json_schema": JSON schema conversion failed:\nodd', ": odd."),
        (500, "Failed to initialize samplers: failed to parse grammar", "."),
        (400, "The provided JSON schema contains features not supported by xgrammar.", "."),
        (400, "Invalid grammar request with error: x", "."),
    ],
)
def test_a_schema_that_the_engine_cannot_use(status: int, text: str, reason: str) -> None:
    body = json.dumps(openai(text)).encode()
    error = openai_error(status, body, schema_param="response_format")
    assert (error.status, error.param, error.code) == (
        400,
        "response_format",
        "invalid_json_schema",
    )
    assert error.message == f"Invalid schema for 'response_format'{reason}"
    # Without a schema in the request it is about something else.
    assert openai_error(status, body).param is None


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Not Found"},
        llama_server("File Not Found", 404, "not_found_error"),
        openai("Invalid URL (POST /v1/v1/chat/completions)"),
        {"error": {"code": "404", "message": "Resource not found"}},
        b"<html><h1>404 Not Found</h1>nginx</html>",
        b"404 page not found\n",
        b"",
    ],
    ids=["FastAPI", "llama-server", "OpenAI", "Azure", "nginx", "Go", "nothing"],
)
def test_an_endpoint_that_is_not_there_is_the_sites_concern(body: Any) -> None:
    error = told(404, body)
    assert type(error) is UpstreamError
    assert error.message == "The engine does not have this endpoint."


# Refusals

REFUSALS: dict[str, tuple[int, Any, str, str | None, str | None]] = {
    # status, body; the message, the parameter and the code that clients get
    "OpenAI": (
        400,
        openai("Invalid 'top_p'.", param="top_p", code="decimal_above_max_value"),
        "Invalid 'top_p'.",
        "top_p",
        "decimal_above_max_value",
    ),
    "vLLM, long ago": (
        400,
        bare("top_p must be in (0, 1], got 0.0."),
        "top_p must be in (0, 1], got 0.0.",
        None,
        None,
    ),
    "vLLM": (
        400,
        openai("Bad.", type="BadRequestError", param="top_p", code=400),
        "Bad.",
        "top_p",
        None,
    ),
    "llama-server": (
        400,
        llama_server("Failed to parse grammar", 400, "invalid_request_error"),
        "Failed to parse grammar",
        None,
        None,
    ),
    "LiteLLM": (
        400,
        openai("litellm.BadRequestError: no", type="None", param="None", code="400"),
        "litellm.BadRequestError: no",
        None,
        None,
    ),
    "Azure": (
        400,
        openai("Filtered.", type=None, param="prompt", code="content_filter", status=400),
        "Filtered.",
        "prompt",
        "content_filter",
    ),
    "TGI": (
        422,
        {"error": "Input validation error: `temperature` must be positive", "error_type": "x"},
        "Input validation error: `temperature` must be positive",
        None,
        None,
    ),
    "FastAPI": (400, {"detail": "There was an error"}, "There was an error", None, None),
    "FastAPI, field by field": (
        422,
        {
            "detail": [
                {
                    "type": "float_parsing",
                    "loc": ["body", "messages", 0, "content"],
                    "msg": "Input should be a valid number",
                    "input": "a secret",
                },
                {"type": "missing", "loc": ["body", "x"], "msg": "Field required"},
            ]
        },
        "Invalid value for 'messages.0.content': Input should be a valid number.",
        "messages.0.content",
        None,
    ),
    "too large": (413, openai("Too large."), "Too large.", None, None),
    "no message": (400, {"error": {}}, "The engine refused the request.", None, None),
    "other JSON": (400, ["x"], "The engine refused the request.", None, None),
    "HTML": (400, b"<html>10.0.0.7</html>", "The engine refused the request.", None, None),
    "odd details": (422, {"detail": [{"loc": 5}]}, "The engine refused the request.", None, None),
}


@pytest.mark.parametrize(
    ("status", "body", "message", "param", "code"), REFUSALS.values(), ids=REFUSALS
)
def test_refusals_are_passed_on(
    status: int, body: Any, message: str, param: str | None, code: str | None
) -> None:
    error = told(status, body)
    assert type(error) is InvalidRequest
    assert (error.message, error.param, error.code) == (message, param, code)
    assert error.status == 400


# Failures

LEAKY = "10.0.0.7: cannot open /srv/model with sk-engine"


@pytest.mark.parametrize(
    "body",
    [
        openai(LEAKY, type="server_error"),
        bare(LEAKY, type="InternalServerError"),
        {"detail": LEAKY},
        {"detail": [{"loc": ["body"], "msg": LEAKY}]},
        {"error": LEAKY},
        LEAKY.encode(),
    ],
    ids=["OpenAI", "vLLM", "FastAPI", "FastAPI's list", "a text", "no JSON"],
)
@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, UpstreamError, "The engine rejected the gateway's credentials."),
        (403, UpstreamError, "The engine rejected the gateway's credentials."),
        (408, UpstreamTimeout, "The engine did not answer in time."),
        (429, UpstreamUnavailable, "The engine is busy. Try again later."),
        (500, UpstreamError, "The engine failed with status 500."),
        (502, UpstreamError, "The engine failed with status 502."),
        (503, UpstreamUnavailable, "The engine is busy. Try again later."),
        (504, UpstreamTimeout, "The engine did not answer in time."),
        (302, UpstreamError, "The engine failed with status 302."),
        (201, UpstreamError, "The engine failed with status 201."),
    ],
)
def test_failures_of_the_engine_are_not_quoted(
    status: int, kind: type[GatewayError], message: str, body: Any
) -> None:
    error = told(status, body)
    assert type(error) is kind
    assert error.message == message
    assert not any(secret in str(error.envelope()) for secret in SECRETS)


# In the middle of an answer


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Bad.", "type": "BadRequestError", "code": 400},
        {"message": "Bad.", "type": "None", "param": "None", "code": "400"},
        {"message": "Bad.", "type": "invalid_request_error", "code": None},
    ],
    ids=["vLLM", "LiteLLM", "OpenAI"],
)
def test_a_refusal_within_a_stream(error: dict[str, Any]) -> None:
    refused = engine_error(error)
    assert type(refused) is InvalidRequest
    assert (refused.message, refused.param, refused.code) == ("Bad.", None, None)


@pytest.mark.parametrize("error", [LEAKY, {"message": LEAKY, "code": 500}, [LEAKY], 5, {}])
def test_a_failure_within_a_stream(error: Any) -> None:
    failed = engine_error(error)
    assert type(failed) is UpstreamError
    assert failed.message == "The engine failed while generating the response."


@given(st.integers(min_value=100, max_value=599), any_json | st.binary())
def test_any_response_becomes_a_gateway_error(status: int, body: Any) -> None:
    error = told(status, body)
    assert isinstance(error.message, str)
    assert error.message
    assert isinstance(error.envelope(), dict)


def test_a_long_message_takes_no_time_to_look_through() -> None:
    started = time.process_time()
    for text in ("input (1 tokens) " * 20_000, "1" * 200_000, "does not support " * 20_000):
        assert isinstance(told(400, openai(text)), InvalidRequest)
    assert time.process_time() - started < 5
