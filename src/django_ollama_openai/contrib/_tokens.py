"""Correct token counts of engines, which may be wrong."""

from __future__ import annotations

from typing import Final

from .._wire.delta import Usage

__all__ = ["plausible_usage"]

#: The maximum count of one completion. A single wrong count would spoil a sum until the process
#: ends.
MAX_TOKENS: Final = 10**9


def plausible_usage(usage: Usage) -> Usage:
    """Return ``usage`` with 0 in place of impossible counts."""

    def counted(tokens: int) -> int:
        return tokens if 0 < tokens <= MAX_TOKENS else 0

    return Usage(
        prompt_tokens=counted(usage.prompt_tokens),
        completion_tokens=counted(usage.completion_tokens),
        cached_tokens=counted(usage.cached_tokens),
        reasoning_tokens=counted(usage.reasoning_tokens),
        estimated=usage.estimated,
    )
