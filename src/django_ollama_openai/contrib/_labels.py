"""Labels of metrics with a limited number of values.

Each value is a time series in memory, and clients and engines choose the values.
"""

from __future__ import annotations

import re
import threading
from typing import Final

from .. import _conf, exceptions
from ..exceptions import GatewayError

__all__ = ["MAX_NAME_LENGTH", "OTHER", "UNKNOWN", "ErrorCodes", "ModelNames"]

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

MAX_NAMES: Final = 100
MAX_NAME_LENGTH: Final = 200
MAX_CODES: Final = 50

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: The codes in :mod:`~django_ollama_openai.exceptions`.
_OWN_CODES: Final = frozenset(getattr(exceptions, name).code for name in exceptions.__all__)


class _BoundedSet:
    """A set of at most ``limit`` values, which are never removed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: set[str] = set()

    def __contains__(self, value: str) -> bool:
        return value in self._values

    def add(self, value: str) -> bool:
        """Add ``value`` if there is room, and return whether it is in the set."""
        if value in self._values:
            return True
        with self._lock:
            if len(self._values) < self._limit:
                self._values.add(value)
            return value in self._values


class ModelNames:
    """The names of models that are labels themselves.

    These are the models in the site's settings, and up to ``limit`` others that have answered a
    request. Other names in requests may not exist, and there is no limit to these.
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._known = _BoundedSet(limit)

    def label(self, name: str, *, has_answered: bool) -> str:
        """Return the label for ``name``: itself, ``"unknown"`` for a model that has never
        answered, or ``"other"`` for one beyond the limit."""
        settings = _conf.get()
        if name in self._known or name in settings.MODELS or name == settings.DEFAULT_MODEL:
            return name
        if not has_answered:
            return UNKNOWN
        return name if len(name) <= MAX_NAME_LENGTH and self._known.add(name) else OTHER


class ErrorCodes:
    """The error codes that are labels themselves: those of this package, and up to ``limit``
    others, since engines may send any."""

    def __init__(self, limit: int = MAX_CODES) -> None:
        self._known = _BoundedSet(limit)

    def label(self, error: GatewayError) -> str:
        """Return the label for ``error``: its code, or its type if the code is absent, is not an
        identifier, or is beyond the limit."""
        code = error.code
        if code is None or code in _OWN_CODES:
            return code or error.type
        return code if _CODE.fullmatch(code) and self._known.add(code) else error.type
