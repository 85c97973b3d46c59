"""Turn failures of backends into errors for clients and lines of the log."""

from __future__ import annotations

import logging

from .. import _conf
from ..backends import backends
from ..backends._failures import operator_message
from ..exceptions import GatewayError, ShuttingDown
from .routing import Route

__all__ = [
    "describe_failure",
    "engine_message",
    "is_backend_failure",
    "log_fallback",
    "log_missing_model",
    "to_client_error",
]

logger = logging.getLogger("django_ollama_openai")


def to_client_error(error: Exception, alias: str, request_id: str) -> GatewayError:
    """Log ``error`` of the backend ``alias``, and return the error that the client gets.

    A ``GatewayError`` is meant for clients; if the engine failed, one line is logged. Any other
    exception is logged with its traceback, and the client gets no details."""
    if isinstance(error, GatewayError):
        if is_backend_failure(error):
            logger.warning(
                "Request %s to the backend %r failed: %s%s",
                request_id,
                alias,
                describe_failure(error, alias),
                engine_message(error) if _conf.get().LOG_ENGINE_ERRORS else "",
            )
        elif error.engine_message and _conf.get().LOG_ENGINE_ERRORS:
            logger.warning(
                "Request %s to the backend %r was refused.%s",
                request_id,
                alias,
                engine_message(error),
            )
        return error
    logger.error("Request %s to the backend %r crashed", request_id, alias, exc_info=error)
    return GatewayError("The server had an error while processing your request.")


def is_backend_failure(error: GatewayError) -> bool:
    """Return whether the backend or its engine caused ``error``, not the request or a shutdown."""
    return error.status >= 500 and not isinstance(error, ShuttingDown)


def describe_failure(error: GatewayError, alias: str) -> str:
    """Return the message of ``error`` of the backend ``alias`` for operators, as
    :func:`~..backends._failures.operator_message` does; an unknown alias adds nothing."""
    is_known = alias in backends
    return operator_message(error, backends[alias] if is_known else None)


def engine_message(error: GatewayError) -> str:
    """Return the engine's own message about ``error``, for operators: a sentence to append, or an
    empty string."""
    return f" The engine's message: {error.engine_message}" if error.engine_message else ""


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
