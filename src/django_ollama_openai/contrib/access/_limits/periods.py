"""Calendar periods in a time zone: days, weeks that begin on Monday, and months."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

__all__ = ["CALENDAR", "CalendarPeriod", "period_of"]

CalendarPeriod: TypeAlias = Literal["day", "week", "month"]
CALENDAR: Final = ("day", "week", "month")


def period_of(per: CalendarPeriod, zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """Return the begin of the period that contains ``now``, and that of the next, in UTC."""
    today = now.astimezone(zone).date()
    match per:
        case "day":
            first, following = today, today + timedelta(days=1)
        case "week":
            first = today - timedelta(days=today.weekday())
            following = first + timedelta(days=7)
        case "month":
            first = today.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
    return _midnight(first, zone), _midnight(following, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first instant of ``day`` in ``zone``, in UTC: of two midnights the first, and of a
    midnight that is skipped the moment of the clock change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
