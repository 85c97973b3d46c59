"""Read the stream of an answer again, from any event on, in any process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from django.http.response import HttpResponseBase

from ...._connections import close_connections
from ...._gateway.flow import Flow, call
from ...._threads import in_separate_thread
from ...._views.http_responses import EventStream
from ...._wire.sse import PING
from ..models import Piece, Run
from . import live
from .live import FRAME_END

__all__ = ["follow"]

#: The interval at which the events of an answer of another process are read.
POLL_SECONDS: Final = 0.25


def follow(run_id: UUID, after: int, keepalive: float) -> Flow[HttpResponseBase]:
    """Return the stream of the events of the answer of the run ``run_id`` that have numbers greater
    than ``after``, up to its end. A silence of ``keepalive`` seconds gets a comment."""
    return (yield from call(_follow, _afollow, _Reader(run_id, after), keepalive))


def _follow(reader: _Reader, keepalive: float) -> HttpResponseBase:
    return EventStream(_events(reader, keepalive))


async def _afollow(reader: _Reader, keepalive: float) -> HttpResponseBase:
    return EventStream(_aevents(reader, keepalive))


@dataclass(slots=True)
class _Reader:
    """The position of one reader: in the list of events of this process, or in the database."""

    run_id: UUID
    after: int
    position: int = 0
    seen: int = 0
    has_ended: bool = False

    def read_live(self, answer: live.LiveAnswer) -> bytes:
        """Return the new events of an answer of this process."""
        # Before the data: the last events precede the end.
        has_ended = answer.has_ended
        data, self.position = answer.read(self.position)
        first, self.seen = self.seen, self.seen + data.count(FRAME_END)
        self.has_ended = has_ended
        return self._after(data, first)

    def read_stored(self) -> bytes:
        """Return the new events of an answer of another process, or of one that has ended."""
        run = Run.objects.filter(pk=self.run_id).first()
        rows = Piece.objects.filter(run=self.run_id, first__gte=self.seen)
        data = b""
        for piece in rows.order_by("first"):
            data += self._after(piece.data.encode(), piece.first)
            self.seen = piece.first + piece.count
        self.has_ended = run is None or run.ended_at is not None
        return data

    def _after(self, data: bytes, first: int) -> bytes:
        """Return the part of ``data``, events from the number ``first`` on, that was not sent."""
        skipped = self.after + 1 - first
        if skipped <= 0 or not data:
            return data
        return FRAME_END.join(data.split(FRAME_END)[skipped:])


def _events(reader: _Reader, keepalive: float) -> Iterator[bytes]:
    due = time.monotonic() + keepalive
    answer = live.find(reader.run_id)
    try:
        while True:
            changed = threading.Event()
            if answer is not None:
                answer.on_change(changed.set)
            data = reader.read_stored() if answer is None else reader.read_live(answer)
            if data:
                yield data
                due = time.monotonic() + keepalive
            if reader.has_ended:
                return
            if data and answer is not None:
                continue
            changed.wait(min(POLL_SECONDS if answer is None else 1.0, keepalive))
            if time.monotonic() >= due:
                yield PING
                due = time.monotonic() + keepalive
    finally:
        close_connections()


async def _aevents(reader: _Reader, keepalive: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = time.monotonic() + keepalive
    answer = live.find(reader.run_id)
    while True:
        changed = asyncio.Event()
        if answer is not None:
            answer.on_change(partial(_set, changed, loop))
            data = reader.read_live(answer)
        else:
            data = await in_separate_thread(reader.read_stored)
        if data:
            yield data
            due = time.monotonic() + keepalive
        if reader.has_ended:
            return
        if data and answer is not None:
            continue
        seconds = min(POLL_SECONDS if answer is None else 1.0, keepalive)
        try:
            await asyncio.wait_for(changed.wait(), seconds)
        except TimeoutError:
            if time.monotonic() >= due:
                yield PING
                due = time.monotonic() + keepalive


def _set(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    # The loop of a reader that is gone may be closed.
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)
