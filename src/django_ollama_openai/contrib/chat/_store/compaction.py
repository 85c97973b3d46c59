"""Compacted conversations: text that clients keep but cannot read or change.

The text is encrypted and signed with keys made of the site's ``SECRET_KEY`` and the owner, so that
only the owner's requests can use it. It can be used until the key is dropped from
``SECRET_KEY_FALLBACKS``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import zlib
from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.utils.encoding import force_bytes

__all__ = ["readable", "seal", "unseal"]

_SALT: Final = b"django_ollama_openai.contrib.chat.compaction"
_NONCE: Final = 16
_TAG: Final = 32


def seal(text: str, owner: str) -> str:
    """Return the ``encrypted_content`` that stands for ``text``."""
    cipher, sign = next(_keys(owner))
    nonce = secrets.token_bytes(_NONCE)
    sealed = nonce + _cipher(zlib.compress(text.encode()), cipher, nonce)
    return base64.urlsafe_b64encode(sealed + _tag(sealed, sign)).decode()


def unseal(content: str, owner: str) -> str | None:
    """Return the text of ``content``; ``None`` if this site has not made it for ``owner``."""
    try:
        data = base64.urlsafe_b64decode(content)
    except (ValueError, binascii.Error):
        return None
    sealed, tag = data[:-_TAG], data[-_TAG:]
    for cipher, sign in _keys(owner):
        if hmac.compare_digest(_tag(sealed, sign), tag):
            nonce = sealed[:_NONCE]
            return zlib.decompress(_cipher(sealed[_NONCE:], cipher, nonce)).decode()
    return None


def readable(item: dict[str, Any], owner: str) -> dict[str, Any]:
    """Return what a model gets in place of ``item``: a message with the text of a compaction, and
    any other item as it is."""
    if item.get("type") != "compaction":
        return item
    text = unseal(str(item.get("encrypted_content", "")), owner)
    if text is None:
        return item
    content = f"Summary of the conversation so far:\n\n{text}"
    return {"type": "message", "role": "user", "content": content}


def _keys(owner: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys for encryption and signature, the current ones first."""
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        base = hmac.digest(force_bytes(secret), _SALT + b"\0" + owner.encode(), "sha256")
        yield hmac.digest(base, b"cipher", "sha256"), hmac.digest(base, b"sign", "sha256")


def _cipher(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """Return ``data`` combined with the output of SHAKE256, which is unique for each nonce."""
    stream = hashlib.shake_256(key + nonce).digest(len(data))
    number = int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")
    return number.to_bytes(len(data), "big")


def _tag(sealed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, sealed, "sha256")
