"""Record a stored response."""

from __future__ import annotations

from typing import Any

from ....endpoints import Record, ResponseWriter
from ....exceptions import GatewayError, ShuttingDown
from .._store.runs import delete_response, end_response
from .._store.text import storable
from ..models import Response
from .recorder import AnswerRecorder, AnswerWriter

__all__ = ["ResponseRecorder", "StoredResponseWriter"]


class StoredResponseWriter(AnswerWriter[ResponseWriter]):
    """Writes a response. One that is stopped is cancelled; one that the server's end interrupts is
    incomplete."""

    def finish(self) -> bytes:
        if self.answer.stopper.is_stopped:
            self._last = self.inner.cancel()
            return self._last
        return super().finish()

    def fail(self, error: GatewayError) -> bytes:
        if isinstance(error, ShuttingDown):
            self._last = self.inner.interrupt()
            return self._last
        return super().fail(error)

    def interrupt(self) -> bytes:
        return self.inner.interrupt()

    def snapshot(self) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = storable(self.inner.response["output"])
        return output


class ResponseRecorder(AnswerRecorder[ResponseWriter]):
    """Stores a response, whose items join its conversation when it has completed. One that is not
    kept only adds them to the conversation."""

    def __init__(self, writer: StoredResponseWriter, *, is_kept: bool) -> None:
        super().__init__(writer)
        self._is_kept = is_kept

    def save(self, output: list[dict[str, Any]], record: Record | None) -> None:
        run, body = self.answer.run, self.writer.inner.response
        has_ended = end_response(run, body, output, joins=body["status"] == "completed")
        if has_ended and not self._is_kept:
            delete_response(Response.objects.select_related("conversation").get(run=run))
