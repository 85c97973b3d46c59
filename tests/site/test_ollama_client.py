"""What is built on private parts of ``ollama`` and ``httpx`` still stands on them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import ollama as official
import pytest
import trustme

from django_ollama_openai import _cancellation
from django_ollama_openai._cancellation import Cancellation, Cancelled
from django_ollama_openai.backends._http_client import StreamTimeouts
from django_ollama_openai.backends._interruptible import InterruptibleTransport
from django_ollama_openai.backends._ollama_client import AsyncOllamaClient, OllamaClient
from django_ollama_openai.exceptions import UpstreamTimeout, UpstreamUnavailable
from tests.ollama_server import Hold, OllamaServer, Received, Reply, Send, Wait, drip

PATIENT = StreamTimeouts(first_token=600, token=600)

NEXT_LINE = '{"message": {"content": "a\x85b\u2028c\u2029d\u000b"}}\n'.encode()


def test_the_official_clients_hold_what_is_used_of_them() -> None:
    client, aclient = OllamaClient("gpu-1:1234"), AsyncOllamaClient("gpu-1:1234")
    with closing(client._client) as http:
        assert type(http) is httpx.Client
        assert http.base_url == "http://gpu-1:1234"
        assert http.headers["user-agent"].startswith("ollama-python/")
    assert type(aclient._client) is httpx.AsyncClient
    assert aclient._client.base_url == "http://gpu-1:1234"
    asyncio.run(aclient._client.aclose())
    assert issubclass(OllamaClient, official.Client)
    assert issubclass(AsyncOllamaClient, official.AsyncClient)


def test_only_line_feeds_end_a_line(ollama: OllamaServer) -> None:
    ollama.routes["/api/chat"] = Reply([Send(NEXT_LINE), Send(NEXT_LINE)])
    client = OllamaClient(ollama.url)
    with closing(client._client):
        lines = list(chain(*client.stream("/api/chat", b"{}", PATIENT)))
    assert lines == [NEXT_LINE[:-1]] * 2

    async def alines() -> list[bytes]:
        client = AsyncOllamaClient(ollama.url)
        arriving = client.stream("/api/chat", b"{}", PATIENT)
        lines = [line async for lines in arriving for line in lines]
        await client._client.aclose()
        return lines

    assert asyncio.run(alines()) == lines


def test_no_answer_is_asked_for_compressed(ollama: OllamaServer) -> None:
    ollama.routes["/api/chat"] = Reply([Send(b"{}\n")])
    client = OllamaClient(ollama.url)
    with closing(client._client):
        client.fetch("POST", "/api/chat", b"{}")
        list(client.stream("/api/chat", b"{}", PATIENT))

    async def both() -> None:
        client = AsyncOllamaClient(ollama.url)
        await client.fetch("POST", "/api/chat", b"{}")
        async for _ in client.stream("/api/chat", b"{}", PATIENT):
            pass
        await client._client.aclose()

    asyncio.run(both())
    asked = [request.headers["accept-encoding"] for request in ollama.chats()]
    assert asked == ["identity"] * 4


class Signature(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["x-signed"] = "yes"
        yield request


async def _hook(message: Any) -> None:
    message.headers["x-hooked"] = "yes"


MADE_WITH: dict[str, tuple[dict[str, Any], str, str]] = {
    "headers": ({"headers": {"x-mine": "yes"}}, "x-mine", "yes"),
    "authentication": ({"auth": Signature()}, "x-signed", "yes"),
    "hooks": ({"event_hooks": {"request": [_hook]}}, "x-hooked", "yes"),
    "kept cookies": ({"cookies": {"sticky": "1"}}, "cookie", "sticky=1"),
    "parameters": ({"params": {"tenant": "1"}}, "", "/api/chat?tenant=1"),
}


@pytest.mark.parametrize("what", MADE_WITH)
def test_whatever_a_client_is_made_with_reaches_the_engine(ollama: OllamaServer, what: str) -> None:
    options, name, value = MADE_WITH[what]
    ollama.routes["/api/chat"] = ollama.routes["/api/chat?tenant=1"] = Reply([Send(b"{}\n")])

    async def twice() -> None:
        transport = httpx.AsyncHTTPTransport()
        made = {"follow_redirects": False, "trust_env": False, **options}
        client = AsyncOllamaClient(ollama.url, transport=transport, **made)
        await client.fetch("POST", "/api/chat", b"{}")
        async for _ in client.stream("/api/chat", b"{}", PATIENT):
            pass
        await client._client.aclose()

    asyncio.run(twice())
    for request in ollama.requests:
        assert (request.headers[name] if name else request.path) == value
    assert len(ollama.requests) == 2


def test_a_reader_takes_its_time_with_a_last_line_without_an_end(ollama: OllamaServer) -> None:
    ollama.routes["/api/chat"] = Reply([Send(b"{}")])

    async def read_slowly() -> list[list[bytes]]:
        client = AsyncOllamaClient(ollama.url)
        arrived = []
        async for lines in client.stream("/api/chat", b"{}", StreamTimeouts(0.3, 0.3)):
            await asyncio.sleep(0.6)
            arrived.append(lines)
        await client._client.aclose()
        return arrived

    assert asyncio.run(read_slowly()) == [[b"{}"]]


# Cancelling what blocks


@contextmanager
def in_a_thread(work: Callable[[], Any]) -> Iterator[tuple[Cancellation, list[BaseException]]]:
    """Run ``work`` as something that can be cancelled; what it raised is in the list."""
    raised: list[BaseException] = []
    mine = Cancellation()

    def run() -> None:
        _cancellation.current.set(mine)
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield mine, raised
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def client(ollama: OllamaServer) -> Iterator[OllamaClient]:
    with closing(InterruptibleTransport()) as transport:
        yield OllamaClient(ollama.url, transport=transport, timeout=600)


@pytest.mark.parametrize(
    "reply",
    [Reply([], before=[Hold()]), Reply([Hold()]), Reply([Send(b"{}\n"), Hold()])],
    ids=["before the head", "before the body", "within the body"],
)
def test_a_blocked_read_is_woken(client: OllamaClient, ollama: OllamaServer, reply: Reply) -> None:
    ollama.routes["/api/chat"] = reply
    with in_a_thread(lambda: list(client.stream("/api/chat", b"{}", PATIENT))) as (
        mine,
        raised,
    ):
        received = ollama.wait_for_chat()
        time.sleep(0.1)
        mine.cancel()
        assert received.hung_up.wait(60)
    assert [type(error) for error in raised] == [Cancelled]
    # The connection was not put back for the next request.
    ollama.routes["/api/chat"] = Reply([Send(b"{}\n")])
    assert list(chain(*client.stream("/api/chat", b"{}", PATIENT))) == [b"{}"]


def test_a_blocked_write_is_woken(client: OllamaClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        large = b"x" * 50_000_000
        client = OllamaClient(f"127.0.0.1:{port}", transport=InterruptibleTransport(), timeout=600)
        with in_a_thread(lambda: client.fetch("POST", "/api/chat", large)) as (mine, raised):
            connection, _ = deaf.accept()
            time.sleep(0.3)
            mine.cancel()
        assert [type(error) for error in raised] == [Cancelled]
        connection.close()
        client._client.close()


def test_cancelled_work_asks_for_nothing(client: OllamaClient, ollama: OllamaServer) -> None:
    done = Cancellation()
    done.cancel()

    def ask() -> None:
        _cancellation.current.set(done)
        client.fetch("GET", "/api/version")

    with in_a_thread(ask) as (_, raised):
        pass
    assert [type(error) for error in raised] == [Cancelled]
    assert ollama.requests == []


def test_work_that_nobody_can_cancel_just_blocks(
    client: OllamaClient, ollama: OllamaServer
) -> None:
    assert _cancellation.current.get() is None
    assert client.fetch("GET", "/api/version") == b'{"version":"0.33.0-rc2"}'


# Limiting what never ends


DRIP = drip(b" ")
DRIPS: dict[str, Reply] = {
    "of the head": Reply([Send(b"HTTP/1.1 200 OK\r\nX:"), *DRIP], raw=True),
    "of the body": Reply(DRIP),
    "of an error": Reply(DRIP, status=500),
    "after a line": Reply([Send(b"{}\n"), *DRIP]),
}


def ways_to_ask(client: OllamaClient, seconds: float) -> list[Callable[[], object]]:
    timeouts = StreamTimeouts(seconds, seconds)
    return [
        lambda: client.fetch("POST", "/api/chat", b"{}"),
        lambda: list(client.stream("/api/chat", b"{}", timeouts)),
    ]


def assert_given_up(ask: Callable[[], object], ollama: OllamaServer) -> None:
    ollama.requests.clear()
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        ask()
    assert time.monotonic() - started >= 0.3
    # On a busy machine it may be read after it was given up.
    assert ollama.wait_for_chat().hung_up.wait(60)


@pytest.mark.parametrize("reply", DRIPS.values(), ids=DRIPS)
def test_an_engine_that_drips_is_given_up(ollama: OllamaServer, reply: Reply) -> None:
    ollama.routes["/api/chat"] = reply
    with closing(InterruptibleTransport()) as transport:
        client = OllamaClient(ollama.url, transport=transport, timeout=0.3)
        for ask in ways_to_ask(client, 0.3):
            assert_given_up(ask, ollama)


@pytest.mark.parametrize("reply", DRIPS.values(), ids=DRIPS)
def test_so_it_is_where_the_connection_is_secure(reply: Reply) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with (
        OllamaServer(tls=tls) as ollama,
        closing(InterruptibleTransport(verify=trusting)) as transport,
    ):
        client = OllamaClient(ollama.url, transport=transport, timeout=0.3)
        assert client.fetch("GET", "/api/version") == b'{"version":"0.33.0-rc2"}'
        ollama.routes["/api/chat"] = reply
        for ask in ways_to_ask(client, 0.3):
            assert_given_up(ask, ollama)


@pytest.mark.parametrize("what", ["of the body", "of an error", "after a line"])
def test_so_it_is_with_a_transport_that_knows_no_deadlines(ollama: OllamaServer, what: str) -> None:
    ollama.routes["/api/chat"] = DRIPS[what]
    with closing(httpx.HTTPTransport()) as transport:
        client = OllamaClient(ollama.url, transport=transport, timeout=0.3)
        for ask in ways_to_ask(client, 0.3):
            assert_given_up(ask, ollama)


def test_an_engine_that_is_silent_is_given_up_by_any_transport(ollama: OllamaServer) -> None:
    ollama.routes["/api/chat"] = Reply([Hold()])
    with closing(httpx.HTTPTransport()) as transport:
        client = OllamaClient(ollama.url, transport=transport, timeout=0.3)
        for ask in ways_to_ask(client, 0.3):
            assert_given_up(ask, ollama)


def test_an_engine_that_takes_a_request_slowly_is_given_up() -> None:
    is_given_up = threading.Event()
    body = b"x" * 50_000_000
    taken = 0

    def sip(server: socket.socket) -> None:
        nonlocal taken
        connection, _ = server.accept()
        with connection:
            while not is_given_up.wait(0.01):
                taken += len(connection.recv(2**14))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=sip, args=[server])
        thread.start()
        with closing(InterruptibleTransport()) as transport:
            port = server.getsockname()[1]
            client = OllamaClient(f"127.0.0.1:{port}", transport=transport, timeout=0.3)
            started = time.monotonic()
            try:
                with pytest.raises(UpstreamTimeout):
                    client.fetch("POST", "/api/chat", body)
            finally:
                is_given_up.set()
            assert time.monotonic() - started >= 0.3
        thread.join(60)
        assert not thread.is_alive()
    # Long before the end of the body, which is half a minute away.
    assert taken < len(body) / 2


def test_the_limits_that_a_site_has_set_stay(ollama: OllamaServer) -> None:
    asked: list[Any] = []

    def note(request: httpx.Request) -> None:
        asked.append(request.extensions["timeout"])

    limits = httpx.Timeout(30, connect=3, write=4, pool=5)
    client = OllamaClient(ollama.url, timeout=limits, event_hooks={"request": [note]})
    unlimited = OllamaClient(ollama.url, event_hooks={"request": [note]})
    with closing(client._client), closing(unlimited._client):
        client.fetch("GET", "/api/version")
        unlimited.fetch("GET", "/api/version")
    assert asked == [
        {"connect": 3, "read": 30, "write": 4, "pool": 5},
        {"connect": None, "read": None, "write": None, "pool": None},
    ]


def test_the_next_token_may_take_longer_than_the_first(
    client: OllamaClient, ollama: OllamaServer
) -> None:
    ollama.routes["/api/chat"] = Reply([Send(b"{}\n"), Wait(0.6), Send(b"{}\n")])
    lines = client.stream("/api/chat", b"{}", StreamTimeouts(first_token=0.3, token=600))
    assert list(chain(*lines)) == [b"{}", b"{}"]


# Options of httpx's transport


def wait_for_request(ollama: OllamaServer) -> Received:
    deadline = time.monotonic() + 60
    while not ollama.requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return ollama.requests[0]


def test_a_proxy(ollama: OllamaServer) -> None:
    url = "http://engine.invalid:11434/api/chat"
    ollama.routes[url] = Reply([Send(b"{}\n"), Hold()])
    proxy = ollama.url.replace("://", "://me:secret@")
    with closing(InterruptibleTransport(proxy=proxy)) as transport:
        client = OllamaClient("http://engine.invalid:11434", transport=transport, timeout=600)
        with in_a_thread(lambda: list(client.stream("/api/chat", b"{}", PATIENT))) as (
            mine,
            raised,
        ):
            received = wait_for_request(ollama)
            mine.cancel()
            assert received.hung_up.wait(60)
    assert [type(error) for error in raised] == [Cancelled]
    assert received.path == url
    assert received.headers["proxy-authorization"].startswith("Basic ")


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "ollama.sock"
    with (
        OllamaServer(path) as ollama,
        closing(InterruptibleTransport(uds=str(path))) as transport,
    ):
        ollama.routes["/api/chat"] = Reply(DRIP)
        client = OllamaClient("http://engine", transport=transport, timeout=0.3)
        for ask in ways_to_ask(client, 0.3):
            assert_given_up(ask, ollama)
        assert ollama.requests[0].headers["host"] == "engine"


def test_the_certificates_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with OllamaServer(tls=tls) as ollama:
        for trust_env, verify, trusted in (
            (True, True, True),
            (False, True, False),
            (False, False, True),
        ):
            with closing(InterruptibleTransport(trust_env=trust_env, verify=verify)) as transport:
                client = OllamaClient(ollama.url, transport=transport)
                with nullcontext() if trusted else pytest.raises(UpstreamUnavailable):
                    client.fetch("GET", "/api/version")
