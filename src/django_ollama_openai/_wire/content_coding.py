"""Content codings of request bodies: ``gzip`` and ``deflate``, decoded within a limit."""

from __future__ import annotations

import zlib
from typing import Final

from ..exceptions import InvalidRequest, RequestTooLarge, UnsupportedContentCoding

__all__ = ["content_codings", "decode"]

SUPPORTED: Final = ("gzip", "deflate")

#: Maximum number of codings of one body; each may cost as much work as the limit allows.
MAX_CODINGS: Final = 4

#: Maximum number of members of a gzip body; each has a fixed cost, whatever its size.
MAX_MEMBERS: Final = 1000

PIECE_BYTES: Final = 64 * 2**10

_ALIASES: Final = {"x-gzip": "gzip", "x-deflate": "deflate"}


def content_codings(header: str) -> list[str]:
    """Return the codings in a ``Content-Encoding`` header, in the order in which they were applied,
    without ``identity``.

    Raises:
        UnsupportedContentCoding: One of them is not supported.
        InvalidRequest: There are too many codings.
    """
    if not header:
        return []
    named = [name for name in (item.strip().lower() for item in header.split(",")) if name]
    codings = [_ALIASES.get(name, name) for name in named if name != "identity"]
    unsupported = [name for name in dict.fromkeys(codings) if name not in SUPPORTED]
    if unsupported:
        raise UnsupportedContentCoding(unsupported, SUPPORTED)
    if len(codings) > MAX_CODINGS:
        raise InvalidRequest(
            f"The Content-Encoding header lists {len(codings)} codings; at most {MAX_CODINGS} are "
            "allowed."
        )
    return codings


def decode(body: bytes, codings: list[str], limit: int) -> bytes:
    """Return ``body`` decoded from ``codings``. Each step holds at most ``limit`` + 1 bytes.

    Raises:
        RequestTooLarge: The result of a step has more than ``limit`` bytes.
        InvalidRequest: The body is not valid data of these codings, or is incomplete.
    """
    for coding in reversed(codings):
        try:
            body = _inflate(body, coding, limit)
        except zlib.error as error:
            raise InvalidRequest(
                f"The request body is not valid {coding} data, which the Content-Encoding header "
                "declares."
            ) from error
    return body


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    window_bits = 16 + zlib.MAX_WBITS if coding == "gzip" else _deflate_window(body)
    inflater = zlib.decompressobj(window_bits)
    members = 1
    decoded = bytearray()
    # In pieces, because zlib copies all data after the end of a member.
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        while piece:
            if inflater.eof:
                members += 1
                if coding != "gzip" or members > MAX_MEMBERS:
                    raise zlib.error("data after the end")
                inflater = zlib.decompressobj(window_bits)
            decoded += inflater.decompress(piece, limit + 1 - len(decoded))
            if len(decoded) > limit:
                raise RequestTooLarge(f"The decoded request body is larger than {limit} bytes.")
            piece = inflater.unused_data
    if not inflater.eof:
        raise zlib.error("incomplete data")
    return bytes(decoded)


def _deflate_window(body: bytes) -> int:
    """Return zlib's ``wbits`` for ``body``: many clients send ``deflate`` without the zlib header
    that the HTTP standard requires."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
