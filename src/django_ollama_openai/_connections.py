"""Close connections to the database that no request closes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import connections

__all__ = ["close_connections", "close_expired_connections", "run_and_close"]

P = ParamSpec("P")
R = TypeVar("R")


def close_connections() -> None:
    """Close this thread's connections, except those within a transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def close_expired_connections() -> None:
    """Close this thread's connections that are past their ``CONN_MAX_AGE`` or have had an error,
    after which they may be broken, except those within a transaction. Unlike Django's
    ``close_old_connections`` it sends no query."""
    for connection in connections.all(initialized_only=True):
        expires = connection.close_at
        has_expired = expires is not None and time.monotonic() >= expires
        if (has_expired or connection.errors_occurred) and not connection.in_atomic_block:
            connection.close()


def run_and_close(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function``, then close the connections of the thread. Under ASGI a request has its own
    thread: connections that ``CONN_MAX_AGE`` keeps are of no use to other requests."""
    try:
        return function(*args, **kwargs)
    finally:
        close_connections()
