"""The policy of the app: every request that reaches an engine leaves one record."""

from __future__ import annotations

from typing import Any

from ...policies import Admission, BasePolicy, Hold

__all__ = ["UsagePolicy"]


class UsagePolicy(BasePolicy):
    """Records requests when they have ended."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        return None
