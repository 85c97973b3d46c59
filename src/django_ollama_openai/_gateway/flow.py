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
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeAlias, TypeVar

from .._tasks import start_task

__all__ = ["Call", "Flow", "StepLoop", "arun", "call", "run", "uninterrupted"]

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


class StepLoop(Generic[S]):
    """Iterate over the steps of ``generator``, each handled in a block that may fail::

        with closing(StepLoop(generator)) as loop:
            for step in loop:
                with loop:
                    loop.result = handle(step)

    The generator is sent ``result`` where it has yielded the step, or thrown the exception that the
    block has raised.
    """

    __slots__ = ("_generator", "_resume", "result")

    def __init__(self, generator: Generator[S, Any, None]) -> None:
        self._generator = generator
        self._resume: Callable[[], S] = generator.__next__
        self.result: Any = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> S:
        resume, self._resume = self._resume, self._generator.__next__
        try:
            return resume()
        finally:
            # It may hold an error whose traceback holds this frame.
            del resume

    def __enter__(self) -> None:
        self.result = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            self._resume = partial(self._generator.send, self.result)
            return False
        if isinstance(error, Exception):
            self._resume = partial(self._generator.throw, error)
            return True
        return False

    def close(self) -> None:
        """Close the generator."""
        self._generator.close()


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
