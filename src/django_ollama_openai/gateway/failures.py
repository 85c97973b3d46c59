"""What a client is told when a backend fails."""

from __future__ import annotations

import logging

from ..exceptions import GatewayError, ShuttingDown

__all__ = ["told"]

logger = logging.getLogger("django_ollama_openai")


def told(error: Exception, alias: str) -> GatewayError:
    """``error`` of the backend ``alias``, if it is meant for clients; else it is logged as a crash
    and they are told nothing of it."""
    if isinstance(error, GatewayError):
        if error.status >= 500 and not isinstance(error, ShuttingDown):
            logger.warning("The backend %r failed: %s %r", alias, error.message, error.__cause__)
        return error
    logger.error("The backend %r crashed", alias, exc_info=error)
    return GatewayError("The server had an error while processing your request.")
