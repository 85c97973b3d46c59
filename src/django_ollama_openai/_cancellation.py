"""How synchronous code learns that nobody waits for it any more.

Asynchronous code is cancelled by its event loop. A thread that blocks in a read cannot be: it is
woken by whoever holds its :class:`Cancellation`, through a callback that it registers for as long
as it blocks. The cancellation of the current thread's work is found in :data:`current`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

__all__ = ["Cancellation", "Cancelled", "current", "interruptible"]


class Cancelled(BaseException):
    """Raised in the cancelled thread. Like :class:`asyncio.CancelledError`, not to be swallowed."""


class Cancellation:
    """One piece of work that another thread may cancel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Mark the work as cancelled and wake the thread that blocks in it."""
        with self._lock:
            self.cancelled = True
            if self._interrupt is not None:
                self._interrupt()

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Let :meth:`cancel` call ``interrupt`` while the block runs.

        ``interrupt`` runs in the cancelling thread and must return at once.

        Raises:
            Cancelled: the work is or was cancelled; whatever else the block raised is its effect.
        """
        with self._lock:
            if self.cancelled:
                raise Cancelled
            self._interrupt = interrupt
        try:
            yield
        except Exception:
            if self.cancelled:
                raise Cancelled from None
            raise
        finally:
            with self._lock:
                self._interrupt = None
        if self.cancelled:
            raise Cancelled


current: ContextVar[Cancellation | None] = ContextVar("current_cancellation", default=None)
"""The cancellation of the work that the current thread does, if it can be cancelled."""


def interruptible(interrupt: Callable[[], None]) -> AbstractContextManager[None]:
    """:meth:`Cancellation.interruptible` of the current work; nothing, if that has none."""
    cancellation = current.get()
    return nullcontext() if cancellation is None else cancellation.interruptible(interrupt)
