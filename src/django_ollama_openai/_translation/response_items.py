"""The items of a response's output, as they grow from deltas."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeAlias

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
    """An id that cannot collide: OpenAI's prefix and 120 random bits."""
    return prefix + secrets.token_hex(15)


class Item(ABC):
    """One item: its text, in pieces, and what a stream calls it. ``index`` is its place in the
    output."""

    prefix: ClassVar[str]
    """What its id begins with."""

    text_event: ClassVar[str]
    """The events of its text, without ``.delta`` and ``.done``."""

    part_type: ClassVar[str | None] = None
    """The type of the part that holds the text; ``None`` if the text stands in the item itself."""

    part_event: ClassVar[str] = "response.content_part"
    """The events of that part, without ``.added`` and ``.done``."""

    part_index: ClassVar[str] = "content_index"
    """What events call its place in the item. There is only one part, at 0."""

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
    def may_end(self) -> bool:
        """Whether the item is at its end when another one begins."""
        return True

    @property
    def place(self) -> dict[str, Any]:
        """Where the text stands, as every event of it says."""
        place: dict[str, Any] = {"item_id": self.id, "output_index": self.index}
        return place if self.part_type is None else {**place, self.part_index: 0}

    @abstractmethod
    def as_openai(self) -> dict[str, Any]:
        """OpenAI's object for the item, as far as it has come."""

    def part(self) -> dict[str, Any]:
        """OpenAI's object for the part that holds the text, as far as it has come."""
        return {"type": self.part_type, "text": self.text}

    def beside_piece(self) -> dict[str, Any]:
        """What the event of a piece says beside it."""
        return {}

    def whole_text(self) -> dict[str, Any]:
        """What the event at the end of the text says."""
        return {"text": self.text}

    def _parts(self) -> list[dict[str, Any]]:
        return [self.part()] if self._pieces else []


class MessageItem(Item):
    prefix = "msg_"
    text_event = "response.output_text"
    part_type = "output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.logprobs: list[dict[str, Any]] = []

    def as_openai(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": self._parts(),
        }

    def part(self) -> dict[str, Any]:
        return {**super().part(), "annotations": [], "logprobs": list(self.logprobs)}

    def beside_piece(self) -> dict[str, Any]:
        return {"logprobs": []}

    def whole_text(self) -> dict[str, Any]:
        return {**super().whole_text(), "logprobs": list(self.logprobs)}


class ReasoningItem(Item):
    """Reasoning, as the model has written it."""

    prefix = "rs_"
    text_event = "response.reasoning_text"
    part_type = "reasoning_text"

    def as_openai(self) -> dict[str, Any]:
        return self._with(summary=[], content=self._parts())

    def _with(self, **texts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "type": "reasoning", "status": self.status, **texts}


class SummaryItem(ReasoningItem):
    """The same for clients that have asked for a summary, and read nothing else."""

    text_event = "response.reasoning_summary_text"
    part_type = "summary_text"
    part_event = "response.reasoning_summary_part"
    part_index = "summary_index"

    def as_openai(self) -> dict[str, Any]:
        return self._with(summary=self._parts(), content=[])


class CallItem(Item):
    """A call of a function; its text is the arguments. ``called`` has the name of the function, and
    its namespace if it has one."""

    prefix = "fc_"
    text_event = "response.function_call_arguments"

    def __init__(self, index: int, first: ToolCallDelta, called: dict[str, Any]) -> None:
        super().__init__(index)
        self.call_id = first.id or new_tool_call_id()
        self.called = called

    @property
    def may_end(self) -> bool:
        """An engine may send the pieces of several calls by turns: a call is at its end when its
        arguments are whole."""
        text = self.text
        if not text.rstrip().endswith("}"):
            return False
        try:
            parse_json(text)
        except ValueError:
            return False
        return True

    def as_openai(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            **self.called,
            "arguments": self.text,
        }

    def whole_text(self) -> dict[str, Any]:
        return {"name": self.called["name"], "arguments": self.text}


class CustomCallItem(CallItem):
    """A call of a custom tool; its text is the input."""

    prefix = "ctc_"
    text_event = "response.custom_tool_call_input"

    @property
    def may_end(self) -> bool:
        """Return whether the input has arrived: it is never split."""
        return bool(self._pieces)

    def as_openai(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "custom_tool_call",
            "status": self.status,
            "call_id": self.call_id,
            **self.called,
            "input": self.text,
        }

    def whole_text(self) -> dict[str, Any]:
        return {"input": self.text}
