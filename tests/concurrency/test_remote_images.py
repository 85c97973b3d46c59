"""Against real servers on 127.0.0.1 that do what servers should not.

Most tests count 127.0.0.1, and nothing else, as public. Those of the rule itself leave it alone.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai import __version__
from django_ollama_openai._gateway import remote_images
from django_ollama_openai._gateway.remote_images import (
    ImageNotFetched,
    afetch_images,
    fetch_images,
    is_public,
)
from django_ollama_openai.exceptions import InvalidRequest

pytestmark = pytest.mark.once

PIXEL = b"\x89PNG\r\n\x1a\n and so on"
OTHER = b"\xff\xd8\xff another"
MIB = 2**20

UNREACHABLE = (
    "The image cannot be fetched: its server is unknown, cannot be reached, or is not on the "
    "public internet."
)
BROKE_OFF = "The image cannot be fetched: the connection to its server broke off."
UNTRUSTED = "The image cannot be fetched: its server has no secure connection that can be trusted."
TOOK_TOO_LONG = "The image took too long to fetch."
NOT_AN_IMAGE = (
    "What the URL leads to is not an image: its Content-Type must be image/*, and not SVG."
)
TOO_LARGE = "The image is too large: it may have at most 20 MiB."
TOO_LARGE_TOGETHER = "The image is too large: all of a request have at most 40 MiB."
ENCODED = "The image cannot be fetched: its server sent it in an encoding that was not asked for."

WITHIN = 60.0
"""Seconds after which something that should happen at once counts as not happening."""


# The far side


@dataclass(frozen=True)
class Hold:
    """Say nothing until the client hangs up."""


@dataclass(frozen=True)
class Reset:
    """Reset the connection."""


Step = bytes | float | Hold | Reset
"""What to send, or for how many seconds to be silent."""


@dataclass
class Request:
    line: str
    headers: dict[str, str]


def answer(body: bytes = PIXEL, status: str = "200 OK", **headers: str | None) -> bytes:
    """An answer whose headers say the truth, unless they are given."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = {"Content-Type": "image/png", "Content-Length": str(len(body)), **named}
    head = [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *head, "", ""]).encode("latin-1") + body


def chunked(pieces: Sequence[bytes]) -> bytes:
    head = answer(b"", content_length=None, transfer_encoding="chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def redirect(location: str, status: int = 302) -> bytes:
    return answer(b"elsewhere", f"{status} Found", location=location, content_type="text/html")


@dataclass
class FarSide:
    """A server that follows a script; ``before`` comes before it has read a request."""

    address: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    routes: dict[str, list[Step]] = field(default_factory=dict)
    before: list[Step] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    connected: threading.Event = field(default_factory=threading.Event)
    received: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.create_server((self.address, self.port), family=family)
        self.port = self._listener.getsockname()[1]
        if self.tls is not None:
            self.tls.sni_callback = lambda _, name, __: self.names.append(name)
        self._run(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive()
        self._listener.close()

    def url(self, path: str = "/", host: str | None = None) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{host or self.address}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [request.line.split()[1] for request in self.requests]

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.connected.set()
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(WITHIN)
        with ExitStack() as closing:
            closing.callback(connection.close)
            # The client may hang up at any time: that is not the server's failure.
            closing.enter_context(suppress(OSError))
            if not self._follow(connection, self.before):
                return
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                closing.callback(connection.close)
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            line, *rest = head.decode("latin-1").split("\r\n")[:-2]
            self.requests.append(Request(line, dict(entry.split(": ", 1) for entry in rest)))
            self.received.set()
            self._follow(connection, self.routes[line.split()[1]])

    def _follow(self, connection: socket.socket, steps: Sequence[Step]) -> bool:
        for step in steps:
            match step:
                case bytes():
                    connection.sendall(step)
                case Hold():
                    with suppress(ConnectionError):
                        while connection.recv(65536):
                            pass
                    self.hung_up.set()
                    return False
                case Reset():
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    return False
                case _:
                    time.sleep(step)
        return True


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as server:
        server.routes["/"] = [answer()]
        yield server


@pytest.fixture
def private() -> Iterator[FarSide]:
    """A server that is not to be reached."""
    with FarSide("127.0.0.2") as server:
        server.routes["/"] = [answer(b"a secret")]
        yield server
        assert server.connections == 0


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: str(address) == "127.0.0.1")


@dataclass
class Names:
    """Who has which addresses, answer after answer; the last one stays."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __setitem__(self, name: str, answers: list[list[str]]) -> None:
        self.answers[name] = answers

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[host]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in (answers.pop(0) if len(answers) > 1 else answers[0])
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("ollama-openai-"):
            thread.join(WITHIN)
            assert not thread.is_alive()


def refusal(*urls: str) -> str:
    """Why the last of ``urls`` is not fetched."""
    with pytest.raises(ImageNotFetched) as caught:
        fetch_images(urls)
    assert caught.value.index == len(urls) - 1
    return caught.value.message


@contextmanager
def at_once() -> Iterator[None]:
    """Hold that what is done within ends for its own reason, not at a limit that is not its own."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("CONNECT_SECONDS", "SILENCE_SECONDS", "SECONDS_IN_ALL"):
            if getattr(remote_images, limit) >= 5:
                patch.setattr(remote_images, limit, 600)
        started = time.monotonic()
        yield
        assert time.monotonic() - started < WITHIN


loosened = pytest.mark.usefixtures("loopback_is_public")


# What comes back


def asynchronously(urls: Sequence[str]) -> list[bytes]:
    return asyncio.run(afetch_images(urls))


both = pytest.mark.parametrize("fetch", [fetch_images, asynchronously], ids=["sync", "async"])


@both
@loosened
def test_images_come_in_the_order_of_their_urls(
    fetch: Callable[[Sequence[str]], list[bytes]], far: FarSide
) -> None:
    far.routes["/other"] = [0.1, answer(OTHER, content_type="image/jpeg")]
    assert fetch([far.url("/other"), far.url("/")]) == [OTHER, PIXEL]


@both
@loosened
def test_the_one_that_fails_is_named(
    fetch: Callable[[Sequence[str]], list[bytes]], far: FarSide
) -> None:
    far.routes["/gone"] = [answer(status="404 Not Found")]
    with pytest.raises(ImageNotFetched) as caught:
        fetch([far.url(), far.url("/gone"), far.url()])
    error = caught.value
    assert isinstance(error, InvalidRequest)
    assert error.index == 1
    assert error.envelope() == {
        "error": {
            "message": "The image cannot be fetched: its server answered with status 404.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_image_url",
        }
    }
    assert error.status == 400


@both
def test_no_urls_are_no_images(fetch: Callable[[Sequence[str]], list[bytes]]) -> None:
    assert fetch([]) == []


@loosened
def test_the_same_url_is_fetched_once(far: FarSide) -> None:
    assert fetch_images([far.url(), far.url("/#a"), far.url("/#b"), far.url()]) == [PIXEL] * 4
    assert far.paths() == ["/"]


@loosened
def test_as_many_images_as_are_allowed(far: FarSide) -> None:
    urls = []
    for number in range(16):
        far.routes[f"/{number}"] = [answer(b"%d" % number)]
        urls.append(far.url(f"/{number}"))
    assert fetch_images(urls) == [b"%d" % number for number in range(16)]
    with pytest.raises(ImageNotFetched, match=r"^A request may name at most 16 images") as caught:
        fetch_images([*urls, far.url()])
    assert caught.value.index == 16
    assert far.connections == 16


@loosened
async def test_the_event_loop_is_not_blocked(far: FarSide) -> None:
    far.routes["/"] = [0.3, answer()]
    fetching = asyncio.create_task(afetch_images([far.url()]))
    ticks = 0
    while not fetching.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert fetching.result() == [PIXEL]
    assert ticks > 10


# What is sent


@loosened
def test_what_is_sent_is_this_and_no_more(far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        # Nothing listens there.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    far.routes["/a%20b?c=%C3%BC"] = [answer(set_cookie="a=1; Path=/")]
    assert fetch_images([far.url("/a b?c=ü#d"), far.url()]) == [PIXEL, PIXEL]
    headers = {
        "Host": f"127.0.0.1:{far.port}",
        "User-Agent": f"django-ollama-openai/{__version__}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    assert far.requests == [
        Request("GET /a%20b?c=%C3%BC HTTP/1.1", headers),
        Request("GET / HTTP/1.1", headers),
    ]


# Which URLs

BAD_URLS: list[tuple[str, str]] = [
    *(
        (url, "The image's URL must begin with 'http://' or 'https://'.")
        for url in [
            "",
            "ftp://example.com/x.png",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "gopher://example.com/",
            "unix:/run/x.sock",
            "//example.com/x.png",
            "example.com/x.png",
            " http://example.com/",
        ]
    ),
    *(
        (url, "The image's URL must not hold a user name or a password.")
        for url in [
            "http://user@example.com/",
            "http://user:secret@example.com/",
            "http://:@example.com/",
            "http://example.com@127.0.0.1/",
            "http://example.com\\@127.0.0.1/",
            "http://a@b@example.com/",
        ]
    ),
    *(
        (url, "The image's URL is not a valid URL.")
        for url in [
            "http://example.com\n/",
            "http://exam\tple.com/",
            "http://example.com/\r\nX-Evil: 1",
            "http://example.com:http/",
            "http://[::1]x/",
            "http://[::1",
            "http://[1.2.3.4]/",
            "http://256.1.1.1/",
            "http://0177.0.0.1/",
            "http://127.0.0.01/",
            "http://１２７.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://exa\u2028mple.com/",
            "http://\ud800.com/",
            "http://example.com/\ud800",
        ]
    ),
    *(
        (
            url,
            "The image's URL must name a host: a name, or an IP address in its usual spelling.",
        )
        for url in [
            "http://",
            "https://",
            "http:///x.png",
            "http:/example.com/x.png",
            "http:example.com",
            "http://?x",
            "http://2130706433/",
            "http://017700000001/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0x7f.0.0.1/",
            "http://0X7F.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://127.0.0.0x1/",
            "http://127.0.0.1./",
            "http://1.2.3.4.5/",
            "http://example.1/",
            "http://example.0x/",
            "http://0/",
            "http://%31%32%37.0.0.1/",
            "http://127%2e0.0.1/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[::1%25lo]/",
            "http://exam ple.com/",
            "http://example.com\\.evil.com/",
            "http://example..com/",
            "http://.example.com/",
            "http://-example.com/",
            "http://example-.com/",
            "http://exa$mple.com/",
            f"http://{'a' * 64}.com/",
            f"http://{'a.' * 126}aa/",
        ]
    ),
    *(
        (url, "The port in the image's URL must be between 1 and 65535.")
        for url in [
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:-1/",
        ]
    ),
    (
        "http://example.com/" + "x" * (8192 - 18),
        "An image's URL may have at most 8192 characters.",
    ),
]


@pytest.mark.parametrize(
    ("url", "message"), BAD_URLS, ids=[ascii(url)[1:-1][:40] for url, _ in BAD_URLS]
)
def test_a_url_that_cannot_be_right_asks_for_nothing(
    url: str, message: str, names: Names, far: FarSide
) -> None:
    # Neither does one that stands before it.
    assert refusal(far.url(host="far.test"), url) == message
    assert names.asked == []


PIECES = st.sampled_from(
    [
        "http:",
        "https:",
        "//",
        "/",
        "\\",
        ":",
        "@",
        "[",
        "]",
        "%",
        "%25",
        "%5b",
        ".",
        "..",
        "。",
        "?",
        "#",
        "::1",
        "127.0.0.1",
        "0x7f",
        "1",
        "80",
        "a.test",
        "ü",
        "xn--",
        " ",
        "\r\n",
        "\ud800",
        "\ufffd",
    ]
)
URL_LIKE = st.one_of(
    st.text(),
    st.builds("http://{}".format, st.text()),
    st.builds("".join, st.lists(PIECES)),
    st.builds(lambda pieces: "http://" + "".join(pieces), st.lists(PIECES)),
)


@given(URL_LIKE)
def test_whatever_a_url_is_it_is_refused_and_nothing_breaks(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", Names().getaddrinfo)
        patch.setattr(remote_images, "is_public", lambda _: False)
        refusal(url)


@given(URL_LIKE)
def test_whatever_a_redirect_leads_to_it_is_a_good_url_or_refused(location: str) -> None:
    with suppress(remote_images._Refused):
        url = remote_images._redirected(httpx.URL("https://a.test/b"), location)
        assert remote_images._checked(str(url)) == url
        assert url.scheme == "https"


@loosened
@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.test", "example.test"),
        ("EXAMPLE.test", "example.test"),
        ("3com.test", "3com.test"),
        ("1.2.3.test", "1.2.3.test"),
        ("a_b.c-d.test", "a_b.c-d.test"),
        ("0x7f.test", "0x7f.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("intranet", "intranet"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
    ids=lambda value: value[:20],
)
def test_a_name_is_looked_up_once(host: str, name: str, names: Names, far: FarSide) -> None:
    names[name] = [["127.0.0.1"], []]
    assert fetch_images([far.url(host=host)]) == [PIXEL]
    assert names.asked == [name]
    assert [request.headers["Host"] for request in far.requests] == [f"{name}:{far.port}"]


@loosened
def test_a_url_as_long_as_it_may_be(far: FarSide) -> None:
    path = "/" + "x" * (8192 - len(far.url()))
    far.routes[path] = [answer()]
    assert len(far.url(path)) == 8192
    assert fetch_images([far.url(path)]) == [PIXEL]


def test_an_ipv6_address_is_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: address.is_loopback)
    with FarSide("::1", routes={"/": [answer()]}) as far:
        assert fetch_images([far.url(host="[::1]")]) == [PIXEL]
        assert far.requests[0].headers["Host"] == f"[::1]:{far.port}"


# Which addresses

NOT_PUBLIC = [
    # IPv4: https://www.iana.org/assignments/iana-ipv4-special-registry
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    # What answers machines in a cloud, and nobody else
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.169.254/32",
    "169.254.170.2/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    # IPv6: https://www.iana.org/assignments/iana-ipv6-special-registry
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    # What nobody has been given
    "4000::/3",
    "8000::/1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "2c0f:f248::1",
]


@pytest.mark.parametrize("network", NOT_PUBLIC)
def test_a_range_that_is_not_public(network: str) -> None:
    addresses = ipaddress.ip_network(network)
    middle = addresses[addresses.num_addresses // 2]
    assert not any(map(is_public, [addresses[0], middle, addresses[-1]]))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


IN_IPV6: dict[str, Callable[[int], int]] = {
    "mapped": lambda address: 0xFFFF << 32 | address,
    "translated": lambda address: 0xFFFF << 48 | address,
    "compatible": lambda address: address,
    "6to4": lambda address: 0x2002 << 112 | address << 80,
    "6to4 relayed": lambda address: 0x2002 << 112 | address << 80 | address,
    "Teredo server": lambda address: 0x2001_0000 << 96 | address << 64,
    "Teredo client": lambda address: 0x2001_0000 << 96 | address ^ 0xFFFFFFFF,
    "local NAT64": lambda address: 0x64_FF9B_0001 << 80 | address,
    "local NAT64 at /48": lambda address: (
        0x64_FF9B_0001 << 80 | address >> 16 << 64 | (address & 0xFFFF) << 40
    ),
}


@pytest.mark.parametrize("form", IN_IPV6)
@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"])
def test_an_ipv4_address_is_not_smuggled_in_ipv6(form: str, inner: str) -> None:
    assert not is_public(ipaddress.IPv6Address(IN_IPV6[form](int(ipaddress.IPv4Address(inner)))))


@given(st.ip_addresses(v=4))
def test_nat64_leads_where_the_inner_address_does(inner: ipaddress.IPv4Address) -> None:
    outer = ipaddress.IPv6Address(0x64_FF9B << 96 | int(inner))
    assert is_public(outer) is is_public(inner)


def test_a_zone_is_never_public() -> None:
    assert is_public(ipaddress.ip_address("2606:4700:4700::1111"))
    assert not is_public(ipaddress.ip_address("2606:4700:4700::1111%eth0"))
    assert not is_public(ipaddress.ip_address("64:ff9b::8.8.8.8%1"))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_knows_better_about(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_unspecified
        # Python says so of NAT64's range too.
        assert not address.is_reserved or address in ipaddress.ip_network("64:ff9b::/96")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "0.0.0.0",  # noqa: S104 - connected to, not bound
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "127。0。0。1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "0",
    ],
)
def test_nothing_on_this_machine_is_asked(host: str, far: FarSide) -> None:
    fetched = f"http://{host}:{far.port}/"
    with pytest.raises(ImageNotFetched):
        fetch_images([fetched])
    with pytest.raises(ImageNotFetched):
        asynchronously([fetched])
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
    addresses: list[str], names: Names, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("something was connected to")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["mixed.test"] = [addresses]
    assert refusal(far.url(host="mixed.test")) == UNREACHABLE


@loosened
def test_a_name_that_changes_its_address_gains_nothing(
    names: Names, far: FarSide, private: FarSide
) -> None:
    # Public when it is looked at, private when it is connected to: there is no second look.
    names["rebind.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    with pytest.raises(ImageNotFetched) as caught:
        fetch_images([far.url(host="rebind.test"), private.url(host="rebind.test")])
    assert far.paths() == ["/"]
    # Every connection looks, and looks at what it gets.
    assert names.asked == ["rebind.test"] * 2
    assert (caught.value.index, caught.value.message) == (1, UNREACHABLE)


@loosened
def test_a_name_that_changes_its_address_by_a_redirect_gains_nothing(
    names: Names, far: FarSide, private: FarSide
) -> None:
    names["rebind.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    far.routes["/"] = [redirect(private.url(host="rebind.test"))]
    assert refusal(far.url(host="rebind.test")) == UNREACHABLE
    assert names.asked == ["rebind.test"] * 2


def test_who_is_connected_to_is_looked_at_as_well(
    names: Names, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["far.test"] = [["127.0.0.1"]]
    looks = iter([True, False])
    monkeypatch.setattr(remote_images, "is_public", lambda _: next(looks))
    assert refusal(far.url(host="far.test")) == UNREACHABLE
    assert next(looks, None) is None
    assert far.connected.wait(WITHIN)
    assert far.requests == []


@loosened
def test_the_next_address_is_tried(
    names: Names, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: address.is_loopback)
    names["far.test"] = [["::1", "127.0.0.2", "127.0.0.1"]]
    assert fetch_images([far.url(host="far.test")]) == [PIXEL]
    names["far.test"] = [["::1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]]
    assert refusal(far.url(host="far.test")) == UNREACHABLE


@contextmanager
def deaf() -> Iterator[int]:
    """A port whose host lets nobody finish connecting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(3):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@loosened
def test_a_dead_address_leaves_time_for_the_next(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "is_public", lambda address: address.is_loopback)
    monkeypatch.setattr(remote_images, "CONNECT_SECONDS", 3)
    names["far.test"] = [["127.0.0.1", "127.0.0.5"]]
    with deaf() as port, FarSide("127.0.0.5", port, routes={"/": [answer()]}) as far:
        assert fetch_images([far.url(host="far.test")]) == [PIXEL]


@loosened
def test_why_a_server_cannot_be_reached_is_not_told(names: Names, private: FarSide) -> None:
    names["private.test"] = [["127.0.0.2"]]
    names["dead.test"] = [["127.0.0.1"]]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused_connection = refusal(f"http://dead.test:{closed.getsockname()[1]}/")
    refused_address = refusal(private.url(host="private.test"))
    unknown_name = refusal(private.url(host="unknown.test"))
    assert refused_connection == refused_address == unknown_name == UNREACHABLE


# Redirects


@loosened
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, far: FarSide) -> None:
    far.routes["/1"] = [redirect("/2?x=1", status)]
    far.routes["/2?x=1"] = [redirect(far.url("/a/3"), status)]
    far.routes["/a/3"] = [redirect("../#end", status)]
    assert fetch_images([far.url("/1")]) == [PIXEL]
    assert far.paths() == ["/1", "/2?x=1", "/a/3", "/"]
    assert {request.line.split()[0] for request in far.requests} == {"GET"}


@loosened
def test_the_fourth_redirect_is_one_too_many(far: FarSide) -> None:
    for number in range(4):
        far.routes[f"/{number}"] = [redirect(f"/{number + 1}")]
    message = "The image cannot be fetched: its URL redirects more than 3 times."
    assert refusal(far.url("/0")) == message
    assert far.paths() == ["/0", "/1", "/2", "/3"]


@loosened
def test_no_redirect_leads_to_a_private_address(far: FarSide, private: FarSide) -> None:
    far.routes["/"] = [redirect(private.url())]
    assert refusal(far.url()) == UNREACHABLE
    far.routes["/"] = [redirect("/2")]
    far.routes["/2"] = [redirect(f"//127.0.0.2:{private.port}/")]
    assert refusal(far.url()) == UNREACHABLE


@loosened
@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "http://user@127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://127.0.0.1:0/",
        "/" + "x" * 8192,
    ],
    ids=lambda location: location[:30],
)
def test_a_redirect_is_held_to_the_same_rules(location: str, far: FarSide) -> None:
    far.routes["/"] = [redirect(location)]
    message = "The image cannot be fetched: it redirects to a URL that is not allowed."
    assert refusal(far.url()) == message
    assert far.connections == 1


@loosened
def test_a_redirect_to_nowhere_is_a_status(far: FarSide) -> None:
    far.routes["/"] = [answer(status="302 Found")]
    assert "answered with status 302." in refusal(far.url())
    far.routes["/"] = [answer(status="304 Not Modified", location="/2", content_length=None)]
    assert "answered with status 304." in refusal(far.url())


# What is taken


@loosened
@pytest.mark.parametrize(
    "status", ["201 Created", "204 No Content", "206 Partial", "401 No", "403 No", "500 Oh"]
)
def test_any_status_but_200_is_told(status: str, far: FarSide) -> None:
    far.routes["/"] = [answer(status=status, content_length=None)]
    told = f"The image cannot be fetched: its server answered with status {status[:3]}."
    assert refusal(far.url()) == told


@loosened
@pytest.mark.parametrize(
    "content_type", ["image/png", "IMAGE/JPEG", " image/webp ; q=1; x=text/html", "image/x-icon"]
)
def test_images_are_taken(content_type: str, far: FarSide) -> None:
    far.routes["/"] = [answer(content_type=content_type)]
    assert fetch_images([far.url()]) == [PIXEL]


@loosened
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/html",
        "application/octet-stream",
        "image",
        "image/",
        "image/*",
        "ximage/png",
        "text/html; image/png",
        "image/png, text/html",
        "image/png text/html",
        "image/svg+xml",
        "image/SVG+XML; charset=utf-8",
        "image/svg",
    ],
)
def test_what_is_not_an_image_is_not_taken(content_type: str | None, far: FarSide) -> None:
    far.routes["/"] = [answer(content_type=content_type), Hold()]
    assert refusal(far.url()) == NOT_AN_IMAGE


@loosened
def test_two_types_are_none(far: FarSide) -> None:
    for one, other in [("image/png", "text/html"), ("text/html", "image/png")]:
        far.routes["/"] = [answer(content_type=f"{one}\r\nContent-Type: {other}")]
        assert refusal(far.url()) == NOT_AN_IMAGE


@loosened
def test_nothing_is_not_an_image(far: FarSide) -> None:
    message = "What the URL leads to is not an image: it is empty."
    for nothing in (answer(b""), chunked([]), answer(b"", content_length=None)):
        far.routes["/"] = [nothing]
        assert refusal(far.url()) == message


@loosened
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_no_encoding_is_undone(coding: str, far: FarSide) -> None:
    bomb = gzip.compress(b"\0" * 2**16)
    far.routes["/"] = [answer(bomb, content_encoding=coding), Hold()]
    assert refusal(far.url()) == ENCODED


@loosened
def test_the_encoding_that_is_none(far: FarSide) -> None:
    far.routes["/"] = [answer(content_encoding="Identity")]
    assert fetch_images([far.url()]) == [PIXEL]


@loosened
def test_however_a_body_is_framed_it_is_the_same(far: FarSide) -> None:
    far.routes["/"] = [chunked([PIXEL[:3], PIXEL[3:]])]
    far.routes["/open"] = [answer(content_length=None)]
    far.routes["/slowly"] = [answer()[:20], 0.05, answer()[20:-3], 0.05, answer()[-3:]]
    urls = [far.url(), far.url("/open"), far.url("/slowly")]
    assert fetch_images(urls) == [PIXEL] * 3


@loosened
def test_what_follows_the_image_is_no_part_of_it(far: FarSide) -> None:
    far.routes["/"] = [answer() + answer(OTHER)]
    assert fetch_images([far.url()]) == [PIXEL]


# How large

FULL = b"x" * (20 * MIB)


@loosened
@pytest.mark.parametrize(
    "framed", [answer, lambda body: chunked([body])], ids=["length", "chunked"]
)
def test_an_image_may_be_large_but_not_larger(
    framed: Callable[[bytes], bytes], far: FarSide
) -> None:
    far.routes["/"] = [framed(FULL)]
    assert fetch_images([far.url()]) == [FULL]
    far.routes["/"] = [framed(FULL + b"x")]
    assert refusal(far.url()) == TOO_LARGE


@loosened
def test_a_length_that_is_too_large_is_believed(far: FarSide) -> None:
    for length in (20 * MIB + 1, 10**19):
        far.routes["/"] = [answer(b"", content_length=str(length)), Hold()]
        with at_once():
            assert refusal(far.url()) == TOO_LARGE
            assert far.hung_up.wait(WITHIN)
        far.hung_up.clear()


@loosened
def test_a_body_without_end_is_left(far: FarSide) -> None:
    far.routes["/"] = [answer(b"", content_length=None), FULL, b"x", Hold()]
    assert refusal(far.url()) == TOO_LARGE
    assert far.hung_up.wait(WITHIN)


@loosened
def test_all_images_together_may_be_large_but_not_larger(far: FarSide) -> None:
    far.routes["/full"] = [answer(FULL)]
    far.routes["/x"] = [answer(b"", content_length="1"), Hold()]
    far.routes["/y"] = [chunked([b"y"])[:-5], Hold()]
    assert fetch_images([far.url("/full")] * 2) == [FULL] * 2
    for path in ("/full", "/x", "/y"):
        with at_once():
            assert refusal(*[far.url("/full")] * 2, far.url(path)) == TOO_LARGE_TOGETHER


@loosened
def test_an_image_counts_as_often_as_it_is_named(
    far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "MAX_BYTES_IN_ALL", 3 * len(PIXEL))
    assert fetch_images([far.url()] * 3) == [PIXEL] * 3
    monkeypatch.setattr(remote_images, "MAX_BYTES_IN_ALL", 3 * len(PIXEL) - 1)
    assert refusal(*[far.url()] * 3).startswith("The image is too large: ")


# How long


@loosened
@pytest.mark.parametrize(
    "steps",
    [
        [Hold()],
        [b"HTTP/1.1 200 OK\r\nContent-Type: im", Hold()],
        [answer()[:-1], Hold()],
        [redirect("/silent"), Hold()],
    ],
    ids=["nothing", "half a head", "half a body", "after a redirect"],
)
def test_a_server_may_not_be_silent(
    steps: list[Step], far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "SILENCE_SECONDS", 0.2)
    far.routes["/"] = steps
    far.routes["/silent"] = [Hold()]
    with at_once():
        assert refusal(far.url()) == TOOK_TOO_LONG
        assert far.hung_up.wait(WITHIN)


@loosened
@pytest.mark.parametrize(
    "slow",
    [answer(), b"HTTP/1.1 100 Continue\r\n\r\n" * 8, chunked([b"x"] * 10)],
    ids=["a byte at a time", "never coming to the point", "in chunks"],
)
def test_a_drip_does_not_go_on_for_ever(
    slow: bytes, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "SECONDS_IN_ALL", 0.4)
    far.routes["/"] = [step for byte in slow for step in (bytes([byte]), 0.05)]
    with at_once():
        assert refusal(far.url()) == TOOK_TOO_LONG


@loosened
@pytest.mark.parametrize(
    "flood",
    [chunked([b"x"])[:-5] + b"1\r\nx\r\n" * 2**20, b"HTTP/1.1 100 Continue\r\n\r\n" * 2**18],
    ids=["chunks", "heads"],
)
def test_a_flood_does_not_keep_a_processor_busy(
    flood: bytes, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "BUSY_SECONDS", 0.2)
    far.routes["/"] = [flood, Hold()]
    started = time.thread_time()
    assert refusal(far.url()) == TOOK_TOO_LONG
    assert 0.2 < time.thread_time() - started < 2


@loosened
def test_the_time_is_that_of_all_images(far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "SECONDS_IN_ALL", 0.5)
    for number in range(5):
        far.routes[f"/{number}"] = [0.2, answer()]
    with pytest.raises(ImageNotFetched) as caught:
        fetch_images([far.url(f"/{number}") for number in range(3)])
    assert caught.value.message == TOOK_TOO_LONG


@loosened
def test_connecting_may_not_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "CONNECT_SECONDS", 0.2)
    with deaf() as port, at_once():
        assert refusal(f"http://127.0.0.1:{port}/") == TOOK_TOO_LONG


@loosened
def test_connecting_may_not_take_longer_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "SECONDS_IN_ALL", 0.2)
    with deaf() as port, at_once():
        assert refusal(f"http://127.0.0.1:{port}/") == TOOK_TOO_LONG


class StuckNames:
    """Names that are not known before ``answer`` is set."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.answer = threading.Event()

    def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
        self.asked.release()
        assert self.answer.wait(2 * WITHIN)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.fixture
def stuck_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[StuckNames]:
    names = StuckNames()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answer.set()


@loosened
def test_looking_a_name_up_may_not_take_long(
    stuck_names: StuckNames, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "CONNECT_SECONDS", 0.2)
    with at_once():
        assert refusal(far.url(host="far.test")) == TOOK_TOO_LONG
    assert far.connections == 0


@loosened
def test_names_that_are_stuck_do_not_pile_up(
    stuck_names: StuckNames, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(remote_images, "_lookups", threading.BoundedSemaphore(2))
    url = far.url(host="far.test")
    for _ in range(4):
        assert refusal(url) == TOOK_TOO_LONG
    assert stuck_names.asked.acquire(timeout=WITHIN)
    assert stuck_names.asked.acquire(timeout=WITHIN)
    assert not stuck_names.asked.acquire(blocking=False)
    # An address is not looked up.
    assert fetch_images([far.url()]) == [PIXEL]
    stuck_names.answer.set()
    monkeypatch.setattr(remote_images, "CONNECT_SECONDS", WITHIN)
    for _ in range(3):
        assert fetch_images([url]) == [PIXEL]


@loosened
def test_an_unknown_name_makes_room_for_the_next(
    names: Names, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "_lookups", threading.BoundedSemaphore(1))
    names["far.test"] = [["127.0.0.1"]]
    for _ in range(2):
        assert refusal(far.url(host="unknown.test")) == UNREACHABLE
    assert fetch_images([far.url(host="far.test")]) == [PIXEL]


# What breaks


@loosened
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Reset()],
        [b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"],
        [answer()[:-1]],
        [answer()[:-1], 0.05, Reset()],
        [chunked([PIXEL])[:-5]],
        [b"220 smtp.example.com ESMTP\r\n"],
        [b"\x15\x03\x01\x00\x02\x02\x46"],
        [answer(content_length="-1")],
        [answer(content_length="1e3")],
        [answer(content_length="9" * 5000)],
        [answer(transfer_encoding="gzip", content_length=None)],
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000],
        [chunked([PIXEL]).replace(b"%x\r\n" % len(PIXEL), b"zz\r\n")],
    ],
    ids=[
        "no answer",
        "reset",
        "half a head",
        "a body cut short",
        "a body reset",
        "a chunk cut short",
        "another protocol",
        "TLS",
        "a negative length",
        "a length in words",
        "a length beyond measure",
        "an unknown transfer encoding",
        "a head without end",
        "a bad chunk",
    ],
)
def test_a_connection_that_breaks_off_is_told(steps: list[Step], far: FarSide) -> None:
    far.routes["/"] = steps
    assert refusal(far.url()) == BROKE_OFF


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_for(authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FarSide]:
    tls = tls_for(authority, "far.test", "127.0.0.1")
    with FarSide(tls=tls, routes={"/": [answer()]}) as server:
        yield server


@pytest.fixture
def trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(remote_images, "_tls_context", lambda: context)


@both
@loosened
@pytest.mark.usefixtures("trusted")
def test_a_secure_connection_is_made_to_the_name(
    fetch: Callable[[Sequence[str]], list[bytes]], names: Names, secure: FarSide
) -> None:
    names["far.test"] = [["127.0.0.1"]]
    assert fetch([secure.url(host="far.test")]) == [PIXEL]
    assert secure.names == ["far.test"]
    assert secure.requests[0].headers["Host"] == f"far.test:{secure.port}"


@loosened
@pytest.mark.usefixtures("trusted")
def test_a_secure_connection_is_made_to_an_address(secure: FarSide) -> None:
    assert fetch_images([secure.url()]) == [PIXEL]
    assert secure.names == [None]


@loosened
@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_name_is_refused(names: Names, secure: FarSide) -> None:
    names["other.test"] = [["127.0.0.1"]]
    assert refusal(secure.url(host="other.test")) == UNTRUSTED
    assert secure.requests == []


@loosened
def test_a_certificate_of_nobody_is_refused(names: Names, secure: FarSide) -> None:
    names["far.test"] = [["127.0.0.1"]]
    assert refusal(secure.url(host="far.test")) == UNTRUSTED
    assert secure.names == ["far.test"]
    assert secure.requests == []


@loosened
def test_certificates_of_the_environment_are_not_trusted(
    authority: trustme.CA, secure: FarSide, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    remote_images._tls_context.cache_clear()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert refusal(secure.url()) == UNTRUSTED


@loosened
def test_a_server_without_tls_is_not_trusted(far: FarSide) -> None:
    far.before = [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    with at_once():
        assert refusal(far.url().replace("http:", "https:")) == UNTRUSTED


@loosened
@pytest.mark.usefixtures("trusted")
def test_a_redirect_may_lead_to_tls_but_not_away_from_it(far: FarSide, secure: FarSide) -> None:
    far.routes["/up"] = [redirect(secure.url())]
    assert fetch_images([far.url("/up")]) == [PIXEL]
    secure.routes["/down"] = [redirect(far.url())]
    message = "The image cannot be fetched: its URL redirects from https to http."
    assert refusal(secure.url("/down")) == message
    far.routes["/up"] = [redirect(secure.url("/down"))]
    assert refusal(far.url("/up")) == message
    assert far.paths() == ["/up", "/up"]


@loosened
@pytest.mark.usefixtures("trusted")
def test_a_handshake_may_not_take_long(secure: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "SILENCE_SECONDS", 0.2)
    secure.before = [Hold()]
    with at_once():
        assert refusal(secure.url()) == TOOK_TOO_LONG


# A client that hangs up


async def hang_up(urls: Sequence[str], *begun: Callable[[float], bool]) -> None:
    """Cancel when all that is to have ``begun`` has."""
    with at_once():
        fetching = asyncio.create_task(afetch_images(urls))
        for wait in begun:
            assert await asyncio.to_thread(wait, WITHIN)
        await asyncio.sleep(0.05)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ollama-openai-pump"]


async def none_is_left() -> bool:
    """Whether no thread fetches any more, now or in a moment."""

    def look() -> bool:
        deadline = time.monotonic() + 60
        while pumps() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not pumps()

    return await asyncio.to_thread(look)


@loosened
@pytest.mark.parametrize(
    "steps",
    [[Hold()], [answer()[:20], Hold()], [answer()[:-1], Hold()]],
    ids=["before the head", "within the head", "within the body"],
)
async def test_the_connection_is_closed_when_the_client_hangs_up(
    steps: list[Step], far: FarSide
) -> None:
    far.routes["/held"] = steps
    far.routes["/next"] = [answer()]
    await hang_up([far.url("/held"), far.url("/next")], far.received.wait)
    with at_once():
        assert await asyncio.to_thread(far.hung_up.wait, WITHIN)
    assert await none_is_left()
    assert far.paths() == ["/held"]


@loosened
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("where", ["the handshake", "the body"])
async def test_a_secure_connection_is_closed_too(where: str, secure: FarSide) -> None:
    if where == "the handshake":
        secure.before = [0.1, Hold()]
        await hang_up([secure.url()], secure.connected.wait)
    else:
        secure.routes["/"] = [answer()[:-1], Hold()]
        await hang_up([secure.url()], secure.received.wait)
    assert await none_is_left()


@loosened
async def test_connecting_is_broken_off() -> None:
    with deaf() as port:
        await hang_up([f"http://127.0.0.1:{port}/"])
        assert await none_is_left()


@loosened
async def test_nobody_waits_for_a_name_any_more(stuck_names: StuckNames, far: FarSide) -> None:
    await hang_up(
        [far.url(host="far.test")], lambda seconds: stuck_names.asked.acquire(timeout=seconds)
    )
    assert await none_is_left()
    stuck_names.answer.set()
    assert far.connections == 0


# What it says of itself


def test_the_limits_are_those_of_the_docstring() -> None:
    words = re.sub(r"\s+", " ", remote_images.__doc__ or "")
    for phrase in (
        f"of up to {remote_images.MAX_URL_CHARACTERS} characters",
        f"{remote_images.MAX_IMAGES} in a request",
        f"each of up to {remote_images.MAX_REDIRECTS} redirects",
        f"{remote_images.MAX_IMAGE_BYTES // MIB} MiB an image",
        f"{remote_images.MAX_BYTES_IN_ALL // MIB} MiB in a request",
        f"{remote_images.CONNECT_SECONDS:g} seconds to look a name up and connect",
        f"{remote_images.SILENCE_SECONDS:g} seconds of silence",
        f"{remote_images.SECONDS_IN_ALL:g} seconds for all images",
        f"No more than {remote_images.BUSY_SECONDS:g} seconds",
    ):
        assert phrase in words
