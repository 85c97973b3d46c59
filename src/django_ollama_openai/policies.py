"""Policies: the last gate of every request, for limits, quotas and budgets.

A policy is a subclass of :class:`BasePolicy` that ``POLICIES`` names by dotted path. It admits or
refuses a request that has passed all other gates, and may hold something until the request has
ended::

    class OneAtATime(BasePolicy):
        def __init__(self) -> None:
            self._lock = Lock()
            self._busy: set[str] = set()

        def admit(self, admission: Admission) -> Hold | None:
            owner = admission.caller.owner
            if owner is None or admission.route is None:
                return None
            with self._lock:
                if owner in self._busy:
                    raise RateLimited("One request at a time, please.")
                self._busy.add(owner)
            return Busy(self._busy, owner)


    class Busy(Hold):
        def __init__(self, busy: set[str], owner: str) -> None:
            self._busy, self._owner = busy, owner

        def settle(self, outcome: Outcome) -> None:
            self._busy.discard(self._owner)
"""

from __future__ import annotations

from ._gateway.admission import Admission
from ._gateway.outcome import Outcome, Timings
from ._gateway.policy import POLICY_TIMEOUT, BasePolicy, Hold

__all__ = ["POLICY_TIMEOUT", "Admission", "BasePolicy", "Hold", "Outcome", "Timings"]
