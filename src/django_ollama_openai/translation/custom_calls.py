"""Calls of the functions that stand for custom tools, as calls of the custom tools again."""

from __future__ import annotations

from collections.abc import Collection

import pydantic_core

from ..wire.custom_tools import INPUT
from ..wire.delta import Delta, ToolCallDelta

__all__ = ["CustomCalls"]


class CustomCalls:
    """Puts the text for a custom tool in the place of the arguments of its function.

    ``names`` are the functions that stand for custom tools. Arguments that come in pieces are held
    back until the end of the answer: what is in them shows only when they are whole.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held: dict[int, list[str]] = {}
        self._done: set[int] = set()

    def feed(self, delta: Delta) -> Delta:
        """Return ``delta`` with the calls of custom tools as such."""
        if delta.tool_calls:
            pieces = [self._piece(call) for call in delta.tool_calls]
            delta.tool_calls = [piece for piece in pieces if piece is not None]
        if delta.finish_reason and self._held:
            delta.tool_calls += [
                ToolCallDelta(index, arguments=_written("".join(pieces)), is_custom=True)
                for index, pieces in self._held.items()
            ]
            self._held.clear()
        return delta

    def _piece(self, call: ToolCallDelta) -> ToolCallDelta | None:
        if call.index in self._held:
            self._held[call.index].append(call.arguments)
            return None
        # What comes after whole arguments is no part of them.
        if call.index in self._done:
            return None
        if call.name not in self._names:
            return call
        self._done.add(call.index)
        text = _input(call.arguments)
        if text is None:
            self._held[call.index] = [call.arguments]
        return ToolCallDelta(call.index, call.id, call.name, text or "", is_custom=True)


def _input(arguments: str, *, is_cut: bool = False) -> str | None:
    """Return the text in ``arguments``, or ``None`` if there is none."""
    try:
        value = pydantic_core.from_json(
            arguments, allow_partial="trailing-strings" if is_cut else False
        )
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    text = value.get(INPUT)
    if text is None and len(value) == 1:
        # Models that do not keep to the schema give the one string a name of their own.
        (text,) = value.values()
    return text if isinstance(text, str) else None


def _written(arguments: str) -> str:
    """Return what the model may have meant by arguments that are not as they should be: the
    beginning of the text, or else all that it has written."""
    for is_cut in (False, True):
        text = _input(arguments, is_cut=is_cut)
        if text is not None:
            return text
    return arguments
