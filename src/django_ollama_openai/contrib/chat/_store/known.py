"""The messages of long sessions that this process has read: the next answer reads only new ones.

Items are not changed after an answer has ended, and none is added below the last: as long as a path
has as many of them as before, it has the same ones.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ...._wire.chat import Message
from .tree import Path

__all__ = ["Known", "recall", "remember"]

#: The characters of all messages that a process keeps.
MAX_CHARACTERS: Final = 8_000_000
#: The characters that stand for the objects of a message.
FRAME: Final = 1_000


@dataclass(frozen=True, slots=True)
class Known:
    """The messages of ``path``: ``count`` is the number of its items, ``heads`` that of its
    messages, and ``characters`` are those of its text."""

    path: Path
    count: int
    heads: int
    characters: int
    messages: list[Message]

    @property
    def size(self) -> int:
        """Return the size of the messages in memory, in characters."""
        return self.characters + FRAME * self.count


class _Cache:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: By branch, the newest at the end.
        self.found: OrderedDict[UUID, Known] = OrderedDict()
        self.size = 0

    def drop(self, branch: UUID) -> None:
        old = self.found.pop(branch, None)
        self.size -= 0 if old is None else old.size


_cache = _Cache()


def recall(path: Path, max_characters: int) -> Known | None:
    """Return the messages of the beginning of ``path`` if they are known, all still there, and have
    up to ``max_characters``."""
    if not path.ranges:
        return None
    branch, last = path.ranges[0]
    known = _cache.found.get(branch)
    if known is None or known.characters > max_characters:
        return None
    if known.path.ranges[1:] != path.ranges[1:] or known.path.ranges[0][1] > last:
        return None
    if known.path.count() == known.count:
        return known
    with _cache.lock:
        _cache.drop(branch)
    return None


def remember(known: Known) -> None:
    """Keep ``known``, whose answers have all ended, and drop those that were kept longest."""
    branch = known.path.ranges[0][0]
    with _cache.lock:
        _cache.drop(branch)
        if known.size > MAX_CHARACTERS:
            return
        _cache.found[branch] = known
        _cache.size += known.size
        while _cache.size > MAX_CHARACTERS:
            _cache.drop(next(iter(_cache.found)))


def _renew_after_fork() -> None:
    # A thread of the parent may have held the lock.
    global _cache
    _cache = _Cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
