"""Record an answer while it is written, and at its end.

The gateway calls the writer for every delta, and the recorder at the end. Both share a
:class:`~.live.LiveAnswer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, transaction

from ...._connections import close_if_lost
from ...._ids import public_id, uuid7
from ...._threads import in_separate_thread
from ...._translation.chat_completion import ChatCompletionStream, WholeChatCompletion
from ...._translation.completion_fields import usage_fields
from ...._wire.delta import Delta, fold
from ...._wire.sse import DONE
from ....endpoints import BaseRecorder, ChatCompletionWriter, Record
from ....exceptions import GatewayError, ShuttingDown
from ..._group_writer import GroupWriter
from ..._inserts import insert
from .._store.drafts import Draft
from .._store.runs import End, HasChanged, end_messages, lock_homes
from ..models import Run, Status
from . import live

__all__ = [
    "AnswerRecorder",
    "AnswerWriter",
    "MessageRecorder",
    "MessageWriter",
    "end_alone",
    "end_group",
]

#: The finish reason of an answer whose client has disconnected.
CANCELLED = "cancelled"

#: The pauses before further attempts to store an answer, such as after a deadlock.
PAUSES: Final = (0.05, 0.5, 2.0)

W = TypeVar("W", bound=ChatCompletionWriter)
R = TypeVar("R", bound="AnswerRecorder[Any]")


class AnswerWriter(Generic[W]):
    """Writes an answer with ``inner``, and passes the events to those who read it elsewhere.

    The last events are kept back until the answer is stored.
    """

    def __init__(self, inner: W) -> None:
        self.inner = inner
        #: Set by :meth:`AnswerRecorder.start`, before the gateway calls the writer.
        self.answer: live.LiveAnswer
        self._last: bytes | None = None
        self._failure: GatewayError | None = None

    def begin(self) -> bytes:
        return self._added(self.inner.begin())

    def feed(self, delta: Delta) -> bytes:
        return self._added(self.inner.feed(delta))

    def finish(self) -> bytes:
        self._last = self.inner.finish()
        return self._last

    def fail(self, error: GatewayError) -> bytes:
        if error is not self._failure or self._last is None:
            self._failure, self._last = error, self.inner.fail(error)
        return self._last

    def last_of(self, record: Record) -> bytes:
        """Return the last events of the answer, which has ended as ``record`` says."""
        if record.error is not None:
            return self.fail(record.error)
        return self.interrupt() if self._last is None else self._last

    def interrupt(self) -> bytes:
        """Return the last events of an answer that ended before it was complete, without an
        error."""
        return self.inner.finish()

    def snapshot(self) -> list[dict[str, Any]]:
        """Return OpenAI's items of the answer so far. One thread at a time calls this."""
        raise NotImplementedError

    def _added(self, data: bytes) -> bytes:
        self.answer.add(data)
        return data


class AnswerRecorder(BaseRecorder, Generic[W]):
    """Stores the end of an answer, once; subclasses define :meth:`save`."""

    def __init__(self, writer: AnswerWriter[W]) -> None:
        self.writer = writer
        self.answer: live.LiveAnswer
        self._is_abandoned = False

    def start(self, run: Run, *, is_stored: bool, draft: Draft | None = None) -> live.LiveAnswer:
        """Begin to store the progress of the answer, whose ``run`` has been committed, unless it is
        that of a ``draft``.

        With ``is_stored`` its events are stored, too.
        """
        self.answer = self.writer.answer = live.LiveAnswer(
            run, self.writer.snapshot, self.interrupt, is_stored=is_stored, draft=draft
        )
        live.add(self.answer)
        if self._is_abandoned:
            self.answer.abandon()
        return self.answer

    def abandon(self) -> None:
        """Have the answer ended as incomplete as soon as it has begun, since the request was
        cancelled before the gateway got it."""
        self._is_abandoned = True
        if hasattr(self, "answer"):
            self.answer.abandon()

    def save(self, output: list[dict[str, Any]], record: Record | None) -> bool:
        """Store the items of the answer, which has ended as ``record`` says; ``None`` if the server
        stops. Return ``False`` if it was deleted, or another process has ended it.

        It is called in a transaction, which has locked the answer's conversation, unless the answer
        is a draft.
        """
        raise NotImplementedError

    def record(self, record: Record) -> None:
        self._end(self.writer.last_of(record), record)

    async def arecord(self, record: Record) -> None:
        await in_separate_thread(self.record, record)

    def interrupt(self) -> None:
        """End the answer as incomplete, since the gateway cannot."""
        self._end(self.writer.interrupt(), None)
        self.answer.stopper.stop()

    def _end(self, last: bytes, record: Record | None) -> None:
        answer = self.answer
        with answer.lock:
            if answer.has_ended:
                return
            try:
                self._store_in_attempts(last, record)
            except BaseException:
                if record is not None:
                    answer.abandon()
                raise
            answer.end(last)
            live.remove(answer)

    def _store_in_attempts(self, last: bytes, record: Record | None) -> None:
        for pause in PAUSES:
            try:
                self._store(last, record)
            except (OperationalError, InterfaceError):
                if connection.in_atomic_block:
                    raise
                # The connection of this thread may have been lost while the answer was written.
                close_if_lost(DEFAULT_DB_ALIAS)
                time.sleep(pause)
            else:
                return
        self._store(last, record)

    def _store(self, last: bytes, record: Record | None) -> None:
        run = self.answer.run
        piece = self.answer.new_piece(last)
        with transaction.atomic():
            # The thread of a draft is its own.
            is_there = self.answer.draft is not None or lock_homes([run])
            if is_there and self.save(self.writer.snapshot(), record) and piece is not None:
                piece.save(force_insert=True)


class MessageWriter(AnswerWriter[ChatCompletionStream | WholeChatCompletion]):
    """Writes an answer in a session, whose message has the id ``head_id``."""

    def __init__(self, inner: ChatCompletionStream | WholeChatCompletion, head_id: UUID) -> None:
        super().__init__(inner)
        self._ids: dict[str | int, str] = {"message": public_id("msg", head_id)}
        self._deltas: list[Delta] = []
        self._whole = Delta(tokens=0)

    def feed(self, delta: Delta) -> bytes:
        self._deltas.append(delta)
        return super().feed(delta)

    def interrupt(self) -> bytes:
        # It has no finish reason, unless a client has stopped it.
        return super().interrupt() if self.answer.stopper.is_stopped else DONE

    @property
    def whole(self) -> Delta:
        """Return the answer so far."""
        # In place, since another thread adds to the end of the list meanwhile.
        new = self._deltas[:]
        del self._deltas[: len(new)]
        if new:
            self._whole = fold([self._whole, *new])
        return self._whole

    def snapshot(self) -> list[dict[str, Any]]:
        whole = self.whole
        items: list[dict[str, Any]] = []
        if whole.reasoning:
            content = [{"type": "reasoning_text", "text": whole.reasoning}]
            id = self._id("reasoning", "rs")
            items.append({"id": id, "type": "reasoning", "summary": [], "content": content})
        texts = []
        if whole.content:
            logprobs = whole.logprobs or []
            text = {"type": "output_text", "text": whole.content, "annotations": []}
            texts.append({**text, "logprobs": logprobs})
        message = {"id": self._ids["message"], "type": "message", "role": "assistant"}
        items.append({**message, "content": texts})
        for call in whole.tool_calls:
            kind, text_key = (
                ("custom_tool_call", "input") if call.is_custom else ("function_call", "arguments")
            )
            items.append(
                {
                    "id": self._id(call.index, "ctc" if call.is_custom else "fc"),
                    "type": kind,
                    "call_id": call.id or "",
                    "name": call.name or "",
                    text_key: call.arguments,
                }
            )
        return items

    def _id(self, key: str | int, prefix: str) -> str:
        return self._ids.setdefault(key, public_id(prefix, uuid7()))


class MessageRecorder(AnswerRecorder[ChatCompletionStream | WholeChatCompletion]):
    """Stores an answer in a session. ``truncated`` is the number of older messages that the engine
    did not get."""

    writer: MessageWriter
    truncated = 0

    async def arecord(self, record: Record) -> None:
        await _ends.write((self, record))

    def save(self, output: list[dict[str, Any]], record: Record | None) -> bool:
        return end_messages([self.end(output, record)])

    def end(self, output: list[dict[str, Any]], record: Record | None) -> End:
        """Return the end of the answer, as :meth:`save` has it."""
        whole = self.writer.whole
        is_stopped = self.answer.stopper.is_stopped
        answer: dict[str, Any] = {"finish_reason": None}
        if record is None or record.finish_reason == CANCELLED:
            status = Status.INCOMPLETE
            if is_stopped:
                answer["finish_reason"] = "stop"
        elif record.error is not None:
            is_incomplete = isinstance(record.error, ShuttingDown)
            status = Status.INCOMPLETE if is_incomplete else Status.FAILED
            answer["error"] = record.error.envelope()["error"]
        else:
            answer["finish_reason"] = record.finish_reason
            status = Status.INCOMPLETE if is_stopped else Status.COMPLETED
        if record is not None and record.answered_by is not None:
            answer["model"] = record.answered_by
            if record.error is None:
                answer["usage"] = usage_fields(record.usage, "snake")
        elif whole.usage is not None:
            answer["usage"] = usage_fields(whole.usage, "snake")
        if self.truncated:
            answer["truncated_messages"] = self.truncated
        return End(self.answer.run, output, status, answer)


def end_group(
    jobs: list[tuple[R, Record]], save: Callable[[list[tuple[R, Record, bytes]]], None]
) -> None:
    """End the answers of several recorders: in one transaction, in which ``save`` stores their ends
    and has their last events, and alone those that the thread of :mod:`.live` is writing."""
    waiting = {id(recorder.answer): (recorder, record) for recorder, record in jobs}
    with live.locked([recorder.answer for recorder, _ in jobs]) as free:
        ending = [waiting.pop(id(answer)) for answer in free]
        ends = [(each, record, each.writer.last_of(record)) for each, record in ending]
        with transaction.atomic():
            save(ends)
        for recorder, _, last in ends:
            recorder.answer.end(last)
            live.remove(recorder.answer)
    for job in waiting.values():
        end_alone(job)


def end_alone(job: tuple[AnswerRecorder[Any], Record]) -> None:
    """End the answer of one recorder."""
    recorder, record = job
    recorder.record(record)


def _save_messages(ends: list[tuple[MessageRecorder, Record, bytes]]) -> None:
    if not lock_homes([recorder.answer.run for recorder, _, _ in ends]):
        raise HasChanged
    pieces = [recorder.answer.new_piece(last) for recorder, _, last in ends]
    if not end_messages(
        [recorder.end(recorder.writer.snapshot(), record) for recorder, record, _ in ends]
    ):
        raise HasChanged
    insert(piece for piece in pieces if piece is not None)


_ends: Final = GroupWriter("sessions", partial(end_group, save=_save_messages), end_alone)
