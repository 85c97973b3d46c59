"""Numbers of tokens as engines report them, which may be any."""

from __future__ import annotations

from typing import Final

from .._wire.delta import Usage

__all__ = ["plausible"]

MAX_TOKENS: Final = 10**9
"""Of one answer. One absurd number would spoil a sum for as long as the process lives."""


def plausible(usage: Usage) -> Usage:
    """``usage`` without the figures that cannot be: those are 0, as are all that are not known."""

    def counted(tokens: int) -> int:
        return tokens if 0 < tokens <= MAX_TOKENS else 0

    return Usage(
        prompt_tokens=counted(usage.prompt_tokens),
        completion_tokens=counted(usage.completion_tokens),
        cached_tokens=counted(usage.cached_tokens),
        reasoning_tokens=counted(usage.reasoning_tokens),
        estimated=usage.estimated,
    )
