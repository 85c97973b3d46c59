"""The interface of stores, which keep the accounts of limits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal
from uuid import UUID

from ...._threads import in_separate_thread
from .._limits import ledger
from .._limits.ledger import Figures, Rule

__all__ = [
    "LEASE_MICROSECONDS",
    "BaseStore",
    "Claim",
    "Epochs",
    "Held",
    "Settlement",
    "StoreDown",
    "Verdict",
    "figures_of",
    "now",
    "reserve_all",
]

#: The time after which a reservation ends that is not renewed, such as after a crash.
LEASE_MICROSECONDS: Final = 60 * 10**6


def now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


class StoreDown(Exception):
    """The store cannot be reached, or takes no writes."""

    def __str__(self) -> str:
        return super().__str__() or str(self.__cause__ or "")


@dataclass(frozen=True, slots=True)
class Claim:
    """The amount that a request asks to reserve in one account.

    Attributes:
        account: The id of the account, 64 hexadecimal digits.
        is_leased: Whether the reservation has to be renewed. Requests need no lease: they count as
            used from the beginning, and are released if they have not reached an engine.
    """

    account: str
    rule: Rule
    amount: int
    is_leased: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A claim that was granted, and the start of its calendar period; 0 for other limits."""

    claim: Claim
    period: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """The actual use of a request, which replaces the reserved amount of ``held``."""

    held: Held
    actual: int


@dataclass(frozen=True, slots=True)
class Epochs:
    """The current epochs of all limits and of all keys in a store that announces changes.

    A change of any limit, or of anything that a key depends on, replaces the epoch by another text.
    """

    limits: str
    keys: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a reservation.

    Attributes:
        figures: The use of each account after the reservation, in the order of the claims.
        held: The claims, if they were granted; empty if not.
        refused: The index of the claim that was refused, and the microseconds after which it may
            be repeated, -1 for never.
        epochs: The current epochs, if the store announces changes.
        is_stale: Whether limits have changed since the claims were made; nothing is reserved then.
    """

    figures: Sequence[Figures]
    held: Sequence[Held] = ()
    refused: tuple[int, int] | None = None
    epochs: Epochs | None = None
    is_stale: bool = False


def reserve_all(
    accounts: Mapping[str, ledger.Account], claims: Sequence[Claim], moment: int
) -> Verdict:
    """Reserve ``claims`` in ``accounts``, all or none; of several refusals report the longest."""
    for claim in claims:
        ledger.follow_clock(accounts[claim.account], claim.rule, moment)
    waits = [
        (wait, number)
        for number, claim in enumerate(claims)
        if (wait := ledger.refusal(accounts[claim.account], claim.rule, claim.amount, moment))
        is not None
    ]
    held: list[Held] = []
    if not waits:
        for claim in claims:
            account = accounts[claim.account]
            held.append(Held(claim, ledger.reserve(account, claim.rule, claim.amount, moment)))
    figures = figures_of(accounts, claims, moment)
    if not waits:
        return Verdict(figures, held)
    wait, number = min(waits, key=lambda each: (each[0] >= 0, -each[0]))
    return Verdict(figures, refused=(number, wait))


def figures_of(
    accounts: Mapping[str, ledger.Account], claims: Sequence[Claim], moment: int
) -> list[Figures]:
    """Return the current use of the accounts of ``claims``."""
    for claim in claims:
        ledger.follow_clock(accounts[claim.account], claim.rule, moment)
    return [ledger.figures(accounts[claim.account], claim.rule, moment) for claim in claims]


class BaseStore:
    """Base class of stores, which count the use of limits in accounts.

    Its methods may be called from several threads and event loops.

    Raises:
        StoreDown: The store cannot be reached; any method may raise it.
    """

    #: Whether processes learn of each other's changes through the store, see :meth:`announce`. If
    #: not, limits are read from the database for every request.
    announces: ClassVar[bool] = False

    def announce(self, what: Literal["limits", "keys"]) -> None:
        """Begin a new epoch of ``what`` after a change. Do nothing unless overridden."""

    def reserve(self, request: UUID, claims: Sequence[Claim], epoch: str | None = None) -> Verdict:
        """Reserve all of ``claims`` for ``request``, or none of them.

        A store that announces changes reserves nothing if the current epoch of limits is not
        ``epoch``; ``None`` stands for any.
        """
        raise NotImplementedError

    def settle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        """Replace the reserved amounts of ``request`` by its actual use."""
        raise NotImplementedError

    def renew(self, running: Mapping[UUID, Sequence[Held]]) -> None:
        """Renew the leases of requests that are still running, with what they hold."""
        raise NotImplementedError

    def read(self, claims: Sequence[Claim]) -> Sequence[Figures]:
        """Return the current use of the accounts of ``claims``, without a reservation."""
        raise NotImplementedError

    async def areserve(
        self, request: UUID, claims: Sequence[Claim], epoch: str | None = None
    ) -> Verdict:
        """Async version of :meth:`reserve`; runs it in a thread unless overridden."""
        return await in_separate_thread(self.reserve, request, claims, epoch)

    async def asettle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        """Async version of :meth:`settle`; runs it in a thread unless overridden."""
        await in_separate_thread(self.settle, request, settlements)
