"""A store in the memory of one process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from .._limits import ledger
from ._base import (
    LEASE_MICROSECONDS,
    BaseStore,
    Claim,
    Held,
    Settlement,
    Verdict,
    figures_of,
    now,
    reserve_all,
)

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Lease:
    held: Held
    expires: int


class MemoryStore(BaseStore):
    """Keeps accounts in the memory of this process, for tests and for sites with one process."""

    def __init__(self, *, clock: Callable[[], int] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, ledger.Account] = defaultdict(ledger.Account)
        #: By account and request.
        self._leases: dict[str, dict[UUID, _Lease]] = defaultdict(dict)

    def reserve(self, request: UUID, claims: Sequence[Claim], epoch: str | None = None) -> Verdict:
        with self._lock:
            moment = self._clock()
            self._expire(claims, moment)
            verdict = reserve_all(self._accounts, claims, moment)
            expires = moment + LEASE_MICROSECONDS
            for held in verdict.held:
                if held.claim.is_leased:
                    self._leases[held.claim.account][request] = _Lease(held, expires)
            return verdict

    def settle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        with self._lock:
            for each in settlements:
                claim = each.held.claim
                reserved = claim.amount
                if claim.is_leased and self._leases[claim.account].pop(request, None) is None:
                    # It has expired.
                    reserved = 0
                account = self._accounts[claim.account]
                ledger.settle(account, claim.rule, reserved, each.actual, each.held.period)

    def renew(self, running: Mapping[UUID, Sequence[Held]]) -> None:
        with self._lock:
            expires = self._clock() + LEASE_MICROSECONDS
            for request, held in running.items():
                for each in held:
                    lease = self._leases[each.claim.account].get(request)
                    if lease is not None:
                        lease.expires = expires

    def read(self, claims: Sequence[Claim]) -> Sequence[ledger.Figures]:
        with self._lock:
            moment = self._clock()
            self._expire(claims, moment)
            return figures_of(self._accounts, claims, moment)

    def _expire(self, claims: Sequence[Claim], moment: int) -> None:
        for claim in claims:
            leases = self._leases[claim.account]
            for request, lease in list(leases.items()):
                if lease.expires <= moment:
                    del leases[request]
                    account, held = self._accounts[claim.account], lease.held
                    ledger.settle(account, claim.rule, held.claim.amount, 0, held.period)
