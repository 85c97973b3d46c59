"""The endpoints of the app, below every mount."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["urlpatterns"]

urlpatterns: Final[list[Any]] = []
