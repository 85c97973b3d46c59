"""Run parts of asyncio's tasks without a round of the event loop.

``_enter_task`` and ``_leave_task`` are documented in "Extending asyncio", in spite of their names.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeAlias, TypeVar

__all__ = ["Suspended", "resume", "start_as", "start_task"]

T = TypeVar("T")

#: An awaitable that has begun to wait: its steps, and the future that it waits for.
Suspended: TypeAlias = tuple[Generator[Any, Any, T], Any]

if sys.version_info >= (3, 12):

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that has run ``coroutine`` up to its first wait, or to its end."""
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)

else:

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task; before Python 3.12 it begins in the next round of the event loop."""
        return asyncio.create_task(coroutine)


def start_as(
    task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, begin: Callable[[], Awaitable[object]]
) -> Suspended[object] | None:
    """Run the awaitable that ``begin()`` returns up to its first wait, as the current code of
    ``task``, which has to :func:`resume` it then. Return ``None`` if it has come to its end.

    No task may be running, as in a callback of ``loop``. The awaitable may use timeouts and cancel
    scopes, which belong to a task.
    """
    _enter_task(loop, task)
    try:
        steps = begin().__await__()
        return steps, next(steps)
    except StopIteration:
        return None
    finally:
        _leave_task(loop, task)


@coroutine
def resume(steps: Generator[Any, Any, T], waiting: Any) -> Generator[Any, Any, T]:
    """Await the rest of a :data:`Suspended` awaitable."""
    try:
        yield waiting
    except BaseException as error:
        try:
            waiting = steps.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        return (yield from resume(steps, waiting))
    return (yield from steps)
