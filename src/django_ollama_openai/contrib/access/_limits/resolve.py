"""Find the limits that apply to a caller and a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from django.db.models import Q

from ...._connections import call_reconnecting
from ...._ids import parse_public_id
from ...._threads import in_separate_thread
from ....auth import Caller
from .._epoch_cache import EpochCache, Remembered
from ..models import Limit, Per, Target, Unit
from .ledger import Rule
from .periods import CALENDAR, period_of

__all__ = [
    "COST_SCALE",
    "AppliedLimit",
    "Subjects",
    "account_id",
    "aload",
    "applied_limits",
    "cache",
    "fits",
    "load",
    "subjects_of",
]

#: A cost of 1 in the integers of an account.
COST_SCALE: Final = 10**9
MICROSECONDS: Final = {Per.MINUTE: 60 * 10**6, Per.HOUR: 3600 * 10**6}

#: The targets that replace another, for the same unit, period and pattern of models.
REPLACED: Final = {
    Target.WORKSPACE: Target.EACH_WORKSPACE,
    Target.USER: Target.EACH_USER,
    Target.KEY: Target.EACH_KEY,
}

#: The hexadecimal ids of a caller's workspace and key, and the primary key of its user, as text.
#: Empty where the caller has none.
Subjects: TypeAlias = tuple[str, str, str]


@dataclass(slots=True)
class AppliedLimit:
    """A limit, and the id of the account in which it counts the caller."""

    limit: Limit
    account: str
    _rule: Rule | None = field(default=None, repr=False)

    def rule(self, moment: int) -> Rule:
        """Return the limit as it holds at ``moment``, in microseconds since 1970."""
        rule = self._rule
        if rule is None or (rule.begin and not rule.begin <= moment < rule.begin + rule.length):
            rule = self._rule = self._rule_at(moment)
        return rule

    def _rule_at(self, moment: int) -> Rule:
        limit = self.limit
        scale = COST_SCALE if limit.unit == Unit.COST else 1
        amount = int(limit.amount * Decimal(scale))
        if limit.unit == Unit.CONCURRENT:
            return Rule("concurrent", amount)
        if limit.per in CALENDAR:
            now = datetime.fromtimestamp(moment // 10**6, UTC)
            begin, end = (
                round(each.timestamp() * 10**6)
                for each in period_of(limit.per, ZoneInfo(limit.timezone), now)  # type: ignore[arg-type]  # narrowed by "in"
            )
            return Rule("calendar", amount, begin, end - begin)
        return Rule("bucket", amount, length=MICROSECONDS[Per(limit.per)])


#: Limits by the ids of their targets and the model, for stores that announce changes.
cache: Final = EpochCache[tuple[Subjects, str], list[AppliedLimit]](max_entries=10_000)


def load(subjects: Subjects, model: str) -> Remembered[list[AppliedLimit]]:
    """Read the limits of :func:`applied_limits` and cache them."""
    return cache.load((subjects, model), lambda: applied_limits(subjects, model))


async def aload(subjects: Subjects, model: str) -> Remembered[list[AppliedLimit]]:
    """Async version of :func:`load`; runs it in a thread."""
    return await in_separate_thread(load, subjects, model)


def subjects_of(caller: Caller) -> Subjects:
    """Return the ids of the workspace, user and key of ``caller``."""
    return (
        "" if caller.workspace is None else _bare(caller.workspace.id),
        "" if caller.user is None else str(caller.user.pk),
        "" if caller.key_id is None else _bare(caller.key_id),
    )


def _bare(public: str) -> str:
    """Return the hexadecimal digits of a public id; another id, of a static key, as it is."""
    uuid = parse_public_id(public.partition("_")[0], public)
    return public if uuid is None else uuid.hex


def applied_limits(subjects: Subjects, model: str | None) -> list[AppliedLimit]:
    """Read the limits that apply to a request of ``subjects`` for ``model``, or for any model if
    it is ``None``.

    A limit of one workspace, user or key replaces that of each with the same unit, period and
    models.
    """
    present = {
        target: subject for target, subject in zip(REPLACED, subjects, strict=True) if subject
    }
    # The subject is always named, or SQLite would read all limits instead of using the index.
    wanted = Q(target__in=[Target.EVERYBODY, *(REPLACED[each] for each in present)], subject="")
    for target, subject in present.items():
        wanted |= Q(target=target, subject=subject)
    limits = Limit.objects.filter(wanted).order_by("pk")
    found: list[Limit] = call_reconnecting(limits.db, list, limits)
    return _chosen(found, present, model)


def _chosen(
    limits: Iterable[Limit], subjects: dict[Target, str], model: str | None
) -> list[AppliedLimit]:
    fitting = [limit for limit in limits if model is None or fits(limit.model, model)]
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


def fits(pattern: str, model: str) -> bool:
    """Return whether ``pattern`` includes ``model``, however the client spells its name.

    Ollama ignores case in names, and takes ``llama3``, ``llama3:latest``, ``library/llama3``,
    ``https://registry.ollama.ai/library/llama3`` and ``llama3@sha256:…`` for one model.
    """
    name = model.lower().rpartition("://")[2].partition("@")[0]
    name = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
    untagged = name.removesuffix(":latest")
    tagged = untagged if ":" in untagged else f"{untagged}:latest"
    return any(fnmatchcase(each, pattern.lower()) for each in (model.lower(), untagged, tagged))


def account_id(limit: Limit, subject: str) -> str:
    """Return the id of the account of ``limit`` and ``subject``, the id of one of those whom the
    limit counts each by itself; ``""`` for other limits."""
    return hashlib.sha256(f"{limit.pk.hex}:{subject}".encode()).hexdigest()
