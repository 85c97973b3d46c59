"""The answer of Ollama's ``POST /api/generate`` as deltas, streamed or not.

Source: Ollama's ``api/types.go`` (``GenerateResponse``). It is an answer of ``/api/chat`` but for
the text, which stands in each part itself and not in a message.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import TypeAdapter

from .chat_parts import AnswerPart, ChatParts, Message

__all__ = ["GenerateParts"]


class _Part(AnswerPart, total=False):
    response: str | None
    thinking: str | None


class GenerateParts(ChatParts):
    """The state of one answer: feed it every part, then ``finish()``."""

    __slots__ = ()

    _validator: ClassVar = TypeAdapter(_Part).validator
    _param: ClassVar[str] = "prompt"

    def _message(self, part: Any) -> Message:
        return {"content": part["response"], "thinking": part.get("thinking")}
