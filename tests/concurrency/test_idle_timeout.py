from __future__ import annotations

import asyncio

import pytest

from django_ollama_openai.backends._idle_timeout import IdleTimeout
from django_ollama_openai.exceptions import UpstreamTimeout
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_wait_that_is_too_long_ends() -> None:
    with pytest.raises(UpstreamTimeout), IdleTimeout(0.05):
        await asyncio.sleep(10)
    # Nothing of the cancellation is left.
    await asyncio.sleep(0)


@in_virtual_time
async def test_a_wait_that_ends_in_time_goes_on() -> None:
    with IdleTimeout(5) as timeout:
        for _ in range(3):
            await asyncio.sleep(0)
            timeout.disarm()
            timeout.arm(5)


@in_virtual_time
async def test_many_short_waits_may_last_longer_in_all() -> None:
    with IdleTimeout(0.2) as timeout:
        for _ in range(6):
            await asyncio.sleep(0.05)
            timeout.disarm()
            timeout.arm(0.2)


@in_virtual_time
async def test_time_between_the_waits_does_not_count() -> None:
    with IdleTimeout(0.05) as timeout:
        timeout.disarm()
        await asyncio.sleep(0.2)
        timeout.arm(5)
        await asyncio.sleep(0)


@in_virtual_time
async def test_a_later_wait_may_have_another_limit() -> None:
    with pytest.raises(UpstreamTimeout), IdleTimeout(60) as timeout:
        timeout.disarm()
        timeout.arm(0.05)
        await asyncio.sleep(10)


@in_virtual_time
async def test_an_error_within_is_not_a_timeout() -> None:
    with pytest.raises(ZeroDivisionError), IdleTimeout(60):
        raise ZeroDivisionError


@in_virtual_time
async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        with IdleTimeout(60):
            begun.set()
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_a_cancellation_wins_over_a_timeout() -> None:
    async def wait() -> None:
        with IdleTimeout(60) as timeout:
            # Both before the task gets to know of either.
            loop.call_soon(timeout._expire)
            loop.call_soon(task.cancel)
            await asyncio.sleep(10)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_nothing_is_left_after_the_block() -> None:
    with IdleTimeout(0.05):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0.1)
    assert task.cancelling() == 0
