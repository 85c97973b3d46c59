"""Log probabilities of any engine as OpenAI's: ``bytes`` and ``top_logprobs`` are never missing."""

from __future__ import annotations

from typing import Any

__all__ = ["logprob"]


def logprob(entry: dict[str, Any]) -> dict[str, Any]:
    """One entry of ``logprobs.content``."""
    return {
        **_token(entry),
        "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()],
    }


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    token = entry["token"]
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry["logprob"],
        "bytes": list(token.encode()) if given is None else given,
    }
