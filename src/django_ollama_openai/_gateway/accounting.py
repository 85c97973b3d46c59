"""What a completion came to, for the signals: usage, timings, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.dispatch import Signal
from django.http import HttpRequest

from .._threads import outliving_request
from .._translation.chat_completion import chat_message
from .._wire.delta import Delta, Usage, fold
from .._wire.engine import EngineRequest
from ..auth import Caller
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError
from ..signals import (
    completion_ended,
    completion_failed,
    completion_finished,
    completion_started,
)
from .routing import Route

__all__ = ["Account", "Timings"]


@dataclass(slots=True, frozen=True)
class Timings:
    """In seconds. ``queued`` is how long the request waited for a slot of each backend that was
    asked, of several choices the one that waited longest. The others count from the moment it went
    to the backend and include that. ``time_to_first_token`` is ``None`` if there was none."""

    time_to_first_token: float | None
    total: float
    queued: float


class Account:
    """The account of one request. It ends once; what is reported after that is ignored.

    ``endpoint`` is OpenAI's name of what was asked: ``chat.completions``, ``completions``,
    ``embeddings`` or ``responses``; ``body`` is its validated request. An answer that is no text
    has no ``choices``.
    """

    def __init__(
        self,
        *,
        request: HttpRequest,
        request_id: str,
        caller: Caller,
        route: Route,
        endpoint: str,
        body: EngineRequest,
        choices: int,
    ) -> None:
        self.request_id = request_id
        self._tickets: list[QueueTicket] = []
        self._slots = route.backend.slots
        self._sender = type(route.backend)
        self._answerer = route
        self._failures: list[tuple[str, GatewayError]] = []
        self._facts: dict[str, Any] = {
            "request": request,
            "request_id": request_id,
            "caller": caller,
            "endpoint": endpoint,
            "body": body,
            "model": route.name,
            "backend": route.alias,
        }
        # The text of an answer is kept only if somebody will be told of it.
        self._is_kept = completion_finished.has_listeners(
            self._sender
        ) or completion_failed.has_listeners(self._sender)
        # A stream's end comes when the request has left the middleware, and their context with it.
        self._context = copy_context()
        self._choices = choices
        self._tallies = [_Tally() for _ in range(max(1, choices))]
        self._started = time.perf_counter()
        self._first: float | None = None
        self._ending: tuple[Signal, dict[str, Any]] | None = None

    def new_ticket(self) -> QueueTicket:
        """Return the ticket for the queue of a backend, or of another one."""
        ticket = QueueTicket()
        self._tickets.append(ticket)
        return ticket

    def falls_back(self, route: Route, error: GatewayError) -> None:
        """The backend has failed with ``error``, and another one is asked instead."""
        self._failures.append((self._answerer.alias, error))
        self._answerer = route

    def all_have_failed(self, first: Route, error: GatewayError) -> None:
        """The last with ``error``, too; it is the failure of the ``first`` that the client hears
        of."""
        if self._answerer is not first:
            self._failures = [*self._failures[1:], (self._answerer.alias, error)]
            self._answerer = first

    def feed(self, delta: Delta) -> None:
        """The backend has produced ``delta``."""
        if self._first is None:
            self._first = time.perf_counter()
        tally = self._tallies[delta.index]
        tally.tokens += delta.tokens
        tally.usage = delta.usage or tally.usage
        tally.finish_reason = delta.finish_reason or tally.finish_reason
        if self._is_kept:
            tally.deltas.append(delta)

    def finished(self) -> None:
        reason = (self._tallies[0].finish_reason or "stop") if self._choices else None
        self._end(completion_finished, finish_reason=reason)

    def cancelled(self) -> None:
        """The client has hung up."""
        self._end(completion_finished, finish_reason="cancelled")

    def failed(self, error: GatewayError) -> None:
        self._end(completion_failed, error=error)

    def send_started(self) -> None:
        completion_started.send_robust(self._sender, **self._facts, queued=self._slots.queued)

    async def asend_started(self) -> None:
        if completion_started.has_listeners(self._sender):
            sending = completion_started.asend_robust(
                self._sender, **self._facts, queued=self._slots.queued
            )
            await _uninterrupted(sending)

    def send_ending(self) -> None:
        if self._ending is not None:
            signal, facts = self._ending
            self._context.run(self._send_ended, facts)
            self._context.run(signal.send_robust, self._sender, **facts)

    async def asend_ending(self) -> None:
        if self._ending is not None:
            signal, facts = self._ending
            is_heard = signal.has_listeners(self._sender)
            if is_heard or completion_ended.has_listeners(self._sender):
                # In a task, which runs when the last event has left.
                await _uninterrupted(self._asend_ending(signal if is_heard else None, facts))

    async def _asend_ending(self, signal: Signal | None, facts: dict[str, Any]) -> None:
        self._send_ended(facts)
        if signal is not None:
            await outliving_request(partial(signal.asend_robust, self._sender, **facts))

    def _send_ended(self, facts: dict[str, Any]) -> None:
        figures = {"finish_reason": None, "error": None, **facts, "choices": self._choices}
        del figures["messages"]
        completion_ended.send_robust(self._sender, **figures)

    def _end(self, signal: Signal, **outcome: Any) -> None:
        if self._ending is not None:
            return
        now = time.perf_counter()
        outcome["usage"] = sum((tally.counted() for tally in self._tallies), Usage())
        outcome["timings"] = Timings(
            time_to_first_token=None if self._first is None else self._first - self._started,
            total=now - self._started,
            queued=sum(ticket.seconds for ticket in self._tickets),
        )
        outcome["messages"] = [
            chat_message(fold(tally.deltas)) for tally in self._tallies[: self._choices]
        ]
        answerer = {
            "backend": self._answerer.alias,
            "answered_by": self._answerer.name,
            "failures": tuple(self._failures),
        }
        self._ending = (signal, {**self._facts, **answerer, **outcome})


@dataclass(slots=True)
class _Tally:
    """What one choice came to."""

    tokens: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    deltas: list[Delta] = field(default_factory=list)

    def counted(self) -> Usage:
        return self.usage or Usage(completion_tokens=self.tokens, estimated=True)


async def _uninterrupted(sending: Coroutine[Any, Any, Any]) -> None:
    """Await ``sending`` to its end, also when a client hangs up meanwhile: receivers are told of
    every completion twice, and in order."""
    task = asyncio.create_task(sending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
