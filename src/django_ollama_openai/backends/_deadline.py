"""A time limit on all reads and writes of a request that a thread waits for."""

from __future__ import annotations

import time
from contextvars import ContextVar

__all__ = ["Deadline", "current"]


class Deadline:
    """A limit of ``seconds`` from now on the waits of a thread for an engine.

    A transport's timeout limits each read, which an engine evades that sends a byte now and then.
    A request carries its deadline as ``request.extensions["deadline"]``; ``InterruptibleTransport``
    checks it before each read and write.
    """

    __slots__ = ("_until", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        """Start another wait, of at most ``seconds`` from now."""
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, zero or less once the deadline has passed."""
        return self._until - time.monotonic()


#: The deadline of the request that the current thread reads from or writes to.
current: ContextVar[Deadline | None] = ContextVar("current_deadline", default=None)
