"""Write deltas as OpenAI's ``response`` object, or as a stream of ``response.…`` events.

Call ``feed()`` for each delta, then ``finish()``, or ``fail()`` if the response fails. All return
bytes for the client. ``response`` is the current response object, in snake_case.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from .._wire.case import Case, camel_keys
from .._wire.delta import Delta, ToolCallDelta, Usage
from .._wire.responses import ResponsesRequest
from .._wire.sse import encode_json, named_frame
from ..exceptions import GatewayError
from .offered_tools import ToolNames
from .response_items import (
    CallItem,
    CustomCallItem,
    Item,
    MessageItem,
    ReasoningItem,
    Status,
    SummaryItem,
)
from .response_object import CLIENTS_OWN, new_response, response_error, response_usage, spelled

__all__ = ["ResponseStream", "WholeResponse"]

#: The finish reasons of incomplete responses, with OpenAI's reasons in ``incomplete_details``.
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}

#: The end of every event: ``sequence_number`` is the last key.
_NUMBER_AND_END: Final = b"%d}\n\n"


class _Writer:
    """The base class of both writers, which adds items to the output. An item is open until another
    one begins. The hooks return the bytes of events for it."""

    def __init__(
        self, request: ResponsesRequest, model: str, case: Case, *, stored: bool = False
    ) -> None:
        self._case = case
        self._response = new_response(request, model, stored=stored)
        self._reasoning_item = ReasoningItem if request.summary is None else SummaryItem
        self._names = ToolNames(request)
        self._items: list[Item] = []
        self._open: list[Item] = []
        self._calls: dict[int, CallItem] = {}
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    @property
    def response(self) -> dict[str, Any]:
        """The current response object, as it would be stored."""
        return {**self._response, "output": [item.as_openai() for item in self._items]}

    def begin(self) -> bytes:
        return b""

    def feed(self, delta: Delta) -> bytes:
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        output = b""
        if delta.reasoning:
            output += self._add_text(self._reasoning_item, delta.reasoning)
        if delta.content:
            output += self._add_text(MessageItem, delta.content, delta.logprobs)
        elif (
            delta.logprobs
            and not (delta.reasoning or delta.tool_calls)
            and self._is_last(MessageItem)
        ):
            # A token without text, such as the last one of a message.
            output += self._add_text(MessageItem, "", delta.logprobs)
        for piece in delta.tool_calls:
            output += self._add_call(piece)
        return output

    def _add_text(
        self, kind: type[Item], text: str, logprobs: list[dict[str, Any]] | None = None
    ) -> bytes:
        output = b""
        if not self._is_last(kind):
            output = self._begin_item(kind(len(self._items)))
        item = self._items[-1]
        item.add(text)
        if isinstance(item, MessageItem):
            item.logprobs += logprobs or ()
        return output + self._on_text(item, text, logprobs)

    def _add_call(self, piece: ToolCallDelta) -> bytes:
        output = b""
        call = self._calls.get(piece.index)
        if call is None:
            kind = CustomCallItem if piece.is_custom else CallItem
            name_fields = self._names.name_fields(piece.name or "")
            call = self._calls[piece.index] = kind(len(self._items), piece, name_fields)
            output = self._begin_item(call)
        # Ignore text after complete arguments.
        if not (piece.arguments and call.is_open):
            return output
        call.add(piece.arguments)
        return output + self._on_text(call, piece.arguments, None)

    def _begin_item(self, item: Item) -> bytes:
        output = b"".join(self._close(other) for other in tuple(self._open) if other.is_complete)
        self._items.append(item)
        self._open.append(item)
        return output + self._on_item_added(item)

    def _close(self, item: Item, status: Status = "completed") -> bytes:
        item.status = status
        self._open.remove(item)
        return self._on_item_done(item)

    def _is_last(self, kind: type[Item]) -> bool:
        """Return whether the last item is a ``kind``, to which the next text of that kind
        belongs."""
        return bool(self._items) and type(self._items[-1]) is kind

    def _set_finished(self) -> bytes:
        """Finish the open items and the response."""
        reason = _INCOMPLETE.get(self._finish_reason or "")
        status: Status = "completed" if reason is None else "incomplete"
        output = b"".join(self._close(item, status) for item in tuple(self._open))
        self._response |= {
            "status": status,
            "completed_at": int(time.time()) if reason is None else None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "usage": response_usage(self._usage or Usage()),
        }
        return output

    def _set_failed(self, error: GatewayError) -> None:
        """Mark the open items as incomplete and the response as failed. There are no events for the
        items, since clients would take their incomplete text for the whole."""
        for item in self._open:
            item.status = "incomplete"
        self._open.clear()
        self._response |= {
            "status": "failed",
            "error": response_error(error),
            "usage": None if self._usage is None else response_usage(self._usage),
        }

    # Hooks

    def _on_item_added(self, item: Item) -> bytes:
        return b""

    def _on_text(self, item: Item, piece: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        return b""

    def _on_item_done(self, item: Item) -> bytes:
        return b""


class WholeResponse(_Writer):
    """A writer of one ``response`` object."""

    def finish(self) -> bytes:
        self._set_finished()
        return encode_json(spelled(self.response, self._case))

    def fail(self, error: GatewayError) -> bytes:
        self._set_failed(error)
        return encode_json(error.envelope())


class ResponseStream(_Writer):
    """A writer of a stream of ``response.…`` events.

    The order is OpenAI's: two events with the new response; for each item events when it is added,
    for its part and text, and when it is done; one event with the whole response. No ``[DONE]``
    follows.
    """

    def __init__(
        self, request: ResponsesRequest, model: str, case: Case, *, stored: bool = False
    ) -> None:
        super().__init__(request, model, case, stored=stored)
        self._sequence_number = 0
        self._delta_frames: dict[int, tuple[bytes, bytes]] = {}

    def feed(self, delta: Delta) -> bytes:
        return self._begin() + super().feed(delta)

    def finish(self) -> bytes:
        output = self._begin() + self._set_finished()
        return output + self._response_event(f"response.{self._response['status']}")

    def fail(self, error: GatewayError) -> bytes:
        output = self._begin()
        self._set_failed(error)
        return output + self._response_event("response.failed")

    def _begin(self) -> bytes:
        if self._sequence_number:
            return b""
        return b"".join(map(self._response_event, ["response.created", "response.in_progress"]))

    def _on_item_added(self, item: Item) -> bytes:
        self._delta_frames[item.index] = self._delta_frame(item)
        output = self._item_event("response.output_item.added", item)
        if item.part_type is not None:
            output += self._event(f"{item.part_event}.added", **item.location, part=item.part())
        return output

    def _on_text(self, item: Item, piece: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        if logprobs:
            name = f"{item.text_event}.delta"
            return self._event(name, **item.location, delta=piece, logprobs=logprobs)
        before, between = self._delta_frames[item.index]
        number = _NUMBER_AND_END % self._next_number()
        return before + encode_json(piece) + between + number

    def _on_item_done(self, item: Item) -> bytes:
        output = self._event(f"{item.text_event}.done", **item.location, **item.done_fields())
        if item.part_type is not None:
            output += self._event(f"{item.part_event}.done", **item.location, part=item.part())
        return output + self._item_event("response.output_item.done", item)

    def _item_event(self, name: str, item: Item) -> bytes:
        return self._event(name, output_index=item.index, item=item.as_openai())

    def _response_event(self, name: str) -> bytes:
        # For the case "camel", _frame() converts the whole event.
        response = spelled(self.response, "both") if self._case == "both" else self.response
        return self._event(name, response=response)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        return self._frame(name, fields, self._next_number())

    def _frame(self, name: str, fields: dict[str, Any], number: int) -> bytes:
        event = {"type": name, **fields, "sequence_number": number}
        return named_frame(name, camel_keys(event, CLIENTS_OWN) if self._case == "camel" else event)

    def _delta_frame(self, item: Item) -> tuple[bytes, bytes]:
        """Return the bytes before a piece of ``item``, and between it and the event's number. They
        are equal for all tokens."""
        placeholder = secrets.token_hex(8)
        fields = {**item.location, "delta": placeholder, **item.delta_fields()}
        frame = self._frame(f"{item.text_event}.delta", fields, 0)
        before, _, after = frame.partition(b'"%b"' % placeholder.encode())
        return before, after.removesuffix(_NUMBER_AND_END % 0)

    def _next_number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number
