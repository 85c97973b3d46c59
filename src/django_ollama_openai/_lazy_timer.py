"""A timer for waits that follow one another closely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["LazyTimer"]


class LazyTimer:
    """Call ``callback`` in the running event loop when a wait exceeds its timeout.

    Set the timer before each wait and clear it afterwards. Many waits share one timer of the event
    loop: a stream waits for every token, and a timer for each would be a good part of its cost.
    """

    __slots__ = ("_callback", "_due", "_handle", "_loop")

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Start a wait with a timeout of ``seconds``, in place of the current one."""
        due = self._due = self._loop.time() + seconds
        if self._handle is not None and due < self._handle.when():
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._handle = self._loop.call_at(due, self._check)

    def clear(self) -> None:
        """End the current wait."""
        self._due = None

    def close(self) -> None:
        """Cancel the timer for good and drop the reference to the callback."""
        self._due = None
        self._callback = _do_nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _check(self) -> None:
        self._handle = None
        if self._due is None:
            return
        if self._due <= self._loop.time():
            self._due = None
            self._callback()
        else:
            self._handle = self._loop.call_at(self._due, self._check)


def _do_nothing() -> None:
    """Stand in for the callback of a closed timer."""
