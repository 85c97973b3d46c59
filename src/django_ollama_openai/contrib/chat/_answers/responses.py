"""Record a stored response."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.db import IntegrityError

from ....endpoints import Record, ResponseWriter
from ....exceptions import GatewayError, ShuttingDown
from ..._group_writer import GroupWriter
from .._store.drafts import end
from .._store.retention import delete_response, is_deleted
from .._store.runs import end_response
from .._store.text import storable
from ..models import Response
from .recorder import AnswerRecorder, AnswerWriter, end_alone, end_group

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
    """Stores a response, whose items join its conversation when it has ended by itself. One that is
    not kept only adds them to the conversation."""

    def __init__(self, writer: StoredResponseWriter, *, is_kept: bool) -> None:
        super().__init__(writer)
        self._is_kept = is_kept

    async def arecord(self, record: Record) -> None:
        if self.answer.draft is None:
            await super().arecord(record)
        else:
            await _ends.write((self, record))

    def save(self, output: list[dict[str, Any]], record: Record | None) -> bool:
        body, draft = self.writer.inner.response, self.answer.draft
        if draft is not None:
            (has_ended,) = end([(draft, body, output)])
            return has_ended
        run = self.answer.run
        has_ended = end_response(run, body, output, joins=_is_whole(body))
        if has_ended and not self._is_kept:
            delete_response(Response.objects.select_related("conversation").get(run=run))
        return has_ended

    def _store(self, last: bytes, record: Record | None) -> None:
        try:
            super()._store(last, record)
        except IntegrityError:
            # As one that was deleted after it was stored.
            draft = self.answer.draft
            if draft is None or not is_deleted(draft.thread.user_id):
                raise


def _is_whole(body: dict[str, Any]) -> bool:
    """Return whether the response ``body`` has ended as the client wanted: also one that has
    reached ``max_output_tokens`` can be continued in its conversation."""
    details = body.get("incomplete_details") or {}
    return body["status"] == "completed" or details.get("reason") == "max_output_tokens"


def _save_drafts(ends: list[tuple[ResponseRecorder, Record, bytes]]) -> None:
    recorders = [recorder for recorder, _, _ in ends]
    drafts = [(recorder.answer.draft, recorder.writer) for recorder in recorders]
    end(
        [
            (draft, writer.inner.response, writer.snapshot())
            for draft, writer in drafts
            if draft is not None
        ]
    )


_ends: Final = GroupWriter("responses", partial(end_group, save=_save_drafts), end_alone)
