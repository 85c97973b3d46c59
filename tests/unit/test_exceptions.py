from __future__ import annotations

import json
from typing import Any

import pytest

from django_ollama_openai import exceptions
from django_ollama_openai.exceptions import (
    AuthenticationFailed,
    ClientTimeout,
    ContextLengthExceeded,
    GatewayError,
    InsufficientQuota,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ShuttingDown,
    Unavailable,
    UnsupportedContentCoding,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

TABLE: list[tuple[GatewayError, int, str, str | None, dict[str, str]]] = [
    (GatewayError("x"), 500, "server_error", None, {}),
    (InvalidRequest("x"), 400, "invalid_request_error", None, {}),
    (UnsupportedParameter("x"), 400, "invalid_request_error", "unsupported_parameter", {}),
    (ContextLengthExceeded("x"), 400, "invalid_request_error", "context_length_exceeded", {}),
    (RequestTooLarge("x"), 413, "invalid_request_error", "request_too_large", {}),
    (
        UnsupportedContentCoding(["br"], ["gzip", "deflate"]),
        415,
        "invalid_request_error",
        "unsupported_content_coding",
        {"Accept-Encoding": "gzip, deflate"},
    ),
    (
        AuthenticationFailed("x"),
        401,
        "invalid_request_error",
        "invalid_api_key",
        {"WWW-Authenticate": "Bearer"},
    ),
    (PermissionDenied("x"), 403, "permission_error", "permission_denied", {}),
    (NotFound("x"), 404, "invalid_request_error", "not_found", {}),
    (ModelNotFound("m"), 404, "invalid_request_error", "model_not_found", {}),
    (
        MethodNotAllowed("PUT", ["GET", "POST"]),
        405,
        "invalid_request_error",
        "method_not_allowed",
        {"Allow": "GET, POST"},
    ),
    (ClientTimeout(), 408, "invalid_request_error", "client_timeout", {}),
    (
        RateLimited("x", retry_after=1.2),
        429,
        "requests",
        "rate_limit_exceeded",
        {"Retry-After": "2", "retry-after-ms": "1200"},
    ),
    (
        InsufficientQuota("x"),
        429,
        "insufficient_quota",
        "insufficient_quota",
        {"x-should-retry": "false"},
    ),
    (Unavailable(), 503, "server_error", None, {"Retry-After": "5"}),
    (Overloaded(), 503, "server_error", "overloaded", {"Retry-After": "5"}),
    (ShuttingDown(), 503, "server_error", "shutting_down", {"Retry-After": "5"}),
    (UpstreamError("x"), 502, "server_error", "bad_upstream", {}),
    (UpstreamUnavailable("x"), 503, "server_error", "upstream_unavailable", {"Retry-After": "5"}),
    (UpstreamTimeout("x"), 504, "server_error", "upstream_timeout", {}),
]


def test_the_table_is_the_whole_tree() -> None:
    listed = [type(error).__name__ for error, *_ in TABLE]
    assert sorted(listed) == sorted(exceptions.__all__)


@pytest.mark.compat(
    "errors.response.error.type",
    "errors.response.error.code",
    "errors.response.error.misalignment",
    "errors.status.403",
    "http.header.WWW-Authenticate",
)
@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "headers"),
    TABLE,
    ids=[type(row[0]).__name__ for row in TABLE],
)
def test_what_openais_clients_see(
    error: GatewayError, status: int, kind: str, code: str | None, headers: dict[str, str]
) -> None:
    assert error.status == status
    assert error.headers == headers
    assert error.envelope() == {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": code}
    }


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    for error, status, kind, code, _ in TABLE:
        (line,) = (
            line
            for line in (exceptions.__doc__ or "").splitlines()
            if type(error).__name__ in line.split()
        )
        assert line.split()[-2:] == [str(status), code or kind]


def test_a_parameter_and_a_code_of_ones_own() -> None:
    error = InvalidRequest("Bad n.", param="n", code="bad_n")
    assert error.envelope()["error"] == {
        "message": "Bad n.",
        "type": "invalid_request_error",
        "param": "n",
        "code": "bad_n",
    }
    assert InvalidRequest("Bad n.").code is None
    assert str(error) == "Bad n."


def test_a_missing_model_is_named() -> None:
    error = ModelNotFound("llama3.2")
    assert error.param == "model"
    assert error.message == "The model 'llama3.2' does not exist or you do not have access to it."


@pytest.mark.parametrize(
    ("allowed", "message", "header"),
    [
        (["GET"], "PUT is not allowed here; use GET.", "GET"),
        (iter(["GET", "HEAD"]), "PUT is not allowed here; use GET or HEAD.", "GET, HEAD"),
    ],
    ids=["one", "two"],
)
def test_the_methods_that_would_work_are_told(allowed: Any, message: str, header: str) -> None:
    error = MethodNotAllowed("PUT", allowed)
    assert (error.message, error.headers) == (message, {"Allow": header})


@pytest.mark.compat("http.header.Retry-After")
def test_when_to_try_again_is_told_in_seconds() -> None:
    assert UpstreamUnavailable("x", retry_after=30).headers == {"Retry-After": "30"}
    assert Overloaded(retry_after=2).headers == {"Retry-After": "2"}
    tokens = RateLimited("x", type="tokens")
    assert (tokens.envelope()["error"]["type"], tokens.headers) == ("tokens", {})


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (UnsupportedParameter, InvalidRequest),
        (ContextLengthExceeded, InvalidRequest),
        (RequestTooLarge, InvalidRequest),
        (UnsupportedContentCoding, InvalidRequest),
        (ModelNotFound, NotFound),
        (UpstreamUnavailable, UpstreamError),
        (UpstreamTimeout, UpstreamError),
    ],
)
def test_what_is_caught_with_what(error: type[GatewayError], bases: type[GatewayError]) -> None:
    assert issubclass(error, bases)
    assert not issubclass(bases, error)


def test_what_quotes_a_long_request_is_cut() -> None:
    error: GatewayError = ModelNotFound("x" * 1_000_000)
    assert error.message.startswith("The model 'xxx")
    assert len(error.message) < 17_000
    field = "options." + "x" * 1_000_000
    error = InvalidRequest(f"Unknown parameter: '{field}'.", param=field)
    assert error.param is not None
    assert field.startswith(error.param.removesuffix("…"))
    assert len(json.dumps(error.envelope())) < 19_000
