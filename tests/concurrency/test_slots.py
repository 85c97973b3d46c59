"""``Slots``: who acquires one, of one backend or of several, in which order, and what becomes of
waiters that are cancelled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest

from django_ollama_openai import _cancellation
from django_ollama_openai._cancellation import Cancellation, Cancelled
from django_ollama_openai.backends._slots import QueueTicket, Slot, Slots, reschedule
from django_ollama_openai.exceptions import Overloaded

WITHIN = 60.0
"""Seconds after which something that should happen at once counts as not happening."""


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Either(Slot):
    """A slot of any of ``lines``; only of ``wanted``, where that is given."""

    __slots__ = ("lines", "wanted")

    def __init__(
        self,
        pool: Slots,
        *lines: Slots,
        wanted: list[Slots] | None = None,
        ticket: QueueTicket | None = None,
    ) -> None:
        super().__init__(pool, ticket or QueueTicket())
        self.lines = lines
        self.wanted = list(lines) if wanted is None else wanted

    @property
    def held(self) -> Slots | None:
        return self._granted

    def _first_free(self) -> Slots | None:
        return next((each for each in self.wanted if each.is_free), None)

    def _candidates(self) -> Sequence[Slots]:
        return (*self.lines, self._queue)

    def _wants(self, slots: Slots) -> bool:
        return slots in self.wanted


class Taker(threading.Thread):
    """Acquires a slot in a thread, and holds it until it may go."""

    def __init__(self, slot: Slot, order: list[str], name: str) -> None:
        super().__init__(daemon=True)
        self.slot, self.order, self.label = slot, order, name
        self.work = Cancellation()
        self.inside, self.may_go = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        copy_context().run(self._run)

    def _run(self) -> None:
        _cancellation.current.set(self.work)
        try:
            with self.slot:
                self.order.append(self.label)
                self.inside.set()
                assert self.may_go.wait(WITHIN)
        except BaseException as error:
            self.error = error

    def finish(self) -> BaseException | None:
        self.may_go.set()
        self.join(WITHIN)
        assert not self.is_alive()
        return self.error


def taker(slots: Slots, order: list[str], name: str, ticket: QueueTicket | None = None) -> Taker:
    return Taker(slots.acquire(ticket or QueueTicket()), order, name)


@contextmanager
def loop_in_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """An event loop of its own; what it gives starts a task there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WITHIN)
        loop.close()


async def take(
    slots: Slots, order: list[Any], name: str, ticket: QueueTicket | None = None
) -> None:
    async with slots.acquire(ticket or QueueTicket()):
        order.append(name)


async def take_any(slot: Either, order: list[Any], name: str) -> None:
    async with slot:
        order.append((name, slot.held))


def is_empty(slots: Slots) -> bool:
    return (slots.running, slots.queued) == (0, 0)


# Free slots


def test_without_a_limit_all_get_one() -> None:
    slots = Slots()
    waits = [QueueTicket() for _ in range(50)]
    order: list[str] = []
    takers = [taker(slots, order, str(number), wait) for number, wait in enumerate(waits)]
    assert all(each.inside.wait(WITHIN) for each in takers)
    assert (slots.running, slots.queued) == (50, 0)
    assert [each.finish() for each in takers] == [None] * 50
    assert is_empty(slots)
    assert {wait.seconds for wait in waits} == {0}


async def test_a_task_gets_a_free_one_without_leaving_its_turn() -> None:
    slots = Slots(1)
    order: list[str] = []
    for work in (take(slots, order, "now"), take(slots, order, "again")):
        with pytest.raises(StopIteration):
            work.send(None)
    assert order == ["now", "again"]
    assert is_empty(slots)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Cancelled, GeneratorExit])
async def test_whatever_ends_the_block_gives_the_slot_back(error: type[BaseException]) -> None:
    slots = Slots(1)
    with pytest.raises(error), slots.acquire(QueueTicket()):
        assert slots.running == 1
        raise error
    with pytest.raises(error):
        async with slots.acquire(QueueTicket()):
            assert slots.running == 1
            raise error
    assert is_empty(slots)


# The queue


def test_who_came_first_is_served_first_in_threads_and_loops_alike() -> None:
    slots = Slots(1)
    order: list[str] = []
    with loop_in_thread() as one, loop_in_thread() as other:
        first = taker(slots, order, "first")
        assert first.inside.wait(WITHIN)
        expected, rest = ["first"], []
        for number in range(12):
            name = f"{number}"
            if number % 3 == 0:
                thread = taker(slots, order, name)
                thread.may_go.set()
                rest.append(thread.finish)
            else:
                start = one if number % 3 == 1 else other
                rest.append(start(take(slots, order, name)).result)
            expected.append(name)
            wait_until(lambda number=number: slots.queued == number + 1)  # type: ignore[misc]
        assert order == ["first"]
        first.finish()
        for finish in rest:
            assert finish() is None
    assert order == expected
    assert is_empty(slots)


async def test_the_time_in_the_queue_is_told() -> None:
    slots = Slots(1)
    wait = QueueTicket()
    taken = slots.acquire(QueueTicket())
    taken.__enter__()
    waiting = asyncio.create_task(take(slots, [], "x", wait))
    await asyncio.sleep(0.05)
    until_now = wait.seconds
    assert until_now > 0
    taken.__exit__(None, None, None)
    await waiting
    assert wait.seconds >= until_now
    assert wait.seconds == wait.seconds


def test_no_more_wait_than_may() -> None:
    slots = Slots(1, max_queue=1, timeout=WITHIN)
    first = taker(slots, [], "first")
    assert first.inside.wait(WITHIN)
    second = taker(slots, [], "second")
    wait_until(lambda: slots.queued == 1)
    started = time.monotonic()
    with pytest.raises(Overloaded), slots.acquire(QueueTicket()):
        pass
    assert time.monotonic() - started < WITHIN / 2
    with pytest.raises(Overloaded):
        asyncio.run(take(slots, [], "fourth"))
    assert (slots.running, slots.queued) == (1, 1)
    assert first.finish() is None
    assert second.finish() is None
    assert is_empty(slots)


def test_without_a_queue_nobody_waits() -> None:
    slots = Slots(1, max_queue=0)
    with slots.acquire(QueueTicket()), pytest.raises(Overloaded), slots.acquire(QueueTicket()):
        pass
    with slots.acquire(QueueTicket()):
        pass
    assert is_empty(slots)


async def test_who_has_waited_long_enough_goes() -> None:
    slots = Slots(1, timeout=0.05)
    waits = [QueueTicket(), QueueTicket()]
    with slots.acquire(QueueTicket()):
        with pytest.raises(Overloaded), slots.acquire(waits[0]):
            pass
        with pytest.raises(Overloaded):
            await take(slots, [], "x", waits[1])
        assert (slots.running, slots.queued) == (1, 0)
    assert is_empty(slots)
    assert all(0.04 < wait.seconds < WITHIN for wait in waits)


# A request that asks for more than one


async def test_what_belongs_to_a_request_that_runs_waits_as_long_as_it_takes() -> None:
    slots = Slots(1, max_queue=0, timeout=0.02)
    order: list[str] = []
    wait = QueueTicket()
    with slots.acquire(wait):
        task = asyncio.create_task(take(slots, order, "task", wait))
        thread = taker(slots, order, "thread", wait)
        thread.may_go.set()
        await asyncio.to_thread(wait_until, lambda: slots.queued == 2)
        await asyncio.sleep(0.1)
        assert slots.queued == 2
        with pytest.raises(Overloaded):
            await take(slots, order, "stranger")
    await task
    assert await asyncio.to_thread(thread.finish) is None
    assert sorted(order) == ["task", "thread"]
    assert wait.seconds > 0.09
    assert is_empty(slots)


async def test_what_belongs_to_a_request_that_waits_needs_no_room_of_its_own() -> None:
    slots = Slots(1, max_queue=1)
    order: list[str] = []
    wait = QueueTicket()
    with slots.acquire(QueueTicket()):
        tasks = [asyncio.create_task(take(slots, order, "x", wait)) for _ in range(5)]
        await asyncio.sleep(0)
        assert slots.queued == 5
        with pytest.raises(Overloaded):
            await take(slots, order, "stranger")
    await asyncio.gather(*tasks)
    assert order == ["x"] * 5
    assert is_empty(slots)


# Who does not wait to the end


async def test_a_task_that_is_cancelled_leaves_the_queue() -> None:
    slots = Slots(1)
    order: list[str] = []
    with slots.acquire(QueueTicket()):
        gone = asyncio.create_task(take(slots, order, "gone"))
        stays = asyncio.create_task(take(slots, order, "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert (slots.running, slots.queued) == (1, 1)
    await stays
    assert order == ["stays"]
    assert is_empty(slots)


async def test_a_task_that_is_cancelled_as_its_turn_comes_loses_no_slot() -> None:
    slots = Slots(1)
    order: list[str] = []
    with slots.acquire(QueueTicket()):
        gone = asyncio.create_task(take(slots, order, "gone"))
        stays = asyncio.create_task(take(slots, order, "stays"))
        await asyncio.sleep(0)
    # It has been given the slot, and has not been told yet.
    assert (slots.running, slots.queued) == (1, 1)
    gone.cancel()
    await stays
    assert gone.cancelled()
    assert order == ["stays"]
    assert is_empty(slots)


async def test_a_task_that_is_cancelled_once_it_has_been_told_loses_no_slot() -> None:
    slots = Slots(1)
    order: list[str] = []
    with slots.acquire(QueueTicket()):
        gone = asyncio.create_task(take(slots, order, "gone"))
        await asyncio.sleep(0)
    # Its future has its result, and it has not gone on yet.
    loop = asyncio.get_running_loop()
    loop.call_soon(gone.cancel)
    await asyncio.wait([gone])
    assert gone.cancelled()
    assert order == []
    await take(slots, order, "next")
    assert order == ["next"]
    assert is_empty(slots)


def test_a_thread_that_is_cancelled_leaves_the_queue_at_once() -> None:
    slots = Slots(1, timeout=WITHIN)
    order: list[str] = []
    first = taker(slots, order, "first")
    assert first.inside.wait(WITHIN)
    gone = taker(slots, order, "gone")
    wait_until(lambda: slots.queued == 1)
    stays = taker(slots, order, "stays")
    wait_until(lambda: slots.queued == 2)
    started = time.monotonic()
    gone.work.cancel()
    assert isinstance(gone.finish(), Cancelled)
    assert time.monotonic() - started < WITHIN / 2
    assert (slots.running, slots.queued) == (1, 1)
    first.finish()
    assert stays.finish() is None
    assert order == ["first", "stays"]
    assert is_empty(slots)


def test_a_thread_that_was_cancelled_before_does_not_wait() -> None:
    slots = Slots(1, timeout=WITHIN)
    with slots.acquire(QueueTicket()):
        work = Cancellation()
        work.cancel()

        def wait() -> None:
            _cancellation.current.set(work)
            with slots.acquire(QueueTicket()):
                raise AssertionError("it has a slot")

        with pytest.raises(Cancelled):
            copy_context().run(wait)
    assert is_empty(slots)


def test_a_cancellation_that_races_with_the_turn_loses_no_slot() -> None:
    slots = Slots(1)
    for _ in range(100):
        first = taker(slots, [], "first")
        assert first.inside.wait(WITHIN)
        racer = taker(slots, [], "racer")
        racer.may_go.set()
        wait_until(lambda: slots.queued == 1)
        first.may_go.set()
        racer.work.cancel()
        assert isinstance(racer.finish(), Cancelled | None)
        assert first.finish() is None
        assert is_empty(slots)


def test_a_loop_that_was_closed_gets_no_slot() -> None:
    slots = Slots(1, timeout=WITHIN)
    order: list[str] = []
    loop = asyncio.new_event_loop()
    with slots.acquire(QueueTicket()):
        left = [loop.create_task(take(slots, order, "left")) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(0))
        assert slots.queued == 3
        loop.close()
        stays = taker(slots, order, "stays")
        wait_until(lambda: slots.queued == 4)
    assert stays.finish() is None
    assert order == ["stays"]
    assert is_empty(slots)
    for task in left:
        # Nobody runs it any more; that is what this is about.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()  # type: ignore[union-attr]
    assert is_empty(slots)


# One of several


async def test_the_best_that_is_free_is_taken() -> None:
    one, other, pool = Slots(1), Slots(2), Slots()
    slots = [Either(pool, one, other) for _ in range(3)]
    for slot in slots:
        slot.acquire()
    assert [slot.held for slot in slots] == [one, other, other]
    assert (one.running, other.running) == (1, 2)
    for slot in slots:
        slot.release()
        slot.release()
    assert [slot.held for slot in slots] == [None, None, None]
    assert all(map(is_empty, (one, other, pool)))


@pytest.mark.parametrize("free", [0, 1])
async def test_the_first_that_comes_free_goes_to_who_waits_for_either(free: int) -> None:
    lines, pool = [Slots(1), Slots(1)], Slots()
    order: list[object] = []
    taken = [slots.acquire(QueueTicket()) for slots in lines]
    for slot in taken:
        slot.acquire()
    ticket = QueueTicket()
    task = asyncio.create_task(take_any(Either(pool, *lines, ticket=ticket), order, "either"))
    await asyncio.sleep(0)
    assert [each.queued for each in (*lines, pool)] == [1, 1, 1]
    taken[free].release()
    # Nowhere in line any more, before it has been told.
    assert [each.queued for each in (*lines, pool)] == [0, 0, 0]
    await task
    assert order == [("either", lines[free])]
    assert ticket.seconds > 0
    taken[1 - free].release()
    assert all(map(is_empty, (*lines, pool)))


async def test_one_queue_is_fair_to_those_who_wait_for_one_and_for_several() -> None:
    one, other, pool = Slots(1), Slots(1), Slots()
    order: list[object] = []
    taken = [slots.acquire(QueueTicket()) for slots in (one, other)]
    for slot in taken:
        slot.acquire()
    tasks = []
    for name in ("both 1", "one", "both 2", "other"):
        work = (
            take_any(Either(pool, one, other), order, name)
            if name.startswith("both")
            else take(one if name == "one" else other, order, name)
        )
        tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0)
    assert (one.queued, other.queued, pool.queued) == (3, 3, 2)
    taken[0].release()
    await tasks[0]
    await tasks[1]
    await tasks[2]
    assert order == [("both 1", one), "one", ("both 2", one)]
    assert not tasks[3].done()
    taken[1].release()
    await tasks[3]
    assert all(map(is_empty, (one, other, pool)))


async def test_the_limits_are_those_of_the_queue() -> None:
    one = Slots(1, max_queue=0, timeout=WITHIN)
    pool = Slots(max_queue=1, timeout=0.05)
    with one.acquire(QueueTicket()):
        task = asyncio.create_task(take_any(Either(pool, one), [], "waits"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await take_any(Either(pool, one), [], "is refused at once")
        with pytest.raises(Overloaded):
            await task
        with pytest.raises(Overloaded), Either(pool, one):
            pass
        assert (one.queued, pool.queued, pool.running) == (0, 0, 0)
    assert is_empty(one)


async def test_who_goes_leaves_all_lines() -> None:
    one, other, pool = Slots(1), Slots(1), Slots(timeout=WITHIN)
    order: list[str] = []
    with one.acquire(QueueTicket()), other.acquire(QueueTicket()):
        task = asyncio.create_task(take_any(Either(pool, one, other), [], "task"))
        thread = Taker(Either(pool, one, other), order, "thread")
        await asyncio.to_thread(wait_until, lambda: pool.queued == 2)
        await asyncio.sleep(0)
        task.cancel()
        thread.work.cancel()
        assert isinstance(await asyncio.to_thread(thread.finish), Cancelled)
        await asyncio.wait([task])
        assert (one.queued, other.queued, pool.queued) == (0, 0, 0)
    assert all(map(is_empty, (one, other, pool)))


async def test_who_goes_as_the_turn_comes_loses_no_slot() -> None:
    one, other, pool = Slots(1), Slots(1), Slots()
    order: list[object] = []
    with other.acquire(QueueTicket()):
        with one.acquire(QueueTicket()):
            gone = asyncio.create_task(take_any(Either(pool, one, other), order, "gone"))
            stays = asyncio.create_task(take_any(Either(pool, one, other), order, "stays"))
            await asyncio.sleep(0)
        gone.cancel()
        await stays
    assert gone.cancelled()
    assert order == [("stays", one)]
    assert all(map(is_empty, (one, other, pool)))


def test_a_loop_that_was_closed_gets_none_of_them() -> None:
    one, other, pool = Slots(1), Slots(1), Slots(timeout=WITHIN)
    loop = asyncio.new_event_loop()
    with one.acquire(QueueTicket()), other.acquire(QueueTicket()):
        left = loop.create_task(take_any(Either(pool, one, other), [], "left"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        stays = Taker(Either(pool, one, other), [], "stays")
        wait_until(lambda: pool.queued == 2)
    assert stays.finish() is None
    assert all(map(is_empty, (one, other, pool)))
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    left.get_coro().close()  # type: ignore[union-attr]
    assert all(map(is_empty, (one, other, pool)))


# A choice that changes


async def test_what_nobody_wants_stays_free_until_somebody_does() -> None:
    one, other, pool = Slots(2), Slots(1), Slots()
    order: list[object] = []
    choice = Either(pool, one, other, wanted=[other])
    slot = other.acquire(QueueTicket())
    slot.acquire()
    task = asyncio.create_task(take_any(choice, order, "picky"))
    await asyncio.sleep(0)
    with one.acquire(QueueTicket()):
        assert one.running == 1
    assert (one.running, one.queued) == (0, 1)
    choice.wanted = [one, other]
    reschedule([one, other])
    await task
    assert order == [("picky", one)]
    slot.release()
    assert all(map(is_empty, (one, other, pool)))


async def test_who_wants_a_slot_gets_it_before_who_does_not() -> None:
    one, pool = Slots(1), Slots()
    order: list[object] = []
    with one.acquire(QueueTicket()):
        picky = asyncio.create_task(take_any(Either(pool, one, wanted=[]), order, "picky"))
        await asyncio.sleep(0)
        plain = asyncio.create_task(take_any(Either(pool, one), order, "plain"))
        await asyncio.sleep(0)
    await plain
    assert order == [("plain", one)]
    picky.cancel()
    await asyncio.wait([picky])
    assert all(map(is_empty, (one, pool)))


def test_a_process_that_is_forked_off_does_not_wait_for_a_thread_of_the_other() -> None:
    inside, may_go = threading.Event(), threading.Event()

    class Slow(Either):
        def _first_free(self) -> Slots | None:
            inside.set()
            assert may_go.wait(WITHIN)
            return super()._first_free()

    thread = Taker(Slow(Slots(), Slots(1)), [], "slow")
    assert inside.wait(WITHIN)
    with warnings.catch_warnings():
        # Python warns of threads: theirs are what is being tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            with Slots(1).acquire(QueueTicket()):
                os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    may_go.set()
    assert thread.finish() is None
    assert status == 0


# All at once


def test_under_stress_all_bounds_hold_and_no_slot_is_lost() -> None:
    limits = [1, 2, 3]
    lines = [Slots(limit, max_queue=10_000, timeout=WITHIN * 3) for limit in limits]
    pool = Slots(max_queue=10_000, timeout=WITHIN * 3)
    lock = threading.Lock()
    inside, most, served = [0, 0, 0], [0, 0, 0], 0

    def enter(number: int) -> None:
        nonlocal served
        with lock:
            served += 1
            inside[number] += 1
            most[number] = max(most[number], inside[number])

    def leave(number: int) -> None:
        with lock:
            inside[number] -= 1

    async def task(chance: random.Random) -> None:
        for _ in range(15):
            async with Either(pool, *chance.sample(lines, chance.randint(1, 3))) as slot:
                assert slot.held is not None
                number = lines.index(slot.held)
                enter(number)
                try:
                    await asyncio.sleep(chance.random() / 2000)
                finally:
                    leave(number)

    async def tasks(seed: int) -> None:
        chance = random.Random(seed)
        running = [asyncio.create_task(task(chance)) for _ in range(20)]
        for victim in running[::2]:
            await asyncio.sleep(chance.random() / 200)
            victim.cancel()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}

    def thread(work: Cancellation, number: int) -> None:
        _cancellation.current.set(work)
        try:
            for _ in range(15):
                with Either(pool, *lines) as slot:
                    assert slot.held is not None
                    chosen = lines.index(slot.held)
                    enter(chosen)
                    time.sleep(0.0002)
                    leave(chosen)
                with lines[number].acquire(QueueTicket()):
                    enter(number)
                    time.sleep(0.0002)
                    leave(number)
        except Cancelled:
            return

    failures: list[BaseException] = []

    def loop(seed: int) -> None:
        try:
            asyncio.run(tasks(seed))
        except BaseException as error:
            failures.append(error)

    works = [Cancellation() for _ in range(20)]
    threads = [
        threading.Thread(target=copy_context().run, args=(thread, work, place % 3), daemon=True)
        for place, work in enumerate(works)
    ]
    threads += [threading.Thread(target=loop, args=(seed,), daemon=True) for seed in range(3)]
    for one in threads:
        one.start()
    for work in works[::2]:
        time.sleep(0.002)
        work.cancel()
    for one in threads:
        one.join(WITHIN * 3)
        assert not one.is_alive()
    assert failures == []
    assert most == limits
    assert served > 20
    assert inside == [0, 0, 0]
    assert all(map(is_empty, (*lines, pool)))


async def test_a_request_that_has_come_through_waits_on_when_both_fall_due_at_once() -> None:
    slots = Slots(1, timeout=0.5)
    wait, got = QueueTicket(), []

    async def one() -> None:
        async with slots.acquire(wait):
            got.append(slots.running)

    async with slots.acquire(QueueTicket()):
        choices = [asyncio.create_task(one()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert slots.queued == 2
        # Nothing runs in between: the timers of both are due before the slot is theirs to see.
        time.sleep(0.6)  # noqa: ASYNC251
    await asyncio.gather(*choices)
    assert got == [1, 1]
    assert (slots.running, slots.queued) == (0, 0)
