"""Policies: the last gate of every request, for limits, quotas and budgets.

A policy is a subclass of :class:`BasePolicy` that ``POLICIES`` names by dotted path. It admits or
refuses a request that has passed all other gates, and may hold something until the request has
ended::

    class OneAtATime(BasePolicy):
        def __init__(self) -> None:
            self._busy: set[str | None] = set()

        def admit(self, admission: Admission) -> Hold:
            owner = admission.caller.owner
            if owner in self._busy:
                raise Unavailable("One request at a time, please.")
            self._busy.add(owner)
            return Busy(self._busy, owner)


    class Busy(Hold):
        def __init__(self, busy: set[str | None], owner: str | None) -> None:
            self._busy, self._owner = busy, owner

        def settle(self, outcome: Outcome) -> None:
            self._busy.discard(self._owner)
"""

from __future__ import annotations

from ._gateway.admission import Admission
from ._gateway.outcome import Outcome, Timings
from ._gateway.policy import POLICY_TIMEOUT, BasePolicy, Hold

__all__ = ["POLICY_TIMEOUT", "Admission", "BasePolicy", "Hold", "Outcome", "Timings"]
