"""The headers about limits, and the errors of refused requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....exceptions import GatewayError, InsufficientQuota, RateLimited
from ....policies import Admission
from ..models import Per, Unit
from ..stores import Claim
from .ledger import Figures
from .resolve import AppliedLimit

__all__ = ["add_headers", "refusal"]


class _RequestTooLarge(RateLimited):
    """The request exceeds a limit on its own, so that a retry cannot succeed."""

    @property
    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


def refusal(
    applied: AppliedLimit,
    claim: Claim,
    figures: Figures,
    wait: int,
    admission: Admission[Any],
) -> GatewayError:
    limit, model = applied.limit, admission.route.name if admission.route else ""
    unit = "tokens" if limit.unit == Unit.TOKENS else "requests"
    per = f" per {limit.per}" if limit.per else " at the same time"
    facts = f"Limit {claim.rule.amount}, Used {figures.used}, Requested {claim.amount}."
    if limit.unit == Unit.COST or limit.per in (Per.DAY, Per.WEEK, Per.MONTH):
        return InsufficientQuota(f"You exceeded your quota of {limit.in_english()}: {facts}")
    if wait < 0:
        return _RequestTooLarge(f"Request too large for {model} on {unit}{per}: {facts}", type=unit)
    seconds = wait / 10**6
    return RateLimited(
        f"Rate limit reached for {model} on {unit}{per}: {facts} "
        f"Please try again in {_duration(wait)}.",
        type=unit,
        retry_after=seconds,
    )


def add_headers(
    headers: dict[str, str],
    limits: Sequence[AppliedLimit],
    claims: Sequence[Claim],
    figures: Sequence[Figures],
) -> None:
    """Add OpenAI's headers for the tightest limits of requests and of tokens."""
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        found = [
            (each.remaining, claim.rule.amount, each.reset)
            for applied, claim, each in zip(limits, claims, figures, strict=True)
            if applied.limit.unit == unit
        ]
        if found:
            remaining, amount, reset = min(found)
            headers[f"x-ratelimit-limit-{unit}"] = str(amount)
            headers[f"x-ratelimit-remaining-{unit}"] = str(remaining)
            headers[f"x-ratelimit-reset-{unit}"] = _duration(reset)


def _duration(microseconds: int) -> str:
    """Return a duration as OpenAI writes it: ``12ms``, ``1.2s``, ``6m0s``."""
    milliseconds = -(-microseconds // 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
