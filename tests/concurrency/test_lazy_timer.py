from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from django_ollama_openai._lazy_timer import LazyTimer
from tests.virtual_time import in_virtual_time


async def expires(expired: asyncio.Event) -> bool:
    """Return whether the callback is called within half a second."""
    try:
        await asyncio.wait_for(expired.wait(), 0.5)
    except TimeoutError:
        return False
    return True


@pytest.fixture
def expired() -> asyncio.Event:
    return asyncio.Event()


@in_virtual_time
async def test_it_expires_once(expired: asyncio.Event) -> None:
    timer = LazyTimer(expired.set)
    timer.set(0.01)
    assert await expires(expired)
    expired.clear()
    assert not await expires(expired)
    timer.set(0.01)
    assert await expires(expired)


@in_virtual_time
async def test_it_does_not_expire_when_it_is_cleared(expired: asyncio.Event) -> None:
    timer = LazyTimer(expired.set)
    timer.set(0.01)
    timer.clear()
    assert not await expires(expired)


@in_virtual_time
async def test_the_last_timeout_counts(expired: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    timer = LazyTimer(expired.set)
    started = loop.time()
    timer.set(0.1)
    await asyncio.sleep(0.05)
    timer.clear()
    timer.set(0.2)
    assert await expires(expired)
    assert loop.time() - started == pytest.approx(0.25)
    timer.set(60)
    timer.set(0.01)
    expired.clear()
    assert await expires(expired)


async def test_many_waits_share_one_timer_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, 0

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*arguments, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    timer = LazyTimer(lambda: None)
    for _ in range(1000):
        timer.set(60)
        timer.clear()
    assert timers == 1
    timer.close()


@in_virtual_time
async def test_it_drops_its_callback_when_it_is_closed() -> None:
    class Waiter:
        def __init__(self) -> None:
            self.timer = LazyTimer(self.wake)

        def wake(self) -> None:
            raise AssertionError("The timer is closed.")

    waiter = Waiter()
    gone = weakref.ref(waiter)
    waiter.timer.set(0.01)
    waiter.timer.close()
    gc.disable()
    try:
        del waiter
        assert gone() is None
    finally:
        gc.enable()
    await asyncio.sleep(0.05)
