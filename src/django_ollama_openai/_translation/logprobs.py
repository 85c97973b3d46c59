"""Log probabilities of any engine as OpenAI's: ``bytes`` and ``top_logprobs`` are never missing."""

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
    """One token with its alternatives, as engines send it."""

    top_logprobs: NotRequired[list[_Token] | None]


def logprob(entry: Logprob) -> dict[str, Any]:
    """One entry of ``logprobs.content``."""
    return {
        **_token(entry),
        "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()],
    }


def content_logprobs(entries: list[dict[str, Any]], content: str) -> list[dict[str, Any]] | None:
    """Those of ``entries`` that spell ``content``, which comes last in what the engine produced.
    ``None`` if there is no content, or none of them do."""
    wanted = content.encode()
    start, length = len(entries), 0
    while start and length < len(wanted):
        start -= 1
        length += len(entries[start]["bytes"])
    spelt = b"".join(bytes(entry["bytes"]) for entry in entries[start:])
    # A model may close its thoughts and begin its answer within one token.
    return entries[start:] if wanted and spelt.endswith(wanted) else None


def _token(entry: _Token) -> dict[str, Any]:
    token = entry["token"]
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry["logprob"],
        "bytes": list(token.encode()) if given is None else given,
    }
