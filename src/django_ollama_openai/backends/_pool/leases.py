"""The leases of a pool: one for each member that may be tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...exceptions import (
    GatewayError,
    ModelNotFound,
    Overloaded,
    UpstreamError,
    UpstreamUnavailable,
)
from .._base import BaseBackend
from .._leases import Lease, Leases
from .._slots import QueueTicket, Slots
from .monitor import Monitor
from .selection import Member, able, ranked

__all__ = ["PoolRequest"]

#: Failures of a member that has not begun to work on the request.
NOT_BEGUN: Final = (UpstreamUnavailable, Overloaded, ModelNotFound)

#: The members that may fail while they work on one request: the request may be the reason.
MAX_FAILURES: Final = 2


class PoolRequest:
    """One request for ``model`` to ``pool``, which ``members`` can answer."""

    def __init__(
        self,
        pool: BaseBackend,
        members: Sequence[Member],
        model: str,
        *,
        loading_cost: float,
        monitor: Monitor,
    ) -> None:
        self.pool = pool
        self.members = members
        self.model = model
        self.monitor = monitor
        self.tried: list[Member] = []
        self._loading_cost = loading_cost

    def ranked(self) -> list[Member]:
        """Return the members that may be tried now, the best first."""
        return ranked(self.members, self.model, tried=self.tried, loading_cost=self._loading_cost)

    def leases(self, ticket: QueueTicket) -> Leases:
        """Yield a lease for each member that may be tried, until one has answered.

        Raises:
            GatewayError: None is left. It is the last error, or an earlier one if the last member
                only lacks the model.
        """
        failure: GatewayError = UpstreamUnavailable()
        lease = _PoolLease(self, ticket)
        while not self.tried or (ticket.failures < MAX_FAILURES and self.ranked()):
            try:
                yield lease
            except Exception as error:
                member = lease.member
                if member is None:
                    raise
                self.monitor.failed(member, error)
                if isinstance(error, UpstreamError):
                    member.note_failure()
                if lease.has_begun or not isinstance(error, (*NOT_BEGUN, UpstreamError)):
                    raise
                self.tried.append(member)
                if isinstance(error, ModelNotFound):
                    member.note_missing(self.model)
                elif not isinstance(error, NOT_BEGUN):
                    ticket.failures += 1
                lacks_model = isinstance(error, ModelNotFound) or member.is_without(self.model)
                if len(self.tried) == 1 or not lacks_model:
                    failure = error
            else:
                if lease.member is not None:
                    lease.member.note_success()
                    self.monitor.succeeded(lease.member)
                return
            # A ticket that was admitted would let it wait without a limit.
            lease = _PoolLease(self, QueueTicket())
        try:
            raise failure
        finally:
            # Its traceback refers to this frame.
            del failure


class _PoolLease(Lease):
    """A slot of the first member that has one free; ``member`` is set when it is acquired."""

    __slots__ = ("_request", "member")

    def __init__(self, request: PoolRequest, ticket: QueueTicket) -> None:
        super().__init__(request.pool, ticket)
        self._request = request
        self.member: Member | None = None

    def acquire(self) -> None:
        self._request.monitor.note_traffic()
        super().acquire()

    async def aacquire(self) -> None:
        await self._request.monitor.anote_traffic()
        await super().aacquire()

    def _first_free(self) -> Slots | None:
        for member in self._request.ranked():
            if member.slots.is_free:
                return member.slots
        return None

    def _candidates(self) -> Sequence[Slots]:
        request = self._request
        members = able(request.members, request.model)
        lines = [member.slots for member in members if member not in request.tried]
        # The pool's own queue only counts the waiting requests; it has no slots.
        return (*lines, self._queue)

    def _wants(self, slots: Slots) -> bool:
        return any(member.slots is slots for member in self._request.ranked())

    def _grant(self, slots: Slots) -> None:
        super()._grant(slots)
        request = self._request
        self._queue.running += 1
        (self.member,) = (each for each in request.members if each.slots is slots)
        self.backend = self.member.backend
        self.member.note_begin(request.model)

    def _return(self) -> Slots | None:
        slots = super()._return()
        if slots is not None and self.member is not None:
            self._queue.running -= 1
            self.member.note_end(self._request.model)
        return slots
