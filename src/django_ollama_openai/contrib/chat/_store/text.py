"""Text that every database can store."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import pydantic_core

__all__ = ["storable"]

T = TypeVar("T")

#: NUL, which PostgreSQL stores neither in text nor in JSON, and halves of surrogate pairs, which no
#: UTF-8 has.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
REPLACEMENT: Final = "\ufffd"


def storable(value: T) -> T:
    """Return ``value``, text or JSON, with U+FFFD in place of characters that cannot be stored."""
    found: object = value
    if isinstance(value, str):
        found = value if _is_storable(value) else _UNSTORABLE.sub(REPLACEMENT, value)
    elif isinstance(value, (dict, list)) and not _is_storable_json(value):
        found = (
            {storable(key): storable(item) for key, item in value.items()}
            if isinstance(value, dict)
            else [storable(item) for item in value]
        )
    return found  # type: ignore[return-value]  # of the same type


def _is_storable_json(value: object) -> bool:
    """Return whether ``value`` certainly has none of these characters: writing it as JSON is much
    faster than a search."""
    try:
        return b"\\u0000" not in pydantic_core.to_json(value)
    except ValueError:
        # Halves of surrogate pairs are no UTF-8.
        return False


def _is_storable(text: str) -> bool:
    # Much faster than a search for both.
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
