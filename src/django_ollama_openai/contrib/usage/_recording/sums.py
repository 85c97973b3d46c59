"""The sums of records: of quarters of an hour, so that every time zone's hours and days are right,
and of days, for the page in the admin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from operator import add as add_numbers
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5

from django.db import connections, router, transaction

from ..._inserts import insert_or_add
from ..models import Dimension, Status, UsageBucket, UsageDay, UsageRecord
from .record import billing_zone

__all__ = [
    "DAY_KEY",
    "SUMS",
    "PrunedError",
    "add",
    "day_range",
    "quarter_of",
    "rebuild",
    "series_of_subject",
    "subject_of",
]

QUARTER: Final = timedelta(minutes=15)
#: The fields that are added up.
SUMS: Final = (
    "requests",
    "errors",
    "cancelled",
    "unpriced_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "duration",
    "engine_time",
    "first_token_time",
    "first_tokens",
)
#: The fields that identify the sums of a day.
DAY_KEY: Final = ("dimension", "day", "series", "currency")
#: The records that a rebuilding reads at once.
CHUNK: Final = 5_000


class PrunedError(Exception):
    """The records of a day that has sums have been deleted, so that they cannot be rebuilt."""


def quarter_of(moment: datetime) -> datetime:
    """Return the beginning of the quarter of an hour that ``moment`` is in."""
    return moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)


def add(records: Iterable[UsageRecord]) -> None:
    """Add ``records``, which are new, to the sums. The caller has a transaction."""
    groups: dict[tuple[datetime, UUID], tuple[UsageRecord, list[Any]]] = {}
    for record in records:
        key = (quarter_of(record.started_at), record.series)
        group = groups.get(key)
        if group is None:
            groups[key] = (record, _amounts(record))
        else:
            group[1][:] = map(add_numbers, group[1], _amounts(record))
    zone = billing_zone()
    buckets: list[UsageBucket] = []
    days: dict[Any, UsageDay] = {}
    # All records of a group are of one day.
    for record, amounts in groups.values():
        bucket = _bucket_of(record)
        for name, amount in zip(SUMS, amounts, strict=True):
            setattr(bucket, name, amount)
        buckets.append(bucket)
        for row in _days_of(record, zone):
            total = days.setdefault(tuple(getattr(row, name) for name in DAY_KEY), row)
            for name, amount in zip(SUMS, amounts, strict=True):
                setattr(total, name, getattr(total, name) + amount)
    insert_or_add(buckets, unique=("start", "series"), added=SUMS)
    insert_or_add(list(days.values()), unique=DAY_KEY, added=SUMS)


def _amounts(record: UsageRecord) -> list[Any]:
    """Return what ``record`` adds to each of ``SUMS``."""
    first = record.time_to_first_token
    is_error = record.status == Status.ERROR
    return [
        1,
        int(is_error),
        int(record.status == Status.CANCELLED),
        int(record.price_id is None and not is_error),
        record.prompt_tokens,
        record.cached_tokens,
        record.completion_tokens,
        record.reasoning_tokens,
        record.cost or 0,
        record.duration,
        0 if is_error else max(0, record.duration - record.queued),
        first or 0,
        int(first is not None),
    ]


def _bucket_of(record: UsageRecord) -> UsageBucket:
    return UsageBucket(
        start=quarter_of(record.started_at),
        series=record.series,
        workspace_id=record.workspace_id,
        user_id=record.user_id,
        key_id=record.key_id,
        workspace_name=record.workspace_name,
        username=record.username,
        key_name=record.key_name,
        static_key=record.static_key,
        endpoint=record.endpoint,
        model=record.answered_by,
        price_id=record.price_id,
        currency=record.currency,
        month=record.month,
    )


def _days_of(record: UsageRecord, zone: tzinfo) -> Iterator[UsageDay]:
    day = record.started_at.astimezone(zone).date()
    subjects = (
        (Dimension.ALL, None, ""),
        (Dimension.WORKSPACE, record.workspace_id, record.workspace_name),
        (Dimension.USER, record.user_id, record.username),
        (Dimension.KEY, record.key_id, record.key_name),
        (Dimension.MODEL, None, record.answered_by),
    )
    for dimension, key, name in subjects:
        subject = subject_of(key)
        yield UsageDay(
            day=day,
            dimension=dimension,
            series=series_of_subject(dimension, subject or name),
            subject=subject,
            name=name,
            currency=record.currency,
        )


def subject_of(key: Any) -> str:
    """Return the primary key of a workspace, user or key as text; ``""`` for ``None``."""
    if key is None:
        return ""
    return key.hex if isinstance(key, UUID) else str(key)[:64]


@lru_cache(maxsize=20_000)
def series_of_subject(dimension: Dimension, subject: str) -> UUID:
    """Return the id of the sums of days of ``subject``, the primary key or, without one, the name
    of a workspace, user, key or model."""
    return uuid5(NAMESPACE_OID, f"{dimension}:{subject}")


def day_range(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the beginning of ``day`` in ``zone``, and that of the next day."""
    begin, end = (
        datetime.combine(each, time.min, tzinfo=zone) for each in (day, day + timedelta(days=1))
    )
    return begin, end


def rebuild(first: date, last: date) -> Iterator[date]:
    """Make the sums of the days from ``first`` to ``last``, in the time zone of billing, anew from
    the records, each day in a transaction of its own. Yield each day when it is done.

    Raises:
        PrunedError: The records of a day have been deleted. Its sums stay as they are.
    """
    zone = billing_zone()
    day = first
    while day <= last:
        _rebuild_day(day, zone)
        yield day
        day += timedelta(days=1)


def _rebuild_day(day: date, zone: tzinfo) -> None:
    begin, end = day_range(day, zone)
    connection = connections[router.db_for_write(UsageBucket)]
    if connection.vendor == "mysql" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            # Of the next transaction, whose deletion keeps others from inserting in its range.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                tables = ", ".join(
                    connection.ops.quote_name(model._meta.db_table)
                    for model in (UsageBucket, UsageDay)
                )
                # Records that are written meanwhile wait, with their sums.
                cursor.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
        deleted, _ = UsageBucket.objects.filter(start__gte=begin, start__lt=end).delete()
        UsageDay.objects.filter(day=day).delete()
        rows = UsageRecord.objects.filter(started_at__gte=begin, started_at__lt=end)
        if deleted and not rows.exists():
            raise PrunedError(f"The records of {day} have been deleted.")
        group: list[UsageRecord] = []
        for record in rows.order_by().iterator(CHUNK):
            group.append(record)
            if len(group) == CHUNK:
                add(group)
                group = []
        add(group)
