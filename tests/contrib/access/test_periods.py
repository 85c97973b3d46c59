"""Calendar periods in time zones with clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai.contrib.access._limits.periods import CALENDAR, period_of


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("per", "zone", "now", "begin", "end"),
    [
        ("day", "UTC", "2026-11-30T00:00", "2026-11-30T00:00", "2026-12-01T00:00"),
        ("day", "UTC", "2026-11-30T23:59:59.999999", "2026-11-30T00:00", "2026-12-01T00:00"),
        # 23 and 25 hours.
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        # A quarter of an hour off the hour.
        ("day", "Asia/Kathmandu", "2026-11-30T18:15", "2026-11-30T18:15", "2026-12-01T18:15"),
        # Half an hour of summer time.
        ("day", "Australia/Lord_Howe", "2026-04-05T00:00", "2026-04-04T13:00", "2026-04-05T13:30"),
        # A day without a midnight, and one with two.
        ("day", "America/Havana", "2023-03-12T12:00", "2023-03-12T05:00", "2023-03-13T04:00"),
        ("day", "America/Havana", "2023-11-05T05:30", "2023-11-05T04:00", "2023-11-06T05:00"),
        # A day that was left out.
        ("day", "Pacific/Apia", "2011-12-30T09:59", "2011-12-29T10:00", "2011-12-30T10:00"),
        ("week", "UTC", "2026-11-29T23:59", "2026-11-23T00:00", "2026-11-30T00:00"),
        ("week", "UTC", "2026-11-30T00:00", "2026-11-30T00:00", "2026-12-07T00:00"),
        ("month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "America/New_York", "2027-01-01T04:59", "2026-12-01T05:00", "2027-01-01T05:00"),
        ("month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
    ],
)
def test_periods(per: str, zone: str, now: str, begin: str, end: str) -> None:
    assert period_of(per, ZoneInfo(zone), at(now)) == (at(begin), at(end))  # type: ignore[arg-type]  # parametrized


@given(
    st.sampled_from(CALENDAR),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Havana", "Pacific/Apia", "Asia/Kathmandu"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)),
)
def test_periods_follow_one_another(per: str, zone: str, naive: datetime) -> None:
    now = naive.replace(tzinfo=UTC)
    begin, end = period_of(per, ZoneInfo(zone), now)  # type: ignore[arg-type]  # parametrized
    assert begin <= now < end
    assert period_of(per, ZoneInfo(zone), begin)[0] == begin  # type: ignore[arg-type]  # parametrized
    assert period_of(per, ZoneInfo(zone), end - timedelta(microseconds=1)) == (begin, end)  # type: ignore[arg-type]  # parametrized
    assert period_of(per, ZoneInfo(zone), end)[0] == end  # type: ignore[arg-type]  # parametrized
