"""Reads what the sources of a work give, from one attempt to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextlib import ExitStack
from typing import Any

from .._closing import aclosed, closed
from ..exceptions import Overloaded
from .channel import Channel
from .work import Attempt, Source, Work

__all__ = ["forward", "items"]


def items(source: Source[Any], work: Work[Any]) -> Iterator[Any]:
    attempt: Attempt | None = work.attempt
    while attempt is not None:
        with ExitStack() as slot:
            try:
                slot.enter_context(attempt.slot())
            except Overloaded as error:
                attempt = work.next_attempt(attempt, error)
            else:
                # The slot is given back when it is known whether others are to use it.
                attempt = yield from _attempted(source, work, attempt)


def _attempted(
    source: Source[Any], work: Work[Any], attempt: Attempt
) -> Generator[Any, None, Attempt | None]:
    """What ``source`` gives; returns the next attempt if that is nothing."""
    if attempt is not work.attempt:
        # Meanwhile another choice has found that there is no use in it.
        return work.attempt
    begun = False
    try:
        found = source.items(attempt.route)
        with closed(found):
            for item in found:
                if not begun:
                    if not work.begins(attempt):
                        return work.attempt
                    begun = True
                yield item
    except Exception as error:
        if begun:
            raise
        return work.next_attempt(attempt, error)
    return None


async def forward(work: Work[Any], channel: Channel) -> None:
    """Write all that the sources of ``work`` give into ``channel``."""
    first, *others = (_forward(source, work, channel) for source in work.sources)
    await (_together([first, *others]) if others else first)


async def _forward(source: Source[Any], work: Work[Any], channel: Channel) -> None:
    attempt, begun = work.attempt, False
    while True:
        try:
            async with attempt.slot():
                # It may come from another choice, which has just given it back.
                channel.check()
                if attempt is not work.attempt:
                    attempt = work.attempt
                    continue
                items = source.aitems(attempt.route)
                async with aclosed(items):
                    async for item in items:
                        if not begun and not work.begins(attempt):
                            break
                        begun = True
                        data = work.feed(item)
                        if data and channel.put(data):
                            await channel.drained()
                    else:
                        return
            attempt = work.attempt
        except Exception as error:
            if begun:
                raise
            attempt = work.next_attempt(attempt, error)


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """Run all to their ends, or none any longer once one has failed."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
