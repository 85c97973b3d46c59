"""The kinds of engine failures, which decide about retries and health, and their description."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx

from ..exceptions import GatewayError
from ._base import BaseBackend
from ._http_client import UpstreamStatusError

__all__ = [
    "MAX_LOGGED",
    "is_disconnect",
    "is_error_status",
    "is_unreachable",
    "operator_message",
]

#: Maximum characters of a message in the log; an engine's may be of any length.
MAX_LOGGED: Final = 500

_UNREACHABLE: Final = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)


def is_unreachable(error: BaseException) -> bool:
    """Return whether no connection to the engine could be made. A client cannot cause that while
    the engine is well."""
    return (
        isinstance(error, GatewayError)
        and isinstance(error.__cause__, _UNREACHABLE)
        and not any(map(_is_local, _causes(error)))
    )


def _is_local(cause: BaseException) -> bool:
    """Return whether this process has too many open files."""
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def is_error_status(error: BaseException) -> bool:
    """Return whether the engine responded with an error status, which shows that it is alive."""
    return isinstance(error, GatewayError) and isinstance(error.__cause__, UpstreamStatusError)


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection to the engine was lost.

    A request that crashes the engine causes that too, so it predicts little about the next request.
    A timeout predicts nothing: the request may just take long.
    """
    cause = error.__cause__
    return (
        isinstance(error, GatewayError)
        and isinstance(cause, (httpx.TransportError, ConnectionError))
        and not isinstance(cause, (httpx.TimeoutException, httpx.LocalProtocolError))
    )


def operator_message(error: GatewayError, backend: BaseBackend | None) -> str:
    """Return the message of ``error`` for operators, on one line: with the class of the underlying
    exception and the system's reason. If the engine of ``backend`` cannot be reached, it also has
    the address and the remedy. ``error.message``, for clients, has none of that.

    The texts of underlying exceptions are left out: they quote what the engine sent, which may be
    an answer or a prompt.
    """
    message = error.message
    if backend is not None and backend.address and is_unreachable(error):
        message = f"The engine cannot be reached at {backend.address}: {backend.advice}."
    message = " ".join(message.split())[:MAX_LOGGED]
    causes = list(_causes(error))
    if not causes:
        return message
    reasons = [reason for cause in causes if (reason := _reason(cause)) is not None]
    kind = type(causes[0]).__name__
    return f"{message} ({kind}: {reasons[-1]})" if reasons else f"{message} ({kind})"


def _reason(cause: BaseException) -> str | None:
    """Return the reason in ``cause``, if it is a fixed text of the system."""
    match cause:
        case UpstreamStatusError():
            return str(cause)
        case ssl.SSLError():
            return getattr(cause, "reason", None)
        case socket.gaierror():
            return cause.strerror
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that led to ``error``, the nearest first."""
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
