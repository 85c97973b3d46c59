"""Cancel synchronous code that blocks.

An event loop can cancel its tasks. A thread that blocks in a read has to be woken: it registers a
callback in its :class:`Cancellation` for as long as it blocks, and the thread that cancels calls
it. The cancellation of the work that the current thread does is in :data:`current`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar

__all__ = ["Cancellation", "Cancelled", "current", "interruptible", "interruptible_io"]


class Cancelled(BaseException):
    """Raised in the cancelled thread. Like :class:`asyncio.CancelledError`, let it propagate."""


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
            Cancelled: The work is or was cancelled. Any other exception of the block is then taken
                for an effect of the interruption.
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


#: The cancellation of the current thread's work; ``None`` if that cannot be cancelled.
current: ContextVar[Cancellation | None] = ContextVar("current_cancellation", default=None)


def interruptible(interrupt: Callable[[], None]) -> AbstractContextManager[None]:
    """Return :meth:`Cancellation.interruptible` of the current work.

    Outside of work that can be cancelled it is a context manager that does nothing.
    """
    cancellation = current.get()
    return nullcontext() if cancellation is None else cancellation.interruptible(interrupt)


def interruptible_io(sock: socket.socket) -> AbstractContextManager[None]:
    """Let a cancellation of the current work end blocking calls of ``sock`` in the block."""

    def shut_down() -> None:
        # Closing the socket would not wake a thread that blocks in it. The method of the plain
        # socket: that of an SSLSocket would also remove the TLS layer below the reader. It fails
        # if the peer has closed the connection, and then nothing blocks.
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    return interruptible(shut_down)
