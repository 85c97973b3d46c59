"""Whether the server has been told to stop, and until when answers may go on.

A server that stops lets running answers go on for a while, and then cuts them off in a way that
leaves no time to tell the client: uvicorn closes the connection as it cancels its task, gunicorn
kills the process. Neither WSGI nor ASGI announces that. Both servers say in public attributes that
they stop, and what receives SIGTERM is a method of theirs, so it leads to them. Nothing is
installed or changed: they are looked at, while something runs.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["LOOK_SECONDS", "deadline", "ended_by_shutdown", "is_stopping"]

LOOK_SECONDS: Final = 0.25
"""How often the server is looked at."""

_stop: tuple[Any, float] | None = None
"""The server that stops, and the time at which what runs has to end."""


def deadline() -> float | None:
    """The time by :func:`time.monotonic` at which what runs has to end; ``None`` as long as the
    server goes on, and where it waits without a limit or does not tell.

    It is early enough to send the rest: by a second, or a quarter of a grace below four seconds. It
    counts from the first look that sees the server stop.
    """
    global _stop
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if server is None:
        return None
    grace = _grace(server)
    if grace is None:
        return None
    if _stop is None or _stop[0] is not server:
        # The server may have been told to stop right after the last look.
        end = time.monotonic() - LOOK_SECONDS + grace - min(1.0, grace / 4)
        _stop = server, end
    return _stop[1]


def is_stopping() -> bool:
    """Return whether uvicorn or gunicorn has been told to stop, with a grace period or without."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True or getattr(server, "alive", True) is False


def _grace(server: Any) -> float | None:
    """For how many seconds ``server``, which has been told to stop, lets answers go on."""
    if getattr(server, "should_exit", False) is True:  # uvicorn's Server
        grace = getattr(getattr(server, "config", None), "timeout_graceful_shutdown", None)
    elif getattr(server, "alive", True) is False:  # gunicorn's Worker
        grace = getattr(getattr(server, "cfg", None), "graceful_timeout", None)
    else:
        return None
    return grace if isinstance(grace, (int, float)) else None


class ended_by_shutdown:
    """Have ``end`` called at the :func:`deadline`, and again until the block is left.

    A class, since every stream has one, and a generator takes more.
    """

    __slots__ = ("_end", "_loop")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        watch = _watches.get(self._loop)
        if watch is None:
            watch = _watches[self._loop] = _Watch(self._loop)
        watch.ends[self] = self._end

    def __exit__(self, *error: object) -> None:
        watch = _watches[self._loop]
        del watch.ends[self]
        if not watch.ends:
            watch.timer.cancel()
            del _watches[self._loop]


class _Watch:
    """One timer for all that runs in an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ends: dict[object, Callable[[], None]] = {}
        self._loop = loop
        self.timer = loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        until, wait = deadline(), LOOK_SECONDS
        if until is not None:
            left = until - time.monotonic()
            if left > 0:
                wait = min(wait, left)
            else:
                for end in self.ends.values():
                    end()
        self.timer = self._loop.call_later(wait, self._look)


_watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
"""Those of the event loops in which something runs."""
