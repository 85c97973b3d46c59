"""Find the limits that apply to a caller and a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final
from zoneinfo import ZoneInfo

from django.db.models import Q

from ....auth import Caller
from ..._ids import parse_public_id
from ..models import Limit, Per, Target, Unit
from .ledger import Rule
from .periods import CALENDAR, period_of

__all__ = ["COST_SCALE", "AppliedLimit", "account_id", "applied_limits"]

#: A cost of 1 in the integers of an account.
COST_SCALE: Final = 10**9
MICROSECONDS: Final = {Per.MINUTE: 60 * 10**6, Per.HOUR: 3600 * 10**6}

#: The targets that replace another, for the same unit, period and pattern of models.
REPLACED: Final = {
    Target.WORKSPACE: Target.EACH_WORKSPACE,
    Target.USER: Target.EACH_USER,
    Target.KEY: Target.EACH_KEY,
}


@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A limit, and the id of the account that a caller shares with all whom it counts together."""

    limit: Limit
    account: str

    def rule(self, moment: int) -> Rule:
        """Return the limit as it holds at ``moment``, in microseconds since 1970."""
        limit = self.limit
        scale = COST_SCALE if limit.unit == Unit.COST else 1
        amount = int(limit.amount * Decimal(scale))
        if limit.unit == Unit.CONCURRENT:
            return Rule("concurrent", amount)
        if limit.per in CALENDAR:
            now = datetime.fromtimestamp(moment / 10**6, UTC)
            begin, end = (
                round(each.timestamp() * 10**6)
                for each in period_of(limit.per, ZoneInfo(limit.timezone), now)  # type: ignore[arg-type]  # narrowed by "in"
            )
            return Rule("calendar", amount, begin, end - begin)
        return Rule("bucket", amount, length=MICROSECONDS[Per(limit.per)])


def applied_limits(caller: Caller, model: str | None) -> list[AppliedLimit]:
    """Return the limits that a request of ``caller`` for ``model`` has to respect, or all that hold
    for the caller (``None``).

    A limit of one workspace, user or key replaces that of each, if both count the same.
    """
    subjects = _subjects(caller)
    wanted = Q(target=Target.EVERYBODY)
    for target, each in REPLACED.items():
        if target in subjects:
            wanted |= Q(target=each) | Q(target=target, subject=subjects[target])
    return _chosen(Limit.objects.filter(wanted), subjects, model)


def _subjects(caller: Caller) -> dict[Target, str]:
    subjects = {}
    if caller.workspace is not None:
        subjects[Target.WORKSPACE] = _bare(caller.workspace.id)
    if caller.user is not None:
        subjects[Target.USER] = str(caller.user.pk)
    if caller.key_id is not None:
        subjects[Target.KEY] = _bare(caller.key_id)
    return subjects


def _bare(public: str) -> str:
    """Return the hexadecimal digits of a public id; another id, of a static key, as it is."""
    uuid = parse_public_id(public.partition("_")[0], public)
    return public if uuid is None else uuid.hex


def _chosen(
    limits: Iterable[Limit], subjects: dict[Target, str], model: str | None
) -> list[AppliedLimit]:
    fitting = [limit for limit in limits if model is None or fnmatchcase(model, limit.model)]
    replaced = {
        (REPLACED[Target(limit.target)], limit.unit, limit.per, limit.model)
        for limit in fitting
        if limit.target in REPLACED
    }
    of_each = {each: subjects[target] for target, each in REPLACED.items() if target in subjects}
    return [
        AppliedLimit(limit, account_id(limit, of_each.get(Target(limit.target), "")))
        for limit in fitting
        if (limit.target, limit.unit, limit.per, limit.model) not in replaced
    ]


def account_id(limit: Limit, subject: str) -> str:
    """Return the id of the account of ``limit`` and ``subject``, the id of one of those whom the
    limit counts each by itself; ``""`` for other limits."""
    return hashlib.sha256(f"{limit.pk.hex}:{subject}".encode()).hexdigest()
