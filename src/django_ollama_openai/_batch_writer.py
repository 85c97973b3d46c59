"""Write rows to the database in the background: in groups, from one thread, with a limit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from django.db import InterfaceError, OperationalError

from ._connections import close_connections
from .shutdown import is_stopping

__all__ = ["BatchWriter"]

R = TypeVar("R")

FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 30.0
#: After this time without rows the thread ends, and with it its connections to the database.
IDLE_SECONDS: Final = 10.0
#: The interval at which the thread checks, while rows wait, whether the server stops. uvicorn takes
#: 0.1 seconds at least, and is then ended by the signal that it was sent, without an exit handler.
STOP_POLL_SECONDS: Final = 0.05
LOG_SECONDS: Final = 60.0
#: How long the interpreter waits at its end for the rows of all writers.
EXIT_SECONDS: Final = 5.0

# Errors of the database, which may be over soon. Any other is an error of the rows or the code.
_TRANSIENT: Final = (OperationalError, InterfaceError, OSError)

logger = logging.getLogger("django_ollama_openai")


class BatchWriter(Generic[R]):
    """Writes rows with ``write(rows)``, such as ``Record.objects.bulk_create``.

    ``write`` is called in a daemon thread with up to ``max_rows`` rows, at the latest
    ``max_seconds`` after the first of them. It must write all of them or none: a group is retried
    if the database is not available. After any other error its rows are written one by one, and
    those that fail again are dropped. At most ``max_pending`` rows wait; further ones are dropped.
    Drops are counted in :attr:`dropped`, and logged with ``name``, at most once a minute; the
    content of rows is never logged.

    Each process has its own thread and its own rows. They are written at the end of the process;
    one that is killed loses those of the last ``max_seconds``.
    """

    def __init__(
        self,
        write: Callable[[list[R]], Any],
        *,
        name: str,
        max_rows: int = 500,
        max_seconds: float = 1.0,
        max_pending: int = 10_000,
    ) -> None:
        self._write = write
        self._name = name
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._max_pending = max_pending
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        # Also after a fork: the rows and the thread are the parent's.
        self._changed = threading.Condition()
        self._rows: deque[R] = deque()
        self._thread: threading.Thread | None = None
        self._accepted = self._done = 0
        self._oldest = self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._one_by_one = 0
        self._flushes = 0
        self._is_closing = False
        self._dropped = self._reported = 0
        self._logged_at = self._failure_logged_at = float("-inf")

    @property
    def dropped(self) -> int:
        """The number of rows that this process has dropped."""
        return self._dropped

    @property
    def pending(self) -> int:
        """The number of rows that wait, including those that are being written."""
        return len(self._rows)

    def put(self, row: R) -> bool:
        """Add ``row`` to the rows to write, without waiting. Return ``False`` if it is dropped."""
        with self._changed:
            is_accepted = len(self._rows) < self._max_pending
            if is_accepted:
                self._rows.append(row)
                self._accepted += 1
                if len(self._rows) == 1:
                    self._oldest = time.monotonic()
                if len(self._rows) in (1, self._max_rows):
                    self._changed.notify_all()
                self._start()
            else:
                self._dropped += 1
        if not is_accepted:
            self._log_drops()
        return is_accepted

    def flush(self, timeout: float | None = None) -> bool:
        """Write all rows that were put before, within ``timeout`` seconds; ``None`` waits without a
        limit. Return whether none of them is left."""
        with self._changed:
            target = self._accepted
            self._flushes += 1
            self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
            self._changed.notify_all()
            try:
                if self._rows and not self._start():
                    return False
                return self._changed.wait_for(lambda: self._done >= target, timeout)
            finally:
                self._flushes -= 1

    def close(self, timeout: float) -> None:
        """Write the remaining rows within ``timeout`` seconds, drop and log the others, and end the
        thread. For the end of the process; a row that is put later starts another thread."""
        until = time.monotonic() + timeout
        # The interpreter starts no threads at its end.
        if not self.flush(timeout) and self._thread is None:
            while self._rows and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, max(0.0, self._retry_at - time.monotonic())))
                self._write_group()
            close_connections()
        with self._changed:
            self._dropped += len(self._rows)
            self._done += len(self._rows)
            self._rows.clear()
            self._one_by_one = 0
            self._is_closing = True
            self._changed.notify_all()
        self._log_drops(at_once=True)

    def _start(self) -> bool:
        """Start the thread, if there is none. Return whether there is one."""
        if self._thread is None:
            self._is_closing = False
            thread = threading.Thread(
                target=self._run, name=f"ollama-openai-writer-{self._name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        try:
            while self._wait():
                self._write_group()
                self._log_drops()
        finally:
            close_connections()
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _wait(self) -> bool:
        """Wait for the next group to be due. Return ``False`` if the thread has nothing to do."""
        with self._changed:
            idle_until = time.monotonic() + IDLE_SECONDS
            while True:
                now = time.monotonic()
                if not self._rows:
                    if now >= idle_until or self._is_closing:
                        self._thread = None
                        return False
                    self._changed.wait(idle_until - now)
                    continue
                seconds = self._due_at() - now
                if seconds <= 0:
                    return True
                self._changed.wait(min(seconds, STOP_POLL_SECONDS))

    def _due_at(self) -> float:
        is_urgent = len(self._rows) >= self._max_rows or self._flushes or self._one_by_one
        due = 0.0 if is_urgent or is_stopping() else self._oldest + self._max_seconds
        return max(due, self._retry_at)

    def _write_group(self) -> None:
        """Write the first rows of the queue, which stay there until they are written."""
        with self._changed:
            size = 1 if self._one_by_one else self._max_rows
            group = list(islice(self._rows, size))
            first = self._done
        try:
            self._write(group)
        except _TRANSIENT as error:
            close_connections()
            with self._changed:
                self._retry_at = time.monotonic() + self._retry_seconds
                self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
            self._log_failure(error)
        except Exception as error:
            self._log_failure(error)
            if len(group) > 1:
                self._one_by_one = len(group)
            else:
                self._finish(first, 1, dropped=1)
        else:
            self._finish(first, len(group))

    def _finish(self, first: int, count: int, dropped: int = 0) -> None:
        with self._changed:
            if self._done != first:
                # close() has given them up meanwhile.
                return
            for _ in range(count):
                self._rows.popleft()
            self._done += count
            self._dropped += dropped
            self._one_by_one = max(0, self._one_by_one - count)
            self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
            self._oldest = time.monotonic()
            self._changed.notify_all()

    def _log_drops(self, at_once: bool = False) -> None:
        with self._changed:
            count, now = self._dropped - self._reported, time.monotonic()
            if not count or not (at_once or now - self._logged_at >= LOG_SECONDS):
                return
            self._logged_at = now
            self._reported = self._dropped
        logger.error("The writer %r has dropped %d rows", self._name, count)

    def _log_failure(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._failure_logged_at >= LOG_SECONDS:
            self._failure_logged_at = now
            # The message of the error may quote rows.
            logger.error("The writer %r failed: %s", self._name, type(error).__name__)


_writers: WeakSet[BatchWriter[Any]] = WeakSet()


def _reset_all() -> None:
    for writer in list(_writers):
        writer._reset()


def _close_all() -> None:
    until = time.monotonic() + EXIT_SECONDS
    for writer in list(_writers):
        writer.close(max(0.0, until - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
atexit.register(_close_all)
