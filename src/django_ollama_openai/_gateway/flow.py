"""Share one logic between sync and async: a flow yields its calls, a driver makes them.

A flow is a generator that yields a :class:`Call` wherever it has to wait, and is sent the result.
:func:`run` makes the synchronous call, :func:`arun` awaits the asynchronous one::

    def greet(user_id: int) -> Flow[str]:
        user = yield from call(find_user, afind_user, user_id)
        return f"Hello {user.name}"
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

from .._tasks import start_task

__all__ = ["Call", "Flow", "arun", "call", "run", "uninterrupted"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(slots=True, frozen=True)
class Call:
    """A call that a flow waits for: the synchronous function and the asynchronous one."""

    sync: Callable[[], Any]
    async_: Callable[[], Awaitable[Any]]


Flow: TypeAlias = Generator[Call, Any, R]


def call(
    sync: Callable[P, R],
    async_: Callable[P, Awaitable[S]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Flow[R | S]:
    """Wait for ``sync(…)`` or ``async_(…)``, whichever fits the driver."""
    result: R | S = yield Call(lambda: sync(*args, **kwargs), lambda: async_(*args, **kwargs))
    return result


def run(flow: Flow[R]) -> R:
    """Drive ``flow`` in this thread."""
    try:
        step = next(flow)
        while True:
            try:
                result = step.sync()
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: R = end.value
        return value


async def arun(flow: Flow[R]) -> R:
    """Drive ``flow`` in this task."""
    try:
        step = next(flow)
        while True:
            try:
                result = await step.async_()
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: R = end.value
        return value


async def uninterrupted(work: Coroutine[Any, Any, R]) -> R:
    """Await ``work`` to its end, even if the current task is cancelled meanwhile.

    Raises:
        CancelledError: The current task was cancelled; ``work`` has ended.
    """
    task = start_task(work)
    if task.done():
        return task.result()
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
            if not task.done():
                continue
        if cancelled is not None:
            raise cancelled
        return result
