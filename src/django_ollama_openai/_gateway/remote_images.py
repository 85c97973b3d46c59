"""Images that a request names by an http(s) URL, fetched as if every URL were an attack.

The URL is the client's, the connection is the server's: what the server can reach, its private
network and the metadata service of its cloud included, must not become what the client can reach.

What is fetched
    ``http`` and ``https`` URLs of up to 8192 characters, without a user name, whose host is a name
    or an IP address in its usual spelling; 16 in a request, the same one only once.
From where
    Public addresses only: :func:`is_public`. A name is looked up once for each connection, every
    address that it has must be public, and the connection goes to one of those. So a name that
    changes its address in between gains nothing. All of it holds for each of up to 3 redirects as
    well, and none may lead from https to http.
What is sent
    A ``GET`` with neither cookies nor credentials, through no proxy. A certificate must be valid.
What is taken
    An answer with status 200, an ``image/*`` type other than SVG, which is not made of pixels, and
    no content encoding, for what is small when compressed need not stay so. 20 MiB an image and
    40 MiB in a request, where an image counts as often as it is named.
How long it may take
    5 seconds to look a name up and connect, 5 seconds of silence, and 20 seconds for all images of
    a request, which are fetched one after the other. No more than 3 seconds of these may be work:
    a body in chunks of one byte would keep a processor busy for all of them.

A client is not told why a server could not be reached, or it could map a network by asking.
"""

from __future__ import annotations

import functools
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from typing import Any, Final, TypeAlias

import httpcore
import httpx

from .. import __version__, _cancellation
from .._pump import iterate_in_thread
from ..exceptions import InvalidRequest

__all__ = ["ImageNotFetched", "afetch_images", "fetch_images", "is_public"]

MAX_IMAGES: Final = 16
MAX_URL_CHARACTERS: Final = 8192
MAX_IMAGE_BYTES: Final = 20 * 2**20
MAX_BYTES_IN_ALL: Final = 40 * 2**20
MAX_REDIRECTS: Final = 3
MAX_ATTEMPTS: Final = 4
"""How many addresses of a name are tried."""
MAX_LOOKUPS: Final = 32
"""How many names are looked up at once in the process: one that takes too long cannot be ended."""

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 5.0
SECONDS_IN_ALL: Final = 20.0
BUSY_SECONDS: Final = 3.0
"""How long the thread that fetches may be at work, not waiting."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
IMAGE_TYPE: Final = re.compile(r"image/(?!svg)[a-z0-9!#$&^_.+-]+")
HOST_NAME: Final = re.compile(
    # The last label is no number: "127.1" and "0x7f000001" would be taken for addresses.
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*"
    r"(?!([0-9]+|0x[0-9a-f]*)$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)

NOT_FETCHED: Final = "The image cannot be fetched: "
UNREACHABLE: Final = (
    NOT_FETCHED + "its server is unknown, cannot be reached, or is not on the public internet."
)
BROKE_OFF: Final = NOT_FETCHED + "the connection to its server broke off."
UNTRUSTED: Final = NOT_FETCHED + "its server has no secure connection that can be trusted."
TOOK_TOO_LONG: Final = "The image took too long to fetch."

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# https://www.iana.org/assignments/iana-ipv4-special-registry
NOT_PUBLIC_IPV4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        [
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # behind a carrier's NAT; 100.100.100.200 is Alibaba Cloud's metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, as its machines see it
            "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle Cloud's metadata
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ],
    )
)

# https://www.iana.org/assignments/ipv6-address-space: nothing else is handed out for the internet.
# IPv4-mapped and -compatible, unique local, link-local, site-local and multicast are outside.
GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry
NOT_PUBLIC_IPV6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        [
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ],
    )
)
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ImageNotFetched(InvalidRequest):
    """An image cannot be had, for a reason that the message gives.

    ``index`` says which of the URLs it is. Whoever knows where that stood in the request sets
    ``param``.
    """

    code = "invalid_image_url"

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


def fetch_images(urls: Sequence[str]) -> list[bytes]:
    """The images that ``urls`` name, in this order.

    Raises:
        ImageNotFetched: one of them cannot be had. Nothing is fetched if one cannot be right.
        Cancelled: the current work was cancelled; its connection is closed.
    """
    time_limit = _TimeLimit()
    if len(urls) > MAX_IMAGES:
        raise ImageNotFetched(
            f"A request may name at most {MAX_IMAGES} images by http(s) URL.", index=MAX_IMAGES
        )
    checked = []
    for index, text in enumerate(urls):
        with _told_of(index):
            checked.append(_checked(text))
    images: dict[httpx.URL, bytes] = {}
    left = MAX_BYTES_IN_ALL
    with httpcore.ConnectionPool(
        ssl_context=_tls_context(), network_backend=_PublicNetwork(time_limit)
    ) as connections:
        for index, url in enumerate(checked):
            with _told_of(index):
                if url not in images:
                    images[url] = _fetch(connections, url, left)
                left -= len(images[url])
                if left < 0:
                    raise _too_large(left)
    return [images[url] for url in checked]


async def afetch_images(urls: Sequence[str]) -> list[bytes]:
    """The same under ASGI: in a thread, whose connection is closed when the task is cancelled."""
    async with aclosing(iterate_in_thread(lambda: iter([fetch_images(urls)]))) as results:
        return await anext(results)


def is_public(address: Address) -> bool:
    """Whether ``address`` belongs to the internet, as far as one can tell by looking at it.

    The ranges are named here, for what ``is_global`` says depends on the version of Python; it can
    only add to them. IPv6 addresses that stand for one of IPv4 are not public, except where NAT64
    (RFC 6052) leads to a public one: that is how a host without IPv4 reaches most of the internet.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in NOT_PUBLIC_IPV4)
    if address.scope_id is not None:
        return False
    if address in NAT64:
        return is_public(ipaddress.IPv4Address(address.packed[-4:]))
    return (
        address.is_global
        and address in GLOBAL_UNICAST
        and not any(address in network for network in NOT_PUBLIC_IPV6)
    )


# One image


class _Refused(Exception):
    """An image is not to be had; the message is meant for the client."""


@contextmanager
def _told_of(index: int) -> Iterator[None]:
    try:
        yield
    except _Refused as refusal:
        raise ImageNotFetched(str(refusal), index=index) from refusal


def _checked(text: str) -> httpx.URL:
    """The URL in ``text``, without its fragment."""
    if len(text) > MAX_URL_CHARACTERS:
        raise _Refused(f"An image's URL may have at most {MAX_URL_CHARACTERS} characters.")
    try:
        url = httpx.URL(text).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise _Refused("The image's URL is not a valid URL.") from error
    if url.scheme not in ("http", "https"):
        raise _Refused("The image's URL must begin with 'http://' or 'https://'.")
    if url.userinfo:
        raise _Refused("The image's URL must not hold a user name or a password.")
    if not _is_host(url.raw_host.decode("ascii")):
        raise _Refused(
            "The image's URL must name a host: a name, or an IP address in its usual spelling."
        )
    if url.port is not None and not 0 < url.port < 2**16:
        raise _Refused("The port in the image's URL must be between 1 and 65535.")
    return url


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST_NAME.fullmatch(host) is not None
    return "%" not in host  # An IPv6 zone: it names an interface of this machine.


def _fetch(connections: httpcore.ConnectionPool, url: httpx.URL, left: int) -> bytes:
    """The image at ``url``, or where that redirects to, of at most ``left`` bytes."""
    for _ in range(1 + MAX_REDIRECTS):
        with _failures(), _get(connections, url) as response:
            headers = _headers(response)
            if response.status not in REDIRECTS or "location" not in headers:
                return _image(response, headers, left)
        url = _redirected(url, headers["location"])
    raise _Refused(f"{NOT_FETCHED}its URL redirects more than {MAX_REDIRECTS} times.")


def _get(
    connections: httpcore.ConnectionPool, url: httpx.URL
) -> AbstractContextManager[httpcore.Response]:
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", f"django-ollama-openai/{__version__}".encode()),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    return connections.stream("GET", target, headers=headers)


def _headers(response: httpcore.Response) -> dict[str, str]:
    """By their names in lower case; what came more than once is joined."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("ascii").lower(), value.decode("utf-8", "replace")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = _checked(str(url.join(location)))
    except (_Refused, httpx.InvalidURL, ValueError) as error:
        raise _Refused(f"{NOT_FETCHED}it redirects to a URL that is not allowed.") from error
    if url.scheme == "https" and target.scheme == "http":
        raise _Refused(f"{NOT_FETCHED}its URL redirects from https to http.")
    return target


def _image(response: httpcore.Response, headers: dict[str, str], left: int) -> bytes:
    if response.status != 200:
        raise _Refused(f"{NOT_FETCHED}its server answered with status {response.status}.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _Refused(f"{NOT_FETCHED}its server sent it in an encoding that was not asked for.")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not IMAGE_TYPE.fullmatch(content_type):
        raise _Refused(
            "What the URL leads to is not an image: its Content-Type must be image/*, and not SVG."
        )
    limit = min(left, MAX_IMAGE_BYTES)
    if int(headers.get("content-length", 0)) > limit:
        raise _too_large(left)
    body = bytearray()
    for data in response.iter_stream():
        body += data
        if len(body) > limit:
            raise _too_large(left)
    if not body:
        raise _Refused("What the URL leads to is not an image: it is empty.")
    return bytes(body)


def _too_large(left: int) -> _Refused:
    if left < MAX_IMAGE_BYTES:
        mebibytes = MAX_BYTES_IN_ALL // 2**20
        return _Refused(f"The image is too large: all of a request have at most {mebibytes} MiB.")
    return _Refused(f"The image is too large: it may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")


@contextmanager
def _failures() -> Iterator[None]:
    """What goes wrong on a connection, as a client is told."""
    try:
        yield
    except TimeoutError as error:
        raise _Refused(TOOK_TOO_LONG) from error
    except ssl.SSLError as error:
        raise _Refused(UNTRUSTED) from error
    except (OSError, httpcore.ProtocolError) as error:
        raise _Refused(BROKE_OFF) from error


# The network


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


class _TimeLimit:
    """That of all images of a request."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SECONDS_IN_ALL
        self._busy_until = time.thread_time() + BUSY_SECONDS

    def left(self) -> float:
        """As :func:`_left`; to be asked in the thread that it was made in."""
        if time.thread_time() > self._busy_until:
            raise TimeoutError
        return _left(self._until)


def _left(until: float) -> float:
    """Seconds until then.

    Raises:
        TimeoutError: there are none.
    """
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _PublicNetwork(httpcore.NetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, time_limit: _TimeLimit) -> None:
        self._time_limit = time_limit

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        until = time.monotonic() + min(CONNECT_SECONDS, self._time_limit.left())
        try:
            addresses = _addresses(host, until)
            _require_public(addresses)
            return _Stream(_connected(addresses[:MAX_ATTEMPTS], port, until), self._time_limit)
        except TimeoutError:
            raise
        except OSError as error:
            raise _Refused(UNREACHABLE) from error


class _Stream(httpcore.NetworkStream):
    """A connection whose reads and writes end in time, and when the work is cancelled."""

    def __init__(self, sock: socket.socket, time_limit: _TimeLimit) -> None:
        self._sock = sock
        self._time_limit = time_limit

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._blocking():
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._blocking():
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            # The handshake comes after, for it is the new socket that has to be woken from it.
            self._sock = tls = ssl_context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            with self._blocking():
                tls.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def _blocking(self) -> AbstractContextManager[None]:
        return _blocking(self._sock, min(SILENCE_SECONDS, self._time_limit.left()))


@contextmanager
def _blocking(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Let ``sock`` block for so long, unless the work is cancelled."""

    def shut_down() -> None:
        # Closing would not wake the thread. An SSLSocket's own method would unwrap it; if the far
        # side has closed it already, the thread is awake too.
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    sock.settimeout(seconds)
    with _cancellation.interruptible(shut_down):
        yield


def _connected(addresses: Sequence[Address], port: int, until: float) -> socket.socket:
    """A connection to the first of ``addresses`` that takes it.

    Raises:
        OSError: none does; it is what became of the last.
    """
    *others, last = addresses
    for address in others:
        # It leaves time for those after it, however dead it is.
        with suppress(OSError):
            return _connect(address, port, _left(until) / 2)
    return _connect(last, port, _left(until))


def _connect(address: Address, port: int, seconds: float) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        with _blocking(sock, seconds):
            sock.connect((str(address), port))
        _require_public([ipaddress.ip_address(sock.getpeername()[0])])
    except BaseException:
        sock.close()
        raise
    return sock


def _require_public(addresses: Sequence[Address]) -> None:
    if not addresses or not all(is_public(address) for address in addresses):
        raise _Refused(UNREACHABLE)


def _addresses(host: str, until: float) -> list[Address]:
    """All addresses of ``host``.

    Raises:
        OSError: it has none.
        TimeoutError: they are not known in time.
    """
    with suppress(ValueError):
        return [ipaddress.ip_address(host)]
    return [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in _look_up(host, until)]


_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


def _look_up(host: str, until: float) -> list[Any]:
    """What :func:`socket.getaddrinfo` says.

    It knows no time limit and cannot be interrupted. So it runs in a thread that is left alone
    when it takes too long.
    """
    lookups = _lookups
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)
        finally:
            lookups.release()

    if not lookups.acquire(timeout=_left(until)):
        raise TimeoutError
    try:
        threading.Thread(target=look_up, name="ollama-openai-lookup", daemon=True).start()
    except BaseException:
        lookups.release()
        raise
    with _cancellation.interruptible(lambda: answers.put([])):
        try:
            answer = answers.get(timeout=_left(until))
        except queue.Empty:
            raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer
