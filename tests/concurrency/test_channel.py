from __future__ import annotations

import asyncio

import pytest

from django_ollama_openai._gateway.channel import BUFFER_BYTES, Channel
from django_ollama_openai.exceptions import ClientTimeout, Overloaded


async def flowing(writer_timeout: float = 60) -> Channel:
    """A channel whose reader has sent the first of an answer and waits for more."""
    channel = Channel(None, writer_timeout)
    channel.put(b"first")
    assert await channel.get() == b"first"
    channel.put(b"second")
    assert await channel.get() == b"second"
    return channel


async def test_what_waits_leaves_together() -> None:
    channel = await flowing()
    for data in (b"a", b"b", b"c"):
        assert not channel.put(data)
    assert await channel.get() == b"abc"


async def test_what_comes_after_the_first_waits_until_that_is_sent() -> None:
    channel = Channel(None, 60)
    assert not channel.put(b"first")
    assert await channel.get() == b"first"
    assert channel.put(b"second")
    writer = asyncio.ensure_future(channel.drained())
    await asyncio.sleep(0.01)
    assert not writer.done()
    assert await channel.get() == b"second"
    await writer
    assert not channel.put(b"third")


async def test_a_keep_alive_is_a_beginning_too() -> None:
    channel = Channel(0.01, 60)
    with pytest.raises(TimeoutError):
        await channel.get()
    assert channel.begun
    assert channel.put(b"first")
    reading = asyncio.ensure_future(channel.get())
    await channel.drained()
    assert await reading == b"first"


async def test_a_writer_waits_for_a_slow_reader() -> None:
    channel = await flowing()
    channel.check()
    assert channel.put(b"x" * (BUFFER_BYTES + 1))
    writer = asyncio.ensure_future(channel.drained())
    await asyncio.sleep(0.01)
    assert not writer.done()
    await channel.get()
    await writer


async def test_a_writer_does_not_wait_for_ever() -> None:
    channel = await flowing(writer_timeout=0.01)
    assert channel.put(b"x" * (BUFFER_BYTES + 1))
    with pytest.raises(ClientTimeout):
        await channel.drained()
    with pytest.raises(ClientTimeout):
        channel.check()


async def test_the_end_comes_after_what_is_there() -> None:
    channel = await flowing()
    channel.put(b"last")
    channel.end(Overloaded())
    channel.end()
    assert await channel.get() == b"last"
    with pytest.raises(Overloaded):
        await channel.get()
