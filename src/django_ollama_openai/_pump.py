"""Run an iterator in its own thread, so that its reader never blocks in it."""

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

__all__ = ["EndOfStream", "Pump", "iterate_in_thread"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class EndOfStream:
    """The last item of a :class:`Pump`; ``error`` is the exception that ended its source."""

    error: BaseException | None


class Pump(Generic[T]):
    """Pass the items of ``source()`` to ``deliver``, then one :class:`EndOfStream`.

    Both run in the pump's thread, in a copy of the context of :meth:`start`. At most ``ahead``
    items are delivered before the reader has acknowledged them with :meth:`ack`. If it
    acknowledges none for ``reader_timeout`` seconds while another is ready, the pump ends with a
    :class:`~django_ollama_openai.exceptions.ClientTimeout`.
    """

    def __init__(
        self,
        source: Callable[[], Iterator[T]],
        deliver: Callable[[T | EndOfStream], None],
        *,
        ahead: int = 64,
        reader_timeout: float | None = None,
    ) -> None:
        self._source = source
        self._deliver = deliver
        self._window = threading.Semaphore(ahead)
        self._reader_timeout = reader_timeout
        self._cancellation = _cancellation.Cancellation()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="ollama-openai-pump", daemon=True
        )
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until the thread ends, ``timeout`` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)

    def ack(self) -> None:
        """Acknowledge one item, so that the pump may deliver another."""
        self._window.release()

    def cancel(self) -> None:
        """Stop at once, also during a blocking read. May be called several times."""
        self._cancellation.cancel()

    def _run(self) -> None:
        _cancellation.current.set(self._cancellation)
        error: BaseException | None = None
        try:
            items = self._source()
            with closed(items):
                for item in items:
                    with self._cancellation.interruptible(self._window.release):
                        if not self._window.acquire(timeout=self._reader_timeout):
                            raise ClientTimeout
                    self._deliver(item)
        except BaseException as raised:
            error = raised
        self._deliver(EndOfStream(error))


async def iterate_in_thread(source: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    """Yield the items of the blocking iterator ``source()`` without blocking the event loop.

    The iterator is cancelled when this generator is closed.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | EndOfStream] = asyncio.Queue()

    def deliver(item: T | EndOfStream) -> None:
        # The loop is closed after the server has shut down; nothing waits for the item then.
        if not loop.is_closed():
            loop.call_soon_threadsafe(items.put_nowait, item)

    pump = Pump(source, deliver)
    pump.start()
    try:
        while True:
            item = await items.get()
            if isinstance(item, EndOfStream):
                if item.error is not None:
                    raise item.error
                return
            pump.ack()
            yield item
    finally:
        pump.cancel()
