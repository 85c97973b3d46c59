"""Read the sources of a work: run their steps, and try their requests with leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

from .._cancellation import interruptible
from .._closing import aclosed, closed
from .._connections import close_connections
from .._wire.engine import EngineRequest
from ..backends._leases import Lease, Leases, astream, stream
from .channel import Channel
from .flow import Call, StepLoop
from .sources import Source
from .work import Work

__all__ = ["forward", "items"]

T = TypeVar("T")


def items(source: Source[Any, Any], work: Work[Any]) -> Iterator[Any]:
    """Yield the items of ``source``. Call it in a thread that serves nothing else."""
    has_called = False
    try:
        with closing(StepLoop(source.steps())) as steps:
            for step in steps:
                with steps:
                    if isinstance(step, EngineRequest):
                        call = _EngineCall(work, source, step)
                        answer = stream(call.leases(), call.calls, call.claim)
                        with closed(answer):
                            for item in answer:
                                yield source.feed(item)
                    elif isinstance(step, Call):
                        has_called = True
                        # If the client disconnects meanwhile, this raises Cancelled afterwards.
                        with interruptible(lambda: None):
                            steps.result = step.sync()
                    else:
                        yield source.own(step)
    finally:
        if has_called:
            close_connections()


async def forward(work: Work[Any], channel: Channel) -> None:
    """Write the answer of all sources of ``work`` into ``channel``."""
    parts = [_forward(source, work, channel) for source in work.sources]
    if len(parts) > 1:
        await _together(parts)
        return
    await parts[0]


async def _forward(source: Source[Any, Any], work: Work[Any], channel: Channel) -> None:
    with closing(StepLoop(source.steps())) as steps:
        for step in steps:
            with steps:
                if isinstance(step, EngineRequest):
                    call = _EngineCall(work, source, step, channel.check)
                    answer = astream(call.leases(), call.acalls, call.claim)
                    async with aclosed(answer):
                        async for item in answer:
                            data = work.feed(source.feed(item))
                            if data and channel.put(data):
                                await channel.drained()
                elif isinstance(step, Call):
                    steps.result = await step.async_()
                else:
                    # A stage may yield any number of them, and nothing else waits between.
                    await asyncio.sleep(0)
                    data = work.feed(source.own(step))
                    if data and channel.put(data):
                        await channel.drained()


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """Run all parts to their end; cancel the others once one has failed."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Superseded(Exception):
    """Another source has gone on to the next attempt."""


class _EngineCall(Generic[T]):
    """One request of ``source`` to an engine, on the current attempt of ``work``."""

    __slots__ = ("_attempt", "_check", "_request", "_routed", "_source", "_work")

    def __init__(
        self,
        work: Work[T],
        source: Source[Any, T],
        request: EngineRequest,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._work = work
        self._source = source
        self._request = self._routed = request
        self._attempt = work.attempt
        self._check = check

    def leases(self) -> Leases:
        """Yield the leases of the route's backend, and those of its fallbacks after that."""
        while True:
            attempt = self._attempt = self._work.attempt
            route = attempt.route
            self._routed = self._source.prepare(self._request.routed_to(route.model, route.options))
            try:
                return (yield from route.backend.leases(self._routed, attempt.ticket))
            except Exception as error:
                self._work.next_attempt(attempt, error)

    def calls(self, lease: Lease) -> Iterator[Iterator[T]]:
        """Return the calls to make while ``lease`` is held."""
        self._check_current()
        return self._source.calls(self._routed, lease.backend)

    def acalls(self, lease: Lease) -> Iterator[AsyncIterator[T]]:
        """Async version of :meth:`calls`."""
        self._check_current()
        return self._source.acalls(self._routed, lease.backend)

    def claim(self) -> None:
        """Check that this attempt is still the current one, before its first item is used.

        Raises:
            Superseded: It is not.
        """
        if not self._work.claim(self._attempt):
            raise Superseded

    def _check_current(self) -> None:
        # The slot may come from another source whose attempt has just failed.
        if self._check is not None:
            self._check()
        if self._attempt is not self._work.attempt:
            raise Superseded
