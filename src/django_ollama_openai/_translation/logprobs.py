"""Translate log probabilities into OpenAI's, which always have ``bytes`` and ``top_logprobs``."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

__all__ = ["Logprob", "content_logprobs", "logprob"]


Byte: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class _Token(TypedDict):
    token: str
    logprob: FiniteFloat
    bytes: NotRequired[list[Byte] | None]


class Logprob(_Token):
    """A token with its alternatives, as engines send it."""

    top_logprobs: NotRequired[list[_Token] | None]


def logprob(entry: Logprob) -> dict[str, Any]:
    """Return an entry of OpenAI's ``logprobs.content`` for an engine's ``entry``."""
    return {
        **_token(entry),
        "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()],
    }


def content_logprobs(entries: list[dict[str, Any]], content: str) -> list[dict[str, Any]] | None:
    """Return the last of ``entries``, those whose tokens are ``content``. Return ``None`` if there
    is no content, or if the tokens do not match."""
    wanted = content.encode()
    start, length = len(entries), 0
    while start and length < len(wanted):
        start -= 1
        length += len(entries[start]["bytes"])
    spelt = b"".join(bytes(entry["bytes"]) for entry in entries[start:])
    # The last token of the reasoning may also be the first of the content.
    return entries[start:] if wanted and spelt.endswith(wanted) else None


def _token(entry: _Token) -> dict[str, Any]:
    token = entry["token"]
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry["logprob"],
        "bytes": list(token.encode()) if given is None else given,
    }
