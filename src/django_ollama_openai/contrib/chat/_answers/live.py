"""The answers that this process is writing.

One thread writes the text so far of all of them to the database each second, renews their leases,
and stops those whose clients want that. Nothing is written for a single token.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils.timezone import now

from ...._connections import close_connections
from ....endpoints import Stopper
from ....exceptions import Overloaded
from ....shutdown import is_stopping
from .._store.runs import LEASE, end_all_expired, prune_runs
from ..conf import chat_settings
from ..models import Piece, Run

__all__ = ["LiveAnswer", "add", "check_capacity", "find", "remove"]

SECONDS: Final = 1.0
#: uvicorn takes 0.1 seconds at least to stop, and is then ended by the signal.
STOP_POLL_SECONDS: Final = 0.05
RENEWAL_SECONDS: Final = LEASE / timedelta(seconds=1) / 3
FRAME_END: Final = b"\n\n"

logger = logging.getLogger("django_ollama_openai")


class LiveAnswer:
    """An answer that is being written.

    ``snapshot()`` returns OpenAI's items so far. ``interrupt()`` ends the answer as incomplete,
    because the server stops. With ``is_stored`` its events are stored, for other processes and for
    later.
    """

    def __init__(
        self,
        run: Run,
        snapshot: Callable[[], list[dict[str, Any]]],
        interrupt: Callable[[], None],
        *,
        is_stored: bool,
    ) -> None:
        self.run = run
        self.stopper = Stopper()
        self.snapshot = snapshot
        self.interrupt = interrupt
        self.is_stored = is_stored
        self.has_ended = False
        #: Held by the thread that writes to the database.
        self.lock = threading.Lock()
        self._data: list[bytes] = []
        self._written = self._numbered = 0
        self._waiting: list[Callable[[], object]] = []

    def add(self, data: bytes) -> None:
        """Add events. It is called for every token."""
        if data:
            self._data.append(data)
            if self._waiting:
                self.wake()

    def read(self, position: int) -> tuple[bytes, int]:
        """Return the data from ``position`` on, and the next position."""
        data = self._data[position:]
        return b"".join(data), position + len(data)

    def on_change(self, wake: Callable[[], object]) -> None:
        """Call ``wake`` once when there is more to read, from any thread."""
        self._waiting.append(wake)

    def end(self, data: bytes = b"") -> None:
        """Add the last events, and end."""
        if data:
            self._data.append(data)
        self.has_ended = True
        self.wake()

    def wake(self) -> None:
        """Call those that wait."""
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def new_piece(self, last: bytes = b"") -> Piece | None:
        """Return the events that are not stored yet, and ``last`` after them; the caller has the
        lock, and stores them."""
        if not self.is_stored:
            return None
        data, self._written = self._data[self._written :], len(self._data)
        text = b"".join(data) + last
        count = text.count(FRAME_END)
        if not count:
            return None
        first, self._numbered = self._numbered, self._numbered + count
        return Piece(run=self.run, first=first, count=count, data=text.decode())


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers: dict[UUID, LiveAnswer] = {}
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs; the caller has the lock."""
        if self.thread is None:
            self.thread = threading.Thread(
                target=self.run, name="ollama-openai-answers", daemon=True
            )
            self.thread.start()

    def run(self) -> None:
        renewed = time.monotonic()
        while True:
            self.wait()
            with self.lock:
                if not self.answers:
                    self.thread = None
                    break
                answers = list(self.answers.values())
            try:
                if is_stopping():
                    self.interrupt(answers)
                is_due = time.monotonic() - renewed >= RENEWAL_SECONDS
                self.write(answers, renews=is_due)
                if is_due:
                    renewed = time.monotonic()
                    end_all_expired()
                    prune_runs()
            except Exception as error:
                # The message of the error may quote rows.
                logger.error("The text of answers could not be stored: %s", type(error).__name__)
                close_connections()
        close_connections()

    def wait(self) -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not (self.has_background and is_stopping()):
            time.sleep(STOP_POLL_SECONDS)

    @property
    def has_background(self) -> bool:
        return any(answer.run.background for answer in list(self.answers.values()))

    def interrupt(self, answers: list[LiveAnswer]) -> None:
        """End the answers in the background: no client's connection keeps the server from
        stopping. Others end with their requests."""
        for answer in answers:
            if answer.run.background:
                answer.interrupt()

    def write(self, answers: list[LiveAnswer], *, renews: bool) -> None:
        by_run = {answer.run.pk: answer for answer in answers}
        rows = Run.objects.filter(pk__in=list(by_run), ended_at=None)
        running = dict(rows.values_list("pk", "stop"))
        for pk, answer in by_run.items():
            # One that is not there was deleted, with its message.
            if running.get(pk, True) and not answer.has_ended:
                answer.stopper.stop()
            if pk in running:
                self.write_answer(answer)
        if renews:
            rows.update(lease_until=now() + LEASE)

    def write_answer(self, answer: LiveAnswer) -> None:
        with answer.lock:
            if answer.has_ended:
                return
            output = answer.snapshot()
            piece = answer.new_piece()
            with transaction.atomic():
                if output != answer.run.output:
                    Run.objects.filter(pk=answer.run.pk, ended_at=None).update(output=output)
                    answer.run.output = output
                if piece is not None:
                    piece.save(force_insert=True)


_registry = _Registry()


def _renew_after_fork() -> None:
    global _registry
    _registry = _Registry()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def add(answer: LiveAnswer) -> None:
    """Store the progress of ``answer`` from now on."""
    with _registry.lock:
        _registry.answers[answer.run.pk] = answer
        _registry.start()


def remove(answer: LiveAnswer) -> None:
    """Forget ``answer``, which has ended."""
    with _registry.lock:
        _registry.answers.pop(answer.run.pk, None)


def find(run_id: UUID) -> LiveAnswer | None:
    """Return the answer of the run ``run_id`` if this process writes it."""
    return _registry.answers.get(run_id)


def check_capacity() -> None:
    """Check that this process may write another answer in the background.

    Raises:
        Overloaded: It writes ``MAX_BACKGROUND`` already.
    """
    answers = list(_registry.answers.values())
    if sum(answer.run.background for answer in answers) >= chat_settings().MAX_BACKGROUND:
        raise Overloaded("Too many answers are written in the background. Try again later.")
