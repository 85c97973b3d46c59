"""The transport on aiohttp: it is told of as httpx's own, and it stands on what it is built on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from typing import Any

import pytest

from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai.backends import OllamaBackend
from django_ollama_openai.exceptions import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from tests.conftest import DEAD_HOST
from tests.ollama_server import (
    Answer,
    Close,
    Hold,
    OllamaServer,
    Reply,
    Reset,
    Send,
    Wait,
    drip,
    line,
)

pytestmark = [pytest.mark.fast, pytest.mark.once]

aiohttp = pytest.importorskip("aiohttp")

REQUEST = ChatCompletionRequest.parse(
    b'{"model": "smollm2:135m", "messages": [{"role": "user", "content": "Hi"}]}'
)
TOKEN = line({"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False})

GARBLED = Reply(
    [
        Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Send(b"%x\r\n%b\r\n" % (len(TOKEN.data), TOKEN.data)),
        Wait(0.1),
        Send(b"no length\r\n"),
        Hold(),
    ],
    raw=True,
)

DRIP = drip(b" ")
HEADLESS = Reply([Send(b"HTTP/1.1 200 OK\r\nX:"), *DRIP], raw=True)
INTERIM = Reply(drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"), raw=True)


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    """One that nobody else has connections to."""
    with OllamaServer() as server:
        yield server


async def read(backend: OllamaBackend) -> str:
    return "".join([delta.content async for delta in backend.astream_chat(REQUEST)])


def ask(host: str, **options: Any) -> str:
    return asyncio.run(read(OllamaBackend(host=host, **options)))


def test_it_is_used_where_it_is_installed() -> None:
    async def transports() -> list[str]:
        backends = [OllamaBackend(), OllamaBackend(fast=True), OllamaBackend(fast=False)]
        clients = [backend.get_async_client()._client for backend in backends]
        names = [type(client._transport).__name__ for client in clients]
        for client in clients:
            await client.aclose()
        return names

    fast, asked, plain = asyncio.run(transports())
    assert fast == asked == "FastTransport"
    assert plain == "AsyncHTTPTransport"


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply([], before=[Close()]), UpstreamError),
        (Reply([], before=[Reset()]), UpstreamError),
        (Reply([TOKEN, Reset()]), UpstreamError),
        (Reply([TOKEN, Close()]), UpstreamError),
        (Reply([], before=[Send(b"nonsense\r\n\r\n"), Close()]), UpstreamError),
        (GARBLED, UpstreamError),
        (Reply([], before=[Hold()]), UpstreamTimeout),
        (Reply([Hold()]), UpstreamTimeout),
        (Reply([TOKEN, Hold()]), UpstreamTimeout),
        (HEADLESS, UpstreamTimeout),
        (INTERIM, UpstreamTimeout),
        (Reply(DRIP), UpstreamTimeout),
        (Reply([TOKEN, *DRIP]), UpstreamTimeout),
        (Reply(DRIP, 500), UpstreamTimeout),
    ],
    ids=[
        "closed before the head",
        "reset before the head",
        "reset in the body",
        "closed in the body",
        "no HTTP",
        "garbage instead of a chunk",
        "silent before the head",
        "silent before the first token",
        "silent between tokens",
        "slow with its head",
        "nothing but interim responses",
        "slow with its first token",
        "slow with the next token",
        "slow with an error",
    ],
)
def test_both_transports_report_the_same_failures(
    ollama: OllamaServer, reply: Reply, error: type[UpstreamError], fast: bool
) -> None:
    ollama.reply(reply)
    with pytest.raises(UpstreamError) as raised:
        ask(ollama.url, fast=fast, timeout=0.5)
    assert type(raised.value) is error
    assert ollama.wait_for_closed()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "reply",
    [
        Reply([], before=[Hold()]),
        Reply([Hold()]),
        HEADLESS,
        INTERIM,
        Reply(DRIP),
        Reply(DRIP, 500),
    ],
    ids=[
        "silent before the head",
        "silent before the body",
        "slow with its head",
        "nothing but interim responses",
        "slow with its body",
        "slow with an error",
    ],
)
def test_both_transports_time_out_alike(ollama: OllamaServer, reply: Reply, fast: bool) -> None:
    ollama.reply(reply)
    backend = OllamaBackend(host=ollama.url, fast=fast, timeout=0.5)
    with pytest.raises(UpstreamTimeout, match="did not answer in time"):
        asyncio.run(backend.achat(REQUEST))
    assert ollama.wait_for_closed()


@pytest.mark.parametrize("fast", [True, False])
def test_both_transports_report_an_engine_that_is_down_alike(fast: bool) -> None:
    with pytest.raises(UpstreamUnavailable) as raised:
        ask(DEAD_HOST, fast=fast)
    assert type(raised.value) is UpstreamUnavailable


@pytest.mark.parametrize(
    ("options", "is_late"),
    [
        ({"first_token_timeout": 0.2}, "first"),
        ({"token_timeout": 0.2}, "between"),
    ],
)
@pytest.mark.parametrize("fast", [True, False, None])
def test_the_limits_are_apart(
    ollama: OllamaServer, options: dict[str, Any], is_late: str, fast: bool | None
) -> None:
    first = Reply([Hold()])
    between = Reply([TOKEN, Hold()])
    ollama.reply(first if is_late == "first" else between)
    backend = OllamaBackend(host=ollama.url, fast=fast, **options)
    with pytest.raises(UpstreamTimeout):
        if fast is None:
            list(backend.stream_chat(REQUEST))
        else:
            asyncio.run(read(backend))
    backend.close()


def test_more_than_a_hundred_streams_at_once(ollama: OllamaServer) -> None:
    """aiohttp's own limit on connections would make the others wait."""
    count = 120
    ollama.reply(*[Reply([TOKEN, Hold()])] * count)

    async def all_begin() -> None:
        backend = OllamaBackend(host=ollama.url)
        streams: list[Any] = [backend.astream_chat(REQUEST) for _ in range(count)]
        await asyncio.wait_for(asyncio.gather(*map(anext, streams)), 20)
        await asyncio.gather(*(stream.aclose() for stream in streams))

    asyncio.run(all_begin())
    assert ollama.wait_for_closed()


def test_connections_are_used_again_and_closed_with_their_loop(ollama: OllamaServer) -> None:
    before = ollama.connections

    async def twice() -> list[str]:
        backend = OllamaBackend(host=ollama.url)
        return [await read(backend), await read(backend)]

    assert asyncio.run(twice()) == ["Hello!", "Hello!"]
    assert ollama.connections - before == 1
    assert ollama.wait_for_closed()
    # aiohttp warns of sessions that were left open.
    gc.collect()


def test_a_connection_holds_nothing_of_the_responses_that_it_has_brought(
    ollama: OllamaServer,
) -> None:
    async def held() -> int:
        backend = OllamaBackend(host=ollama.url)
        for _ in range(20):
            await read(backend)
            await backend.achat(REQUEST)
        gc.collect()
        return sum(type(each) is aiohttp.StreamReader for each in gc.get_objects())

    assert asyncio.run(held()) < 10
    assert ollama.connections == 1


def test_an_idle_connection_that_is_reset_is_nothing_to_log(
    ollama: OllamaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask_and_wait() -> None:
        backend = OllamaBackend(host=ollama.url)
        await read(backend)
        await read(backend)
        await asyncio.sleep(0.05)
        await asyncio.to_thread(ollama.close_connections, reset=True)
        await asyncio.sleep(0.05)
        assert await read(backend) == "Hello!"

    asyncio.run(ask_and_wait())
    gc.collect()
    assert caplog.records == []


def test_a_reader_that_stops_closes_the_connection(ollama: OllamaServer) -> None:
    ollama.reply(Reply([TOKEN, Hold()]))

    async def stop() -> None:
        stream: Any = OllamaBackend(host=ollama.url).astream_chat(REQUEST)
        async with aclosing(stream):
            await anext(stream)
        assert await asyncio.to_thread(ollama.wait_for_chat().hung_up.wait, 60)

    asyncio.run(stop())


def test_what_arrives_together_is_read_together(ollama: OllamaServer) -> None:
    """One step of the event loop for each read of the socket, not for each token."""
    lines = b"".join([TOKEN.data] * 50)
    done = line({"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop"})
    ollama.reply(Reply([Send(lines), done]))

    async def steps() -> list[int]:
        loop, counts, turns = asyncio.get_running_loop(), [], 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            handle[0] = loop.call_soon(turn)

        handle = [loop.call_soon(turn)]
        async for _ in OllamaBackend(host=ollama.url).astream_chat(REQUEST):
            counts.append(turns)
        handle[0].cancel()
        return counts

    counts = asyncio.run(steps())
    assert len(counts) == 51
    waits = sum(later > earlier for earlier, later in pairwise(counts))
    assert waits <= 3


@pytest.mark.parametrize("installed", ["3.12.8", "4.0.0a1", None])
def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("django_ollama_openai.backends._http_backend.version", version)
    with pytest.raises(ValueError, match=r"django-ollama-openai\[fast\]"):
        OllamaBackend(fast=True)


def test_a_stream_that_takes_longer_in_all_than_its_limits(ollama: OllamaServer) -> None:
    ollama.reply(Answer(["a"] * 8, pause=0.3))
    assert ask(ollama.url, timeout=2) == "aaaaaaaa"
