"""A time limit on the waits of an asynchronous task for the next output of an engine."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from .._lazy_timer import LazyTimer
from ..exceptions import UpstreamTimeout

__all__ = ["IdleTimeout"]


class IdleTimeout:
    """Cancel the waits of the current task that exceed a timeout, armed for ``seconds`` at first.

    Unlike :func:`asyncio.timeout` one block covers many waits at hardly any cost. No time limit
    applies between :meth:`disarm` and :meth:`arm`.

    Raises:
        UpstreamTimeout: A wait took too long; raised at the end of the block.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("IdleTimeout must be used inside a task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = LazyTimer(self._expire)
        self._timer.set(self._seconds)
        return self

    def arm(self, seconds: float) -> None:
        """Start a wait of at most ``seconds``."""
        self._timer.set(seconds)

    def disarm(self) -> None:
        """End the current wait."""
        self._timer.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.close()
        # The task may also have been cancelled from outside.
        if self._expired and self._task.uncancel() <= self._cancelling:
            raise UpstreamTimeout("The engine did not answer in time.") from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
