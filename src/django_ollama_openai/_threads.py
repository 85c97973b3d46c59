"""Synchronous code of the site's, called under ASGI.

``asgiref`` runs it in the thread that a request has for that. Where a middleware that knows no
async is in the chain, that is the thread which this middleware waits in. Once the response has left
it, a stream goes on without, and ``asgiref`` refuses to run anything, with a :class:`RuntimeError`.
The thread that it is then given has its own connections to the database, which nobody else would
close.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, async_to_sync, sync_to_async
from django.db import connections

__all__ = ["in_thread", "outliving_request", "request_has_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
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


async def outliving_request(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await ``work()``, which calls synchronous code, at the end of a request.

    If the request's thread is a middleware's, it could go in the midst of that, with some of the
    work done. So it is taken for all of it at once, or another one if it is gone.
    """

    async def run() -> T:
        return await work()

    if getattr(AsyncToSync.executors, "current", None) is None:
        return await work()
    return await in_thread(async_to_sync(run))


def request_has_thread() -> bool:
    """Return whether this request has a thread in which synchronous code may have opened
    connections to the database."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    return context is None or context in SyncToAsync.context_to_thread_executor
