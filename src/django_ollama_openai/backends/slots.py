"""How many requests an engine works on at once, and the queue of those that wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..cancellation import interruptible
from ..exceptions import Overloaded

__all__ = ["Slot", "Slots", "Wait"]


class Wait:
    """How one request waits. All that it asks the engine for shares it: a request that has come
    through is not refused because of its own further choices."""

    __slots__ = ("_began", "_ended", "_pending", "admitted", "known")

    def __init__(self) -> None:
        self.known = False
        """Whether any of it runs or waits, or has done so."""
        self.admitted = False
        """Whether any of it has had a slot."""
        self._pending = 0
        self._began = 0.0
        self._ended = 0.0

    @property
    def seconds(self) -> float:
        """The longest that any of it has waited until now; 0 if none had to."""
        return (time.perf_counter() if self._pending else self._ended) - self._began

    def begin(self) -> None:
        """Some of it has joined the queue."""
        if not self._began:
            self._began = time.perf_counter()
        self._pending += 1

    def end(self) -> None:
        """The same has left it."""
        self._ended = time.perf_counter()
        self._pending -= 1


class _Waiter:
    """A place in the queue; ``wake`` may be called from any thread and is false if nobody is
    there any more."""

    __slots__ = ("granted", "wait", "wake")

    def __init__(self, wait: Wait, wake: Callable[[], bool]) -> None:
        self.wait = wait
        self.wake = wake
        self.granted = False


class Slots:
    """``limit`` slots (``None``: any number), and a queue for them that serves who came first:
    threads and the tasks of any event loop alike. ``max_queue`` may wait, ``timeout`` seconds each.
    """

    def __init__(
        self, limit: int | None = None, *, max_queue: int = 500, timeout: float = 10
    ) -> None:
        self.running = 0
        """How many slots are taken."""
        self._limit = limit
        self._max_queue = max_queue
        self._timeout = timeout
        self._lock = threading.Lock()
        self._waiting: deque[_Waiter] = deque()

    @property
    def queued(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def taken(self, wait: Wait) -> Slot:
        """Have a slot while the block of a ``with`` or an ``async with`` runs.

        Raises:
            Overloaded: there is no room in the queue, or none came free in time.
            Cancelled: the current work was cancelled while it waited.
        """
        return Slot(self, wait)

    def _take(self, wait: Wait, waiter: _Waiter | None = None) -> bool:
        """Take a slot if one is free; if not, ``waiter`` joins the queue."""
        with self._lock:
            # While anybody waits none is free: a slot that is given back is handed on.
            if self._limit is None or self.running < self._limit:
                self.running += 1
                wait.known = wait.admitted = True
                return True
            if waiter is not None:
                if not wait.known and len(self._waiting) >= self._max_queue:
                    raise Overloaded
                wait.known = True
                wait.begin()
                self._waiting.append(waiter)
            return False

    def _wait(self, wait: Wait) -> None:
        woken = threading.Event()

        def wake() -> bool:
            woken.set()
            return True

        waiter = _Waiter(wait, wake)
        if self._take(wait, waiter):
            return
        try:
            with interruptible(woken.set):
                if not woken.wait(self._timeout):
                    self._expire(waiter)
                    woken.wait()
        except BaseException:
            self._abandon(waiter)
            raise

    async def _await(self, wait: Wait) -> None:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def resume() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> bool:
            try:
                loop.call_soon_threadsafe(resume)
            except RuntimeError:  # the loop is closed
                return False
            return True

        def expire() -> None:
            try:
                self._expire(waiter)
            except Overloaded as error:
                if not woken.done():
                    woken.set_exception(error)

        waiter = _Waiter(wait, wake)
        if self._take(wait, waiter):
            return
        timer = loop.call_later(self._timeout, expire)
        try:
            await woken
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()

    def _expire(self, waiter: _Waiter) -> None:
        """It took too long, unless there is a slot after all, or for something else of the same
        request: then it waits on."""
        with self._lock:
            if waiter.granted or waiter.wait.admitted:
                return
            self._leave(waiter)
        raise Overloaded

    def _abandon(self, waiter: _Waiter) -> None:
        """Nobody waits there any more; a slot that was on its way goes to the next."""
        with self._lock:
            if not waiter.granted:
                self._leave(waiter)
                return
        self._release()

    def _leave(self, waiter: _Waiter) -> None:
        with suppress(ValueError):  # its loop was found closed
            self._waiting.remove(waiter)
            waiter.wait.end()

    def _release(self) -> None:
        # Not within the lock: what is dropped with a waiter may want it.
        while (waiter := self._hand_on()) is not None and not waiter.wake():
            waiter.granted = False

    def _hand_on(self) -> _Waiter | None:
        """Who gets the slot that has come free; without anybody it is free."""
        with self._lock:
            if not self._waiting:
                self.running -= 1
                return None
            waiter = self._waiting.popleft()
            waiter.granted = waiter.wait.admitted = True
            waiter.wait.end()
            return waiter


class Slot:
    """One slot. A class, since every stream has one: two generators would take more."""

    __slots__ = ("_slots", "_wait")

    def __init__(self, slots: Slots, wait: Wait) -> None:
        self._slots = slots
        self._wait = wait

    def __enter__(self) -> None:
        if not self._slots._take(self._wait):
            self._slots._wait(self._wait)

    async def __aenter__(self) -> None:
        if not self._slots._take(self._wait):
            await self._slots._await(self._wait)

    def __exit__(self, *error: object) -> None:
        self._slots._release()

    async def __aexit__(self, *error: object) -> None:
        self._slots._release()
