"""Sums of usage in groups: by hour, day or month, and by model, key, user or workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from django.db.models import QuerySet, Sum

from ...._ids import public_id
from ...access._members import shown_id
from ..models import UsageBucket
from .ranges import Bucket, TimeRange

__all__ = ["FIGURES", "GROUPS", "Group", "Line", "amount_text", "lines", "totals"]

Group = Literal["model", "key", "user", "workspace"]

#: The fields of sums in a report.
FIGURES: Final = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "errors",
    "cancelled",
    "unpriced_requests",
)
#: The columns of each group: its id, and its name. A deleted one, and a static key, has no id.
GROUPS: Final[dict[Group, tuple[str, ...]]] = {
    "model": ("model",),
    "key": ("key", "key_name"),
    "user": ("user", "username"),
    "workspace": ("workspace", "workspace_name"),
}
PREFIXES: Final = {"key": "key", "workspace": "ws"}


@dataclass(slots=True)
class Line:
    """A line of a report: sums in one currency. ``group`` has the fields of the groups. ``cost`` is
    ``None`` if no request has a price."""

    start: datetime
    group: dict[str, Any]
    currency: str
    figures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))
    cost: Decimal | None = None

    def add(self, figures: dict[str, int], cost: Decimal | None) -> None:
        """Add the sums of other requests in the same currency."""
        for name in FIGURES:
            self.figures[name] += figures[name]
        if cost is not None:
            self.cost = cost + (self.cost or 0)


def lines(
    rows: QuerySet[UsageBucket],
    period: TimeRange,
    *,
    bucket: Bucket | None,
    group_by: Sequence[Group],
    currency: str,
) -> list[Line]:
    """Return the lines of a report on ``rows`` in ``period``, in the order of time and groups; with
    ``bucket`` ``None`` one for all of it.

    Each group has a line for each currency. Requests without a price are part of the line in
    ``currency``, or else in the first one.
    """
    found: dict[tuple[Any, ...], Line] = {}
    columns = [column for name in group_by for column in GROUPS[name]]
    for row in _summed(rows, period, columns):
        moment: datetime = row["start"]
        start = period.start if bucket is None else period.bucket_start(moment, bucket)
        group = _group_of(row, group_by)
        identity = tuple(_identity(row, *GROUPS[name]) for name in group_by)
        line = found.setdefault(
            (start, identity, row["currency"]), Line(start, group, row["currency"])
        )
        line.group = group
        line.add(row, row["cost"] if row["currency"] else None)
    return _joined(found, currency)


def _identity(row: dict[str, Any], id: str, name: str | None = None) -> Any:
    """Return the identity of a group: one that was renamed is the same, and one without an id has
    its name only."""
    return row[id] if row[id] is not None or name is None else ("", row[name])


def _summed(
    rows: QuerySet[UsageBucket], period: TimeRange, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    in_period = rows.filter(start__gte=period.start, start__lt=period.end)
    sums = {f"{name}_": Sum(name) for name in (*FIGURES, "cost")}
    grouped = in_period.order_by("start").values("start", "currency", *columns).annotate(**sums)
    for row in grouped.iterator():
        for name in (*FIGURES, "cost"):
            row[name] = row.pop(f"{name}_")
        yield row


def _group_of(row: dict[str, Any], group_by: Sequence[Group]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    for name in group_by:
        for column in GROUPS[name]:
            value = row[column]
            if column == "user" and value is not None:
                value = shown_id(value)
            prefix = PREFIXES.get(column)
            group[column] = public_id(prefix, value) if prefix and value is not None else value
    return group


def _joined(found: dict[tuple[Any, ...], Line], currency: str) -> list[Line]:
    """Return the lines, with those of requests without a price added to others of their group."""
    result: list[Line] = []
    by_group: dict[tuple[Any, ...], list[Line]] = {}
    for (start, identity, _), line in found.items():
        by_group.setdefault((start, identity), []).append(line)
    for group in by_group.values():
        group.sort(key=lambda line: (line.currency != currency, line.currency))
        priced = [line for line in group if line.currency]
        for line in group:
            if not line.currency:
                if priced:
                    priced[0].add(line.figures, None)
                else:
                    line.currency = currency
                    priced = [line]
        result += priced
    result.sort(key=lambda line: (line.start, [str(value) for value in line.group.values()]))
    return result


def totals(found: Sequence[Line]) -> tuple[dict[str, int], dict[str, Decimal]]:
    """Return the sums of all lines, and the costs by currency."""
    figures = {name: sum(line.figures[name] for line in found) for name in FIGURES}
    costs: dict[str, Decimal] = {}
    for line in found:
        if line.cost is not None:
            costs[line.currency] = costs.get(line.currency, Decimal(0)) + line.cost
    return figures, costs


def amount_text(amount: Decimal | None) -> str | None:
    """Return an amount of money as clients get it: a decimal number without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"
