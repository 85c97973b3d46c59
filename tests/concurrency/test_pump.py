from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from django_ollama_openai._cancellation import Cancelled, interruptible
from django_ollama_openai._pump import EndOfStream, Pump, iterate_in_thread
from django_ollama_openai.exceptions import ClientTimeout

WITHIN = 60.0
"""Seconds after which something that should happen at once counts as not happening."""

NAME = "ollama-openai-pump"


class Reader:
    """What a pump delivers, and the pump."""

    def __init__(self, source: Callable[[], Iterator[Any]], **options: Any) -> None:
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.pump = Pump(source, self.items.put, **options)

    def start(self) -> Reader:
        self.pump.start()
        return self

    def next(self) -> Any:
        return self.items.get(timeout=WITHIN)

    def rest(self) -> tuple[list[Any], BaseException | None]:
        """All items to the end, none of which is taken; how it ended."""
        items = []
        while not isinstance(item := self.next(), EndOfStream):
            items.append(item)
        return items, item.error


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(WITHIN)
            assert not thread.is_alive()


def still(check: Callable[[], bool]) -> bool:
    """Whether ``check`` holds, and a moment later too."""
    if not check():
        return False
    time.sleep(0.05)
    return check()


class Source:
    """Numbers without end; knows how many were asked for and whether it was closed."""

    def __init__(self, signal_at: int = 0) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.reached = threading.Event()
        self._signal_at = signal_at

    def __call__(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                if self.made >= self._signal_at:
                    self.reached.set()
                yield self.made
        finally:
            self.closed.set()


# Items and their end


def test_all_items_come_in_order_and_then_the_end() -> None:
    reader = Reader(lambda: iter(range(50))).start()
    assert reader.rest() == (list(range(50)), None)
    assert still(reader.items.empty)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), GeneratorExit(), Cancelled()])
def test_the_error_of_a_source_is_how_it_ended(error: BaseException) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    items, end = Reader(source).start().rest()
    assert items == [1, 2]
    assert end is error


def test_a_source_that_cannot_even_begin_is_an_end_too() -> None:
    error = ValueError("no source")

    def source() -> Iterator[int]:
        raise error

    assert Reader(source).start().rest() == ([], error)


# Not too far ahead


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_pump_waits_for_its_reader(ahead: int) -> None:
    source = Source(signal_at=ahead + 1)
    reader = Reader(source, ahead=ahead).start()
    for taken in range(3):
        assert source.reached.wait(WITHIN)
        # The next item is made, and waits for its slot.
        assert still(lambda: reader.items.qsize() == ahead)
        assert source.made == taken + ahead + 1
        source.reached.clear()
        assert reader.next() == taken + 1
        reader.pump.ack()
    reader.pump.cancel()
    reader.rest()


def test_a_reader_that_takes_nothing_ends_the_pump() -> None:
    source = Source()
    reader = Reader(source, ahead=2, reader_timeout=0.05).start()
    items, end = reader.rest()
    assert items == [1, 2]
    assert isinstance(end, ClientTimeout)
    assert source.closed.is_set()


def test_a_reader_may_take_its_time_as_long_as_it_takes_something() -> None:
    reader = Reader(lambda: iter(range(4)), ahead=1, reader_timeout=2).start()
    for number in range(4):
        assert reader.next() == number
        time.sleep(0.6)
        reader.pump.ack()
    assert reader.rest() == ([], None)


def test_the_end_needs_no_slot() -> None:
    reader = Reader(lambda: iter([1, 2]), ahead=2).start()
    assert reader.rest() == ([1, 2], None)


def test_a_reader_that_keeps_up_gets_more_than_fit_at_once() -> None:
    reader = Reader(lambda: iter(range(100)), ahead=2).start()
    got = []
    while not isinstance(item := reader.next(), EndOfStream):
        got.append(item)
        reader.pump.ack()
    assert got == list(range(100))


# Cancelled


def test_a_pump_that_waits_for_a_slot_can_be_cancelled() -> None:
    source = Source(signal_at=3)
    reader = Reader(source, ahead=2).start()
    assert source.reached.wait(WITHIN)
    assert still(lambda: reader.items.qsize() == 2)
    reader.pump.cancel()
    items, end = reader.rest()
    assert items == [1, 2]
    assert isinstance(end, Cancelled)
    assert source.closed.is_set()


def test_a_pump_whose_source_blocks_in_a_read_can_be_cancelled() -> None:
    near, far = socket.socketpair()
    reading = threading.Event()

    def source() -> Iterator[bytes]:
        with near:
            while True:
                with interruptible(lambda: near.shutdown(socket.SHUT_RDWR)):
                    reading.set()
                    data = near.recv(1)
                yield data

    with far:
        reader = Reader(source).start()
        far.sendall(b"x")
        assert reader.next() == b"x"
        assert reading.wait(WITHIN)
        assert still(reader.items.empty)
        reader.pump.cancel()
        items, end = reader.rest()
        assert items == []
        assert isinstance(end, Cancelled)
        assert near.fileno() == -1


def test_a_pump_that_was_cancelled_before_its_start_delivers_nothing() -> None:
    source = Source()
    reader = Reader(source)
    reader.pump.cancel()
    items, end = reader.start().rest()
    assert items == []
    assert isinstance(end, Cancelled)
    assert source.closed.is_set()


def test_a_pump_may_be_cancelled_again_and_after_its_end() -> None:
    source = Source(signal_at=2)
    reader = Reader(source, ahead=1).start()
    assert source.reached.wait(WITHIN)
    reader.pump.cancel()
    reader.pump.cancel()
    items, end = reader.rest()
    assert items == [1]
    assert isinstance(end, Cancelled)
    reader.pump.cancel()
    assert still(reader.items.empty)


def test_whenever_it_comes_a_cancellation_ends_the_pump() -> None:
    for number in range(30):
        source = Source()
        reader = Reader(source, ahead=1 + number % 3).start()
        for _ in range(number % 4):
            reader.next()
            reader.pump.ack()
        reader.pump.cancel()
        items, end = reader.rest()
        assert len(items) <= 3
        assert isinstance(end, Cancelled)
        assert source.closed.is_set()


# The source is closed


class Closable:
    """An iterator that is no generator."""

    def __init__(self, *items: int, on_close: BaseException | None = None) -> None:
        self._items = iter(items)
        self._on_close = on_close
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self._items)

    def close(self) -> None:
        self.closed += 1
        if self._on_close is not None:
            raise self._on_close


def test_a_source_is_closed_once_at_its_end() -> None:
    source = Closable(1, 2)
    assert Reader(lambda: source).start().rest() == ([1, 2], None)
    assert source.closed == 1


def test_a_source_is_closed_once_when_it_is_cancelled() -> None:
    source = Closable(1, 2, 3)
    reader = Reader(lambda: source, ahead=1).start()
    assert reader.next() == 1
    reader.pump.cancel()
    assert isinstance(reader.rest()[1], Cancelled)
    assert source.closed == 1


def test_a_source_that_fails_while_it_is_closed_still_ends() -> None:
    error = ValueError("close")
    assert Reader(lambda: Closable(1, on_close=error)).start().rest() == ([1], error)


def test_a_source_is_closed_before_its_end_is_delivered() -> None:
    source = Source()
    order: list[bool] = []
    ended = threading.Event()

    def deliver(item: int | EndOfStream) -> None:
        if isinstance(item, EndOfStream):
            order.append(source.closed.is_set())
            ended.set()

    pump = Pump(source, deliver, ahead=1)
    pump.start()
    pump.cancel()
    assert ended.wait(WITHIN)
    assert order == [True]


# The thread and its context


def test_context_variables_are_carried_over_and_not_back() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("the starter's")
    seen: list[tuple[str, str]] = []
    ended = threading.Event()

    def source() -> Iterator[int]:
        seen.append(("source", variable.get()))
        variable.set("the source's")
        yield 1

    def deliver(item: int | EndOfStream) -> None:
        seen.append(("deliver", variable.get()))
        if isinstance(item, EndOfStream):
            ended.set()

    pump = Pump(source, deliver)
    pump.start()
    variable.set("a later one")
    assert ended.wait(WITHIN)
    assert seen == [
        ("source", "the starter's"),
        ("deliver", "the source's"),
        ("deliver", "the source's"),
    ]
    assert variable.get() == "a later one"


# Beside an event loop


async def test_a_task_gets_all_items_in_order_and_then_the_end() -> None:
    # More than a pump stays ahead.
    got = [item async for item in iterate_in_thread(lambda: iter(range(200)))]
    assert got == list(range(200))


async def test_a_task_gets_the_error_of_the_source() -> None:
    error = ValueError("x")
    got: list[int] = []

    def source() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError, match="x") as caught:
        async for item in iterate_in_thread(source):
            got.append(item)
    assert got == [1]
    assert caught.value is error


async def test_a_task_that_wants_no_more_ends_the_source() -> None:
    source = Source()
    items = iterate_in_thread(source)
    assert await anext(items) == 1
    await items.aclose()
    assert await asyncio.to_thread(source.closed.wait, WITHIN)


async def test_a_task_that_is_cancelled_ends_the_source_that_blocks() -> None:
    entered, ended = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        woken = threading.Event()
        try:
            with interruptible(woken.set):
                entered.set()
                woken.wait(2 * WITHIN)
            yield 1
        finally:
            ended.set()

    task = asyncio.create_task(anext(iterate_in_thread(source)))
    assert await asyncio.to_thread(entered.wait, WITHIN)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, WITHIN)
