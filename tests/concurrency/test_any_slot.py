"""Slots of several: who waits for the first of them, and which one that is."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from contextvars import copy_context

import pytest

from django_ollama_openai import _cancellation
from django_ollama_openai._cancellation import Cancellation, Cancelled
from django_ollama_openai.backends._slots import QueueTicket, Slots, reschedule
from django_ollama_openai.exceptions import Overloaded
from tests.concurrency.test_slots import WITHIN, Taker, is_empty, take, wait_until


class Either:
    """A choice of ``lines`` that would have any of ``wanted``, in this order."""

    def __init__(self, *lines: Slots, wanted: list[Slots] | None = None) -> None:
        self.lines: Sequence[Slots] = lines
        self.wanted = list(lines) if wanted is None else wanted
        self.has: list[Slots] = []

    def ranked(self) -> Sequence[Slots]:
        return self.wanted

    def granted(self, slots: Slots) -> None:
        self.has.append(slots)

    def returned(self, slots: Slots) -> None:
        self.has.remove(slots)


async def take_any(
    pool: Slots, choice: Either, order: list[object], name: object, wait: Wait | None = None
) -> None:
    async with pool.taken_of(choice, wait or Wait()):
        order.append((name, choice.has[0]))


class AnyTaker(Taker):
    """The same in a thread."""

    def __init__(self, pool: Slots, choice: Either, order: list[str], name: str) -> None:
        self.pool, self.choice = pool, choice
        super().__init__(pool, order, name)

    def _run(self) -> None:
        _cancellation.current.set(self.work)
        try:
            with self.pool.taken_of(self.choice, self.wait):
                self.order.append(self.label)
                self.inside.set()
                assert self.may_go.wait(WITHIN)
        except BaseException as error:
            self.error = error


async def test_the_best_that_is_free_is_taken() -> None:
    one, other, pool = Slots(1), Slots(2), Slots()
    choices = [Either(one, other) for _ in range(3)]
    slots = [pool.taken_of(choice, Wait()) for choice in choices]
    for slot in slots:
        slot.__enter__()
    assert [choice.has for choice in choices] == [[one], [other], [other]]
    assert (one.running, other.running, pool.running) == (1, 2, 3)
    for slot in slots:
        await slot.__aexit__()
    assert [choice.has for choice in choices] == [[], [], []]
    assert all(map(is_empty, (one, other, pool)))


@pytest.mark.parametrize("free", [0, 1])
async def test_the_first_that_comes_free_goes_to_who_waits_for_either(free: int) -> None:
    lines, pool = [Slots(1), Slots(1)], Slots()
    order: list[object] = []
    taken = [slots.acquire(QueueTicket()) for slots in lines]
    for slot in taken:
        slot.__enter__()
    wait = Wait()
    task = asyncio.create_task(take_any(pool, Either(*lines), order, "either", wait))
    await asyncio.sleep(0)
    assert [each.queued for each in (*lines, pool)] == [1, 1, 1]
    taken[free].__exit__()
    # Nowhere in line any more, before it has been told.
    assert [each.queued for each in (*lines, pool)] == [0, 0, 0]
    assert pool.running == 1
    await task
    assert order == [("either", lines[free])]
    assert wait.seconds > 0
    taken[1 - free].__exit__()
    assert all(map(is_empty, (*lines, pool)))


async def test_one_queue_is_fair_to_those_who_wait_for_one_and_for_several() -> None:
    one, other, pool = Slots(1), Slots(1), Slots()
    order: list[object] = []
    taken = [slots.acquire(QueueTicket()) for slots in (one, other)]
    for slot in taken:
        slot.__enter__()
    tasks = []
    for name in ("both 1", "one", "both 2", "other"):
        names: list[str] = []
        work = (
            take_any(pool, Either(one, other), order, name)
            if name.startswith("both")
            else take(one if name == "one" else other, names, name)
        )
        tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0)
    assert (one.queued, other.queued, pool.queued) == (3, 3, 2)
    taken[0].__exit__()
    await tasks[0]
    await tasks[1]
    await tasks[2]
    assert order == [("both 1", one), ("both 2", one)]
    assert not tasks[3].done()
    taken[1].__exit__()
    await tasks[3]
    assert all(map(is_empty, (one, other, pool)))


async def test_the_limits_are_those_of_the_queue() -> None:
    one = Slots(1, max_queue=0, timeout=WITHIN)
    pool = Slots(max_queue=1, timeout=0.05)
    with one.acquire(QueueTicket()):
        task = asyncio.create_task(take_any(pool, Either(one), [], "waits"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await take_any(pool, Either(one), [], "is refused at once")
        with pytest.raises(Overloaded):
            await task
        with pytest.raises(Overloaded), pool.taken_of(Either(one), Wait()):
            pass
        assert (one.queued, pool.queued, pool.running) == (0, 0, 0)
    assert is_empty(one)


async def test_who_goes_leaves_all_lines() -> None:
    one, other, pool = Slots(1), Slots(1), Slots(timeout=WITHIN)
    order: list[str] = []
    with one.acquire(QueueTicket()), other.acquire(QueueTicket()):
        task = asyncio.create_task(take_any(pool, Either(one, other), [], "task"))
        thread = AnyTaker(pool, Either(one, other), order, "thread")
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
            gone = asyncio.create_task(take_any(pool, Either(one, other), order, "gone"))
            stays = asyncio.create_task(take_any(pool, Either(one, other), order, "stays"))
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
        left = loop.create_task(take_any(pool, Either(one, other), [], "left"))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        stays = AnyTaker(pool, Either(one, other), [], "stays")
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
    choice = Either(one, other, wanted=[other])
    slot = other.acquire(QueueTicket())
    slot.__enter__()
    task = asyncio.create_task(take_any(pool, choice, order, "picky"))
    await asyncio.sleep(0)
    with one.acquire(QueueTicket()):
        assert one.running == 1
    assert (one.running, one.queued) == (0, 1)
    choice.wanted = [one, other]
    serve([one, other])
    await task
    assert order == [("picky", one)]
    slot.__exit__()
    assert all(map(is_empty, (one, other, pool)))


async def test_who_wants_a_slot_gets_it_before_who_does_not() -> None:
    one, pool = Slots(1), Slots()
    order: list[object] = []
    with one.acquire(QueueTicket()):
        picky = asyncio.create_task(take_any(pool, Either(one, wanted=[]), order, "picky"))
        await asyncio.sleep(0)
        plain = asyncio.create_task(take_any(pool, Either(one), order, "plain"))
        await asyncio.sleep(0)
    await plain
    assert order == [("plain", one)]
    picky.cancel()
    await asyncio.wait([picky])
    assert all(map(is_empty, (one, pool)))


def test_a_process_that_is_forked_off_does_not_wait_for_a_thread_of_the_other() -> None:
    inside, may_go = threading.Event(), threading.Event()

    class Slow(Either):
        def ranked(self) -> Sequence[Slots]:
            inside.set()
            assert may_go.wait(WITHIN)
            return super().ranked()

    thread = AnyTaker(Slots(), Slow(Slots(1)), [], "slow")
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
            choice = Either(*chance.sample(lines, chance.randint(1, 3)))
            async with pool.taken_of(choice, Wait()):
                number = lines.index(choice.has[0])
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
                choice = Either(*lines)
                with pool.taken_of(choice, Wait()):
                    chosen = lines.index(choice.has[0])
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
