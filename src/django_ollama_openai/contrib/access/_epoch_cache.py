"""A cache of rows in the process for some seconds, which is cleared when something changes.

Processes may learn of each other's changes through a store that they share. It keeps an epoch, a
random text that a change replaces. Rows read in another epoch than the store's are out of date.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["EpochCache", "Remembered"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Remembered(Generic[V]):
    """A value that was read at ``at``, in seconds of the monotonic clock, after the begin of
    ``epoch``; ``""`` for an epoch that is not known yet."""

    value: V
    epoch: str
    at: float


class EpochCache(Generic[K, V]):
    """A cache of up to ``max_entries`` values. The oldest are removed first."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, Remembered[V]] = OrderedDict()
        self._generation = 0
        self.epoch = ""

    def clear(self) -> None:
        """Remove all values, and do not store those that are being read at the moment."""
        with self._lock:
            self._generation += 1
            self._entries.clear()

    def start_epoch(self, epoch: str) -> None:
        """Remove all values that were not read in ``epoch``, the current one."""
        with self._lock:
            if epoch != self.epoch:
                self.epoch = epoch
                self._generation += 1
                self._entries.clear()

    def get(self, key: K, seconds: float) -> Remembered[V] | None:
        """Return the value of ``key`` if it was read within ``seconds``."""
        entry = self._entries.get(key)
        return None if entry is None or time.monotonic() - entry.at >= seconds else entry

    def load(self, key: K, read: Callable[[], V]) -> Remembered[V]:
        """Read the value of ``key`` and cache it, unless it is ``None``."""
        with self._lock:
            epoch, generation = self.epoch, self._generation
        at = time.monotonic()
        entry = Remembered(read(), epoch, at)
        with self._lock:
            # What was read before a change must not be kept after it.
            if entry.value is not None and generation == self._generation:
                self._entries[key] = entry
                self._entries.move_to_end(key)
                while len(self._entries) > self._max_entries:
                    self._entries.popitem(last=False)
        return entry
