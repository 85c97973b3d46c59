"""The current use of one limit, for people."""

from __future__ import annotations

from decimal import Decimal

from ..models import Limit, Target, Unit
from ..stores import Claim, StoreDown
from ..stores._base import now
from ..stores._configured import limit_store
from .resolve import COST_SCALE, AppliedLimit, account_id

__all__ = ["current_use", "shown"]


def current_use(limit: Limit) -> str:
    """Return what is used of ``limit``, such as ``12 of 60``. Limits of each workspace, user or key
    have many accounts, and no use of their own."""
    if limit.target in (Target.EACH_WORKSPACE, Target.EACH_USER, Target.EACH_KEY):
        return ""
    applied = AppliedLimit(limit, account_id(limit, ""))
    claim = Claim(applied.account, applied.rule(now()), 0, is_leased=True)
    try:
        (figures,) = limit_store().read([claim])
    except StoreDown:
        return "?"
    return f"{shown(applied, figures.used)} / {shown(applied, claim.rule.amount)}"


def shown(applied: AppliedLimit, amount: int) -> int | str:
    """Return an amount of an account as clients see it: a cost is a decimal number, as text."""
    if applied.limit.unit != Unit.COST:
        return amount
    return f"{(Decimal(amount) / COST_SCALE).normalize():f}"
