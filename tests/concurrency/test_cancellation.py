from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from django_ollama_openai import _cancellation
from django_ollama_openai._cancellation import (
    Cancellation,
    Cancelled,
    interruptible,
    interruptible_io,
)

WITHIN = 60.0
"""Seconds after which something that should happen at once counts as not happening."""


class Worker(threading.Thread):
    """A thread that keeps what ``work`` returns or raises."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        self.join(WITHIN)
        assert not self.is_alive()
        return self._result if self.error is None else type(self.error)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def wait_until_blocked(thread: Worker, entered: threading.Event) -> None:
    """As sure as one can be without looking into the kernel."""
    assert entered.wait(WITHIN)
    time.sleep(0.02)
    assert thread.is_alive()


# A thread that blocks


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_that_blocks_in_a_read_is_woken(
    pair: tuple[socket.socket, socket.socket], fails: bool
) -> None:
    near, _ = pair
    work = Cancellation()
    entered = threading.Event()

    def read() -> bytes:
        _cancellation.current.set(work)
        with interruptible_io(near):
            entered.set()
            data = near.recv(1)
            if fails:
                raise ConnectionResetError
            return data

    thread = Worker(read)
    wait_until_blocked(thread, entered)
    work.cancel()
    work.cancel()
    # Neither the end of a stream, for which recv() returns b"", nor an error of the connection.
    assert thread.outcome() is Cancelled


def test_what_arrives_before_the_cancellation_is_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    work = Cancellation()
    entered = threading.Event()

    def read() -> list[bytes]:
        got: list[bytes] = []
        try:
            while True:
                with work.interruptible(lambda: near.shutdown(socket.SHUT_RDWR)):
                    data = near.recv(1)
                got.append(data)
                entered.set()
        except Cancelled:
            return got

    thread = Worker(read)
    far.sendall(b"x")
    wait_until_blocked(thread, entered)
    work.cancel()
    assert thread.outcome() == [b"x"]


def test_whenever_it_comes_a_cancellation_ends_the_work() -> None:
    for _ in range(50):
        work = Cancellation()
        running = threading.Event()

        def spin(work: Cancellation = work, running: threading.Event = running) -> None:
            slots = threading.Semaphore(0)
            while True:
                running.set()
                with work.interruptible(slots.release):
                    slots.acquire(timeout=0.0001)

        thread = Worker(spin)
        assert running.wait(WITHIN)
        work.cancel()
        assert thread.outcome() is Cancelled


# Before, within and after


def never() -> None:
    raise AssertionError("nobody was to be interrupted")


def test_work_that_was_cancelled_before_does_not_begin() -> None:
    work = Cancellation()
    work.cancel()
    assert work.cancelled
    began = False
    with pytest.raises(Cancelled), work.interruptible(never):
        began = True
    assert not began


def test_work_that_is_not_cancelled_is_left_alone() -> None:
    work = Cancellation()
    with work.interruptible(never):
        pass
    error = ValueError("its own")
    with pytest.raises(ValueError, match="its own") as caught, work.interruptible(never):
        raise error
    assert caught.value is error
    assert not work.cancelled


@pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt(), GeneratorExit()])
def test_what_has_ended_is_not_interrupted(error: BaseException | None) -> None:
    work = Cancellation()
    try:
        with work.interruptible(never):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    work.cancel()
    with pytest.raises(Cancelled), work.interruptible(never):
        pass


def test_work_that_ended_although_it_was_cancelled_is_cancelled() -> None:
    work = Cancellation()
    with pytest.raises(Cancelled), work.interruptible(lambda: None):
        work.cancel()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_more_than_an_error_is_kept(error: type[BaseException]) -> None:
    work = Cancellation()
    with pytest.raises(error), work.interruptible(lambda: None):
        work.cancel()
        raise error


# The current work


def test_without_current_work_nothing_is_interruptible() -> None:
    assert _cancellation.current.get() is None
    with pytest.raises(ValueError, match="own"), interruptible(never):
        raise ValueError("own")


def test_the_current_work_is_the_one_that_is_interrupted() -> None:
    work = Cancellation()

    def current() -> None:
        _cancellation.current.set(work)
        with interruptible(lambda: None):
            work.cancel()

    with pytest.raises(Cancelled):
        copy_context().run(current)
    assert _cancellation.current.get() is None


def test_each_thread_has_work_of_its_own() -> None:
    works = [Cancellation(), Cancellation()]
    entered = [threading.Event(), threading.Event()]

    def wait(number: int) -> str:
        _cancellation.current.set(works[number])
        woken = threading.Event()
        with interruptible(woken.set):
            entered[number].set()
            woken.wait(0.1 if number else WITHIN)
        return "done"

    threads = [Worker(lambda: wait(0)), Worker(lambda: wait(1))]
    assert all(event.wait(WITHIN) for event in entered)
    works[0].cancel()
    assert [thread.outcome() for thread in threads] == [Cancelled, "done"]
