"""Arguments of the subcommands."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation

from django.utils.dateparse import parse_datetime

from .._recording.record import billing_zone

__all__ = ["amount", "moment", "month"]


def month(text: str) -> date:
    """Return the first day of a month such as ``2026-11``.

    Raises:
        ArgumentTypeError: It is none.
    """
    if re.fullmatch(r"\d{4}-\d\d", text):
        try:
            found = date.fromisoformat(f"{text}-01")
        except ValueError:
            pass
        else:
            if 1970 <= found.year < 9000:
                return found
    raise ArgumentTypeError(f"{text!r} is no month, such as 2026-11.")


def moment(text: str) -> datetime:
    """Return a time; of a date its beginning in the time zone of billing, in which times without
    an offset are, too.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            found: datetime | None = datetime.combine(date.fromisoformat(text), time.min)
        else:
            found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or not 1970 <= found.year < 9000:
        raise ArgumentTypeError(
            f"{text!r} is no date, such as 2026-11-01, and no time, such as 2026-11-01T12:00."
        )
    return found if found.tzinfo is not None else found.replace(tzinfo=billing_zone())


def amount(text: str) -> Decimal:
    """Return a price.

    Raises:
        ArgumentTypeError: It is no decimal number.
    """
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ArgumentTypeError(f"{text!r} is no decimal number, such as 0.25.")
    return found
