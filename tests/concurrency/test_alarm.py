from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from django_ollama_openai._alarm import Alarm
from tests.virtual_time import in_virtual_time


async def rung(alarm: Alarm, ringing: asyncio.Event) -> bool:
    """Whether it rings within the time that it should."""
    try:
        await asyncio.wait_for(ringing.wait(), 0.5)
    except TimeoutError:
        return False
    return True


@pytest.fixture
def ringing() -> asyncio.Event:
    return asyncio.Event()


@in_virtual_time
async def test_it_rings_once(ringing: asyncio.Event) -> None:
    alarm = Alarm(ringing.set)
    alarm.set(0.01)
    assert await rung(alarm, ringing)
    ringing.clear()
    assert not await rung(alarm, ringing)
    alarm.set(0.01)
    assert await rung(alarm, ringing)


@in_virtual_time
async def test_it_does_not_ring_when_it_is_cleared(ringing: asyncio.Event) -> None:
    alarm = Alarm(ringing.set)
    alarm.set(0.01)
    alarm.clear()
    assert not await rung(alarm, ringing)


@in_virtual_time
async def test_the_last_time_that_it_was_set_for_counts(ringing: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(ringing.set)
    started = loop.time()
    alarm.set(0.1)
    await asyncio.sleep(0.05)
    alarm.clear()
    alarm.set(0.2)
    assert await rung(alarm, ringing)
    assert loop.time() - started == pytest.approx(0.25)
    alarm.set(60)
    alarm.set(0.01)
    ringing.clear()
    assert await rung(alarm, ringing)


async def test_it_takes_one_timer_for_many_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, 0

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*arguments, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    alarm = Alarm(lambda: None)
    for _ in range(1000):
        alarm.set(60)
        alarm.clear()
    assert timers == 1
    alarm.end()


@in_virtual_time
async def test_it_holds_nobody_when_it_has_ended() -> None:
    class Waiter:
        def __init__(self) -> None:
            self.alarm = Alarm(self.wake)

        def wake(self) -> None:
            raise AssertionError("It has ended.")

    waiter = Waiter()
    gone = weakref.ref(waiter)
    waiter.alarm.set(0.01)
    waiter.alarm.end()
    gc.disable()
    try:
        del waiter
        assert gone() is None
    finally:
        gc.enable()
    await asyncio.sleep(0.05)
