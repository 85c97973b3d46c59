"""Deltas as OpenAI's responses: one ``response`` object, or a stream of ``response.…`` events.

Both writers take the deltas of one answer through ``feed()`` and end it with ``finish()``;
``fail()`` gives what a client is told when the answer breaks off. Their output is bytes, and
``response`` is the object as it stands, in snake_case.
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

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons that leave a response incomplete, and what OpenAI calls them there."""

_NUMBER_AND_END: Final = b"%d}\n\n"
"""How every event ends: the number is the last of its facts."""


class _Writer:
    """Makes the output of deltas. An item is open until something else begins; what there is to
    tell of it on the way is up to the subclasses."""

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
        """The response object, as far as it has come, as it would be stored."""
        return {**self._response, "output": [item.as_openai() for item in self._items]}

    def feed(self, delta: Delta) -> bytes:
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        told = b""
        if delta.reasoning:
            told += self._add_text(self._reasoning_item, delta.reasoning)
        if delta.content:
            told += self._add_text(MessageItem, delta.content, delta.logprobs)
        elif (
            delta.logprobs
            and not (delta.reasoning or delta.tool_calls)
            and self._is_last(MessageItem)
        ):
            # A token that has no text of its own, as the last one of a message.
            told += self._add_text(MessageItem, "", delta.logprobs)
        for piece in delta.tool_calls:
            told += self._add_call(piece)
        return told

    def _add_text(
        self, kind: type[Item], text: str, logprobs: list[dict[str, Any]] | None = None
    ) -> bytes:
        told = b""
        if not self._is_last(kind):
            told = self._begin_item(kind(len(self._items)))
        item = self._items[-1]
        item.add(text)
        if isinstance(item, MessageItem):
            item.logprobs += logprobs or ()
        return told + self._added(item, text, logprobs)

    def _add_call(self, piece: ToolCallDelta) -> bytes:
        told = b""
        call = self._calls.get(piece.index)
        if call is None:
            kind = CustomCallItem if piece.is_custom else CallItem
            called = self._names.called(piece.name or "")
            call = self._calls[piece.index] = kind(len(self._items), piece, called)
            told = self._begin_item(call)
        # Arguments that were whole cannot go on.
        if not (piece.arguments and call.is_open):
            return told
        call.add(piece.arguments)
        return told + self._added(call, piece.arguments, None)

    def _begin_item(self, item: Item) -> bytes:
        told = b"".join(self._close(other) for other in tuple(self._open) if other.may_end)
        self._items.append(item)
        self._open.append(item)
        return told + self._opened(item)

    def _close(self, item: Item, status: Status = "completed") -> bytes:
        item.status = status
        self._open.remove(item)
        return self._closed(item)

    def _is_last(self, kind: type[Item]) -> bool:
        """Whether the last item is of ``kind``: the next text of that kind belongs to it."""
        return bool(self._items) and type(self._items[-1]) is kind

    def _end(self) -> bytes:
        """Close what is open, and the response with it."""
        reason = _INCOMPLETE.get(self._finish_reason or "")
        status: Status = "completed" if reason is None else "incomplete"
        told = b"".join(self._close(item, status) for item in tuple(self._open))
        self._response |= {
            "status": status,
            "completed_at": int(time.time()) if reason is None else None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "usage": response_usage(self._usage or Usage()),
        }
        return told

    def _break_off(self, error: GatewayError) -> None:
        """The same for a response that has failed. Nothing is told of the items: they have not
        come to an end, and clients would read a text that is cut as if it were whole."""
        for item in self._open:
            item.status = "incomplete"
        self._open.clear()
        self._response |= {
            "status": "failed",
            "error": response_error(error),
            "usage": None if self._usage is None else response_usage(self._usage),
        }

    # What is told of an item

    def _opened(self, item: Item) -> bytes:
        return b""

    def _added(self, item: Item, piece: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        return b""

    def _closed(self, item: Item) -> bytes:
        return b""


class WholeResponse(_Writer):
    """A response that is sent in one piece."""

    def finish(self) -> bytes:
        self._end()
        return encode_json(spelled(self.response, self._case))

    def fail(self, error: GatewayError) -> bytes:
        self._break_off(error)
        return encode_json(error.envelope())


class ResponseStream(_Writer):
    """A response that is sent as server-sent events.

    OpenAI's order: the response as it begins, twice; each item as it is added, with its part and
    its text, and as it is done; the whole response. Nothing comes after that, no ``[DONE]`` either.
    """

    def __init__(
        self, request: ResponsesRequest, model: str, case: Case, *, stored: bool = False
    ) -> None:
        super().__init__(request, model, case, stored=stored)
        self._sequence_number = 0
        self._piece_frames: dict[int, tuple[bytes, bytes]] = {}

    def feed(self, delta: Delta) -> bytes:
        return self._begin() + super().feed(delta)

    def finish(self) -> bytes:
        told = self._begin() + self._end()
        return told + self._response_event(f"response.{self._response['status']}")

    def fail(self, error: GatewayError) -> bytes:
        told = self._begin()
        self._break_off(error)
        return told + self._response_event("response.failed")

    def _begin(self) -> bytes:
        if self._sequence_number:
            return b""
        return b"".join(map(self._response_event, ["response.created", "response.in_progress"]))

    def _opened(self, item: Item) -> bytes:
        self._piece_frames[item.index] = self._piece_frame(item)
        told = self._item_event("response.output_item.added", item)
        if item.part_type is not None:
            told += self._event(f"{item.part_event}.added", **item.place, part=item.part())
        return told

    def _added(self, item: Item, piece: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        if logprobs:
            name = f"{item.text_event}.delta"
            return self._event(name, **item.place, delta=piece, logprobs=logprobs)
        before, between = self._piece_frames[item.index]
        number = _NUMBER_AND_END % self._next_number()
        return before + encode_json(piece) + between + number

    def _closed(self, item: Item) -> bytes:
        told = self._event(f"{item.text_event}.done", **item.place, **item.whole_text())
        if item.part_type is not None:
            told += self._event(f"{item.part_event}.done", **item.place, part=item.part())
        return told + self._item_event("response.output_item.done", item)

    def _item_event(self, name: str, item: Item) -> bytes:
        return self._event(name, output_index=item.index, item=item.as_openai())

    def _response_event(self, name: str) -> bytes:
        # The camelCase is for the whole event.
        response = spelled(self.response, "both") if self._case == "both" else self.response
        return self._event(name, response=response)

    def _event(self, name: str, /, **facts: Any) -> bytes:
        return self._frame(name, facts, self._next_number())

    def _frame(self, name: str, facts: dict[str, Any], number: int) -> bytes:
        event = {"type": name, **facts, "sequence_number": number}
        return named_frame(name, camel_keys(event, CLIENTS_OWN) if self._case == "camel" else event)

    def _piece_frame(self, item: Item) -> tuple[bytes, bytes]:
        """What stands before a piece of ``item``, and between it and the number of its event: it
        is the same for every token."""
        mark = secrets.token_hex(8)
        facts = {**item.place, "delta": mark, **item.beside_piece()}
        frame = self._frame(f"{item.text_event}.delta", facts, 0)
        before, _, after = frame.partition(b'"%b"' % mark.encode())
        return before, after.removesuffix(_NUMBER_AND_END % 0)

    def _next_number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number
