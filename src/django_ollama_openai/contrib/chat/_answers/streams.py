"""Read the stream of an answer again, from any event on, in any process.

Readers of an answer of this process share its events. Those of an answer of another process, or of
one that has ended, share a mirror of it: one thread reads new events of all mirrors from the
database, so that its load does not depend on the number of readers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from typing import Final
from uuid import UUID

from django.db.models import Q
from django.http.response import HttpResponseBase

from ...._connections import close_connections
from ...._gateway.flow import Flow, call
from ...._threads import in_separate_thread
from ...._views.http_responses import EventStream
from ...._wire.sse import PING
from ....shutdown import deadline
from .._store.runs import end_expired
from ..models import Piece, Run
from . import live
from .events import FRAME_END, Events

__all__ = ["follow"]

#: The interval at which mirrors are updated.
POLL_SECONDS: Final = 0.5
#: The interval at which a reader that waits checks whether to go on.
CHECK_SECONDS: Final = 0.5
#: Readers wait so long for a database that is not available.
OUTAGE_SECONDS: Final = 15.0
#: The mirrors that one query reads.
BATCH: Final = 50

logger = logging.getLogger("django_ollama_openai")


class _Mirror(Events):
    """The events of an answer of another process, or of one that has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = self.count = 0


class _Mirrors:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Event()
        self.mirrors: dict[UUID, _Mirror] = {}
        self.thread: threading.Thread | None = None

    @contextmanager
    def reading(self, run_id: UUID) -> Iterator[_Mirror]:
        """Keep the mirror of the run ``run_id`` up to date in the block."""
        with self.lock:
            mirror = self.mirrors.setdefault(run_id, _Mirror())
            mirror.readers += 1
            if self.thread is None:
                self.thread = threading.Thread(
                    target=self.run, name="ollama-openai-streams", daemon=True
                )
                self.thread.start()
        # Its first events at once.
        self.changed.set()
        try:
            yield mirror
        finally:
            with self.lock:
                mirror.readers -= 1
                if not mirror.readers:
                    self.mirrors.pop(run_id, None)

    def run(self) -> None:
        updated = time.monotonic()
        while True:
            with self.lock:
                waiting = [pair for pair in self.mirrors.items() if not pair[1].has_ended]
                if not waiting:
                    self.thread = None
                    break
            try:
                for start in range(0, len(waiting), BATCH):
                    _update(dict(waiting[start : start + BATCH]))
                updated = time.monotonic()
            except Exception as error:
                logger.error("Streams could not be read: %s", type(error).__name__)
                close_connections()
                if time.monotonic() - updated > OUTAGE_SECONDS:
                    for _, mirror in waiting:
                        mirror.end()
            self.changed.wait(POLL_SECONDS)
            self.changed.clear()
        close_connections()


def _update(mirrors: dict[UUID, _Mirror]) -> None:
    """Read the new events of ``mirrors``."""
    # Before the events: the last ones are stored together with the end.
    runs = Run.objects.filter(pk__in=list(mirrors)).defer("output").in_bulk()
    for run in runs.values():
        end_expired(run)
    new = reduce(or_, (Q(run=pk, first__gte=mirror.count) for pk, mirror in mirrors.items()))
    for piece in Piece.objects.filter(new).order_by("run", "first"):
        mirror = mirrors[piece.run_id]
        mirror.add(piece.data.encode())
        mirror.count += piece.count
    for pk, mirror in mirrors.items():
        if pk not in runs or runs[pk].ended_at is not None:
            mirror.end()


_mirrors = _Mirrors()


def _renew_after_fork() -> None:
    global _mirrors
    _mirrors = _Mirrors()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def follow(
    run_id: UUID | None,
    after: int,
    keepalive: float,
    *,
    closing: bytes = b"",
    otherwise: Callable[[], bytes] | None = None,
    is_disconnected: Callable[[], bool] | None = None,
) -> Flow[HttpResponseBase]:
    """Return the stream of the events of the answer of the run ``run_id`` that have numbers greater
    than ``after``, up to its end. A silence of ``keepalive`` seconds gets a comment.

    Every stream ends with ``closing``, even one without an event after ``after``. If the answer has
    ended without any event, or has no run, the stream is what ``otherwise()`` returns, which may
    block. ``is_disconnected()`` is for synchronous servers.
    """
    reader = _Reader(run_id, after, keepalive, closing, otherwise, is_disconnected)
    return (yield from call(_follow, _afollow, reader))


def _follow(reader: _Reader) -> HttpResponseBase:
    return EventStream(_events(reader))


async def _afollow(reader: _Reader) -> HttpResponseBase:
    return EventStream(_aevents(reader))


@dataclass(slots=True)
class _Reader:
    """One reader, and its position in the events."""

    run_id: UUID | None
    after: int
    keepalive: float
    closing: bytes
    otherwise: Callable[[], bytes] | None
    is_disconnected: Callable[[], bool] | None
    position: int = 0
    seen: int = 0
    sent: bytes = b""
    due: float = 0.0

    @contextmanager
    def reading(self, wake: Callable[[], object]) -> Iterator[Events]:
        """Read the events in the block, in which ``wake`` is called when there are more."""
        self.due = time.monotonic() + self.keepalive
        with _events_of(self.run_id) as events:
            try:
                yield events
            finally:
                events.forget(wake)

    def read(self, events: Events, wake: Callable[[], object]) -> tuple[bytes, bool]:
        """Return a part of the new events, and whether it was the last one. If there are none,
        ``wake`` is called when there are."""
        events.on_change(wake)
        # Before the data: the last events precede the end.
        has_ended, data = events.has_ended, b""
        while not data and self.position < events.end_position:
            data, self.position = events.read(self.position)
            first, self.seen = self.seen, self.seen + data.count(FRAME_END)
            data = self._after(data, first)
        has_ended = has_ended and self.position == events.end_position
        if data:
            self.sent = data[-len(self.closing) :] if self.closing else b""
            self.due = time.monotonic() + self.keepalive
        return data, has_ended

    def _after(self, data: bytes, first: int) -> bytes:
        """Return the part of ``data``, events from the number ``first`` on, that was not sent."""
        skipped = self.after + 1 - first
        if skipped <= 0 or not data:
            return data
        return FRAME_END.join(data.split(FRAME_END)[skipped:])

    @property
    def substitute(self) -> Callable[[], bytes] | None:
        """Return ``otherwise`` if the answer has ended without events."""
        return None if self.seen else self.otherwise

    @property
    def rest(self) -> bytes:
        """Return the end of the stream, unless it was sent."""
        return b"" if self.sent == self.closing else self.closing

    def ping(self) -> bytes:
        """Return a comment if it is due."""
        if time.monotonic() < self.due:
            return b""
        self.due = time.monotonic() + self.keepalive
        return PING

    @property
    def seconds(self) -> float:
        """Return the time to wait for more events."""
        return max(0.0, min(CHECK_SECONDS, self.due - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Return whether the reader has gone, or the server stops."""
        end = deadline()
        return (end is not None and time.monotonic() >= end) or (
            self.is_disconnected is not None and self.is_disconnected()
        )


@contextmanager
def _events_of(run_id: UUID | None) -> Iterator[Events]:
    if run_id is None:
        events = Events()
        events.end()
        yield events
    elif (answer := live.find(run_id)) is not None:
        yield answer
    else:
        with _mirrors.reading(run_id) as mirror:
            yield mirror


def _events(reader: _Reader) -> Iterator[bytes]:
    changed = threading.Event()
    with reader.reading(changed.set) as events:
        while True:
            changed.clear()
            data, has_ended = reader.read(events, changed.set)
            if data:
                yield data
            if has_ended:
                break
            if not data and not changed.wait(reader.seconds):
                if reader.is_over:
                    return
                if ping := reader.ping():
                    yield ping
    if (substitute := reader.substitute) is not None:
        yield substitute()
    elif rest := reader.rest:
        yield rest


async def _aevents(reader: _Reader) -> AsyncIterator[bytes]:
    changed = asyncio.Event()
    wake = partial(_set, changed, asyncio.get_running_loop())
    with reader.reading(wake) as events:
        while True:
            changed.clear()
            data, has_ended = reader.read(events, wake)
            if data:
                yield data
            if has_ended:
                break
            if not data:
                try:
                    await asyncio.wait_for(changed.wait(), reader.seconds)
                except TimeoutError:
                    if reader.is_over:
                        return
                    if ping := reader.ping():
                        yield ping
    if (substitute := reader.substitute) is not None:
        yield await in_separate_thread(substitute)
    elif rest := reader.rest:
        yield rest


def _set(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    # The loop of a reader that is gone may be closed.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
