from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.dispatch import Signal
from django.utils import translation

from django_ollama_openai._threads import run_after_response, run_sync

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


async def test_the_function_sees_what_the_request_has_set() -> None:
    tenant.set("acme")
    with translation.override("de"):
        assert await run_sync(translation.get_language) == "de"
        assert await run_sync(tenant.get) == "acme"


async def test_the_request_sees_what_the_function_has_set() -> None:
    await run_sync(tenant.set, "acme")
    assert tenant.get() == "acme"


async def test_the_function_gets_its_arguments_and_gives_its_result() -> None:
    assert await run_sync(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await run_sync(int, "x")


async def after_the_request(work: Callable[[], Awaitable[Any]]) -> Any:
    """Return the result of ``work`` in a task of a view below a synchronous middleware, after both
    have ended."""
    over = asyncio.Event()

    async def late() -> Any:
        await over.wait()
        return await work()

    async def view() -> asyncio.Task[Any]:
        tenant.set("acme")
        return asyncio.create_task(late())

    task = await sync_to_async(lambda: async_to_sync(view)())()
    over.set()
    return await task


async def test_another_thread_is_used_when_that_of_the_request_has_ended() -> None:
    assert await after_the_request(lambda: run_sync(tenant.get)) == "acme"
    assert await after_the_request(lambda: run_sync(threading.get_ident)) != threading.get_ident()


async def test_a_function_that_fails_is_not_called_again() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await run_sync(fail)
    with pytest.raises(RuntimeError, match="mine"):
        await after_the_request(lambda: run_sync(fail))
    assert len(calls) == 2


async def test_receivers_of_both_kinds_are_called_once() -> None:
    signal = Signal()
    calls = []

    def receive(**facts: Any) -> None:
        calls.append("sync")

    async def areceive(**facts: Any) -> None:
        calls.append("async")

    signal.connect(receive)
    signal.connect(areceive)
    sent = await after_the_request(lambda: run_after_response(lambda: signal.asend_robust(None)))
    assert sorted(calls) == ["async", "sync"]
    assert [response for _, response in sent] == [None, None]


async def test_calls_run_side_by_side() -> None:
    at_once = threading.Barrier(4, timeout=60)

    async def one() -> None:
        await after_the_request(lambda: run_sync(at_once.wait))

    async def other() -> None:
        async def wait() -> None:
            await sync_to_async(at_once.wait)()

        await after_the_request(lambda: run_after_response(wait))

    await asyncio.gather(one(), one(), other(), other())
