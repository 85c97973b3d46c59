"""Close connections to the database that no request closes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connections

__all__ = [
    "call_reconnecting",
    "close_connections",
    "close_expired_connections",
    "close_if_lost",
    "run_and_close",
]

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


def close_if_lost(alias: str) -> bool:
    """Close this thread's connection to the database ``alias`` if an error has shown that it is
    lost, such as by a restart of the database, except within a transaction. Return whether it is
    closed, so that a repetition connects anew."""
    connection = connections[alias]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    return connection.connection is None


def call_reconnecting(alias: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function``, which reads from the database ``alias``, and once more if the connection
    was lost while nobody used it. Django itself checks connections only between requests, and only
    with ``CONN_HEALTH_CHECKS``."""
    try:
        return function(*args, **kwargs)
    except (OperationalError, InterfaceError):
        if not close_if_lost(alias):
            raise
    return function(*args, **kwargs)


def run_and_close(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function``, then close the connections of the thread. Under ASGI a request has its own
    thread: connections that ``CONN_MAX_AGE`` keeps are of no use to other requests."""
    try:
        return function(*args, **kwargs)
    finally:
        close_connections()
