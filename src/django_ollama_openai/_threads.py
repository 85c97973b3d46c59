"""Call the site's synchronous code under ASGI, in the thread that ``asgiref`` has for the request.

If a middleware that is not asynchronous is in the chain, that is the thread in which it waits. A
stream outlives it, and ``asgiref`` then raises a :class:`RuntimeError`. In that case the code runs
in another thread, whose connections to the database are closed afterwards.

Undocumented attributes of ``asgiref`` are used here and nowhere else: ``pyproject.toml`` caps the
version.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, async_to_sync, sync_to_async

from ._connections import close_expired_connections, run_and_close

__all__ = [
    "has_own_context",
    "in_separate_thread",
    "request_has_thread",
    "run_after_response",
    "run_sync",
]

P = ParamSpec("P")
T = TypeVar("T")

SEPARATE_THREADS: Final = 32
"""Maximum number of threads of :func:`in_separate_thread`."""


def _new_executor() -> None:
    global _executor
    # Not the event loop's own, in which names of hosts are resolved and Django writes its log: code
    # that hangs would take all of its threads.
    _executor = ThreadPoolExecutor(SEPARATE_THREADS, thread_name_prefix="ollama-openai")


_executor: ThreadPoolExecutor
_new_executor()
if hasattr(os, "register_at_fork"):
    # The threads are the parent's.
    os.register_at_fork(after_in_child=_new_executor)


async def run_sync(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in the thread of the request, or in another one if that has ended."""
    started = False

    def call() -> T:
        nonlocal started
        started = True
        return function(*args, **kwargs)

    try:
        return await sync_to_async(call)()
    except RuntimeError:
        # Also an error of the function itself.
        if started:
            raise
    return await sync_to_async(run_and_close, thread_sensitive=False)(call)


async def in_separate_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread that is not the request's, so that the request's middleware
    does not wait for it. If the request has no thread to itself, as in tests that call the site
    within a transaction, this is :func:`run_sync`."""
    if not has_own_context():
        return await run_sync(function, *args, **kwargs)

    def run() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            # The thread is used again by other requests.
            close_expired_connections()

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_executor, copy_context().run, run)


async def run_after_response(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await ``work()``, which calls synchronous code, at the end of a request.

    A thread that belongs to a middleware could end during the work. So all of it runs in that
    thread, or in another one if it has ended.
    """

    async def run() -> T:
        return await work()

    if getattr(AsyncToSync.executors, "current", None) is None:
        return await work()
    return await run_sync(async_to_sync(run))


def has_own_context() -> bool:
    """Return whether this request has a thread to itself for synchronous code, or may get one. It
    has not in tests that call the site within a transaction, which other threads do not see."""
    return SyncToAsync.thread_sensitive_context.get(None) is not None


def request_has_thread() -> bool:
    """Return whether this request has a thread in which synchronous code may have opened
    connections to the database."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    return context is None or context in SyncToAsync.context_to_thread_executor
