"""Log probabilities of any engine as OpenAI's: ``bytes`` and ``top_logprobs`` are never missing."""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import FiniteFloat
from typing_extensions import TypedDict

__all__ = ["Logprob", "logprob"]


class _Token(TypedDict):
    token: str
    logprob: FiniteFloat
    bytes: NotRequired[list[int] | None]


class Logprob(_Token):
    """One token with its alternatives, as engines send it."""

    top_logprobs: NotRequired[list[_Token] | None]


def logprob(entry: Logprob) -> dict[str, Any]:
    """One entry of ``logprobs.content``."""
    return {
        **_token(entry),
        "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()],
    }


def _token(entry: _Token) -> dict[str, Any]:
    token = entry["token"]
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry["logprob"],
        "bytes": list(token.encode()) if given is None else given,
    }
