"""Stores of limits, which ``ACCESS["LIMIT_STORE"]`` names by dotted path."""

from __future__ import annotations

from ._base import BaseStore, Claim, Held, Settlement, StoreDown, Verdict
from ._database import DatabaseStore
from ._memory import MemoryStore

__all__ = [
    "BaseStore",
    "Claim",
    "DatabaseStore",
    "Held",
    "MemoryStore",
    "Settlement",
    "StoreDown",
    "Verdict",
]
