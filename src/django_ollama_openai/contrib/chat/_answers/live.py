"""The answers that this process is writing.

One thread writes the text so far of all of them to the database each second, renews their leases,
and stops those whose clients want that. Nothing is written for a single token.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils.timezone import now

from .... import shutdown
from ...._connections import close_connections
from ....endpoints import Stopper
from ....exceptions import Overloaded
from .._store.drafts import Draft, insert
from .._store.retention import is_deleted, prune_streams
from .._store.runs import LEASE, end_all_expired
from ..conf import chat_settings
from ..models import Piece, Run
from .events import FRAME_END, Events

__all__ = ["LiveAnswer", "add", "check_capacity", "find", "locked", "remove", "reserved"]

SECONDS: Final = 1.0
#: The interval at which leases are renewed, and those of killed processes looked for.
RENEWAL_SECONDS: Final = LEASE / timedelta(seconds=1) / 3
#: The answers that one transaction writes.
BATCH: Final = 20
#: The time that the end of the interpreter waits for answers to end.
EXIT_SECONDS: Final = 5.0

logger = logging.getLogger("django_ollama_openai")


class LiveAnswer(Events):
    """An answer that is being written, and its events.

    ``snapshot()`` returns OpenAI's items so far. ``interrupt()`` ends the answer as incomplete.
    With ``is_stored`` its events are stored, for other processes and for later; otherwise it has
    none. With a ``draft`` it may not be stored itself yet.
    """

    def __init__(
        self,
        run: Run,
        snapshot: Callable[[], list[dict[str, Any]]],
        interrupt: Callable[[], None],
        *,
        is_stored: bool,
        draft: Draft | None = None,
    ) -> None:
        super().__init__()
        self.run = run
        self.draft = draft
        self.begun_at = time.monotonic()
        self.stopper = Stopper()
        self.snapshot = snapshot
        self.interrupt = interrupt
        self.is_stored = is_stored
        #: Held by the thread that writes to the database.
        self.lock = threading.Lock()
        #: Times of :func:`time.monotonic`.
        self.abandoned_at: float | None = None
        self.stopped_at: float | None = None
        self._written = self._taken = self._numbered = 0

    @property
    def is_inserted(self) -> bool:
        """Return whether the answer is in the database."""
        return self.draft is None or self.draft.is_inserted

    def add(self, data: bytes) -> None:
        if self.is_stored:
            super().add(data)

    def abandon(self) -> None:
        """Have the answer ended as incomplete, in another thread, since the gateway cannot end
        it."""
        self.abandoned_at = time.monotonic()
        _registry.changed.set()

    def new_piece(self, last: bytes = b"") -> Piece | None:
        """Return the events that are not stored yet, and ``last`` after them, for the caller to
        insert, who has the lock, and calls :meth:`note_stored` afterwards."""
        if not self.is_stored:
            return None
        data = self._data[self._written :]
        self._taken = self._written + len(data)
        text = b"".join(data) + last
        count = text.count(FRAME_END)
        if not count:
            return None
        return Piece(run=self.run, first=self._numbered, count=count, data=text.decode())

    def note_stored(self, piece: Piece) -> None:
        """Note that the transaction that inserted ``piece`` has been committed."""
        self._written = self._taken
        self._numbered += piece.count


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Event()
        self.answers: dict[UUID, LiveAnswer] = {}
        self.reserved = 0
        self.thread: threading.Thread | None = None
        #: The time of the last renewal of leases.
        self.renewed = time.monotonic()

    def start(self) -> None:
        """Start the thread unless it runs; the caller has the lock."""
        if self.thread is None:
            self.thread = threading.Thread(
                target=self.run, name="ollama-openai-answers", daemon=True
            )
            self.thread.start()

    def run(self) -> None:
        while True:
            self.changed.wait(SECONDS)
            self.changed.clear()
            try:
                self.tick(list(self.answers.values()))
            except Exception as error:
                # The message of the error may quote rows.
                logger.error("The text of answers could not be stored: %s", type(error).__name__)
                close_connections()
            with self.lock:
                if not self.answers:
                    self.thread = None
                    break
        close_connections()

    def tick(self, answers: Sequence[LiveAnswer]) -> None:
        for answer in answers:
            if answer.abandoned_at is not None:
                self.end_abandoned(answer, answer.abandoned_at)
        is_due = time.monotonic() - self.renewed >= RENEWAL_SECONDS
        self.write([answer for answer in answers if not answer.has_ended], renews=is_due)
        if is_due:
            end_all_expired()
            prune_streams()
            self.renewed = time.monotonic()

    def end_abandoned(self, answer: LiveAnswer, since: float) -> None:
        try:
            answer.interrupt()
        except Exception as error:
            logger.error("An answer could not be stored: %s", type(error).__name__)
            close_connections()
            if time.monotonic() - since > LEASE / timedelta(seconds=1):
                # Another process, or this one, ends it with the output that was stored before.
                remove(answer)
                answer.end()

    def insert_drafts(self, answers: Sequence[LiveAnswer]) -> None:
        """Insert those that have run for half a second; others may soon be inserted whole."""
        before = time.monotonic() - SECONDS / 2
        due = [answer for answer in answers if answer.begun_at < before]
        for start in range(0, len(due), BATCH):
            with locked(due[start : start + BATCH]) as free:
                try:
                    _insert(free)
                except IntegrityError:
                    for answer in free:
                        self.insert_alone(answer)

    def insert_alone(self, answer: LiveAnswer) -> None:
        try:
            _insert([answer])
        except IntegrityError as error:
            if answer.draft is not None and is_deleted(answer.draft.thread.user_id):
                self.stop(answer)
            else:
                logger.error("An answer could not be stored: %s", type(error).__name__)

    def write(self, answers: Sequence[LiveAnswer], *, renews: bool) -> None:
        self.insert_drafts([answer for answer in answers if not answer.is_inserted])
        answers = [answer for answer in answers if answer.is_inserted]
        if not answers:
            return
        rows = Run.objects.filter(pk__in=[answer.run.pk for answer in answers], ended_at=None)
        running = dict(rows.values_list("pk", "stop"))
        for answer in answers:
            # One that is not there was deleted, with its message.
            if running.get(answer.run.pk, True) and not answer.has_ended:
                self.stop(answer)
        if renews:
            rows.update(lease_until=now() + LEASE)
        left = [answer for answer in answers if answer.run.pk in running]
        for start in range(0, len(left), BATCH):
            self.write_batch(left[start : start + BATCH])

    def stop(self, answer: LiveAnswer) -> None:
        if answer.stopped_at is None:
            answer.stopped_at = time.monotonic()
            answer.stopper.stop()
        elif time.monotonic() - answer.stopped_at > SECONDS / 2:
            # Under WSGI, a client that does not read keeps it from ending.
            answer.abandon()

    def write_batch(self, answers: Sequence[LiveAnswer]) -> None:
        with locked(answers) as free:
            pieces = [(answer, answer.new_piece()) for answer in free]
            outputs = [(answer, answer.snapshot()) for answer in free]
            outputs = [(each, output) for each, output in outputs if output != each.run.output]
            new = [piece for _, piece in pieces if piece is not None]
            if not (outputs or new):
                return
            with transaction.atomic():
                for answer, output in outputs:
                    rows = Run.objects.filter(pk=answer.run.pk, ended_at=None)
                    rows.update(output=output)
                Piece.objects.bulk_create(new)
            for answer, output in outputs:
                answer.run.output = output
            for answer, piece in pieces:
                if piece is not None:
                    answer.note_stored(piece)


def _insert(answers: Sequence[LiveAnswer]) -> None:
    drafts = [answer.draft for answer in answers if answer.draft is not None]
    with transaction.atomic():
        insert(drafts)
    for draft in drafts:
        draft.is_inserted = True


@contextmanager
def locked(answers: Sequence[LiveAnswer]) -> Iterator[list[LiveAnswer]]:
    """Lock those of ``answers`` that are not ending, and return them."""
    with ExitStack() as locks:
        # One whose lock is held is being written or ending.
        free = [each for each in answers if each.lock.acquire(blocking=False)]
        for answer in free:
            locks.callback(answer.lock.release)
        yield [answer for answer in free if not answer.has_ended]


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
    count = sum(answer.run.background for answer in list(_registry.answers.values()))
    if count + _registry.reserved >= chat_settings().MAX_BACKGROUND:
        raise Overloaded("Too many answers are written in the background. Try again later.")


@contextmanager
def reserved(*, is_background: bool) -> Iterator[None]:
    """Begin an answer in the block, which passes it to :func:`add`; of those in the background no
    more than ``MAX_BACKGROUND``, even if many begin at the same time.

    Raises:
        Overloaded: As :func:`check_capacity`.
    """
    if not is_background:
        yield
        return
    registry = _registry
    with registry.lock:
        check_capacity()
        registry.reserved += 1
    try:
        yield
    finally:
        with registry.lock:
            registry.reserved -= 1


def _end_all() -> None:
    """End all answers at the end of the interpreter, whose other threads still run: gunicorn waits
    for requests only, and other servers do not say that they stop."""
    if not _registry.answers:
        return
    shutdown.begin(0)
    until = time.monotonic() + EXIT_SECONDS
    while _registry.answers and time.monotonic() < until - EXIT_SECONDS / 2:
        time.sleep(0.02)
    for answer in list(_registry.answers.values()):
        # Those of an event loop that has ended.
        try:
            answer.interrupt()
        except Exception as error:
            logger.error("An answer could not be stored: %s", type(error).__name__)
    close_connections()


atexit.register(_end_all)
