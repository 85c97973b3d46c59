"""Measure a request to a backend, and report it: to its recorder, its policies and the signals."""

from __future__ import annotations

import logging
import time
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from django.db import Error as DatabaseFailure
from django.dispatch import Signal

from .._threads import run_after_response
from .._translation.chat_completion import chat_message
from .._wire.delta import Delta, Usage, fold
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError
from ..signals import (
    completion_failed,
    completion_finished,
    completion_recorded,
    completion_started,
)
from .admission import Admission
from .flow import Flow, arun, call, run
from .outcome import CANCELLED, Outcome, Record, Timings
from .policy import Holds
from .recorder import BaseRecorder
from .routing import Route

__all__ = ["Account"]

logger = logging.getLogger("django_ollama_openai")


class Account:
    """The account of one request to a backend.

    It ends once: what is reported after :meth:`finished`, :meth:`cancelled` or :meth:`failed` is
    ignored. Then :meth:`settle` or :meth:`asettle`, before the client gets the end of the answer;
    then :meth:`send_ending` or :meth:`asend_ending`. A task that awaits one of these must not be
    cancelled meanwhile.
    """

    def __init__(
        self,
        admission: Admission[Any],
        *,
        choices: int,
        recorder: BaseRecorder | None = None,
    ) -> None:
        route = admission.engine_route
        self.request_id = admission.request_id
        self.holds: Holds | None = None
        self._recorder = recorder
        self._tickets: list[QueueTicket] = []
        self._slots = route.backend.slots
        self._sender = type(route.backend)
        self._current = route
        self._failures: list[tuple[str, GatewayError]] = []
        self._facts: dict[str, Any] = {
            "request": admission.request,
            "request_id": admission.request_id,
            "caller": admission.caller,
            "endpoint": admission.endpoint,
            "body": admission.body,
            "model": route.name,
            "backend": route.alias,
        }
        # The text of an answer is only kept if a recorder or a receiver gets it.
        self._is_kept = (
            recorder is not None
            or completion_finished.has_listeners(self._sender)
            or completion_failed.has_listeners(self._sender)
        )
        # A stream ends when the request has left the middleware, which may reset variables.
        self._context = copy_context()
        self._choices = choices
        self._tallies = [_Tally() for _ in range(max(1, choices))]
        self._started = time.perf_counter()
        self._first: float | None = None
        self._record: Record | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether the answer has finished, failed or been cancelled."""
        return self._record is not None

    def new_ticket(self) -> QueueTicket:
        """Return a new ticket for queues, whose waiting time counts as the request's."""
        ticket = QueueTicket()
        self._tickets.append(ticket)
        return ticket

    def note_fallback(self, route: Route, error: GatewayError) -> None:
        """Note that the current route failed with ``error``, and that ``route`` is tried next."""
        self._failures.append((self._current.alias, error))
        self._current = route

    def note_last_failure(self, first: Route, error: GatewayError) -> None:
        """Note that the last route failed with ``error``. The client gets the error of ``first``,
        the request's own route."""
        if self._current is not first:
            self._failures = [*self._failures[1:], (self._current.alias, error)]
            self._current = first

    def feed(self, delta: Delta) -> None:
        """Count ``delta``, which the backend has produced."""
        if self._first is None:
            self._first = time.perf_counter()
        tally = self._tallies[delta.index]
        tally.tokens += delta.tokens
        tally.usage = delta.usage or tally.usage
        tally.finish_reason = delta.finish_reason or tally.finish_reason
        if self._is_kept:
            tally.deltas.append(delta)
            if self._recorder is not None:
                self._recorder.feed(delta)

    def finished(self) -> None:
        """Note that the answer is complete."""
        reason = (self._tallies[0].finish_reason or "stop") if self._choices else None
        self._end(finish_reason=reason)

    def cancelled(self) -> None:
        """Note that the client has disconnected."""
        self._end(finish_reason=CANCELLED)

    def failed(self, error: GatewayError) -> None:
        """Note that the client gets ``error``."""
        self._end(error=error)

    def settle(self) -> GatewayError | None:
        """Record the answer, then settle the holds of policies; once.

        Return the error that the client gets instead of a finished answer that could not be
        recorded, if any.
        """
        if self._record is None or (self._recorder is None and not self.holds):
            return None
        return self._context.run(run, self._settle(self._record))

    async def asettle(self) -> GatewayError | None:
        """Async version of :meth:`settle`."""
        if self._record is None or (self._recorder is None and not self.holds):
            return None
        return await arun(self._settle(self._record))

    def _settle(self, record: Record) -> Flow[GatewayError | None]:
        recorder, self._recorder = self._recorder, None
        failure: GatewayError | None = None
        if recorder is not None:
            try:
                yield from call(recorder.record, recorder.arecord, record)
            except Exception as error:
                logger.error(
                    "The answer to request %s could not be stored: %s",
                    self.request_id,
                    type(error).__name__,
                    # Errors of databases quote rows, which may have text of the answer.
                    exc_info=None if isinstance(error, DatabaseFailure) else error,
                )
                if record.error is None and record.finish_reason != CANCELLED:
                    failure = _to_storage_error(error)
                    record = self._record = replace(record, error=failure, finish_reason=None)
        if self.holds is not None:
            yield from self.holds.settle(_without_messages(record))
        return failure

    def send_started(self) -> None:
        """Send ``completion_started``."""
        completion_started.send_robust(self._sender, **self._facts, queued=self._slots.queued)

    async def asend_started(self) -> None:
        """Async version of :meth:`send_started`."""
        if completion_started.has_listeners(self._sender):
            await completion_started.asend_robust(
                self._sender, **self._facts, queued=self._slots.queued
            )

    def send_ending(self) -> None:
        """Send the signals of the end, if the request has ended."""
        if self._record is not None:
            signal, facts = self._ending(self._record)
            self._context.run(self._send_recorded, facts)
            self._context.run(signal.send_robust, self._sender, **facts)

    async def asend_ending(self) -> None:
        """Async version of :meth:`send_ending`."""
        if self._record is not None:
            signal, facts = self._ending(self._record)
            self._send_recorded(facts)
            if signal.has_listeners(self._sender):
                await run_after_response(partial(signal.asend_robust, self._sender, **facts))

    def _send_recorded(self, facts: dict[str, Any]) -> None:
        figures = {"finish_reason": None, "error": None, **facts, "choices": self._choices}
        del figures["messages"]
        completion_recorded.send_robust(self._sender, **figures)

    def _ending(self, record: Record) -> tuple[Signal, dict[str, Any]]:
        facts = {
            **self._facts,
            "backend": self._current.alias,
            "answered_by": record.answered_by,
            "failures": tuple(self._failures),
            "usage": record.usage,
            "timings": record.timings,
            "messages": list(record.messages),
        }
        if record.error is not None:
            return completion_failed, {**facts, "error": record.error}
        return completion_finished, {**facts, "finish_reason": record.finish_reason}

    def _end(self, *, finish_reason: str | None = None, error: GatewayError | None = None) -> None:
        if self._record is not None:
            return
        now = time.perf_counter()
        self._record = Record(
            usage=sum((tally.counted() for tally in self._tallies), Usage()),
            timings=Timings(
                time_to_first_token=None if self._first is None else self._first - self._started,
                total=now - self._started,
                queued=sum(ticket.seconds for ticket in self._tickets),
            ),
            finish_reason=finish_reason,
            error=error,
            answered_by=self._current.name
            if any(ticket.admitted for ticket in self._tickets)
            else None,
            backend=self._current.alias,
            messages=tuple(
                chat_message(fold(tally.deltas)) for tally in self._tallies[: self._choices]
            ),
        )


def _without_messages(record: Record) -> Outcome:
    return Outcome(
        record.usage,
        record.timings,
        record.finish_reason,
        record.error,
        record.answered_by,
        record.backend,
    )


def _to_storage_error(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    return GatewayError("The answer could not be stored.")


@dataclass(slots=True)
class _Tally:
    """The figures of one choice."""

    tokens: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    deltas: list[Delta] = field(default_factory=list)

    def counted(self) -> Usage:
        return self.usage or Usage(completion_tokens=self.tokens, estimated=True)
