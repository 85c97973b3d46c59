"""The account of a limit: admit or refuse a reservation, and settle it. No I/O.

An account counts the use of one limit by one subject, such as a key, in five integers. Times
are microseconds since 1970, amounts whole requests, tokens, or billionths of a currency unit.

- A bucket, per minute or hour, refills evenly (GCRA, the generic cell rate algorithm): ``tat``, the
  theoretical arrival time, is when it will be full again; ``seen`` is the time of the last change.
- A calendar period counts ``used``, and ``held`` by reservations that are not settled. Its begin,
  ``period``, is computed; a later period begins with an empty account.
- Concurrency counts ``held`` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Account",
    "Figures",
    "Kind",
    "Rule",
    "figures",
    "follow_clock",
    "refusal",
    "reserve",
    "settle",
]

Kind: TypeAlias = Literal["bucket", "calendar", "concurrent"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit at a point in time.

    Attributes:
        amount: The most that is allowed.
        begin: The begin of the calendar period; 0 for others.
        length: The length of the period, in microseconds; 0 for concurrency.
    """

    kind: Kind
    amount: int
    begin: int = 0
    length: int = 0


@dataclass(slots=True)
class Account:
    """The state of an account. The functions of this module change it."""

    tat: int = 0
    seen: int = 0
    used: int = 0
    held: int = 0
    period: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The used and remaining amount of an account, and the microseconds until it is unused."""

    used: int
    remaining: int
    reset: int


def follow_clock(account: Account, rule: Rule, now: int) -> None:
    """Correct the account of a bucket if the clock was ahead and has been set back. Otherwise the
    bucket would be blocked until the clock catches up. Call it before the functions below.

    A jump of up to the length of the bucket is ignored: the clocks of hosts differ by less.
    """
    jump = account.seen - now
    if rule.kind == "bucket" and jump > rule.length:
        account.tat -= jump
        account.seen = now


def reserve(account: Account, rule: Rule, amount: int, now: int) -> int:
    """Reserve ``amount``, and return the period that it belongs to. See :func:`refusal`."""
    match rule.kind:
        case "bucket":
            account.tat = _arrival(account, now) + _duration(rule, amount)
            account.seen = now
        case "calendar":
            _begin_period(account, rule)
            account.held += amount
        case "concurrent":
            account.held += amount
    return account.period


def refusal(account: Account, rule: Rule, amount: int, now: int) -> int | None:
    """Return ``None`` if ``amount`` may be reserved, else the microseconds until a retry may
    succeed; -1 if it exceeds the limit on its own."""
    if amount > rule.amount:
        return -1
    match rule.kind:
        case "bucket":
            late = _arrival(account, now) + _duration(rule, amount) - now - rule.length
            return late if late > 0 else None
        case "calendar":
            taken = account.used + account.held if account.period >= rule.begin else 0
            is_free = taken + amount <= rule.amount
            return None if is_free else max(1, rule.begin + rule.length - now)
        case "concurrent":
            return None if account.held + amount <= rule.amount else 1_000_000


def settle(account: Account, rule: Rule, reserved: int, actual: int, period: int) -> None:
    """Replace ``reserved``, which belongs to ``period``, by ``actual``."""
    match rule.kind:
        case "bucket":
            account.tat += _duration(rule, actual) - _duration(rule, reserved)
        case "calendar":
            # Reservations of an earlier period are no longer counted.
            if account.period == period:
                account.held -= reserved
                account.used += actual
        case "concurrent":
            account.held -= reserved


def figures(account: Account, rule: Rule, now: int) -> Figures:
    """Return the current use of the account."""
    match rule.kind:
        case "bucket":
            reset = _arrival(account, now) - now
            remaining = max(0, rule.length - reset) * rule.amount // max(1, rule.length)
            return Figures(rule.amount - remaining, remaining, reset)
        case "calendar":
            used = account.used + account.held if account.period >= rule.begin else 0
            return Figures(used, max(0, rule.amount - used), rule.begin + rule.length - now)
        case "concurrent":
            return Figures(account.held, max(0, rule.amount - account.held), 0)


def _arrival(account: Account, now: int) -> int:
    """Return the theoretical arrival time, not before ``now``."""
    return max(now, account.tat)


def _duration(rule: Rule, amount: int) -> int:
    """Return the time in which a bucket refills by ``amount``."""
    return amount * rule.length // max(1, rule.amount)


def _begin_period(account: Account, rule: Rule) -> None:
    # Never back: a clock that is set back does not empty an account.
    if account.period < rule.begin:
        account.used = account.held = 0
        account.period = rule.begin
