from __future__ import annotations

import asyncio

import pytest

from django_ollama_openai.backends._silence import Silence
from django_ollama_openai.exceptions import UpstreamTimeout
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_wait_that_is_too_long_ends() -> None:
    with pytest.raises(UpstreamTimeout), Silence(0.05):
        await asyncio.sleep(10)
    # Nothing of the cancellation is left.
    await asyncio.sleep(0)


@in_virtual_time
async def test_a_wait_that_ends_in_time_goes_on() -> None:
    with Silence(5) as silence:
        for _ in range(3):
            await asyncio.sleep(0)
            silence.ends()
            silence.begins(5)


@in_virtual_time
async def test_many_short_waits_may_last_longer_in_all() -> None:
    with Silence(0.2) as silence:
        for _ in range(6):
            await asyncio.sleep(0.05)
            silence.ends()
            silence.begins(0.2)


@in_virtual_time
async def test_nobody_waits_between_the_waits() -> None:
    with Silence(0.05) as silence:
        silence.ends()
        await asyncio.sleep(0.2)
        silence.begins(5)
        await asyncio.sleep(0)


@in_virtual_time
async def test_a_later_wait_may_have_another_limit() -> None:
    with pytest.raises(UpstreamTimeout), Silence(60) as silence:
        silence.ends()
        silence.begins(0.05)
        await asyncio.sleep(10)


@in_virtual_time
async def test_an_error_within_is_not_a_timeout() -> None:
    with pytest.raises(ZeroDivisionError), Silence(60):
        raise ZeroDivisionError


@in_virtual_time
async def test_who_is_cancelled_from_outside_is_not_late() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        with Silence(60):
            begun.set()
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_who_is_late_and_cancelled_is_cancelled() -> None:
    async def wait() -> None:
        with Silence(60) as silence:
            # Both before the task gets to know of either.
            loop.call_soon(silence._expire)
            loop.call_soon(task.cancel)
            await asyncio.sleep(10)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_nothing_is_left_of_it() -> None:
    with Silence(0.05):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0.1)
    assert task.cancelling() == 0
