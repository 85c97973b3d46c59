"""Several backends as one."""

from __future__ import annotations

from .pool import PoolBackend

__all__ = ["PoolBackend"]
