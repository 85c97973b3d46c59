"""How many requests an engine works on at once, and the queue of those that wait for it."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from .._cancellation import interruptible
from ..exceptions import Overloaded

__all__ = ["AnySlot", "Choice", "Slot", "Slots", "Wait", "serve"]

_lock = threading.RLock()
"""Of all slots: who waits for the first of several is given one only. It may be taken again by its
holder, in whose time the garbage collector may come to a slot that nobody has given back."""


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A thread that does not live on in the child may hold it.
    os.register_at_fork(after_in_child=_renew_lock)


class Wait:
    """How one request waits. All that it asks the engine for shares it: a request that has come
    through is not refused because of its own further choices."""

    __slots__ = ("_began", "_ended", "_pending", "admitted", "broken", "known")

    def __init__(self) -> None:
        self.broken = 0
        """How many engines have failed while they worked on it."""
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


class Slots:
    """``limit`` slots (``None``: any number), and a queue for them that serves who came first:
    threads and the tasks of any event loop alike. ``max_queue`` may wait, ``timeout`` seconds each.
    """

    def __init__(
        self, limit: int | None = None, *, max_queue: int = 500, timeout: float = 10
    ) -> None:
        self.running = 0
        """How many slots are taken."""
        self._limit = math.inf if limit is None else limit
        self._max_queue = max_queue
        self._timeout = timeout
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

    def taken_of(self, choice: Choice, wait: Wait) -> AnySlot:
        """Have one of the slots of others, the first of ``choice`` that is or comes free. It is
        these slots' queue that limits how many may wait and for how long, and these count what
        runs; raises as :meth:`taken` does."""
        return AnySlot(_AnyWaiter(self, wait, choice))

    def _take(self, wait: Wait) -> bool:
        """Take a slot if one is free."""
        with _lock:
            # While anybody waits for them none is free: a slot that is given back is handed on.
            if self.running < self._limit:
                self.running += 1
                wait.known = wait.admitted = True
                return True
            return False

    def _release(self) -> None:
        with _lock:
            self.running -= 1
            waiter = self._hand_on()
        self._wake(waiter)

    def _hand_on(self) -> _Waiter | None:
        """Give a slot to whoever is first in line for it, if one is free and there is somebody.
        The lock is held."""
        if self._waiting and self.running < self._limit:
            for waiter in tuple(self._waiting):
                if waiter.wants(self):
                    waiter.leave()
                    waiter.grant(self)
                    return waiter
        return None

    def _wake(self, waiter: _Waiter | None) -> None:
        # Not within the lock: what is dropped with a waiter may want it.
        while waiter is not None and not waiter.wake():
            with _lock:
                waiter = self._hand_on() if waiter.give_back() else None


def serve(slots: Iterable[Slots]) -> None:
    """Who waits for any of ``slots`` may have changed their choice: give them what is free."""
    for each in slots:
        while True:
            with _lock:
                waiter = each._hand_on()
            if waiter is None:
                break
            each._wake(waiter)


class Choice(Protocol):
    """What a request would have of several slots. All of its methods are called while nobody takes
    a slot or gives one back, so they must not wait."""

    @property
    def lines(self) -> Sequence[Slots]:
        """Those that it waits for."""
        ...

    def ranked(self) -> Sequence[Slots]:
        """Those that it would have now, the best first."""
        ...

    def granted(self, slots: Slots) -> None:
        """It has one of these."""
        ...

    def returned(self, slots: Slots) -> None:
        """It no longer has."""
        ...


class _Waiter:
    """Who has a slot, or waits for one; ``wake`` may be called from any thread and is false if
    nobody is there any more."""

    __slots__ = ("_in_line", "granted", "queue", "wait", "wake")

    def __init__(self, queue: Slots, wait: Wait) -> None:
        self.queue = queue
        self.wait = wait
        self.wake: Callable[[], bool] = _nobody
        self.granted: Slots | None = None
        self._in_line = False

    # While the lock is held

    def ranked(self) -> Sequence[Slots]:
        """The slots that it would have now, the best first."""
        return (self.queue,)

    def lines(self) -> Sequence[Slots]:
        """Where it waits."""
        return (self.queue,)

    def wants(self, slots: Slots) -> bool:
        """Whether it would have one of ``slots``, where it is in line."""
        return True

    def grant(self, slots: Slots) -> None:
        """Take one of ``slots``, which is free."""
        slots.running += 1
        self.granted = slots
        self.wait.known = self.wait.admitted = True

    def give_back(self) -> Slots | None:
        """Have it no longer, and tell whose it was."""
        slots, self.granted = self.granted, None
        if slots is not None:
            slots.running -= 1
        return slots

    def take(self) -> bool:
        """Take the best slot that is free, if any is."""
        for slots in self.ranked():
            if slots.running < slots._limit:
                self.grant(slots)
                return True
        return False

    def leave(self) -> None:
        """Wait no longer."""
        if self._in_line:
            self._in_line = False
            for slots in self.lines():
                with suppress(ValueError):
                    slots._waiting.remove(self)
            self.wait.end()

    # While it is not

    def join(self) -> bool:
        """Take a slot; if none is free, join the queue, and it is false."""
        queue, wait = self.queue, self.wait
        with _lock:
            if self.take():
                return True
            if not wait.known and len(queue._waiting) >= queue._max_queue:
                raise Overloaded
            wait.known = True
            wait.begin()
            self._in_line = True
            for slots in self.lines():
                slots._waiting.append(self)
            return False

    def expire(self) -> None:
        """It took too long, unless there is a slot after all, or for something else of the same
        request: then it waits on."""
        with _lock:
            if self.granted is not None or self.wait.admitted:
                return
            self.leave()
        raise Overloaded

    def end(self) -> None:
        """Nobody waits any more, or has the slot; it goes to the next."""
        with _lock:
            self.leave()
            slots = self.give_back()
            if slots is None:
                return
            waiter = slots._hand_on()
        slots._wake(waiter)


class _AnyWaiter(_Waiter):
    """The same for the first of several slots; it is in the queue of ``queue``, which gives none,
    too."""

    __slots__ = ("_choice", "_lines")

    def __init__(self, queue: Slots, wait: Wait, choice: Choice) -> None:
        super().__init__(queue, wait)
        self._choice = choice
        self._lines: Sequence[Slots] = ()

    def ranked(self) -> Sequence[Slots]:
        return self._choice.ranked()

    def lines(self) -> Sequence[Slots]:
        # Those that it joined are those to leave.
        self._lines = self._lines or (*self._choice.lines, self.queue)
        return self._lines

    def wants(self, slots: Slots) -> bool:
        return slots in self._choice.ranked()

    def grant(self, slots: Slots) -> None:
        super().grant(slots)
        self.queue.running += 1
        self._choice.granted(slots)

    def give_back(self) -> Slots | None:
        slots = super().give_back()
        if slots is not None:
            self.queue.running -= 1
            self._choice.returned(slots)
        return slots


def _nobody() -> bool:
    return False


def _wait(waiter: _Waiter) -> None:
    """Have a slot for ``waiter``, in a thread."""
    woken = threading.Event()

    def wake() -> bool:
        woken.set()
        return True

    waiter.wake = wake
    if waiter.join():
        return
    try:
        with interruptible(woken.set):
            if not woken.wait(waiter.queue._timeout):
                waiter.expire()
                woken.wait()
    except BaseException:
        waiter.end()
        raise


async def _await(waiter: _Waiter) -> None:
    """The same in a task."""
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
            waiter.expire()
        except Overloaded as error:
            if not woken.done():
                woken.set_exception(error)

    waiter.wake = wake
    if waiter.join():
        return
    timer = loop.call_later(waiter.queue._timeout, expire)
    try:
        await woken
    except BaseException:
        waiter.end()
        raise
    finally:
        timer.cancel()


class Slot:
    """One slot. A class, since every stream has one: two generators would take more."""

    __slots__ = ("_slots", "_wait")

    def __init__(self, slots: Slots, wait: Wait) -> None:
        self._slots = slots
        self._wait = wait

    def __enter__(self) -> None:
        if not self._slots._take(self._wait):
            _wait(_Waiter(self._slots, self._wait))

    async def __aenter__(self) -> None:
        if not self._slots._take(self._wait):
            await _await(_Waiter(self._slots, self._wait))

    def __exit__(self, *error: object) -> None:
        self._slots._release()

    async def __aexit__(self, *error: object) -> None:
        self._slots._release()


class AnySlot:
    """One slot of several."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: _Waiter) -> None:
        self._waiter = waiter

    def __enter__(self) -> None:
        with _lock:
            has_one = self._waiter.take()
        if not has_one:
            _wait(self._waiter)

    async def __aenter__(self) -> None:
        with _lock:
            has_one = self._waiter.take()
        if not has_one:
            await _await(self._waiter)

    def __exit__(self, *error: object) -> None:
        self._waiter.end()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()
