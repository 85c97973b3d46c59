"""What is logged of a backend that fails: one line, without a word of what the engine sent."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from django_ollama_openai._gateway.failures import to_client_error
from django_ollama_openai._translation.ollama_chunks import OllamaChatChunks
from django_ollama_openai._translation.ollama_errors import ollama_error
from django_ollama_openai._translation.openai_errors import openai_error
from django_ollama_openai.backends._failures import MAX_LOGGED
from django_ollama_openai.backends._http_client import UpstreamStatusError
from django_ollama_openai.exceptions import (
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamUnavailable,
)
from tests.servers import NO_TLS

if TYPE_CHECKING:
    from pytest_django import Settings


def logged(error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    to_client_error(error, "default", "req_7")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    return record.getMessage()


def answered(status: int) -> httpx.Response:
    request = httpx.Request("POST", "http://gpu-1:8000/v1/chat/completions")
    return httpx.Response(status, request=request)


def raised(error: GatewayError, *causes: Exception) -> GatewayError:
    """``error``, with ``causes`` behind it, each with the next one behind itself."""
    behind: BaseException = error
    for cause in causes:
        behind.__cause__ = cause
        behind = cause
    return error


def test_a_failure_is_one_line_with_the_id_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = UpstreamError("It broke\r\noff\u2028in the middle.\x85")
    assert logged(error, caplog) == (
        "Request req_7 to the backend 'default' failed: It broke off in the middle."
    )


def test_the_cause_is_named_and_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UpstreamError) as caught:
        OllamaChatChunks().feed(b'{"message": "a secret answer"}\n')
    line = logged(caught.value, caplog)
    assert line.endswith("failed: The engine sent an invalid response. (ValidationError)")


def test_the_message_has_the_reason_of_the_system(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(
        UpstreamUnavailable("The engine cannot be reached."),
        httpx.ConnectError("All connection attempts failed to gpu-1"),
        ConnectionRefusedError(111, "gpu-1 refused"),
    )
    assert logged(error, caplog).endswith(
        "failed: The engine cannot be reached at http://127.0.0.1:11434: start it with "
        "`ollama serve`, or set HOST. (ConnectError: Connection refused)"
    )


@pytest.mark.parametrize("is_set", [False, True])
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ollama_error(500, b'{"error": "disk\\n is full"}'), "disk is full"),
        (openai_error(500, b'{"error": {"message": "CUDA"}}'), "CUDA"),
        (
            ollama_error(500, b'{"error": "Failed to parse input at pos 5: a secret"}'),
            "Failed to parse input at pos 5:…",
        ),
    ],
)
def test_the_engines_words_are_logged_if_the_site_says_so(
    caplog: pytest.LogCaptureFixture,
    settings: Settings,
    failure: GatewayError,
    words: str,
    is_set: bool,
) -> None:
    settings.OLLAMA_OPENAI = {"LOG_ENGINE_ERRORS": is_set}
    line = logged(failure, caplog)
    assert line.endswith(f" The engine's message: {words}" if is_set else "failed with status 500.")
    assert words not in str(failure.envelope())


def test_a_refusal_that_clients_do_not_read_is_logged_if_the_site_says_so(
    caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    to_client_error(ollama_error(400, b'{"error": "stat /srv/x"}'), "default", "req_7")
    settings.OLLAMA_OPENAI = {"LOG_ENGINE_ERRORS": True}
    to_client_error(ollama_error(400, b'{"error": "bad top_p"}'), "default", "req_7")
    assert caplog.records == []
    line = logged(ollama_error(400, b'{"error": "stat /srv/x"}'), caplog)
    assert line == (
        "Request req_7 to the backend 'default' was refused. The engine's message: stat /srv/x"
    )


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] of gpu-1"), None),
        (UpstreamStatusError(answered(404)), "404 to POST /v1/chat/completions"),
    ],
)
def test_the_message_quotes_no_text_of_others(
    caplog: pytest.LogCaptureFixture, cause: Exception, reason: str | None
) -> None:
    line = logged(raised(UpstreamError("No."), cause), caplog)
    kind = type(cause).__name__
    assert line.endswith(f"No. ({kind}: {reason})" if reason else f"No. ({kind})")


def test_the_message_has_the_reason_of_tls(caplog: pytest.LogCaptureFixture) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError) as caught:
            NO_TLS.wrap_socket(here, server_hostname="gpu-1")
    line = logged(raised(UpstreamError("No."), caught.value), caplog)
    assert line.endswith("No. (SSLError: WRONG_VERSION_NUMBER)")


def test_a_long_message_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert len(logged(UpstreamError("x" * 5000), caplog)) < MAX_LOGGED + 100


def test_what_a_client_did_wrong_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = InvalidRequest("The prompt is not understood.")
    assert to_client_error(error, "default", "req_7") is error
    assert caplog.records == []
