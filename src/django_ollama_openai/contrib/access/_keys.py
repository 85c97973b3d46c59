"""The text of API keys: ``sk-<site>_`` with 40 random characters and a checksum. No I/O.

Only the SHA-256 of a key is stored. A fast digest is enough, since the key is random; the checksum
reveals mistyped keys without a database query.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Final

__all__ = ["ShownOnce", "digest", "is_well_formed", "last_four", "new_key", "redacted", "start"]

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM: Final = 40
CHECKSUM: Final = 6

_KEY: Final = re.compile(rf"sk-[a-z0-9-]{{1,20}}_[0-9A-Za-z]{{{RANDOM + CHECKSUM}}}")


class ShownOnce:
    """A key in a template context. Its ``repr`` is redacted, since the logger ``django.template``
    writes that of all values."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __str__(self) -> str:
        return self._key

    def __repr__(self) -> str:
        return f"<{redacted(start(self._key), last_four(self._key))}>"


def new_key(site: str) -> str:
    """Return a new key of ``site``, up to 20 lowercase letters, digits and hyphens."""
    body = f"sk-{site}_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Return whether ``key`` has the form of a key, and the right checksum."""
    return _KEY.fullmatch(key) is not None and _checksum(key[:-CHECKSUM]) == key[-CHECKSUM:]


def digest(key: str) -> str:
    """Return the SHA-256 of ``key`` in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def start(key: str) -> str:
    """Return the start of ``key`` that is stored for display, up to its fourth random character."""
    return key[: key.index("_") + 5]


def last_four(key: str) -> str:
    """Return the end of ``key`` that is stored for display."""
    return key[-4:]


def redacted(start: str, last_four: str) -> str:
    """Return the form in which a key is shown, ``sk-site_AbCd…wXyZ``."""
    return f"{start}…{last_four}"


def _checksum(text: str) -> str:
    """Return the CRC32 of ``text``: six digits of ``ALPHABET``, the most significant first."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
