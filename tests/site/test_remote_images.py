"""Fetching images from real servers on 127.0.0.1 that do what servers should not.

Most tests allow 127.0.0.1 and no other address, with time limits that they never reach.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from django.test import AsyncClient, Client
from pytest_django.fixtures import Settings

from django_ollama_openai import __version__
from django_ollama_openai._remote_images import FetchRules, afetch_images, fetch_images
from django_ollama_openai._remote_images import fetch as fetch_module
from django_ollama_openai._remote_images.rules import (
    Address,
    ImageNotFetched,
    default_tls_context,
    is_public,
)
from django_ollama_openai.exceptions import InvalidRequest
from tests.fast_lane import sender
from tests.ollama_server import OllamaServer

pytestmark = pytest.mark.once

PIXEL = b"\x89PNG\r\n\x1a\n and so on"
OTHER = b"\xff\xd8\xff another"
MIB = 2**20
FULL = b"x" * (20 * MIB)

CANNOT = "The image cannot be fetched: "
UNREACHABLE = f"{CANNOT}its server is unknown, cannot be reached, or is not on the public internet."
BROKE_OFF = f"{CANNOT}the connection to its server broke off."
UNTRUSTED = f"{CANNOT}its server has no secure connection that can be trusted."
TOOK_TOO_LONG = "The image took too long to fetch."
LEADS_TO = "What the URL leads to is not an image: "
NOT_AN_IMAGE = f"{LEADS_TO}its Content-Type must be image/*, and not SVG."
EMPTY = f"{LEADS_TO}it is empty."
TOO_LARGE = "The image is too large: it may have at most 20 MiB."
TOO_LARGE_TOGETHER = "The image is too large: all of a request have at most 40 MiB."
ENCODED = f"{CANNOT}its server sent it in an encoding that was not asked for."
DOWNGRADED = f"{CANNOT}its URL redirects from https to http."

WITHIN = 60.0
"""Seconds after which something that should happen at once counts as not happening."""


class Action(Enum):
    HOLD = "stay silent until the client disconnects"
    RESET = "reset the connection"


HOLD, RESET = Action
Step = bytes | float | Action
"""Bytes to send, seconds to be silent, or an action."""


def words(text: str) -> list[str]:
    return text.split()


def answer(body: bytes = PIXEL, status: str = "200 OK", **headers: str | None) -> bytes:
    """Return a response; ``headers`` replace those that describe its body."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = {"Content-Type": "image/png", "Content-Length": str(len(body)), **named}
    head = [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *head, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes) -> bytes:
    head = answer(b"", content_length=None, transfer_encoding="chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def redirect(location: str, status: int = 302) -> bytes:
    return answer(b"elsewhere", f"{status} Found", location=location, content_type="text/html")


class FarSide(socketserver.ThreadingTCPServer):
    """A server that follows a script: ``before`` on each connection, then one of ``routes``."""

    allow_reuse_address = True

    def __init__(self, *routed: Step, at: str = "127.0.0.1", port: int = 0, tls: Any = None):
        self.address_family = socket.AF_INET6 if ":" in at else socket.AF_INET
        super().__init__((at, port), socketserver.BaseRequestHandler)
        self.at, self.port, self.tls = at, self.server_address[1], tls
        self.before: Sequence[Step] = []
        self.routes: dict[str, Sequence[Step]] = {"/": routed}
        self.heads: list[str] = []
        self.names: list[str | None] = []
        self.connections = 0
        self.connected, self.received, self.hung_up = (threading.Event() for _ in range(3))
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.names.append(name)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.01]).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        super().__exit__(*error)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{'https' if self.tls else 'http'}://{host or self.at}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [head.split()[1] for head in self.heads]

    def verify_request(self, *_: Any) -> bool:
        self.connections += 1
        self.connected.set()
        return True

    def shutdown_request(self, request: Any) -> None:
        request.close()

    def finish_request(self, connection: Any, _: Any) -> None:
        connection.settimeout(WITHIN)
        # The client may disconnect at any time.
        with suppress(OSError), ExitStack() as closing:
            if not self._follow(connection, self.before):
                return
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                closing.callback(connection.close)
            head = b""
            while b"\r\n\r\n" not in head:
                head += (data := connection.recv(65536))
                if not data:
                    return
            self.heads.append(head.decode())
            self.received.set()
            self._follow(connection, self.routes[self.paths()[-1]])

    def _follow(self, connection: Any, steps: Sequence[Step]) -> bool:
        for step in steps:
            match step:
                case bytes():
                    connection.sendall(step)
                case Action.HOLD:
                    with suppress(ConnectionError):
                        while connection.recv(65536):
                            pass
                    self.hung_up.set()
                    return False
                case Action.RESET:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return False
                case _:
                    time.sleep(step)
        return True


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide(answer()) as server:
        yield server


@pytest.fixture
def private() -> Iterator[FarSide]:
    """A server that must not be reached."""
    with FarSide(answer(b"a secret"), at="127.0.0.2") as server:
        yield server
        assert server.connections == 0


@contextmanager
def deaf() -> Iterator[int]:
    """The port of a server with which no client finishes connecting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(3):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Names:
    """The addresses of each host name, lookup after lookup; the last ones stay."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.looked_up: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        self.started = threading.Semaphore(0)

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.looked_up.append(host)
        self.started.release()
        assert self.answering.wait(2 * WITHIN)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[host]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, 0, 0, "", (address, 0))
            for address in (answers.pop(0) if len(answers) > 1 else answers[0])
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    names.answers["far.test"] = [["127.0.0.1"]]
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answering.set()


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("ollama-openai-"):
            thread.join(WITHIN)
            assert not thread.is_alive()


def is_loopback(address: Address) -> bool:
    return address.is_loopback


LOCAL = FetchRules(
    is_allowed=lambda address: str(address) == "127.0.0.1",
    connect_timeout=WITHIN,
    idle_timeout=WITHIN,
    total_timeout=WITHIN,
)


def fetch(*urls: str, **rules: Any) -> list[bytes]:
    return fetch_images(urls, replace(LOCAL, **rules))


def afetch(*urls: str, **rules: Any) -> list[bytes]:
    return asyncio.run(afetch_images(urls, replace(LOCAL, **rules)))


both = pytest.mark.parametrize("fetch", [fetch, afetch], ids=["sync", "async"])
Fetch = Callable[..., list[bytes]]


def refusal(*urls: str, **rules: Any) -> str:
    """Return the reason why the last of ``urls`` is not fetched."""
    with pytest.raises(ImageNotFetched) as caught:
        fetch(*urls, **rules)
    assert caught.value.index == len(urls) - 1
    return caught.value.message


# What comes back


@both
def test_images_come_in_the_order_of_their_urls(fetch: Fetch, far: FarSide) -> None:
    far.routes["/other"] = [0.1, answer(OTHER, content_type="image/jpeg")]
    assert fetch(far.url("/other"), far.url("/")) == [OTHER, PIXEL]
    assert fetch() == []


@both
def test_an_error_names_the_image(fetch: Fetch, far: FarSide) -> None:
    far.routes["/gone"] = [answer(status="404 Not Found")]
    with pytest.raises(ImageNotFetched) as caught:
        fetch(far.url(), far.url("/gone"), far.url())
    error = caught.value
    assert isinstance(error, InvalidRequest)
    assert error.index == 1
    assert error.envelope() == {
        "error": {
            "message": f"{CANNOT}its server answered with status 404.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_image_url",
        }
    }
    assert error.status == 400


def test_an_image_that_is_named_twice_is_fetched_once(far: FarSide) -> None:
    assert fetch(far.url(), far.url("/#a"), far.url("/#b"), far.url()) == [PIXEL] * 4
    assert far.paths() == ["/"]


def test_as_many_images_as_are_allowed(far: FarSide) -> None:
    bodies = [b"%d" % number for number in range(16)]
    far.routes = {f"/{body.decode()}": [answer(body)] for body in bodies}
    urls = [far.url(path) for path in far.routes]
    assert fetch(*urls) == bodies
    assert refusal(*urls, far.url()).startswith("A request may name at most 16 images")
    assert far.connections == 16


async def test_the_event_loop_is_not_blocked(far: FarSide) -> None:
    far.routes["/"] = [0.3, answer()]
    fetching = asyncio.create_task(afetch_images([far.url()], LOCAL))
    ticks = 0
    while not fetching.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert fetching.result() == [PIXEL]
    assert ticks > 10


# What is sent


def test_requests_have_these_headers_and_no_others(
    far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        # Nothing listens there.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    far.routes["/a%20b?c=%C3%BC"] = [answer(set_cookie="a=1; Path=/")]
    assert fetch(far.url("/a b?c=ü#d"), far.url()) == [PIXEL, PIXEL]
    assert far.heads == [
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{far.port}\r\n"
        f"User-Agent: django-ollama-openai/{__version__}\r\nAccept: image/*\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
        for target in ("/a%20b?c=%C3%BC", "/")
    ]


# Which servers


def test_nothing_is_fetched_if_any_url_is_bad(names: Names, far: FarSide) -> None:
    assert "must begin with" in refusal(far.url(host="far.test"), "ftp://example.com/")
    assert names.looked_up == []


@pytest.mark.parametrize("name", ["far.test", "FAR.test", "bücher.test"])
def test_a_name_is_looked_up_once(name: str, names: Names, far: FarSide) -> None:
    sent = name.lower().replace("bücher", "xn--bcher-kva")
    names.answers[sent] = [["127.0.0.1"], []]
    assert fetch(far.url(host=name)) == [PIXEL]
    assert names.looked_up == [sent]
    assert f"Host: {sent}:{far.port}\r\n" in far.heads[0]


def test_an_ipv6_address_is_in_brackets() -> None:
    with FarSide(answer(), at="::1") as far:
        assert fetch(far.url(host="[::1]"), is_allowed=is_loopback) == [PIXEL]
        assert f"Host: [::1]:{far.port}\r\n" in far.heads[0]


@both
@pytest.mark.parametrize(
    "host",
    words("""127.0.0.1 localhost LOCALHOST 0.0.0.0 [::] [::1] [::ffff:127.0.0.1] [::ffff:7f00:1]
    [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b:1::127.0.0.1] [2002:7f00:1::] 127。0。0。1
    2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.1 127.0.0.1. 0"""),
)
def test_this_machine_is_out_of_reach(fetch: Fetch, host: str, far: FarSide) -> None:
    with pytest.raises(ImageNotFetched):
        fetch(f"http://{host}:{far.port}/", is_allowed=is_public)
    assert far.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["2606:4700:4700::1111", "::1"],
        ["8.8.8.8", "10.0.0.1"],
        ["8.8.8.8", "::ffff:8.8.8.8"],
        ["fe80::1%1"],
        [],
    ],
    ids=", ".join,
)
def test_one_address_that_is_not_public_is_enough(
    addresses: list[str], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("something was connected to")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names.answers["mixed.test"] = [addresses]
    assert refusal("http://mixed.test/", is_allowed=is_public) == UNREACHABLE


def test_a_name_that_changes_its_address_gains_nothing(
    names: Names, far: FarSide, private: FarSide
) -> None:
    # Each connection goes to the address that was checked for it.
    names.answers["rebind.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    urls = [far.url(host="rebind.test"), private.url(host="rebind.test")]
    assert refusal(*urls) == UNREACHABLE
    assert far.paths() == ["/"]
    assert names.looked_up == ["rebind.test"] * 2
    names.answers["rebind.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    far.routes["/"] = [redirect(urls[1])]
    assert refusal(urls[0]) == UNREACHABLE
    assert names.looked_up == ["rebind.test"] * 4


def test_the_far_end_of_a_connection_is_checked(far: FarSide) -> None:
    checks = iter([True, False])
    assert refusal(far.url(), is_allowed=lambda _: next(checks)) == UNREACHABLE
    assert next(checks, None) is None
    assert far.connected.wait(WITHIN)
    assert far.heads == []


def test_the_next_address_is_tried(names: Names, far: FarSide) -> None:
    dead = ["::1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
    names.answers["far.test"] = [[*dead[:3], "127.0.0.1"], [*dead, "127.0.0.1"]]
    assert fetch(far.url(host="far.test"), is_allowed=is_loopback) == [PIXEL]
    assert refusal(far.url(host="far.test"), is_allowed=is_loopback) == UNREACHABLE


def test_a_dead_address_leaves_time_for_the_next(names: Names) -> None:
    names.answers["far.test"] = [["127.0.0.1", "127.0.0.5"]]
    with deaf() as port, FarSide(answer(), at="127.0.0.5", port=port) as far:
        url = far.url(host="far.test")
        assert fetch(url, is_allowed=is_loopback, connect_timeout=1.0) == [PIXEL]


def test_errors_do_not_say_why_a_server_is_out_of_reach(names: Names, private: FarSide) -> None:
    names.answers["private.test"] = [["127.0.0.2"]]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert refusal(f"http://far.test:{closed.getsockname()[1]}/") == UNREACHABLE
    assert refusal(private.url(host="private.test")) == UNREACHABLE
    assert refusal(private.url(host="unknown.test")) == UNREACHABLE


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, far: FarSide) -> None:
    far.routes["/1"] = [redirect("/2?x=1", status)]
    far.routes["/2?x=1"] = [redirect(far.url("/a/3"), status)]
    far.routes["/a/3"] = [redirect("../#end", status)]
    assert fetch(far.url("/1")) == [PIXEL]
    assert far.paths() == ["/1", "/2?x=1", "/a/3", "/"]
    assert {head.split()[0] for head in far.heads} == {"GET"}


def test_the_fourth_redirect_is_one_too_many(far: FarSide) -> None:
    far.routes = {f"/{number}": [redirect(f"/{number + 1}")] for number in range(4)}
    assert refusal(far.url("/0")) == f"{CANNOT}its URL redirects more than 3 times."
    assert far.paths() == ["/0", "/1", "/2", "/3"]


def test_no_redirect_leads_to_a_private_address(far: FarSide, private: FarSide) -> None:
    far.routes["/"] = [redirect(private.url())]
    assert refusal(far.url()) == UNREACHABLE
    far.routes["/"] = [redirect("/2")]
    far.routes["/2"] = [redirect(f"//127.0.0.2:{private.port}/")]
    assert refusal(far.url()) == UNREACHABLE


@pytest.mark.parametrize(
    "location",
    [
        *words("""ftp://127.0.0.1/ file:///etc/passwd data:image/png;base64,AAAA
        http://user@127.0.0.1/ http://127.1/ http://2130706433/ http://[::1
        http://[fe80::1%25eth0]/ http://127.0.0.1:0/"""),
        "/" + "x" * 8192,
    ],
    ids=lambda location: location[:30],
)
def test_redirects_obey_the_same_rules(location: str, far: FarSide) -> None:
    far.routes["/"] = [redirect(location)]
    assert refusal(far.url()) == f"{CANNOT}it redirects to a URL that is not allowed."
    assert far.connections == 1


# Which responses


@pytest.mark.parametrize(
    "response",
    [
        *(
            answer(status=status, content_length=None)
            for status in ("201 Created", "204 None", "206 Partial", "401 No", "403 No", "500 Oh")
        ),
        answer(status="302 Without a location"),
        answer(status="304 Not Modified", location="/2", content_length=None),
    ],
    ids=lambda response: response[9:12].decode(),
)
def test_other_statuses_are_refused(response: bytes, far: FarSide) -> None:
    far.routes["/"] = [response]
    status = response[9:12].decode()
    assert refusal(far.url()) == f"{CANNOT}its server answered with status {status}."


@pytest.mark.parametrize(
    "response",
    [
        *(
            answer(content_type=name)
            for name in ("IMAGE/JPEG", " image/webp ; q=1; x=text/html", "image/x-icon")
        ),
        answer(content_encoding="Identity"),
        answer(content_length=None),
        chunked(PIXEL[:3], PIXEL[3:]),
        answer() + answer(OTHER),
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
def test_images_are_accepted(response: bytes, slowly: bool, far: FarSide) -> None:
    pieces: list[Step] = [response[:20], 0.02, response[20:-3], 0.02, response[-3:]]
    far.routes["/"] = pieces if slowly else [response]
    assert fetch(far.url()) == [PIXEL]


NO_IMAGES = [
    *words("""text/html application/octet-stream image image/ image/* ximage/png image/svg+xml"""),
    *[None, "", "image/svg", "text/html; image/png", "image/png, text/html"],
    *["image/png text/html", "image/SVG+XML; charset=utf-8"],
    *["image/png\r\nContent-Type: text/html", "text/html\r\nContent-Type: image/png"],
]
BOMB = gzip.compress(b"\0" * 2**16)
ENCODINGS = ["gzip", "deflate", "br", "identity, gzip", "x"]


REFUSED: dict[str, tuple[str, bytes]] = {
    **{f"type {name}": (NOT_AN_IMAGE, answer(content_type=name)) for name in NO_IMAGES},
    **{name: (ENCODED, answer(BOMB, content_encoding=name)) for name in ENCODINGS},
    "a byte too long": (TOO_LARGE, answer(b"", content_length=str(20 * MIB + 1))),
    "far too long": (TOO_LARGE, answer(b"", content_length=str(10**19))),
    "endless": (TOO_LARGE, answer(b"", content_length=None) + FULL + b"x"),
}


@pytest.mark.parametrize(("reason", "response"), REFUSED.values(), ids=REFUSED)
def test_a_response_is_refused_before_its_end(reason: str, response: bytes, far: FarSide) -> None:
    far.routes["/"] = [response, HOLD]
    assert refusal(far.url()) == reason
    assert far.hung_up.wait(WITHIN)


@pytest.mark.parametrize("nothing", [answer(b""), chunked(), answer(b"", content_length=None)])
def test_an_empty_image_is_refused(nothing: bytes, far: FarSide) -> None:
    far.routes["/"] = [nothing]
    assert refusal(far.url()) == EMPTY


@pytest.mark.parametrize("framed", [answer, chunked])
def test_the_largest_image(framed: Callable[[bytes], bytes], far: FarSide) -> None:
    far.routes["/"] = [framed(FULL)]
    assert fetch(far.url()) == [FULL]
    far.routes["/"] = [framed(FULL + b"x")]
    assert refusal(far.url()) == TOO_LARGE


def test_all_images_together(far: FarSide) -> None:
    far.routes["/full"] = [answer(FULL)]
    far.routes["/x"] = [answer(b"", content_length="1"), HOLD]
    far.routes["/y"] = [chunked(b"y")[:-5], HOLD]
    full = [far.url("/full")] * 2
    assert fetch(*full) == [FULL] * 2
    for path in ("/full", "/x", "/y"):
        assert refusal(*full, far.url(path)) == TOO_LARGE_TOGETHER


def test_an_image_counts_as_often_as_it_is_named(far: FarSide) -> None:
    assert fetch(*[far.url()] * 3, max_total_bytes=3 * len(PIXEL)) == [PIXEL] * 3
    reason = refusal(*[far.url()] * 3, max_total_bytes=3 * len(PIXEL) - 1)
    assert reason.startswith("The image is too large: ")


BROKEN: dict[str, list[Step]] = {
    "no answer": [],
    "reset": [RESET],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"],
    "a body cut short": [answer()[:-1]],
    "a body reset": [answer()[:-1], 0.05, RESET],
    "a chunk cut short": [chunked(PIXEL)[:-5]],
    "another protocol": [b"220 smtp.example.com ESMTP\r\n"],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x46"],
    "a negative length": [answer(content_length="-1")],
    "a length in words": [answer(content_length="1e3")],
    "a length beyond measure": [answer(content_length="9" * 5000)],
    "an unknown transfer encoding": [answer(transfer_encoding="gzip", content_length=None)],
    "a head without end": [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000],
    "a bad chunk": [chunked(PIXEL).replace(b"%x\r\n" % len(PIXEL), b"zz\r\n")],
}


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN)
def test_broken_responses(steps: list[Step], far: FarSide) -> None:
    far.routes["/"] = steps
    assert refusal(far.url()) == BROKE_OFF


# How long


@pytest.mark.parametrize(
    "steps",
    [
        [HOLD],
        [b"HTTP/1.1 200 OK\r\nContent-Type: im", HOLD],
        [answer()[:-1], HOLD],
        [redirect("/silent"), HOLD],
    ],
    ids=["nothing", "half a head", "half a body", "after a redirect"],
)
def test_a_silent_server_is_left(steps: list[Step], far: FarSide) -> None:
    far.routes.update({"/": steps, "/silent": [HOLD]})
    assert refusal(far.url(), idle_timeout=0.1) == TOOK_TOO_LONG
    assert far.hung_up.wait(WITHIN)


@pytest.mark.parametrize(
    "slow",
    [answer(), b"HTTP/1.1 100 Continue\r\n\r\n" * 8, chunked(*[b"x"] * 10)],
    ids=["a byte at a time", "never the final head", "in chunks"],
)
def test_a_drip_ends(slow: bytes, far: FarSide) -> None:
    far.routes["/"] = [step for byte in slow for step in (bytes([byte]), 0.02)]
    assert refusal(far.url(), total_timeout=0.2) == TOOK_TOO_LONG


@pytest.mark.parametrize(
    "flood",
    [chunked(b"x")[:-5] + b"1\r\nx\r\n" * 2**20, b"HTTP/1.1 100 Continue\r\n\r\n" * 2**18],
    ids=["chunks", "heads"],
)
def test_a_flood_does_not_keep_a_processor_busy(flood: bytes, far: FarSide) -> None:
    far.routes["/"] = [flood, HOLD]
    started = time.thread_time()
    assert refusal(far.url(), busy_timeout=0.2) == TOOK_TOO_LONG
    assert 0.2 < time.thread_time() - started < 2


def test_the_time_is_that_of_all_images(far: FarSide) -> None:
    far.routes = {f"/{number}": [0.1, answer()] for number in range(3)}
    with pytest.raises(ImageNotFetched, match=TOOK_TOO_LONG):
        fetch(*map(far.url, far.routes), total_timeout=0.25)


@pytest.mark.parametrize("limit", ["connect_timeout", "total_timeout"])
def test_connecting_ends(limit: str, names: Names, far: FarSide) -> None:
    with deaf() as port:
        assert refusal(f"http://127.0.0.1:{port}/", **{limit: 0.1}) == TOOK_TOO_LONG
    names.answering.clear()
    assert refusal(far.url(host="far.test"), **{limit: 0.1}) == TOOK_TOO_LONG
    assert far.connections == 0


def test_stuck_lookups_do_not_pile_up(names: Names, far: FarSide) -> None:
    names.answering.clear()
    url = far.url(host="far.test")
    for _ in range(4):
        assert refusal(url, connect_timeout=0.1, max_lookups=2) == TOOK_TOO_LONG
    assert names.looked_up == ["far.test"] * 2
    # An address needs no lookup.
    assert fetch(far.url(), max_lookups=2) == [PIXEL]
    names.answering.set()
    for _ in range(3):
        assert fetch(url, max_lookups=2) == [PIXEL]


def test_a_failed_lookup_makes_room_for_the_next(names: Names, far: FarSide) -> None:
    for _ in range(2):
        assert refusal(far.url(host="unknown.test"), max_lookups=1) == UNREACHABLE
    assert fetch(far.url(host="far.test"), max_lookups=1) == [PIXEL]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FarSide]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("far.test", "127.0.0.1").configure_cert(tls)
    with FarSide(answer(), tls=tls) as server:
        yield server


@pytest.fixture
def trusted(authority: trustme.CA) -> FetchRules:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return replace(LOCAL, tls_context=lambda: context)


@both
def test_a_secure_connection(
    fetch: Fetch, names: Names, secure: FarSide, trusted: FetchRules
) -> None:
    urls = [secure.url(host="far.test"), secure.url()]
    assert fetch(*urls, tls_context=trusted.tls_context) == [PIXEL, PIXEL]
    assert secure.names == ["far.test", None]
    assert f"Host: far.test:{secure.port}\r\n" in secure.heads[0]


def test_a_certificate_must_be_that_of_the_name(
    names: Names, secure: FarSide, trusted: FetchRules
) -> None:
    names.answers["other.test"] = names.answers["far.test"]
    tls = trusted.tls_context
    assert refusal(secure.url(host="other.test"), tls_context=tls) == UNTRUSTED
    assert secure.heads == []


def test_a_certificate_must_be_trusted(
    authority: trustme.CA, secure: FarSide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Whatever the environment says.
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    default_tls_context.cache_clear()
    assert refusal(secure.url()) == UNTRUSTED
    assert secure.heads == []


def test_a_server_without_tls_is_not_trusted(far: FarSide) -> None:
    far.before = [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    assert refusal(far.url().replace("http:", "https:")) == UNTRUSTED


def test_a_redirect_may_lead_to_tls_but_not_away_from_it(
    far: FarSide, secure: FarSide, trusted: FetchRules
) -> None:
    tls = trusted.tls_context
    far.routes["/up"] = [redirect(secure.url())]
    assert fetch(far.url("/up"), tls_context=tls) == [PIXEL]
    secure.routes["/down"] = [redirect(far.url())]
    assert refusal(secure.url("/down"), tls_context=tls) == DOWNGRADED
    far.routes["/up"] = [redirect(secure.url("/down"))]
    assert refusal(far.url("/up"), tls_context=tls) == DOWNGRADED
    assert far.paths() == ["/up", "/up"]


def test_a_handshake_ends(secure: FarSide) -> None:
    secure.before = [HOLD]
    assert refusal(secure.url(), idle_timeout=0.1) == TOOK_TOO_LONG


# A client that disconnects


async def cancel(url: str, *begun: Callable[[float], bool], rules: FetchRules = LOCAL) -> None:
    """Cancel a fetch once all that is to have ``begun`` has; its thread must end."""
    fetching = asyncio.create_task(afetch_images([url, url + "next"], rules))
    for wait in begun:
        assert await asyncio.to_thread(wait, WITHIN)
    await asyncio.sleep(0.05)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    for thread in threading.enumerate():
        if thread.name == "ollama-openai-pump":
            await asyncio.to_thread(thread.join, WITHIN)
            assert not thread.is_alive()


@pytest.mark.parametrize("sent", [0, 20, len(answer()) - 1], ids=["nothing", "head", "body"])
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
async def test_the_connection_is_closed_when_the_client_disconnects(
    sent: int, is_secure: bool, far: FarSide, secure: FarSide, trusted: FetchRules
) -> None:
    server = secure if is_secure else far
    server.routes["/"] = [answer()[:sent], HOLD]
    await cancel(server.url(), server.received.wait, rules=trusted)
    assert await asyncio.to_thread(server.hung_up.wait, WITHIN)
    assert server.paths() == ["/"]


async def test_a_handshake_is_cancelled(secure: FarSide, trusted: FetchRules) -> None:
    secure.before = [0.1, HOLD]
    await cancel(secure.url(), secure.connected.wait, rules=trusted)


async def test_connecting_is_cancelled() -> None:
    with deaf() as port:
        await cancel(f"http://127.0.0.1:{port}/")


async def test_a_lookup_is_abandoned(names: Names, far: FarSide) -> None:
    names.answering.clear()
    await cancel(far.url(host="far.test"), lambda seconds: names.started.acquire(timeout=seconds))
    names.answering.set()
    assert far.connections == 0


# On a site


@pytest.fixture(params=[Client, AsyncClient], ids=["wsgi", "asgi"])
def post(request: pytest.FixtureRequest, settings: Settings, ollama: OllamaServer) -> Any:
    """A function that posts JSON to a site that fetches images."""
    settings.OLLAMA_OPENAI = {
        "HOST": ollama.url,
        "ALLOW_ANONYMOUS": True,
        "DEFAULT_MODEL": "smollm2:135m",
        "REMOTE_IMAGES": True,
    }
    send = sender(request.param)
    return lambda path, body: send("POST", f"/ai/v1/{path}", body)


def chat(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": parts}]}


def response(url: str) -> dict[str, Any]:
    part = {"type": "input_image", "image_url": url}
    return {"input": [{"role": "user", "content": [part]}]}


@pytest.mark.compat("chat.request.messages[].content[].image_url.url")
def test_the_engine_gets_the_image(
    post: Any, far: FarSide, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "DEFAULT_RULES", LOCAL)
    body = chat(far.url(), "data:image/gif;base64,R0lG", far.url())
    assert post("chat/completions", body).status_code == 200
    assert post("responses", response(far.url())).status_code == 200
    pixel = base64.b64encode(PIXEL).decode()
    images = [request.body["messages"][-1]["images"] for request in ollama.chats()]
    assert images == [[pixel, "R0lG", pixel], [pixel]]


def test_the_error_names_the_place_in_the_request(
    post: Any, far: FarSide, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "DEFAULT_RULES", LOCAL)
    far.routes["/gone"] = [answer(status="404 Not Found")]
    gone = far.url("/gone")
    for path, body, param in (
        ("chat/completions", chat(far.url(), gone), "messages[1].content[1].image_url.url"),
        ("responses", response(gone), "input[0].content[0].image_url"),
    ):
        refused = post(path, body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "invalid_image_url")
        assert error["param"] == param
        assert "404" in error["message"]
    assert ollama.requests == []


def test_the_sites_own_network_is_out_of_reach(
    post: Any, far: FarSide, ollama: OllamaServer
) -> None:
    refused = post("chat/completions", chat(far.url()))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_image_url"
    assert far.connections == 0
    assert ollama.requests == []
