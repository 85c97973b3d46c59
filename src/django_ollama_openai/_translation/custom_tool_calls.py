"""Turn calls of the functions that represent custom tools into calls of the custom tools."""

from __future__ import annotations

from collections.abc import Collection

import pydantic_core

from .._wire.custom_tools import INPUT
from .._wire.delta import Delta, ToolCallDelta

__all__ = ["CustomToolCalls"]


class CustomToolCalls:
    """The state of one choice, whose calls of the functions ``names`` become custom tool calls.

    The JSON arguments are replaced by the input in them. Arguments in several pieces are held back
    until the end of the choice, since only complete JSON can be parsed.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held: dict[int, list[str]] = {}
        self._done: set[int] = set()

    def feed(self, delta: Delta) -> Delta:
        """Return ``delta`` with custom tool calls; it is changed in place."""
        if delta.tool_calls:
            pieces = [self._piece(call) for call in delta.tool_calls]
            delta.tool_calls = [piece for piece in pieces if piece is not None]
        if delta.finish_reason and self._held:
            delta.tool_calls += [
                ToolCallDelta(index, arguments=_best_input("".join(pieces)), is_custom=True)
                for index, pieces in self._held.items()
            ]
            self._held.clear()
        return delta

    def _piece(self, call: ToolCallDelta) -> ToolCallDelta | None:
        if call.index in self._held:
            self._held[call.index].append(call.arguments)
            return None
        # Ignore text after complete arguments.
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
    """Return the input in ``arguments``, or ``None`` if there is none."""
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
        # Models that ignore the schema may call the parameter something else.
        (text,) = value.values()
    return text if isinstance(text, str) else None


def _best_input(arguments: str) -> str:
    """Return the input in ``arguments``. If the JSON is incomplete, it is the beginning of the
    string; if there is no input, the arguments are returned unchanged."""
    for is_cut in (False, True):
        text = _input(arguments, is_cut=is_cut)
        if text is not None:
            return text
    return arguments
