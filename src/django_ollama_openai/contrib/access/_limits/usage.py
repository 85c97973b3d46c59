"""The current use of limits, for the admin and the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..models import Limit, Target, Unit
from ..stores import Claim, StoreDown
from ..stores._base import now
from ..stores._configured import limit_store
from .resolve import COST_SCALE, AppliedLimit, account_id

__all__ = ["Use", "account_of", "current_uses", "shown"]


@dataclass(frozen=True, slots=True)
class Use:
    """The current use of a limit, and its amount."""

    used: int | Decimal
    amount: int | Decimal


def account_of(limit: Limit) -> AppliedLimit | None:
    """Return ``limit`` with its account. Limits of each workspace, user or key have one account for
    each of them, and none of their own."""
    if limit.target in (Target.EACH_WORKSPACE, Target.EACH_USER, Target.EACH_KEY):
        return None
    return AppliedLimit(limit, account_id(limit, ""))


def current_uses(limits: Sequence[AppliedLimit]) -> list[Use | None]:
    """Return the current use of each of ``limits``, in one read of the store; ``None`` for all
    while the store cannot be reached."""
    if not limits:
        return []
    moment = now()
    claims = [Claim(each.account, each.rule(moment), 0, is_leased=True) for each in limits]
    try:
        found = limit_store().read(claims)
    except StoreDown:
        return [None] * len(limits)
    return [
        Use(_scaled(each, figures.used), _scaled(each, claim.rule.amount))
        for each, claim, figures in zip(limits, claims, found, strict=True)
    ]


def shown(applied: AppliedLimit, amount: int) -> int | str:
    """Return an amount of an account as clients see it: a cost is a decimal number in a string."""
    scaled = _scaled(applied, amount)
    return f"{scaled.normalize():f}" if isinstance(scaled, Decimal) else scaled


def _scaled(applied: AppliedLimit, amount: int) -> int | Decimal:
    return Decimal(amount) / COST_SCALE if applied.limit.unit == Unit.COST else amount
