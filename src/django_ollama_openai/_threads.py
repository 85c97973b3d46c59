"""Synchronous code of the site's, called under ASGI.

``asgiref`` runs it in the thread that a request has for that. Where a middleware that knows no
async is in the chain, that is the thread which this middleware waits in. Once the response has left
it, a stream goes on without, and ``asgiref`` refuses to run anything, with a :class:`RuntimeError`.
The thread that it is then given has its own connections to the database, which nobody else would
close.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, async_to_sync, sync_to_async
from django.db import connections

__all__ = ["close_expired_connections", "in_separate_thread", "run_after_response", "run_sync"]

P = ParamSpec("P")
T = TypeVar("T")


async def run_sync(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in the request's thread, or in another if that is gone."""
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function(*args, **kwargs)

    def call_elsewhere() -> T:
        try:
            return call()
        finally:
            connections.close_all()

    try:
        return await sync_to_async(call)()
    except RuntimeError:
        if begun:
            raise
    return await sync_to_async(call_elsewhere, thread_sensitive=False)()


async def in_separate_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread that is not the request's, so that the request's middleware
    does not wait for it. Where a request has no thread to itself, as in tests that call the site
    within a transaction, use :func:`run_sync`."""
    if SyncToAsync.thread_sensitive_context.get(None) is None:
        return await run_sync(function, *args, **kwargs)

    def run() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            # The thread is used again by other requests.
            close_expired_connections()

    return await sync_to_async(run, thread_sensitive=False)()


def close_expired_connections() -> None:
    """Close this thread's connections to databases that are past their ``CONN_MAX_AGE``.

    Unlike Django's ``close_old_connections`` it sends no query.
    """
    for connection in connections.all(initialized_only=True):
        expires = connection.close_at
        if expires is not None and time.monotonic() >= expires and not connection.in_atomic_block:
            connection.close()


async def run_after_response(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await ``work()``, which calls synchronous code, at the end of a request.

    If the request's thread is a middleware's, it could go in the midst of that, with some of the
    work done. So it is taken for all of it at once, or another one if it is gone.
    """

    async def run() -> T:
        return await work()

    if getattr(AsyncToSync.executors, "current", None) is None:
        return await work()
    return await run_sync(async_to_sync(run))
