"""Recorders keep answers before clients get the end of them."""

from __future__ import annotations

from .._connections import run_and_close
from .._threads import run_sync
from .._wire.delta import Delta
from .outcome import Record

__all__ = ["BaseRecorder"]


class BaseRecorder:
    """Keeps the answer to one request; create one for each request.

    Exactly one of :meth:`record` and :meth:`arecord` is called, exactly once: when the answer is
    finished, failed or cancelled, and before the client gets the end of it. If it raises on a
    finished answer, the client gets an error instead of the end: its own, if it is a
    :class:`~django_ollama_openai.exceptions.GatewayError`. Otherwise the exception is logged.
    """

    def feed(self, delta: Delta) -> None:
        """Receive ``delta`` on its way to the client. It is called for every token, in the event
        loop under ASGI, so it must be fast and must not block."""

    def record(self, record: Record) -> None:
        """Keep the answer."""
        raise NotImplementedError(f"{type(self).__name__} must define record()")

    async def arecord(self, record: Record) -> None:
        """Async version of :meth:`record`; runs it in a thread unless overridden."""
        await run_sync(run_and_close, self.record, record)
