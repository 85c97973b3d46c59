"""The health of a pool's members: from the failures of requests, and from probes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Final

from ..._cancellation import Cancellation, Cancelled, current, interruptible
from ...exceptions import GatewayError, UpstreamError, UpstreamTimeout
from .._failures import is_disconnect, is_error_status, is_unreachable, operator_message
from .._fan_out import fan_out
from .._slots import reschedule
from .selection import Health, Member

__all__ = ["Monitor"]

logger = logging.getLogger("django_ollama_openai")

#: Maximum time that requests wait for the first probe of all members.
FIRST_PROBE_SECONDS: Final = 1

#: Maximum time of a probe. Facts that it has not found by then stay as they are.
PROBE_SECONDS: Final = 5

#: The time that probing goes on after the last request.
IDLE_SECONDS: Final = 60

#: Seconds between two probes of an unhealthy member: doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


class Monitor:
    """Tracks the health of ``members`` of the pool ``pool``.

    One thread probes them every ``interval`` seconds, as long as :meth:`note_traffic` is called
    now and then. ``probed`` is called in it after each round of probes.
    """

    def __init__(
        self, pool: str, members: Sequence[Member], interval: float, probed: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._members = members
        self._interval = interval
        self._probed = probed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._work = Cancellation()
        self._last_traffic = 0.0
        self._is_due = threading.Event()
        self._first_round: Future[None] = Future()
        self._first_round_until = 0.0

    # For requests

    def note_traffic(self) -> None:
        """Go on probing, and wait for the first probes for at most ``FIRST_PROBE_SECONDS``."""
        self._keep_probing()
        if not self._first_round.done() and self._thread is not None:
            with suppress(TimeoutError):
                self._first_round.result(max(0, self._first_round_until - time.monotonic()))

    async def anote_traffic(self) -> None:
        """Async version of :meth:`note_traffic`."""
        self._keep_probing()
        if not self._first_round.done() and self._thread is not None:
            # Other requests wait for it, too.
            first_round = asyncio.shield(asyncio.wrap_future(self._first_round))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._first_round_until - time.monotonic()):
                    await first_round

    def failed(self, member: Member, error: Exception) -> None:
        """Note that a request to ``member`` failed."""
        if is_unreachable(error):
            self._mark_unhealthy(member, error)
            return
        if is_disconnect(error):
            self._mark_suspect(member)
        if isinstance(error, UpstreamError):
            logger.warning(
                "The backend %r of the pool %r failed: %s",
                member.alias,
                self._pool,
                _reason(error, member),
            )

    def succeeded(self, member: Member) -> None:
        """Note that ``member`` has answered a request."""
        if member.health is not Health.HEALTHY:
            self._probe_now(member)

    def close(self) -> None:
        """Stop probing."""
        self._work.cancel()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(PROBE_SECONDS)
        with suppress(InvalidStateError):
            self._first_round.set_result(None)

    # Health

    def _mark_unhealthy(self, member: Member, error: Exception) -> None:
        with self._lock:
            was, member.health = member.health, Health.UNHEALTHY
            now = member.failed_at = time.monotonic()
            if was is Health.UNHEALTHY:
                return
            member.pause = FIRST_PAUSE
            member.probe_at = now + FIRST_PAUSE
        logger.warning(
            "The backend %r is out of the pool %r until it answers again: %s",
            member.alias,
            self._pool,
            _reason(error, member),
        )
        self._has_changed()

    def _mark_suspect(self, member: Member) -> None:
        with self._lock:
            member.failed_at = time.monotonic()
            if member.health is not Health.HEALTHY:
                return
            member.health = Health.SUSPECT
            member.probe_at = 0.0
        self._has_changed()

    def _mark_healthy(self, member: Member, since: float) -> None:
        """Note that ``member`` has answered a probe that began at ``since``."""
        with self._lock:
            member.is_silent = False
            if member.failed_at > since:
                member.probe_at = 0.0
                return
            was, member.health = member.health, Health.HEALTHY
            member.pause = FIRST_PAUSE
        if was is Health.UNHEALTHY:
            member.note_success()
            logger.info("The backend %r is back in the pool %r", member.alias, self._pool)
        if was is not Health.HEALTHY:
            self._has_changed()

    def _has_changed(self) -> None:
        self._is_due.set()
        reschedule(member.slots for member in self._members)

    def _probe_now(self, member: Member) -> None:
        member.probe_at = 0.0
        self._is_due.set()

    # The thread

    def _keep_probing(self) -> None:
        self._last_traffic = time.monotonic()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._work.cancelled:
                self._first_round_until = self._last_traffic + FIRST_PROBE_SECONDS
                for member in self._members:
                    member.probe_at = 0.0
                # Without the context of the first request, which it would keep alive.
                thread = threading.Thread(
                    target=Context().run,
                    args=(self._run,),
                    name=f"ollama-openai-monitor-{self._pool}",
                    daemon=True,
                )
                with suppress(RuntimeError):  # no more threads can be started
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        current.set(self._work)
        try:
            while time.monotonic() - self._last_traffic < IDLE_SECONDS:
                self._is_due.clear()
                now = time.monotonic()
                if due := [member for member in self._members if member.probe_at <= now]:
                    self._probe(due)
                pause = min(member.probe_at for member in self._members) - time.monotonic()
                with interruptible(self._is_due.set):
                    self._is_due.wait(max(0, min(pause, self._interval)))
        except Cancelled:
            pass  # it is closed
        finally:
            with self._lock:
                self._thread = None

    def _probe(self, members: Iterable[Member]) -> None:
        began = time.monotonic()
        missing = dict.fromkeys(members)
        for member in missing:
            member.probe_at = began + self._interval
        probes = {member: partial(self._probe_one, member, began) for member in missing}
        for member, error in fan_out(probes, PROBE_SECONDS):
            del missing[member]
            if error is not None:
                self._probe_failed(member, error, began)
        for member in missing:
            self._probe_failed(member, TimeoutError(), began)
        with suppress(InvalidStateError):
            self._first_round.set_result(None)
        # Waiting requests may now have other candidates.
        reschedule(member.slots for member in self._members)
        self._probed()

    def _probe_one(self, member: Member, began: float) -> None:
        """Probe ``member``. It runs in a thread that is abandoned after ``PROBE_SECONDS``."""
        backend = member.backend
        backend.ping()
        member.answered_at = time.monotonic()
        self._mark_healthy(member, began)
        # Known models are kept if an engine is alive but cannot list them.
        with suppress(GatewayError):
            member.note_loaded(backend.loaded_models())
        with suppress(GatewayError):
            member.note_models(backend.list_models())

    def _probe_failed(self, member: Member, error: Exception, began: float) -> None:
        if member.answered_at >= began:
            if not isinstance(error, TimeoutError):
                logger.error("Listing the models of %r crashed", member.alias, exc_info=error)
        elif is_error_status(error):
            self._mark_healthy(member, began)
        elif isinstance(error, (TimeoutError, UpstreamTimeout)) and not member.is_silent:
            # Some engines are silent while they read a long prompt.
            member.is_silent = True
            self._mark_suspect(member)
            self._probe_now(member)
        elif member.health is Health.UNHEALTHY:
            with self._lock:
                member.pause = min(member.pause * 2, LONGEST_PAUSE)
                member.probe_at = time.monotonic() + member.pause
        else:
            self._mark_unhealthy(member, error)


def _reason(error: Exception, member: Member) -> str:
    """Return the reason for ``error``, for operators, without any text of the engine."""
    if isinstance(error, TimeoutError):
        return f"it did not answer within {PROBE_SECONDS} seconds."
    if not isinstance(error, GatewayError):
        return f"{type(error).__name__}."
    return operator_message(error, member.backend)
