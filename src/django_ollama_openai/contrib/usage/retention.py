"""Delete old records and events. Sums and invoices stay."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils.timezone import now

from ...management.pruning import BasePruner, Pruning
from ._recording.record import billing_zone
from ._reports.ranges import midnight
from .conf import usage_settings
from .models import OutboxEvent, UsageRecord

__all__ = ["UsagePruner"]

#: The rows of one transaction: writers of records hardly wait for it.
BATCH: Final = 1_000
#: The age at which events are deleted that were acknowledged, or given up.
EVENT_AGE: Final = timedelta(days=35)


class UsagePruner(BasePruner):
    """Deletes records that are older than ``RETENTION_DAYS``, whole days of them, so that the sums
    of the other days can be rebuilt; and events that are over."""

    name = "usage"

    def prunings(self, older_than: timedelta | None) -> Iterable[Pruning]:
        days = usage_settings().RETENTION_DAYS
        age = older_than or (None if days is None else timedelta(days=days))
        if age is not None:
            records = UsageRecord.objects.filter(started_at__lt=_begin_of_day(now() - age))
            yield _pruning("usage records", records, "started_at")
        events = OutboxEvent.objects.filter(due_at=None, created_at__lt=now() - EVENT_AGE)
        yield _pruning("events", events, "pk")


def _begin_of_day(moment: datetime) -> datetime:
    zone = billing_zone()
    return midnight(moment.astimezone(zone).date(), zone)


def _pruning(label: str, rows: QuerySet[Any], order: str) -> Pruning:
    def delete_batch() -> int:
        keys = list(rows.order_by(order).values_list("pk", flat=True)[:BATCH])
        deleted: int = rows.model._default_manager.filter(pk__in=keys).delete()[0]
        return deleted

    return Pruning(label, rows.count, delete_batch)
