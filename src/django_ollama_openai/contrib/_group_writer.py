"""Writes that clients wait for, in groups: what arrives while one group is written is the next."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from .._connections import close_connections, close_expired_connections
from .._threads import has_own_context, run_sync

__all__ = ["GroupWriter"]

J = TypeVar("J")

#: The jobs of one transaction.
MAX_JOBS: Final = 50
#: After this time without jobs the thread ends, and with it its connections to the database.
IDLE_SECONDS: Final = 10.0


class GroupWriter(Generic[J]):
    """Does jobs in a thread of its own: ``write_group`` does several in one transaction, all or
    none of them. If that fails, ``write_one`` does each alone, and its error is that of the job."""

    def __init__(
        self,
        name: str,
        write_group: Callable[[list[J]], None],
        write_one: Callable[[J], None],
    ) -> None:
        self._name = name
        self._write_group = write_group
        self._write_one = write_one
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        # Also after a fork: the jobs and the thread are the parent's.
        self._changed = threading.Condition()
        self._jobs: list[tuple[J, Future[None]]] = []
        self._thread: threading.Thread | None = None

    async def write(self, job: J) -> None:
        """Do ``job``, and return when it is done.

        Raises:
            Exception: It failed.
        """
        if not has_own_context():
            await run_sync(self._write_one, job)
            return
        future: Future[None] = Future()
        with self._changed:
            self._jobs.append((job, future))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"ollama-openai-{self._name}", daemon=True
                )
                self._thread.start()
        await asyncio.wrap_future(future)

    def _run(self) -> None:
        try:
            while jobs := self._next():
                self._do(jobs)
                close_expired_connections()
        finally:
            close_connections()

    def _next(self) -> list[tuple[J, Future[None]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs, IDLE_SECONDS)
            jobs, self._jobs = self._jobs[:MAX_JOBS], self._jobs[MAX_JOBS:]
            if not jobs:
                self._thread = None
        return jobs

    def _do(self, jobs: list[tuple[J, Future[None]]]) -> None:
        try:
            self._write_group([job for job, _ in jobs])
        except Exception:
            # One job is at fault, or all are: then each has the error.
            for job, future in jobs:
                try:
                    self._write_one(job)
                except BaseException as error:
                    _resolve(future, error)
                else:
                    _resolve(future)
        else:
            for _, future in jobs:
                _resolve(future)


def _resolve(future: Future[None], error: BaseException | None = None) -> None:
    # The loop that waits for it may have cancelled it.
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


_writers: WeakSet[GroupWriter[Any]] = WeakSet()


def _reset_all() -> None:
    for writer in list(_writers):
        writer._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
