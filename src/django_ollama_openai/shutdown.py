"""End running answers before a server that stops cuts them off.

A server that stops lets running requests go on for a while and then ends them in a way that leaves
no time to tell the client: uvicorn closes the connection as it cancels its task, gunicorn kills the
process. uvicorn and gunicorn are detected. A site in another server calls :func:`begin`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from . import _server_detection

__all__ = ["POLL_SECONDS", "begin", "deadline", "ended_by_shutdown", "is_stopping"]

#: The interval at which running answers check whether the server stops.
POLL_SECONDS: Final = 0.25

_begun: float | None = None
_detected: tuple[object, float] | None = None


def begin(grace: float) -> None:
    """Have running answers end within ``grace`` seconds from now, because the server stops.

    They end early enough to send the rest: by a second, or by a quarter of a grace below four
    seconds, with the error ``shutting_down``; so do those that arrive later. Call this in each
    process of the server, from any thread or signal handler. Of several calls the earliest end
    counts.
    """
    global _begun
    end = _end(grace)
    _begun = end if _begun is None else min(_begun, end)


def deadline() -> float | None:
    """Return the :func:`time.monotonic` time at which running answers have to end.

    ``None`` as long as the server goes on, and where it stops without a time limit. For a detected
    server the time counts from the first call that finds it stopping.
    """
    global _detected
    if _begun is not None:
        return _begun
    stopping = _server_detection.stopping_server()
    if stopping is None:
        return None
    server, grace = stopping
    if _detected is None or _detected[0] is not server:
        # It may have begun to stop right after the last check.
        _detected = server, _end(grace) - POLL_SECONDS
    return _detected[1]


def is_stopping() -> bool:
    """Return whether the server is stopping, with a time limit or without."""
    return _begun is not None or _server_detection.is_stopping()


def _end(grace: float) -> float:
    return time.monotonic() + grace - min(1.0, grace / 4)


class ended_by_shutdown:
    """Call ``end`` at the :func:`deadline`, and again at each check until the block is left; if it
    is ``at_once``, as soon as the server stops.

    A class, because every stream uses one, and a generator costs more.
    """

    __slots__ = ("_at_once", "_end", "_loop")

    def __init__(self, end: Callable[[], None], *, at_once: bool = False) -> None:
        self._end = end
        self._at_once = at_once

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        watch = _watches.get(self._loop)
        if watch is None:
            watch = _watches[self._loop] = _Watch(self._loop)
        watch.ends[self] = self._end, self._at_once

    def __exit__(self, *error: object) -> None:
        watch = _watches[self._loop]
        del watch.ends[self]
        if not watch.ends:
            watch.timer.cancel()
            del _watches[self._loop]


class _Watch:
    """One timer for all blocks of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ends: dict[object, tuple[Callable[[], None], bool]] = {}
        self._loop = loop
        self.timer = loop.call_later(POLL_SECONDS, self._check)

    def _check(self) -> None:
        until, wait = deadline(), POLL_SECONDS
        left = wait if until is None else until - time.monotonic()
        is_over, at_once = left <= 0, is_stopping()
        if not is_over:
            wait = min(wait, left)
        for end, ends_at_once in self.ends.values() if is_over or at_once else ():
            if is_over or ends_at_once:
                end()
        self.timer = self._loop.call_later(wait, self._check)


#: The watches of the event loops in which a block runs.
_watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
