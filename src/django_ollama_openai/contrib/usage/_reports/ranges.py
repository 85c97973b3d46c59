"""The time range of a report, and its hours, days or months in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ....exceptions import InvalidRequest
from .._recording.sums import quarter_of

__all__ = ["Bucket", "TimeRange", "read_range", "zone_of"]

Bucket = Literal["hour", "day", "month"]

#: The most hours, days or months of a report.
MAX_BUCKETS: Final = 10_000
_SHORTEST: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(hours=22),
    "month": timedelta(days=28),
}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The time from ``start`` to before ``end``, both at full quarters of an hour, in ``zone``."""

    start: datetime
    end: datetime
    zone: tzinfo

    def bucket_start(self, moment: datetime, bucket: Bucket) -> datetime:
        """Return the beginning, in UTC, of the hour, day or month that ``moment`` is in; at the
        earliest that of the range.

        An hour that is repeated when clocks are set back is two hours.
        """
        local = moment.astimezone(self.zone)
        if bucket == "hour":
            begin = _hour_start(moment, local)
        else:
            day = local.date() if bucket == "day" else local.date().replace(day=1)
            begin = midnight(day, self.zone)
        return max(begin, self.start)


def _hour_start(moment: datetime, local: datetime) -> datetime:
    """Return the beginning of the hour of ``local``, by the offset that holds at ``moment``: the
    clocks may have changed within the hour, where they change by half an hour."""
    return moment.astimezone(UTC) - timedelta(
        minutes=local.minute, seconds=local.second, microseconds=local.microsecond
    )


def midnight(day: date, zone: tzinfo) -> datetime:
    """Return the beginning of ``day`` in ``zone``, in UTC. Where clocks skip midnight it is the
    first moment of the day."""
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)


def zone_of(name: str | None, default: tzinfo, param: str = "timezone") -> tzinfo:
    """Return the time zone ``name``; ``default`` for ``None``.

    Raises:
        InvalidRequest: There is no such zone.
    """
    if name is None:
        return default
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"Invalid value for '{param}': there is no time zone {name[:100]!r}.", param=param
        ) from None


def read_range(
    start: str | None, end: str | None, zone: tzinfo, today: date, bucket: Bucket | None
) -> TimeRange:
    """Return the range from ``start`` to before ``end``: times, or dates in ``zone``. Without them
    it is the month of ``today``; without one of them, it begins or ends with that month.

    Raises:
        InvalidRequest: One is no time, ``end`` is not after ``start``, or there are more than
            10,000 of ``bucket`` in the range.
    """
    month = today.replace(day=1)
    next_month = (month + timedelta(days=31)).replace(day=1)
    begins = midnight(month, zone) if start is None else _moment(start, zone, "start")
    ends = midnight(next_month, zone) if end is None else _moment(end, zone, "end")
    if ends <= begins:
        raise InvalidRequest("'end' has to be after 'start'.", param="end")
    if bucket is not None and (ends - begins) / _SHORTEST[bucket] > MAX_BUCKETS:
        raise InvalidRequest(
            f"The range from 'start' to 'end' has more than {MAX_BUCKETS:,} {bucket}s. "
            "Choose a shorter one, or a longer 'bucket'.",
            param="start",
        )
    last = quarter_of(ends)
    return TimeRange(
        quarter_of(begins), last if last == ends else last + timedelta(minutes=15), zone
    )


def _moment(text: str, zone: tzinfo, param: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        # Not those at the ends of the calendar, from which nothing can be subtracted.
        if not 1900 < moment.year < 9000:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"Invalid value for '{param}': a date such as '2026-11-01' or a time such as "
            f"'2026-11-01T12:00:00Z' is expected, not {text[:100]!r}.",
            param=param,
        ) from None
