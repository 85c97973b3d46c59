"""Synchronous code of the site's, called under ASGI.

``asgiref`` runs it in the thread that a request has for that. Where a middleware that knows no
async is in the chain, that is the thread which this middleware waits in. Once the response has left
it, a stream goes on without, and ``asgiref`` refuses to run anything, with a :class:`RuntimeError`.
Outside the request's context it finds another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

__all__ = ["in_thread", "outside_request"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in the request's thread, or in another if that is gone."""
    context = copy_context()
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return context.run(function, *args, **kwargs)

    calling = sync_to_async(call)
    try:
        return await calling()
    except RuntimeError:
        if begun:
            raise
    return await outside_request(calling())


async def outside_request(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` without the context of the request."""
    return await asyncio.create_task(work, context=Context())
