"""The policy of the app: every request that reaches an engine leaves one record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ..._ids import uuid7
from ...policies import Admission, BasePolicy, Hold, Outcome
from ._recording import writer
from ._recording.record import Draft, draft_of
from .conf import usage_settings

__all__ = ["UsagePolicy"]


class UsagePolicy(BasePolicy):
    """Records requests when they have ended."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        if admission.route is None:
            return None
        return _Recording(admission, uuid7(), datetime.now(UTC))

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        return self.admit(admission)


@dataclass(slots=True)
class _Recording(Hold):
    """The record of a request that runs."""

    admission: Admission[Any]
    id: UUID
    started_at: datetime

    def settle(self, outcome: Outcome) -> None:
        draft = self._end(outcome)
        if draft is None:
            return
        if usage_settings().DURABILITY == "committed":
            writer.commit(draft)
        else:
            writer.put(draft)

    async def asettle(self, outcome: Outcome) -> None:
        draft = self._end(outcome)
        if draft is None:
            return
        if usage_settings().DURABILITY == "committed":
            await writer.acommit(draft)
        else:
            writer.put(draft)

    def _end(self, outcome: Outcome) -> Draft | None:
        return draft_of(self.id, self.started_at, self.admission, outcome)
