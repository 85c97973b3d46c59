"""Which URLs and addresses images may be fetched from."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._remote_images.rules import (
    Address,
    FetchRules,
    ImageNotFetched,
    check_url,
    is_public,
    redirect_target,
)

RULES = FetchRules()


def words(text: str) -> list[str]:
    return text.split()


BAD_URLS = {
    "The image's URL must begin with 'http://' or 'https://'.": [
        *["", " http://example.com/"],
        *words("""ftp://example.com/x.png file:///etc/passwd data:image/png;base64,AAAA
            gopher://example.com/ unix:/run/x.sock //example.com/x.png example.com/x.png"""),
    ],
    "The image's URL must not hold a user name or a password.": words(r"""
        http://user@example.com/ http://user:secret@example.com/ http://:@example.com/
        http://example.com@127.0.0.1/ http://example.com\@127.0.0.1/ http://a@b@example.com/"""),
    "The image's URL is not a valid URL.": [
        *["http://example.com\n/", "http://exam\tple.com/", "http://example.com/\r\nX-Evil: 1"],
        *["http://exa\u2028mple.com/", "http://\ud800.com/", "http://example.com/\ud800"],
        *words("""http://example.com:http/ http://[::1]x/ http://[::1 http://[1.2.3.4]/
            http://256.1.1.1/ http://0177.0.0.1/ http://127.0.0.01/ http://１２７.0.0.1/
            http://①②⑦.0.0.1/"""),
    ],
    "The image's URL must name a host: a name, or an IP address in its usual spelling.": [
        *["http://exam ple.com/", f"http://{'a' * 64}.com/", f"http://{'a.' * 126}aa/"],
        *words(r"""http:// https:// http:///x.png http:/example.com/x.png http:example.com http://?x
            http://2130706433/ http://017700000001/ http://0x7f000001/ http://0x7f.1/
            http://0x7f.0.0.1/ http://0X7F.0.0.1/ http://127.1/ http://127.0.1/
            http://127.0.0.0x1/ http://127.0.0.1./ http://1.2.3.4.5/ http://example.1/
            http://example.0x/ http://0/ http://%31%32%37.0.0.1/ http://127%2e0.0.1/
            http://[fe80::1%25eth0]/ http://[fe80::1%eth0]/ http://[::1%25lo]/
            http://example.com\.evil.com/ http://example..com/ http://.example.com/
            http://-example.com/ http://example-.com/ http://exa$mple.com/"""),
    ],
    "The port in the image's URL must be between 1 and 65535.": words("""
        http://example.com:0/ http://example.com:65536/ http://example.com:-1/"""),
    "An image's URL may have at most 8192 characters.": ["http://example.com/" + "x" * 8174],
}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param(url, message, id=ascii(url)[1:-1][:40])
        for message, urls in BAD_URLS.items()
        for url in urls
    ],
)
def test_a_bad_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ImageNotFetched) as caught:
        check_url(url, RULES)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("host", "name"),
    [
        *(
            (name, name)
            for name in ["3com.test", "1.2.3.test", "a_b.c-d.test", "0x7f.test", "intranet"]
        ),
        ("EXAMPLE.test", "example.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
        ("127。0。0。1", "127.0.0.1"),
        ("[::1]", "::1"),
    ],
    ids=lambda value: value[:20],
)
def test_a_good_url_is_normalised(host: str, name: str) -> None:
    url = check_url(f"http://{host}:81/a b?c=ü#d", RULES)
    assert (url.raw_host.decode(), url.port) == (name, 81)
    assert (url.raw_path, url.fragment) == (b"/a%20b?c=%C3%BC", "")
    assert len(str(check_url("http://example.com/" + "x" * 8173, RULES))) == 8192


PIECES = [
    *["http:", "https:", "//", "/", "\\", ":", "@", "[", "]", "%", "%25", "%5b", ".", "..", "。"],
    *["?", "#", "::1", "127.0.0.1", "0x7f", "1", "80", "a.test", "ü", "xn--", " ", "\r\n"],
    *["\ud800", "\ufffd"],
]
MIXED = st.lists(st.sampled_from(PIECES)).map("".join)
URL_LIKE = st.one_of(st.text(), MIXED, st.one_of(st.text(), MIXED).map("http://{}".format))


@given(URL_LIKE)
def test_any_text_is_a_good_url_or_refused(text: str) -> None:
    with suppress(ImageNotFetched):
        url = check_url(text, RULES)
        assert check_url(str(url), RULES) == url
    with suppress(ImageNotFetched):
        url = redirect_target(httpx.URL("https://a.test/b"), text, RULES)
        assert check_url(str(url), RULES) == url
        assert url.scheme == "https"


NOT_PUBLIC = {
    # https://www.iana.org/assignments/iana-ipv4-special-registry
    "IPv4": """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
        192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16
        192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4""",
    "cloud": """100.100.100.200/32 168.63.129.16/32 169.254.169.254/32 169.254.170.2/32
        192.0.0.192/32 fd00:ec2::254/128 fd20:ce::254/128""",
    # https://www.iana.org/assignments/iana-ipv6-special-registry
    "IPv6": """::/128 ::1/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b:1::/48 100::/64
        100:0:0:1::/64 2001::/32 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28
        2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10
        ff00::/8""",
    "unassigned": "4000::/3 8000::/1",
}
PUBLIC = """1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255
    128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0
    192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 203.0.112.255 203.0.114.0
    223.255.255.255 2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111
    2a00:1450:4001::1 2c0f:f248::1"""


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_ranges_that_are_not_public(kind: str) -> None:
    for network in map(ipaddress.ip_network, words(NOT_PUBLIC[kind])):
        middle = network[network.num_addresses // 2]
        assert [each for each in (network[0], middle, network[-1]) if is_public(each)] == []


def test_addresses_that_are_public() -> None:
    addresses = map(ipaddress.ip_address, words(PUBLIC))
    assert [address for address in addresses if not is_public(address)] == []


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
def test_an_ipv4_address_is_not_smuggled_in_ipv6(form: str) -> None:
    for inner in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"):
        outer = ipaddress.IPv6Address(IN_IPV6[form](int(ipaddress.IPv4Address(inner))))
        assert not is_public(outer), outer


@given(st.ip_addresses(v=4))
def test_nat64_leads_where_the_inner_address_does(inner: ipaddress.IPv4Address) -> None:
    outer = ipaddress.IPv6Address(0x64_FF9B << 96 | int(inner))
    assert is_public(outer) is is_public(inner)


def test_a_zone_is_never_public() -> None:
    assert not is_public(ipaddress.ip_address("2606:4700:4700::1111%eth0"))
    assert not is_public(ipaddress.ip_address("64:ff9b::8.8.8.8%1"))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_special(address: Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_unspecified
        # Python calls NAT64's range reserved.
        assert not address.is_reserved or address in ipaddress.ip_network("64:ff9b::/96")
