"""A limit on how long an asynchronous task waits for an engine that says nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from ..exceptions import UpstreamTimeout

__all__ = ["Silence"]


class Silence:
    """Ends the wait of the current task when it lasts longer than ``seconds``.

    Unlike :func:`asyncio.timeout` it can stand around many waits at hardly any cost: between
    :meth:`ends` and :meth:`begins` nobody waits, and the timer is set anew only when it runs out.

    Raises:
        UpstreamTimeout: in the task, at the end of the block.
    """

    __slots__ = ("_cancelling", "_is_over", "_limit", "_loop", "_since", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._limit = seconds
        self._is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A silence is waited out in a task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = task.get_loop()
        self._since: float | None = self._loop.time()
        self._timer = self._loop.call_at(self._since + self._limit, self._check)
        return self

    def ends(self) -> None:
        """The engine has said something, and nobody waits for more yet."""
        self._since = None

    def begins(self, seconds: float) -> None:
        """The task waits again, for so many seconds at the most."""
        self._since = self._loop.time()
        if seconds != self._limit:
            self._limit = seconds
            self._timer.cancel()
            self._timer = self._loop.call_at(self._since + seconds, self._check)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task as well.
        if self._is_over and self._task.uncancel() <= self._cancelling:
            raise UpstreamTimeout("The engine did not answer in time.") from error

    def _check(self) -> None:
        since = self._loop.time() if self._since is None else self._since
        due = since + self._limit
        if due <= self._loop.time():
            self._is_over = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(due, self._check)
