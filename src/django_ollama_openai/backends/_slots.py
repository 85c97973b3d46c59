"""The limit on requests that an engine works on at once, and the queue of requests that wait.

All of it works for threads and for the tasks of any event loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from .._cancellation import interruptible
from ..exceptions import Overloaded

__all__ = ["QueueTicket", "Slot", "Slots", "reschedule"]

#: The lock for all slots of the process: a waiter for one of several gets only one. Reentrant,
#: because the garbage collector may release a slot while this thread holds the lock.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A thread that does not exist in the child may hold the lock.
    os.register_at_fork(after_in_child=_renew_lock)


class QueueTicket:
    """The place of one request in queues, shared by all slots that it needs.

    Once one of them is granted, the queue does not reject the others.

    Attributes:
        queued: Whether any part of the request runs or waits, or has done so.
        admitted: Whether any part of it has had a slot.
        failures: The number of engines that failed while they worked on it.
    """

    __slots__ = ("_began", "_waited", "_waiting", "admitted", "failures", "queued")

    def __init__(self) -> None:
        self.queued = False
        self.admitted = False
        self.failures = 0
        self._waiting = 0
        self._began = 0.0
        self._waited = 0.0

    @property
    def seconds(self) -> float:
        """The time that any part of the request has waited so far, in seconds."""
        return self._waited + (time.perf_counter() - self._began if self._waiting else 0)

    def _start(self) -> None:
        if not self._waiting:
            self._began = time.perf_counter()
        self._waiting += 1

    def _stop(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._waited += time.perf_counter() - self._began


class Slots:
    """The slots of one engine and the first-come, first-served queue for them.

    Args:
        limit: The number of slots; ``None`` for no limit.
        max_queue: The number of requests that may wait.
        timeout: Seconds that a request may wait.

    ``running`` is the number of slots that are taken.
    """

    def __init__(
        self, limit: int | None = None, *, max_queue: int = 500, timeout: float = 10
    ) -> None:
        self.running = 0
        self._waiting: dict[Slot, None] = {}
        self.configure(limit, max_queue=max_queue, timeout=timeout)

    def configure(self, limit: int | None, *, max_queue: int, timeout: float) -> None:
        """Set the limits, which are those of the constructor."""
        self._limit = math.inf if limit is None else limit
        self._max_queue = max_queue
        self._timeout = timeout

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return len(self._waiting)

    @property
    def is_free(self) -> bool:
        """Whether a slot is free. While a request waits for it none is: it is handed over."""
        return self.running < self._limit

    def acquire(self, ticket: QueueTicket) -> Slot:
        """Return a context manager that holds a slot, for ``with`` or ``async with``.

        Raises:
            Overloaded: On entering: the queue is full, or no slot became free in time.
            Cancelled: On entering: the current work was cancelled.
        """
        return Slot(self, ticket)

    def _grant_next(self) -> Slot | None:
        """Grant a free slot to the first waiter that wants it. The lock is held."""
        if self.running < self._limit:
            for waiter in list(self._waiting):
                if waiter._wants(self):
                    waiter._leave()
                    waiter._grant(self)
                    return waiter
        return None


def _wake_next(slots: Slots, waiter: Slot | None) -> None:
    """Wake ``waiter``, which was granted one of ``slots``; the next one if its loop is closed."""
    # Without the lock, which the garbage collection of a waiter may need.
    while waiter is not None and not waiter._wake():
        with _lock:
            waiter._return()
            waiter = slots._grant_next()


def reschedule(slots: Iterable[Slots]) -> None:
    """Grant what is free of ``slots`` to waiters whose candidates may have changed."""
    for each in slots:
        while True:
            with _lock:
                waiter = each._grant_next()
            if waiter is None:
                break
            _wake_next(each, waiter)


class Slot:
    """A context manager that holds one slot of ``queue``, which limits the waiting.

    A subclass may hold one of several slots instead. It overrides the methods below the first
    heading, which are called with the lock held and must not block.
    """

    __slots__ = ("_granted", "_lines", "_queue", "_ticket", "_wake")

    def __init__(self, queue: Slots, ticket: QueueTicket) -> None:
        self._queue = queue
        self._ticket = ticket
        self._granted: Slots | None = None
        self._lines: Sequence[Slots] = ()
        #: Wakes the waiter from any thread; false if it no longer exists.
        self._wake: Callable[[], bool] = _no_waiter

    # Candidates

    def _first_free(self) -> Slots | None:
        """Return the best candidate that has a free slot."""
        return self._queue if self._queue.running < self._queue._limit else None

    def _candidates(self) -> Sequence[Slots]:
        """Return the slots to wait for."""
        return (self._queue,)

    def _wants(self, slots: Slots) -> bool:
        """Return whether one of ``slots``, which are candidates, may be granted now."""
        return True

    def _grant(self, slots: Slots) -> None:
        """Take one of ``slots``."""
        slots.running += 1
        self._granted = slots
        ticket = self._ticket
        ticket.queued = ticket.admitted = True

    def _return(self) -> Slots | None:
        """Give back the slot, if one is held. Return the slots that it belongs to."""
        slots = self._granted
        if slots is not None:
            self._granted = None
            slots.running -= 1
        return slots

    # Acquiring and releasing

    def acquire(self) -> None:
        """Acquire the slot; raises as :meth:`Slots.acquire` does."""
        if self._try():
            return
        woken = threading.Event()

        def wake() -> bool:
            woken.set()
            return True

        self._wake = wake
        if self._join():
            return
        try:
            with interruptible(woken.set):
                if not woken.wait(self._queue._timeout):
                    self._expire()
                    woken.wait()
        except BaseException:
            self.release()
            raise

    async def aacquire(self) -> None:
        """Async version of :meth:`acquire`."""
        if self._try():
            return
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
                self._expire()
            except Overloaded as error:
                if not woken.done():
                    woken.set_exception(error)

        self._wake = wake
        if self._join():
            return
        timer = loop.call_later(self._queue._timeout, expire)
        try:
            await woken
        except BaseException:
            self.release()
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        """Stop waiting, or hand the slot to the next waiter; does nothing after that."""
        with _lock:
            if self._lines:
                self._leave()
            slots = self._return()
            if slots is None or not slots._waiting:
                return
            waiter = slots._grant_next()
        _wake_next(slots, waiter)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        await self.aacquire()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.release()

    # Without the lock

    def _try(self) -> bool:
        """Acquire the best free slot, if any."""
        with _lock:
            slots = self._first_free()
            if slots is None:
                return False
            self._grant(slots)
            return True

    def _join(self) -> bool:
        """Acquire the best free slot (true), or join the queue (false)."""
        with _lock:
            if self._try():
                return True
            if not self._ticket.queued and len(self._queue._waiting) >= self._queue._max_queue:
                raise Overloaded
            self._ticket.queued = True
            self._ticket._start()
            self._lines = self._candidates()
            for slots in self._lines:
                slots._waiting[self] = None
            return False

    def _expire(self) -> None:
        """Leave the queue after the timeout. A request that holds a slot otherwise waits on.

        Raises:
            Overloaded: The timeout is over.
        """
        with _lock:
            if self._granted is not None or self._ticket.admitted:
                return
            self._leave()
        raise Overloaded

    # With the lock

    def _leave(self) -> None:
        for slots in self._lines:
            slots._waiting.pop(self, None)
        self._lines = ()
        self._ticket._stop()


def _no_waiter() -> bool:
    return False
