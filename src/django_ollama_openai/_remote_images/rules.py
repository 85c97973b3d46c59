"""The URLs and addresses that images may be fetched from, and the limits of a fetch."""

from __future__ import annotations

import functools
import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx

from ..exceptions import InvalidRequest

__all__ = [
    "Address",
    "FetchRules",
    "ImageNotFetched",
    "check_url",
    "default_tls_context",
    "is_public",
    "redirect_target",
]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# https://www.iana.org/assignments/iana-ipv4-special-registry
NOT_PUBLIC_IPV4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        [
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is Alibaba Cloud's metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, as its virtual machines see it
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

# https://www.iana.org/assignments/ipv6-address-space: only this range is used on the internet.
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

HOST_NAME: Final = re.compile(
    # The last label must not be a number: "127.1" and "0x7f000001" would be taken for addresses.
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*"
    r"(?!([0-9]+|0x[0-9a-f]*)$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)


class ImageNotFetched(InvalidRequest):
    """An image cannot be fetched; the message, which the client gets, gives the reason.

    ``index`` is the position of its URL among those given to :func:`~.fetch.fetch_images`, whose
    caller sets ``param`` accordingly.
    """

    code = "invalid_image_url"
    index = 0


def is_public(address: Address) -> bool:
    """Return whether ``address`` belongs to the public internet, judged by its range.

    ``is_global`` depends on the version of Python and can only forbid more than the ranges above.
    IPv6 addresses that stand for an IPv4 address are not public, except where NAT64 (RFC 6052)
    leads to a public one: this is how hosts without IPv4 reach most of the internet.
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


@functools.cache
def default_tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRules:
    """The rules that one call of :func:`~.fetch.fetch_images` obeys."""

    #: Images in a request; one that is named twice counts twice and is fetched once.
    max_images: int = 16
    max_url_characters: int = 8192
    max_redirects: int = 3
    #: Bytes of one image.
    max_image_bytes: int = 20 * 2**20
    #: Bytes of all images of a request.
    max_total_bytes: int = 40 * 2**20
    #: Addresses of a host name that are tried.
    max_addresses: int = 4
    #: Host names that are resolved at once in this process: no lookup can be interrupted.
    max_lookups: int = 32
    #: Seconds to resolve a host name and connect.
    connect_timeout: float = 5.0
    #: Seconds that a server may stay silent.
    idle_timeout: float = 5.0
    #: Seconds for all images of a request, which are fetched one after the other.
    total_timeout: float = 20.0
    #: Seconds of processor time: a body in chunks of one byte keeps the fetching thread busy.
    busy_timeout: float = 3.0
    is_allowed: Callable[[Address], bool] = is_public
    tls_context: Callable[[], ssl.SSLContext] = default_tls_context


def check_url(text: str, rules: FetchRules) -> httpx.URL:
    """Return the URL in ``text`` without its fragment.

    Raises:
        ImageNotFetched: It is not an http(s) URL of a host name, or of an IP address in its usual
            notation, without a user name, and within ``rules``.
    """
    if len(text) > rules.max_url_characters:
        raise ImageNotFetched(
            f"An image's URL may have at most {rules.max_url_characters} characters."
        )
    try:
        url = httpx.URL(text).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageNotFetched("The image's URL is not a valid URL.") from error
    if url.scheme not in ("http", "https"):
        raise ImageNotFetched("The image's URL must begin with 'http://' or 'https://'.")
    if url.userinfo:
        raise ImageNotFetched("The image's URL must not hold a user name or a password.")
    if not _is_host(url.raw_host.decode("ascii")):
        raise ImageNotFetched(
            "The image's URL must name a host: a name, or an IP address in its usual spelling."
        )
    if url.port is not None and not 0 < url.port < 2**16:
        raise ImageNotFetched("The port in the image's URL must be between 1 and 65535.")
    return url


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST_NAME.fullmatch(host) is not None
    return "%" not in host  # An IPv6 zone names an interface of this machine.


def redirect_target(url: httpx.URL, location: str, rules: FetchRules) -> httpx.URL:
    """Return the URL that ``url`` redirects to with the header ``Location: <location>``.

    Raises:
        ImageNotFetched: :func:`check_url` refuses the target, or it leads from https to http.
    """
    try:
        target = check_url(str(url.join(location)), rules)
    except (ImageNotFetched, httpx.InvalidURL, ValueError) as error:
        raise ImageNotFetched(
            "The image cannot be fetched: it redirects to a URL that is not allowed."
        ) from error
    if url.scheme == "https" and target.scheme == "http":
        raise ImageNotFetched("The image cannot be fetched: its URL redirects from https to http.")
    return target
