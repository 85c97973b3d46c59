"""Run an iterator in a thread of its own, so that its reader never blocks in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from . import _cancellation
from ._closing import closed
from .exceptions import ClientTimeout

__all__ = ["End", "Pump", "iterate_in_thread"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class End:
    """The last thing a pump delivers: how its source ended."""

    error: BaseException | None


class Pump(Generic[T]):
    """Hands the items of ``source()`` to ``deliver``, then one :class:`End`.

    Both are called in the pump's thread, in a copy of the context that :meth:`start` was called
    in. The pump stays at most ``ahead`` items ahead of its reader, who calls :meth:`taken` for
    every item, and :meth:`cancel` when no more are wanted. A reader that takes nothing for
    ``reader_timeout`` seconds though there is more ends it with a
    :class:`~django_ollama_openai.exceptions.ClientTimeout`.
    """

    def __init__(
        self,
        source: Callable[[], Iterator[T]],
        deliver: Callable[[T | End], None],
        *,
        ahead: int = 64,
        reader_timeout: float | None = None,
    ) -> None:
        self._source = source
        self._deliver = deliver
        self._slots = threading.Semaphore(ahead)
        self._reader_timeout = reader_timeout
        self._cancellation = _cancellation.Cancellation()

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
        _cancellation.current.set(self._cancellation)
        error: BaseException | None = None
        try:
            items = self._source()
            with closed(items):
                for item in items:
                    with self._cancellation.interruptible(self._slots.release):
                        if not self._slots.acquire(timeout=self._reader_timeout):
                            raise ClientTimeout
                    self._deliver(item)
        except BaseException as raised:
            error = raised
        self._deliver(End(error))


async def iterate_in_thread(source: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    """The items of a synchronous iterator that blocks, without blocking the event loop."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | End] = asyncio.Queue()

    def deliver(item: T | End) -> None:
        # The loop is closed when the server has shut down; nobody waits for the item then.
        if not loop.is_closed():
            loop.call_soon_threadsafe(items.put_nowait, item)

    pump = Pump(source, deliver)
    pump.start()
    try:
        while True:
            item = await items.get()
            if isinstance(item, End):
                if item.error is not None:
                    raise item.error
                return
            pump.taken()
            yield item
    finally:
        pump.cancel()
