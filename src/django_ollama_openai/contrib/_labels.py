"""Labels of metrics: each value is a time series that is kept, and others choose the values."""

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
_OWN_CODES: Final = frozenset(getattr(exceptions, name).code for name in exceptions.__all__)
"""Those of :mod:`~django_ollama_openai.exceptions`."""


class _First:
    """The first ``limit`` values that come along."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: set[str] = set()

    def __contains__(self, value: str) -> bool:
        return value in self._values

    def takes(self, value: str) -> bool:
        """Whether ``value`` is one of them, from now on if there is room."""
        if value in self._values:
            return True
        with self._lock:
            if len(self._values) < self._limit:
                self._values.add(value)
            return value in self._values


class ModelNames:
    """The models that stand under their own names.

    These are the ones that the site's settings name, and up to ``limit`` others that have answered.
    Before its first answer a model may not exist, and any number of names do not.
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._known = _First(limit)

    def label(self, name: str, *, has_answered: bool) -> str:
        """``name``; ``"unknown"`` of a model that was never seen to answer, and ``"other"`` of one
        that is beyond the limit."""
        settings = _conf.get()
        if name in self._known or name in settings.MODELS or name == settings.DEFAULT_MODEL:
            return name
        if not has_answered:
            return UNKNOWN
        return name if len(name) <= MAX_NAME_LENGTH and self._known.takes(name) else OTHER


class ErrorCodes:
    """The codes of errors that stand for themselves: the app's own, and up to ``limit`` others. An
    engine that refuses a request may give any."""

    def __init__(self, limit: int = MAX_CODES) -> None:
        self._known = _First(limit)

    def label(self, error: GatewayError) -> str:
        """The code that the client is told; the type of the error if it has none, if that does not
        look like a name, and beyond the limit."""
        code = error.code
        if code is None or code in _OWN_CODES:
            return code or error.type
        return code if _CODE.fullmatch(code) and self._known.takes(code) else error.type
