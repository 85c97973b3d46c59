"""Drop the oldest turns of a session that an engine's context has no room for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ...._wire.chat import ChatCompletionRequest
from ...._wire.delta import Delta
from ....endpoints import BaseStage, Steps
from ....exceptions import ContextLengthExceeded

__all__ = ["TruncatingStage"]

#: The counts in the error of an engine that reports them.
_COUNTS: Final = re.compile(r"context length is (\d+) tokens.* resulted in (\d+) tokens", re.DOTALL)
#: The part of the messages to keep if the engine reports no counts.
KEPT_PART: Final = 0.5


class TruncatingStage(BaseStage):
    """Drops the oldest turns of a request until the engine's context has room for the others.

    A turn begins with a user's message. The instructions before the first turn and the last turn
    are never dropped. ``on_drop`` gets the number of messages dropped so far.
    """

    def __init__(self, request: ChatCompletionRequest, on_drop: Callable[[int], object]) -> None:
        super().__init__(request)
        self._on_drop = on_drop
        self._dropped = 0

    def steps(self) -> Steps[Delta]:
        while True:
            try:
                yield self.request
            except ContextLengthExceeded as error:
                shorter = self._shorter(error)
                if shorter is None:
                    raise
                self.request = shorter
                self._on_drop(self._dropped)
            else:
                return

    def _shorter(self, error: ContextLengthExceeded) -> ChatCompletionRequest | None:
        """Return the request without its oldest turns; ``None`` if only one is left."""
        messages: list[Any] = self.request.messages
        turns = [n for n, message in enumerate(messages) if message.role == "user"]
        if len(turns) < 2:
            return None
        counts = _COUNTS.search(error.message)
        part = KEPT_PART
        if counts is not None:
            part = int(counts[1]) / max(1, int(counts[2])) * 0.95
        sizes = [_size(message) for message in messages]
        budget = part * sum(sizes)
        first = turns[0]
        for begin in turns[1:]:
            first = begin
            if sum(sizes[: turns[0]]) + sum(sizes[begin:]) <= budget:
                break
        self._dropped += first - turns[0]
        kept = [*messages[: turns[0]], *messages[first:]]
        return self.request.model_copy(update={"messages": kept})


def _size(message: Any) -> int:
    return len(message.model_dump_json(exclude_none=True))
