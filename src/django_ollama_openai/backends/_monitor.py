"""Looks at the members of a pool, from a thread of its own: whether they answer, which models they
have, and which of those are in memory."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Final, TypeAlias

from .._pump import EndOfStream, Pump
from ..exceptions import GatewayError, UpstreamError, UpstreamTimeout
from ._failover import broke_off, cannot_be_reached, has_answered, operator_message
from ._selection import Member, Standing
from ._slots import serve

__all__ = ["Monitor"]

logger = logging.getLogger("django_ollama_openai")

FIRST_LOOK_SECONDS: Final = 1
"""How long the first request waits for what is known of the members."""

ANSWER_SECONDS: Final = 3
"""Within which a member has to answer that it is there."""

LOOK_SECONDS: Final = 20
"""Within which it has to tell all; what it has not told by then stays as it was."""

IDLE_SECONDS: Final = 60
"""How long after the last request it looks on."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two looks at a member that is out: twice as many each time."""

_Fact: TypeAlias = "Callable[[], None]"


class Monitor:
    """Keeps the standing of ``members``, of the pool called ``pool``. It looks every ``interval``
    seconds while :meth:`attend` is called now and then."""

    def __init__(self, pool: str, members: Sequence[Member], interval: float) -> None:
        self._pool = pool
        self._members = members
        self._interval = interval
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._attended = 0.0
        self._events: queue.SimpleQueue[tuple[_Look, _Fact | EndOfStream] | None] = (
            queue.SimpleQueue()
        )
        """What looks have found; ``None``: something is to be done before it is due."""
        self._due = dict.fromkeys(members, 0.0)
        self._pauses = dict.fromkeys(members, FIRST_PAUSE)
        self._unseen = set(members)
        self._silent: set[Member] = set()
        """Those that have not answered in time when they were last looked at."""
        self._seen: Future[None] = Future()
        """Done as soon as all have been looked at once."""
        self.on_look: Callable[[], None] = lambda: None
        """Called when something new may be known of any, and something of all."""

    # What requests call

    def attend(self) -> None:
        """There is traffic: wait until the members have been looked at once, if that is soon."""
        self._look_on()
        if not self._seen.done() and self._thread is not None:
            with suppress(TimeoutError):
                self._seen.result(FIRST_LOOK_SECONDS)

    async def aattend(self) -> None:
        """The same under ASGI."""
        self._look_on()
        if not self._seen.done() and self._thread is not None:
            # Others wait for it, too.
            seen = asyncio.shield(asyncio.wrap_future(self._seen))
            with suppress(TimeoutError):
                await asyncio.wait_for(seen, FIRST_LOOK_SECONDS)

    def failed(self, member: Member, error: Exception) -> None:
        """A request to ``member`` has failed."""
        if cannot_be_reached(error):
            self._is_out(member, error)
            return
        if broke_off(error):
            self._is_doubtful(member)
        if isinstance(error, UpstreamError):
            logger.warning(
                "The backend %r of the pool %r failed: %s",
                member.alias,
                self._pool,
                _reason(error, member),
            )

    def succeeded(self, member: Member) -> None:
        """A request to ``member`` has been answered."""
        if member.standing is not Standing.IN:
            self._due[member] = 0.0
            self._events.put(None)

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._events.put(None)
        if thread is not None:
            thread.join(ANSWER_SECONDS)
        with suppress(InvalidStateError):
            self._seen.set_result(None)

    # Standing

    def _is_out(self, member: Member, error: Exception) -> None:
        now = time.monotonic()
        with self._lock:
            was_out = member.standing is Standing.OUT
            member.standing, member.failed_at = Standing.OUT, now
            if not was_out:
                self._pauses[member] = FIRST_PAUSE
                self._due[member] = now + FIRST_PAUSE
        if not was_out:
            logger.warning(
                "The backend %r is out of the pool %r until it answers again: %s",
                member.alias,
                self._pool,
                _reason(error, member),
            )
            self._has_changed()

    def _is_doubtful(self, member: Member) -> None:
        with self._lock:
            member.failed_at = time.monotonic()
            if member.standing is not Standing.IN:
                return
            member.standing = Standing.DOUBTFUL
            self._due[member] = 0.0
        self._has_changed()

    def _answers(self, member: Member, since: float) -> None:
        """It has answered to what it was asked at ``since``."""
        with self._lock:
            self._silent.discard(member)
            if member.failed_at > since:
                self._due[member] = 0.0
                return
            was, member.standing = member.standing, Standing.IN
            self._pauses[member] = FIRST_PAUSE
        if was is Standing.OUT:
            member.has_answered()
            logger.info("The backend %r is back in the pool %r", member.alias, self._pool)
        if was is not Standing.IN:
            self._has_changed()

    def _has_changed(self) -> None:
        self._events.put(None)
        serve(member.slots for member in self._members)

    # The thread

    def _look_on(self) -> None:
        self._attended = time.monotonic()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._due = dict.fromkeys(self._members, 0.0)
                # Not with the context of whoever comes first, which may hold their request.
                thread = threading.Thread(
                    target=Context().run,
                    args=(self._run,),
                    name=f"ollama-openai-monitor-{self._pool}",
                    daemon=True,
                )
                with suppress(RuntimeError):  # there are no more threads to be had
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        looks: dict[Member, _Look] = {}
        try:
            while self._goes_on():
                self._begin_and_end_looks(looks)
                with suppress(queue.Empty):
                    self._handle(self._events.get(timeout=self._pause(looks)), looks)
        finally:
            with self._lock:
                self._thread = None
            for look in looks.values():
                look.cancel()

    def _goes_on(self) -> bool:
        return not self._is_closed and time.monotonic() - self._attended < IDLE_SECONDS

    def _begin_and_end_looks(self, looks: dict[Member, _Look]) -> None:
        now = time.monotonic()
        for member in self._members:
            look = looks.get(member)
            # One that is left alone and has not ended is not followed by another.
            if look is None and self._due[member] <= now:
                look = _Look(member, self._events)
                self._due[member] = now + self._interval
                with suppress(RuntimeError):  # there are no more threads to be had
                    look.start()
                    looks[member] = look
            elif look is not None and look.is_overdue(now):
                look.cancel()
                if not look.has_answered:
                    self._has_failed(look, TimeoutError())

    def _pause(self, looks: dict[Member, _Look]) -> float:
        """How long there is nothing to do."""
        now = time.monotonic()
        times = [now + self._interval]
        for member in self._members:
            look = looks.get(member)
            if look is None:
                times.append(self._due[member])
            elif not look.is_cancelled:
                times.append(look.until)
        return max(0.0, min(times) - now)

    def _handle(
        self, event: tuple[_Look, _Fact | EndOfStream] | None, looks: dict[Member, _Look]
    ) -> None:
        if event is None:
            return
        look, found = event
        member = look.member
        if looks.get(member) is not look:
            return  # it is from before the last pause
        if isinstance(found, EndOfStream):
            del looks[member]
            if isinstance(found.error, Exception) and not look.has_answered:
                self._has_failed(look, found.error)
            self._was_seen(member)
            serve(each.slots for each in self._members)
            if not self._unseen:
                self.on_look()
        elif not look.is_cancelled:
            if not look.has_answered:
                look.has_answered = True
                look.until = time.monotonic() + LOOK_SECONDS
                self._answers(member, look.began)
            found()

    def _has_failed(self, look: _Look, error: Exception) -> None:
        member = look.member
        if has_answered(error):
            # That it refuses to say what it has is a sign of life, too.
            self._answers(member, look.began)
        elif isinstance(error, (TimeoutError, UpstreamTimeout)) and member not in self._silent:
            # Some engines answer nothing while they read a long prompt.
            self._silent.add(member)
            self._is_doubtful(member)
            self._due[member] = 0.0
        else:
            self._is_not_there(member, error)
        self._was_seen(member)

    def _is_not_there(self, member: Member, error: Exception) -> None:
        if member.standing is Standing.OUT:
            with self._lock:
                pause = self._pauses[member] = min(self._pauses[member] * 2, LONGEST_PAUSE)
                self._due[member] = time.monotonic() + pause
        else:
            self._is_out(member, error)

    def _was_seen(self, member: Member) -> None:
        self._unseen.discard(member)
        if not self._unseen:
            with suppress(InvalidStateError):
                self._seen.set_result(None)


class _Look:
    """One look at one member, in a thread that can be left alone."""

    def __init__(
        self, member: Member, events: queue.SimpleQueue[tuple[_Look, _Fact | EndOfStream] | None]
    ) -> None:
        self.member = member
        self.began = time.monotonic()
        self.until = self.began + ANSWER_SECONDS
        self.has_answered = False
        self.is_cancelled = False
        self._pump: Pump[_Fact] = Pump(self._look, lambda found: events.put((self, found)))

    def start(self) -> None:
        self._pump.start()

    def is_overdue(self, now: float) -> bool:
        return not self.is_cancelled and self.until <= now

    def cancel(self) -> None:
        self.is_cancelled = True
        self._pump.cancel()

    def _look(self) -> Iterator[_Fact]:
        member, backend = self.member, self.member.backend
        backend.ping()
        yield lambda: None
        # An engine that is there and cannot tell is as good as it was.
        with suppress(GatewayError):
            yield partial(member.loaded, backend.loaded_models())
        with suppress(GatewayError):
            yield partial(member.listed, backend.list_models())


def _reason(error: Exception, member: Member) -> str:
    """Return the reason for the failure of ``member``, for operators: with the class of the
    underlying exception, and without any text of the engine."""
    if isinstance(error, TimeoutError):
        return f"it did not answer within {ANSWER_SECONDS} seconds."
    if not isinstance(error, GatewayError):
        return f"{type(error).__name__}."
    message, cause = operator_message(error, member.backend), error.__cause__
    return message if cause is None else f"{message} ({type(cause).__name__})"
