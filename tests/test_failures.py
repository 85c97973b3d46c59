"""What is logged of a backend that fails: one line, without a word of what the engine sent."""

from __future__ import annotations

import logging

import httpx
import pytest

from django_ollama_openai.exceptions import (
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamUnavailable,
)
from django_ollama_openai.gateway.failures import MAX_LOGGED, told
from django_ollama_openai.translation.chat_parts import ChatParts


def logged(error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    told(error, "default", "req_7")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    return record.getMessage()


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
        ChatParts().feed(b'{"message": "a secret answer"}\n')
    line = logged(caught.value, caplog)
    assert line.endswith(
        "failed: The engine sent something that is not an answer. (ValidationError)"
    )


def test_the_reason_of_the_system_is_told(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(
        UpstreamUnavailable("The engine cannot be reached."),
        httpx.ConnectError("All connection attempts failed to gpu-1"),
        ConnectionRefusedError(111, "gpu-1 refused"),
    )
    assert logged(error, caplog).endswith("reached. (ConnectError: Connection refused)")


def test_a_long_message_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert len(logged(UpstreamError("x" * 5000), caplog)) < MAX_LOGGED + 100


def test_what_a_client_did_wrong_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = InvalidRequest("The prompt is not understood.")
    assert told(error, "default", "req_7") is error
    assert caplog.records == []
