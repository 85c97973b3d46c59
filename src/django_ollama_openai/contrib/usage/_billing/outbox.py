"""Events for billing systems."""

from __future__ import annotations

from collections.abc import Sequence

from ..models import OutboxEvent, UsageRecord

__all__ = ["events_of"]


def events_of(records: Sequence[UsageRecord]) -> list[OutboxEvent]:
    """Return the events of ``records``, not inserted yet: one for each receiver in the settings."""
    return []
