"""Decode the images and audio in requests."""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["BASE64", "IMAGE_URL", "decode_base64", "decode_data_uri", "image_type", "is_data_uri"]

#: A pattern for JSON schemas that matches what :func:`decode_base64` accepts.
BASE64: Final = "^([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2}={0,2}|[A-Za-z0-9+/_-]{3,4}=?)$"

#: A pattern for JSON schemas that matches the beginning of an image's URL or data URI.
IMAGE_URL: Final = r"^([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:\s*[iI][mM][aA][gG][eE]/[^,]*,)"

_SCHEME: Final = "data:"

# Each parameter and each escape becomes a Python object, and there could be millions.
MAX_HEAD, MAX_ESCAPES = 1_000, 100_000


def is_data_uri(url: str) -> bool:
    """Return whether ``url`` is a data URI."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def decode_data_uri(url: str) -> tuple[str, bytes]:
    """Return the media type and the data of a ``data:`` URI (RFC 2397).

    Raises:
        ValueError: The URI is invalid; the message is the reason, as the end of a sentence.
    """
    head, comma, data = url[len(_SCHEME) :].partition(",")
    if not comma:
        raise ValueError("a data URI needs a comma before its data")
    if len(head) > MAX_HEAD:
        raise ValueError(f"a data URI may have at most {MAX_HEAD} characters before its data")
    if data.count("%") > MAX_ESCAPES:
        raise ValueError(f"a data URI may have at most {MAX_ESCAPES} escapes; use base64")
    media_type, *parameters = (part.strip().lower() for part in head.split(";"))
    if parameters and parameters[-1] == "base64":
        # Some clients escape the characters of base64 that are not letters or digits.
        return media_type, decode_base64(unquote_to_bytes(data) if "%" in data else data)
    return media_type, unquote_to_bytes(data)


def decode_base64(data: str | bytes) -> bytes:
    """Return the bytes of base64 ``data`` in either alphabet of RFC 4648, with or without padding.

    Raises:
        ValueError: The data is not base64, or is empty.
    """
    try:
        encoded = data.encode("ascii") if isinstance(data, str) else data
        if b"-" in encoded or b"_" in encoded:
            encoded = encoded.translate(bytes.maketrans(b"-_", b"+/"))
        decoded = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("the data is not base64") from None
    if not decoded:
        raise ValueError("the data is empty")
    return decoded


_SIGNATURES: Final = (
    (re.compile(rb"\x89PNG"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


def image_type(data: bytes) -> str:
    """Return the media type of an image by its first bytes. Unknown formats are called PNG, since
    engines detect the format themselves."""
    return next((name for begins, name in _SIGNATURES if begins.match(data)), "image/png")
