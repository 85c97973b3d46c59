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
    """Gets the data that arrives while the reader of a channel waits."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, object]] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            await self.is_ready.wait()
        self.got.append((data, asyncio.current_task()))

    async def attached(self) -> tuple[Channel, asyncio.Task[bytes | None]]:
        """Return a channel, and the task of its reader, which waits."""
        channel = await flowing()

        async def read() -> bytes | None:
            channel.attach(self.send)
            return await channel.get()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        return channel, reading


async def test_data_is_sent_while_the_reader_waits() -> None:
    client = Client()
    channel, reading = await client.attached()
    channel.put(b"a")
    channel.put(b"b")
    await asyncio.sleep(0)
    assert (client.got, reading.done()) == ([(b"ab", reading)], False)
    channel.put(b"last")
    channel.end()
    assert await reading == b"last"


async def test_the_reader_goes_on_with_what_has_to_wait() -> None:
    client = Client()
    channel, reading = await client.attached()
    client.is_ready.clear()
    channel.put(b"a")
    await asyncio.sleep(0)
    assert channel.put(b"x" * (BUFFER_BYTES + 1))
    writer = asyncio.create_task(channel.drained())
    channel.end()
    await asyncio.sleep(0.01)
    assert not (reading.done() or writer.done())
    client.is_ready.set()
    assert await reading == b"x" * (BUFFER_BYTES + 1)
    await writer
    assert client.got == [(b"a", reading)]


@pytest.mark.parametrize("rounds", range(3))
async def test_a_reader_can_be_cancelled_while_its_client_is_slow(rounds: int) -> None:
    client = Client()
    channel, reading = await client.attached()
    client.is_ready.clear()
    channel.put(b"a")
    for _ in range(rounds):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    client.is_ready.set()
    await asyncio.sleep(0.01)
    assert client.got == []


async def test_an_error_of_the_server_is_the_readers() -> None:
    async def fail(data: bytes) -> None:
        raise OSError

    client = Client()
    client.send = fail  # type: ignore[method-assign]
    channel, reading = await client.attached()
    channel.put(b"a")
    with pytest.raises(OSError):
        await reading
