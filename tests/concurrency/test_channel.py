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


class Client:
    """Gets what a writer sends for the attached reader of a channel."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()

    async def send(self, data: bytes) -> None:
        await self.is_ready.wait()
        self.got.append(data)


async def attached(client: Client) -> tuple[Channel, asyncio.Task[bytes | None]]:
    """A channel with one writer, and the task of its reader, which waits."""
    channel = await flowing()
    channel.attach(client.send)
    channel.begin_flushing()
    reading = asyncio.create_task(channel.get())
    await asyncio.sleep(0)
    return channel, reading


async def test_a_writer_sends_for_a_reader_that_waits() -> None:
    client = Client()
    channel, reading = await attached(client)
    channel.put(b"a")
    channel.put(b"b")
    channel.flush()
    await asyncio.sleep(0)
    assert (client.got, reading.done()) == ([b"ab"], False)
    channel.put(b"last")
    channel.end_flushing()
    assert await reading == b"last"


async def test_what_comes_while_a_writer_sends_is_left_to_the_reader() -> None:
    client = Client()
    channel, reading = await attached(client)
    client.is_ready.clear()
    channel.put(b"a")
    channel.flush()
    assert channel.put(b"x" * (BUFFER_BYTES + 1))
    writer = asyncio.create_task(channel.drained())
    channel.end()
    await asyncio.sleep(0.01)
    assert not (reading.done() or writer.done())
    client.is_ready.set()
    assert await reading == b"x" * (BUFFER_BYTES + 1)
    await writer
    assert client.got == [b"a"]


async def test_an_error_of_the_server_is_the_readers() -> None:
    async def fail(data: bytes) -> None:
        raise OSError

    client = Client()
    channel, reading = await attached(client)
    channel.attach(fail)
    channel.put(b"a")
    channel.flush()
    with pytest.raises(OSError):
        await reading
