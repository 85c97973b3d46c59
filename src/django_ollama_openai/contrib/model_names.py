"""Names of models in metrics: a client writes them, and each is a time series that is kept."""

from __future__ import annotations

import threading
from typing import Final

from .. import conf

__all__ = ["OTHER", "UNKNOWN", "ModelNames"]

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

MAX_NAMES: Final = 100
MAX_NAME_LENGTH: Final = 200


class ModelNames:
    """The models that stand under their own names.

    These are the ones that the site's settings name, and up to ``limit`` others that have answered.
    Before its first answer a model may not exist, and any number of names do not.
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def label(self, name: str, *, has_answered: bool) -> str:
        """``name``; ``"unknown"`` of a model that was never seen to answer, and ``"other"`` of one
        that is beyond the limit."""
        settings = conf.get()
        if name in self._known or name in settings.MODELS or name == settings.DEFAULT_MODEL:
            return name
        if not has_answered:
            return UNKNOWN
        with self._lock:
            if len(self._known) >= self._limit or len(name) > MAX_NAME_LENGTH:
                return OTHER
            self._known.add(name)
        return name
