"""Run an iterator in a thread of its own, so that its reader never blocks in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from . import cancellation

__all__ = ["End", "Pump"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class End:
    """The last thing a pump delivers: how its source ended."""

    error: BaseException | None


class Pump(Generic[T]):
    """Hands the items of ``source()`` to ``deliver``, then one :class:`End`.

    Both are called in the pump's thread, in a copy of the context that :meth:`start` was called
    in. The pump stays at most ``ahead`` items ahead of its reader, who calls :meth:`taken` for
    every item, and :meth:`cancel` when no more are wanted.
    """

    def __init__(
        self,
        source: Callable[[], Iterator[T]],
        deliver: Callable[[T | End], None],
        *,
        ahead: int = 64,
    ) -> None:
        self._source = source
        self._deliver = deliver
        self._slots = threading.Semaphore(ahead)
        self._cancellation = cancellation.Cancellation()

    def start(self) -> None:
        run = copy_context().run
        threading.Thread(
            target=run, args=(self._run,), name="ollama-openai-pump", daemon=True
        ).start()

    def taken(self) -> None:
        """The reader has taken an item."""
        self._slots.release()

    def cancel(self) -> None:
        """Stop at once, also in the middle of a blocking read; may be called more than once."""
        self._cancellation.cancel()

    def _run(self) -> None:
        cancellation.current.set(self._cancellation)
        error: BaseException | None = None
        try:
            items = self._source()
            try:
                for item in items:
                    with self._cancellation.interruptible(self._slots.release):
                        self._slots.acquire()
                    self._deliver(item)
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
        except BaseException as raised:
            error = raised
        self._deliver(End(error))
