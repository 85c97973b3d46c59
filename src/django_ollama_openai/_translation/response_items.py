"""The output items of a response while it is generated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from .._ids import uuid7
from .._wire.base import parse_json
from .._wire.delta import ToolCallDelta, new_tool_call_id

__all__ = [
    "CallItem",
    "CustomCallItem",
    "Item",
    "MessageItem",
    "ReasoningItem",
    "Status",
    "SummaryItem",
    "new_id",
]

Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


def new_id(prefix: str) -> str:
    """Return an id with OpenAI's ``prefix``, which sorts by time."""
    return prefix + uuid7().hex


class Item:
    """The base class of items, with the text so far. ``index`` is the number of the item in the
    output."""

    #: The prefix of the id.
    prefix: ClassVar[str]

    type: ClassVar[str]

    #: The names of the text's events, without ``.delta`` and ``.done``.
    text_event: ClassVar[str]

    #: The type of the only part, which has the text; ``None`` if the item itself has it.
    part_type: ClassVar[str | None] = None

    #: The names of the part's events, without ``.added`` and ``.done``.
    part_event: ClassVar[str] = "response.content_part"

    #: The key of the part's index in events.
    part_index: ClassVar[str] = "content_index"

    def __init__(self, index: int) -> None:
        self.id = new_id(self.prefix)
        self.index = index
        self.status: Status = "in_progress"
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def is_open(self) -> bool:
        return self.status == "in_progress"

    @property
    def is_complete(self) -> bool:
        """Return whether the item is complete when another one begins."""
        return True

    @property
    def location(self) -> dict[str, Any]:
        """The keys with the location of the text, for all of its events."""
        location: dict[str, Any] = {"item_id": self.id, "output_index": self.index}
        return location if self.part_type is None else {**location, self.part_index: 0}

    def as_openai(self) -> dict[str, Any]:
        """Return OpenAI's object for the item in its current state."""
        return {"id": self.id, "type": self.type, "status": self.status}

    def part(self) -> dict[str, Any]:
        """Return OpenAI's object for the part in its current state."""
        return {"type": self.part_type, "text": self.text}

    def delta_fields(self) -> dict[str, Any]:
        """Return the other fields of an event with a piece of text."""
        return {}

    def done_fields(self) -> dict[str, Any]:
        """Return the fields of the event after the last piece of text."""
        return {"text": self.text}

    def _parts(self) -> list[dict[str, Any]]:
        return [self.part()] if self._pieces else []


class MessageItem(Item):
    prefix = "msg_"
    type = "message"
    text_event = "response.output_text"
    part_type = "output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.logprobs: list[dict[str, Any]] = []

    def as_openai(self) -> dict[str, Any]:
        return {**super().as_openai(), "role": "assistant", "content": self._parts()}

    def part(self) -> dict[str, Any]:
        return {**super().part(), "annotations": [], "logprobs": list(self.logprobs)}

    def delta_fields(self) -> dict[str, Any]:
        return {"logprobs": []}

    def done_fields(self) -> dict[str, Any]:
        return {**super().done_fields(), "logprobs": list(self.logprobs)}


class ReasoningItem(Item):
    """The reasoning of the model."""

    prefix = "rs_"
    type = "reasoning"
    text_event = "response.reasoning_text"
    part_type = "reasoning_text"

    def as_openai(self) -> dict[str, Any]:
        return {**super().as_openai(), "summary": [], "content": self._parts()}


class SummaryItem(ReasoningItem):
    """The reasoning of the model as a summary, for requests with ``reasoning.summary``."""

    text_event = "response.reasoning_summary_text"
    part_type = "summary_text"
    part_event = "response.reasoning_summary_part"
    part_index = "summary_index"

    def as_openai(self) -> dict[str, Any]:
        return {**super().as_openai(), "summary": self._parts(), "content": []}


class CallItem(Item):
    """A function call; its text is the arguments. ``name_fields`` has the name of the function, and
    its namespace if any."""

    prefix = "fc_"
    type = "function_call"
    text_key: ClassVar[str] = "arguments"
    text_event = "response.function_call_arguments"

    def __init__(self, index: int, first: ToolCallDelta, name_fields: dict[str, Any]) -> None:
        super().__init__(index)
        self.call_id = first.id or new_tool_call_id()
        self.name_fields = name_fields

    @property
    def is_complete(self) -> bool:
        """Return whether the arguments are complete, since engines may send pieces of several calls
        in turns."""
        text = self.text
        if not text.rstrip().endswith("}"):
            return False
        try:
            parse_json(text)
        except ValueError:
            return False
        return True

    def as_openai(self) -> dict[str, Any]:
        fields = {"call_id": self.call_id, **self.name_fields, self.text_key: self.text}
        return {**super().as_openai(), **fields}

    def done_fields(self) -> dict[str, Any]:
        return {"name": self.name_fields["name"], "arguments": self.text}


class CustomCallItem(CallItem):
    """A call of a custom tool; its text is the input."""

    prefix = "ctc_"
    type = "custom_tool_call"
    text_key = "input"
    text_event = "response.custom_tool_call_input"

    @property
    def is_complete(self) -> bool:
        """Return whether the input is there, which is never split."""
        return bool(self._pieces)

    def done_fields(self) -> dict[str, Any]:
        return {"input": self.text}
