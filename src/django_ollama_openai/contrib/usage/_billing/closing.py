"""Close months into invoices."""

from __future__ import annotations

from collections.abc import Sequence

from ..models import UsageRecord

__all__ = ["assign_months"]


def assign_months(records: Sequence[UsageRecord]) -> None:
    """Give the billing month to ``records`` whose own one is closed."""
