"""Identifiers: UUIDs that sort by time, and their public form, such as ``resp_0192…``."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from typing import Final

__all__ = ["parse_public_id", "public_id", "uuid7"]

_HEX: Final = re.compile(r"[0-9a-f]{32}")


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562): 48 bits of Unix time in milliseconds and 74
    random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=value | (0x7 << 76) | (0x2 << 62))


def public_id(prefix: str, value: uuid.UUID) -> str:
    """Return the public form of ``value``, such as ``ws_0192…``, whose prefix names its kind."""
    return f"{prefix}_{value.hex}"


def parse_public_id(prefix: str, text: str) -> uuid.UUID | None:
    """Return the UUID of a public id, or ``None`` if ``text`` is not a public id with
    ``prefix``."""
    kind, _, digits = text.partition("_")
    return uuid.UUID(digits) if kind == prefix and _HEX.fullmatch(digits) else None
