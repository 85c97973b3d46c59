"""Close connections to the database where no request does."""

from __future__ import annotations

from django.db import connections

__all__ = ["close_connections"]


def close_connections() -> None:
    """Close this thread's connections, except those within a transaction.

    Under ASGI a request has its own thread: connections that ``CONN_MAX_AGE`` keeps are of no use
    to other requests.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
