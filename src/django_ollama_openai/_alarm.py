"""A timer for waits that follow one another closely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """Calls ``ring`` when a wait lasts too long, in the running event loop.

    It is set before each wait and cleared after it. A timer of the loop is used for many of them: a
    stream waits for every token, and a timer for each would be a good part of what a token costs.
    """

    __slots__ = ("_due", "_loop", "_ring", "_timer")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """A wait begins that may last so long."""
        due = self._due = self._loop.time() + seconds
        if self._timer is not None and due < self._timer.when():
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def clear(self) -> None:
        """The wait is over."""
        self._due = None

    def end(self) -> None:
        """There will be no more waits."""
        self._due = None
        self._ring = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._due <= self._loop.time():
            self._due = None
            self._ring()
        else:
            self._timer = self._loop.call_at(self._due, self._look)


def _nothing() -> None:
    """What an alarm that has ended does; it holds on to nobody."""
