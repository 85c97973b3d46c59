"""Turn failures of backends into errors for clients and lines of the log."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from typing import Final

from .. import _conf
from ..backends import backends
from ..backends._failures import causes, operator_message
from ..backends._http_client import UpstreamStatusError
from ..exceptions import GatewayError, ShuttingDown
from .routing import Route

__all__ = [
    "cause_of",
    "log_fallback",
    "log_missing_model",
    "said_by",
    "to_client_error",
    "where_of",
]

logger = logging.getLogger("django_ollama_openai")

MAX_LOGGED: Final = 500
"""Maximum characters of a message in the log; an engine's may be of any length."""


def to_client_error(error: Exception, alias: str, request_id: str) -> GatewayError:
    """Log ``error`` of the backend ``alias``, and return the error that the client gets.

    A ``GatewayError`` is meant for clients; if the engine failed, one line is logged. Any other
    exception is logged with its traceback, and the client learns nothing of it."""
    if isinstance(error, GatewayError):
        if error.status >= 500 and not isinstance(error, ShuttingDown):
            logger.warning(
                "Request %s to the backend %r failed: %s%s",
                request_id,
                alias,
                " ".join(where_of(error, alias).split())[:MAX_LOGGED],
                cause_of(error) + (said_by(error) if _conf.get().LOG_ENGINE_ERRORS else ""),
            )
        elif error.engine_message and _conf.get().LOG_ENGINE_ERRORS:
            logger.warning(
                "Request %s to the backend %r was refused.%s", request_id, alias, said_by(error)
            )
        return error
    logger.error("Request %s to the backend %r crashed", request_id, alias, exc_info=error)
    return GatewayError("The server had an error while processing your request.")


def where_of(error: GatewayError, alias: str) -> str:
    """Return the message of ``error`` for operators. If the engine of the backend ``alias`` cannot
    be reached, it has the address and the remedy."""
    is_known = alias in backends
    return operator_message(error, backends[alias] if is_known else None)


def said_by(error: GatewayError) -> str:
    """Return the engine's own message about ``error`` as a sentence for operators; may be empty."""
    return f" The engine said: {error.engine_message}" if error.engine_message else ""


def log_missing_model(route: Route, request_id: str) -> None:
    """Log that a backend lacks a model that the site's settings name; the client gets a 404."""
    logger.warning(
        "Request %s: the backend %r has no model %r, which %s names as %r. Put it there.",
        request_id,
        route.alias,
        route.model,
        _conf.SETTING,
        route.name,
    )


def log_fallback(route: Route, fallback: Route, request_id: str) -> None:
    """Log that ``fallback`` is tried instead of ``route``. The failure itself is logged before."""
    logger.warning(
        "Request %s for the model %r falls back on %r.", request_id, route.name, fallback.name
    )


def cause_of(error: GatewayError) -> str:
    """Return the kind of error behind ``error``, and the system's own reason, for the log.

    Texts of errors are left out: they quote what the engine sent, which may be an answer or a
    prompt."""
    behind = list(causes(error))
    if not behind:
        return ""
    reasons = list(filter(None, map(_reason, behind)))
    kind = type(behind[0]).__name__
    return f" ({kind}: {reasons[-1]})" if reasons else f" ({kind})"


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
