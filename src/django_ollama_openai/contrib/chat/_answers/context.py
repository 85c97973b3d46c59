"""Drop the oldest turns of a session that an engine's context has no room for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ...._wire.chat import AssistantMessage, ChatCompletionRequest, Message, content_text
from ...._wire.delta import Delta
from ....endpoints import BaseStage, Steps
from ....exceptions import ContextLengthExceeded
from .._store.history import INSTRUCTING

__all__ = ["TruncatingStage"]

#: The counts in the error of an engine that reports them.
_COUNTS: Final = re.compile(r"context length is (\d+) tokens.* resulted in (\d+) tokens", re.DOTALL)
#: The part of the text to keep if the engine reports no counts.
KEPT_PART: Final = 0.5
#: The part of the context that the text is to fill at most: the counts are of tokens, and the text
#: that is dropped may have fewer of them than the rest.
FILLED_PART: Final = 0.95
#: The characters that stand for what a template adds to each message, and for an image.
FRAME, IMAGE = 16, 2_000


class TruncatingStage(BaseStage):
    """Drops the oldest turns of a request until the engine's context has room for the others.

    A turn begins with a user's message. The instructions at the beginning and the last turn are
    never dropped. ``on_drop`` gets the number of messages dropped so far.
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
        messages = self.request.messages
        start = next((n for n, each in enumerate(messages) if each.role not in INSTRUCTING), 0)
        # What precedes the first user's message, such as a greeting, goes first.
        turns = [n for n, message in enumerate(messages) if message.role == "user" and n > start]
        if not turns:
            return None
        counts = _COUNTS.search(error.message)
        part = KEPT_PART
        if counts is not None:
            part = int(counts[1]) / max(1, int(counts[2])) * FILLED_PART
        sizes = list(map(_size, messages))
        budget = part * sum(sizes) - sum(sizes[:start])
        first = next((turn for turn in turns if sum(sizes[turn:]) <= budget), turns[-1])
        self._dropped += first - start
        kept = [*messages[:start], *messages[first:]]
        return self.request.model_copy(update={"messages": kept})


def _size(message: Message) -> int:
    size = FRAME + len(content_text(message.content))
    if isinstance(message.content, list):
        size += IMAGE * sum(part.type in ("image_url", "input_audio") for part in message.content)
    if isinstance(message, AssistantMessage):
        texts: list[Any] = [message.reasoning_content, message.refusal]
        texts += [call.function.arguments for call in message.tool_calls or ()]
        size += sum(len(text) for text in texts if text)
    return size
