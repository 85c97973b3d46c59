"""Stores of limits, which ``ACCESS["LIMIT_STORE"]`` names by dotted path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._base import BaseStore, Claim, Epochs, Held, Settlement, StoreDown, Verdict
from ._database import DatabaseStore
from ._memory import MemoryStore

if TYPE_CHECKING:
    from ._redis import RedisStore

__all__ = [
    "BaseStore",
    "Claim",
    "DatabaseStore",
    "Epochs",
    "Held",
    "MemoryStore",
    "RedisStore",
    "Settlement",
    "StoreDown",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    """Import ``RedisStore`` when it is used: it takes the extra ``redis``."""
    if name == "RedisStore":
        from ._redis import RedisStore

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
