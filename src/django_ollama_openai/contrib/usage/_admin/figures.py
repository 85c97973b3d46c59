"""The figures of the page of usage, from the sums of days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Max, Q, QuerySet, Sum
from django.utils.translation import gettext_lazy as _

from ...access.models import APIKey, Workspace
from .._recording.sums import series_of_subject, subject_of
from ..models import Dimension, UsageDay

__all__ = ["TOP", "Row", "by_day", "top", "workspace_of", "workspaces"]

#: The rows of each list.
TOP: Final = 10
SUMS: Final = (
    "requests",
    "errors",
    "cancelled",
    "unpriced_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "duration",
    "first_token_time",
    "first_tokens",
)
NOBODY: Final = {
    Dimension.WORKSPACE: _("Without a workspace"),
    Dimension.USER: _("Without a user"),
    Dimension.KEY: _("Without a key"),
}


@dataclass(slots=True)
class Row:
    """The sums of a day or of somebody. ``costs`` are by currency."""

    name: Any
    figures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    costs: dict[str, Decimal] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the sums of ``row``, which is in one currency, or without a price."""
        for name in SUMS:
            self.figures[name] += row[f"{name}_"] or 0
        if currency := row["currency"]:
            self.costs[currency] = self.costs.get(currency, Decimal(0)) + row["cost_"]

    @property
    def tokens(self) -> int:
        """Return the tokens of prompts and completions."""
        return self.figures["prompt_tokens"] + self.figures["completion_tokens"]

    @property
    def latency(self) -> Decimal | None:
        """Return the mean time to the end of an answer, in seconds."""
        requests = self.figures["requests"]
        mean = Decimal(self.figures["duration"]) / 1000 / requests if requests else None
        return None if mean is None else round(mean, 2)

    @property
    def first_token(self) -> Decimal | None:
        """Return the mean time to the first token, in seconds."""
        count = self.figures["first_tokens"]
        mean = Decimal(self.figures["first_token_time"]) / 1000 / count if count else None
        return None if mean is None else round(mean, 2)


def _sums() -> dict[str, Any]:
    return {f"{name}_": Sum(name) for name in (*SUMS, "cost")}


def _of(workspace: Workspace | None) -> Q:
    if workspace is None:
        return Q(dimension=Dimension.ALL)
    series = series_of_subject(Dimension.WORKSPACE, subject_of(workspace.pk))
    return Q(dimension=Dimension.WORKSPACE, series=series)


def by_day(first: date, last: date, workspace: Workspace | None) -> list[Row]:
    """Return a row for each day from ``first`` to ``last``, its name the day."""
    days = {
        first + timedelta(days=number): Row(first + timedelta(days=number))
        for number in range((last - first).days + 1)
    }
    rows = UsageDay.objects.filter(_of(workspace), day__gte=first, day__lte=last)
    for row in rows.values("day", "currency").annotate(**_sums()):
        days[row["day"]].add(row)
    return list(days.values())


def top(
    dimension: Dimension, first: date, last: date, limit: int | None = TOP
) -> tuple[list[Row], int]:
    """Return the rows of those who had the most tokens, the most first, and the number of all."""
    rows = UsageDay.objects.filter(dimension=dimension, day__gte=first, day__lte=last)
    used = Sum("prompt_tokens") + Sum("completion_tokens")
    by_series = rows.values("series").annotate(used=used).order_by("-used", "series")
    chosen = [row["series"] for row in (by_series if limit is None else by_series[:limit])]
    count = by_series.count() if limit is not None and len(chosen) == limit else len(chosen)
    found: dict[UUID, Row] = {series: Row("") for series in chosen}
    grouped = rows.filter(series__in=chosen).values("series", "currency", "subject")
    subjects: dict[UUID, str] = {}
    for row in grouped.annotate(name_=Max("name"), **_sums()):
        found[row["series"]].add(row)
        found[row["series"]].name = row["name_"]
        subjects[row["series"]] = row["subject"]
    _name(dimension, found, subjects)
    return list(found.values()), count


def _name(dimension: Dimension, found: dict[UUID, Row], subjects: dict[UUID, str]) -> None:
    """Give ``found`` the names that they have now; those of the deleted stay."""
    current = _current_names(dimension, [subject for subject in subjects.values() if subject])
    for series, row in found.items():
        row.name = current.get(subjects.get(series, ""), row.name) or NOBODY.get(dimension, "–")


def _current_names(dimension: Dimension, subjects: Sequence[str]) -> dict[str, str]:
    if dimension in (Dimension.WORKSPACE, Dimension.KEY):
        model: Any = Workspace if dimension == Dimension.WORKSPACE else APIKey
        rows = model.objects.filter(pk__in=[UUID(subject) for subject in subjects])
        return {pk.hex: name for pk, name in rows.values_list("pk", "name")}
    if dimension == Dimension.USER:
        users: QuerySet[Any] = get_user_model()._default_manager.filter(pk__in=subjects)
        return {subject_of(user.pk): user.get_username() for user in users}
    return {}


def workspaces() -> QuerySet[Workspace]:
    """Return the workspaces to choose from."""
    return Workspace.objects.order_by("name", "pk")


def workspace_of(slug: str) -> Workspace | None:
    """Return the workspace with this slug."""
    return Workspace.objects.filter(slug=slug).first() if slug else None
