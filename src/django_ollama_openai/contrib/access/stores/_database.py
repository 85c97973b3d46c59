"""A store in the site's database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connections,
    router,
    transaction,
)
from django.db.models import F

from ...._connections import close_if_lost
from .._limits import ledger
from ..models import LimitAccount, LimitReservation
from ._base import (
    LEASE_MICROSECONDS,
    BaseStore,
    Claim,
    Held,
    Settlement,
    StoreDown,
    Verdict,
    figures_of,
    now,
    reserve_all,
)

__all__ = ["DatabaseStore"]

P = ParamSpec("P")
R = TypeVar("R")

FIELDS: Final = ("tat", "seen", "used", "held", "period")
#: How often a transaction is tried that the database aborts, such as in a deadlock.
ATTEMPTS: Final = 3


def _in_transaction(method: Callable[P, R]) -> Callable[P, R]:
    """Run ``method`` in a transaction, and repeat it if the database aborts it.

    Raises:
        StoreDown: The database cannot be reached, or takes no writes.
    """

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _turn(), transaction.atomic(using=_alias()):
                    return method(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                if attempt == ATTEMPTS:
                    raise StoreDown from error
                close_if_lost(_alias())
            except DatabaseError as error:
                raise StoreDown from error
        raise AssertionError

    return run


def _turn() -> AbstractContextManager[object]:
    """Return a context that waits until no other thread of this process writes to SQLite. SQLite
    itself tries again after pauses, so that some wait for seconds while others overtake them."""
    connection = connections[_alias()]
    is_needed = connection.vendor == "sqlite" and not connection.in_atomic_block
    return _writing if is_needed else nullcontext()


def _new_lock() -> None:
    global _writing
    _writing = threading.Lock()


_writing: threading.Lock
_new_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _alias() -> str:
    return router.db_for_write(LimitAccount)


class DatabaseStore(BaseStore):
    """Keeps accounts in the site's database. A reservation is one short transaction."""

    def __init__(self, *, clock: Callable[[], int] = now) -> None:
        self._clock = clock

    @_in_transaction
    def reserve(self, request: UUID, claims: Sequence[Claim], epoch: str | None = None) -> Verdict:
        rows = _locked(claims)
        # After the wait for the lock.
        moment = self._clock()
        accounts = {pk: _account(row) for pk, row in rows.items()}
        self._expire(accounts, claims, moment)
        verdict = reserve_all(accounts, claims, moment)
        _save(rows, accounts)
        LimitReservation.objects.bulk_create(
            LimitReservation(
                request=request,
                account_id=held.claim.account,
                amount=held.claim.amount,
                period=held.period,
                expires=moment + LEASE_MICROSECONDS,
            )
            for held in verdict.held
            if held.claim.is_leased
        )
        return verdict

    @_in_transaction
    def settle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        rows = _locked([each.held.claim for each in settlements])
        accounts = {pk: _account(row) for pk, row in rows.items()}
        leases = LimitReservation.objects.filter(request=request)
        leased = set(leases.values_list("account_id", flat=True))
        for each in settlements:
            claim = each.held.claim
            # A lease that is missing has expired.
            reserved = claim.amount if not claim.is_leased or claim.account in leased else 0
            account = accounts[claim.account]
            ledger.settle(account, claim.rule, reserved, each.actual, each.held.period)
        _save(rows, accounts)
        if leased:
            leases.delete()

    @_in_transaction
    def renew(self, running: Mapping[UUID, Sequence[Held]]) -> None:
        LimitReservation.objects.filter(request__in=list(running)).update(
            expires=self._clock() + LEASE_MICROSECONDS
        )

    @_in_transaction
    def read(self, claims: Sequence[Claim]) -> Sequence[ledger.Figures]:
        ids = [claim.account for claim in claims]
        accounts = {claim.account: ledger.Account() for claim in claims}
        accounts |= {row.pk: _account(row) for row in LimitAccount.objects.filter(pk__in=ids)}
        moment = self._clock()
        for lease in LimitReservation.objects.filter(account__in=ids, expires__lte=moment):
            rule = next(claim.rule for claim in claims if claim.account == lease.account_id)
            ledger.settle(accounts[lease.account_id], rule, lease.amount, 0, lease.period)
        return figures_of(accounts, claims, moment)

    def _expire(
        self, accounts: dict[str, ledger.Account], claims: Sequence[Claim], moment: int
    ) -> None:
        rules = {claim.account: claim.rule for claim in claims if claim.is_leased}
        if not rules:
            return
        expired = list(LimitReservation.objects.filter(account__in=rules, expires__lte=moment))
        for lease in expired:
            account = accounts[lease.account_id]
            ledger.settle(account, rules[lease.account_id], lease.amount, 0, lease.period)
        if expired:
            LimitReservation.objects.filter(pk__in=[lease.pk for lease in expired]).delete()


def _locked(claims: Sequence[Claim]) -> dict[str, LimitAccount]:
    """Return the rows of the accounts, which this transaction has locked."""
    ids = sorted({claim.account for claim in claims})
    accounts = LimitAccount.objects.filter(pk__in=ids)
    if not connections[accounts.db].features.has_select_for_update:
        # SQLite locks the whole database, but only once a transaction writes. One that has read
        # before could not do so if another has written meanwhile.
        accounts.filter(pk=ids[0]).update(seen=F("seen"))
    rows = {row.pk: row for row in accounts.select_for_update().order_by("pk")}
    missing = [pk for pk in ids if pk not in rows]
    if missing:
        LimitAccount.objects.bulk_create(
            [LimitAccount(pk=pk) for pk in missing], ignore_conflicts=True
        )
        rows = {row.pk: row for row in accounts.select_for_update().order_by("pk")}
    return rows


def _account(row: LimitAccount) -> ledger.Account:
    return ledger.Account(**{name: getattr(row, name) for name in FIELDS})


def _save(rows: dict[str, LimitAccount], accounts: dict[str, ledger.Account]) -> None:
    changed = []
    for pk, row in rows.items():
        values: dict[str, Any] = {name: getattr(accounts[pk], name) for name in FIELDS}
        if any(getattr(row, name) != value for name, value in values.items()):
            for name, value in values.items():
                setattr(row, name, value)
            changed.append(row)
    if changed:
        # As bulk_update() does, in a quarter of its time: that compares each row in each column.
        with_target = connections[_alias()].features.supports_update_conflicts_with_target
        LimitAccount.objects.bulk_create(
            changed,
            update_conflicts=True,
            update_fields=FIELDS,
            unique_fields=["id"] if with_target else None,
        )
