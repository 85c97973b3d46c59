"""A limit on how long an asynchronous task waits for an engine that says nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from .._alarm import Alarm
from ..exceptions import UpstreamTimeout

__all__ = ["Silence"]


class Silence:
    """Ends the wait of the current task when it lasts longer than ``seconds``.

    Unlike :func:`asyncio.timeout` it stands around many waits, at hardly any cost: between
    :meth:`ends` and :meth:`begins` nobody waits.

    Raises:
        UpstreamTimeout: in the task, at the end of the block.
    """

    __slots__ = ("_alarm", "_cancelling", "_is_over", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A silence is waited out in a task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._alarm = Alarm(self._expire)
        self._alarm.set(self._seconds)
        return self

    def ends(self) -> None:
        """The engine has said something, and nobody waits for more yet."""
        self._alarm.clear()

    def begins(self, seconds: float) -> None:
        """The task waits again, for so many seconds at the most."""
        self._alarm.set(seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._alarm.end()
        # Somebody else may have cancelled the task as well.
        if self._is_over and self._task.uncancel() <= self._cancelling:
            raise UpstreamTimeout("The engine did not answer in time.") from error

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()
