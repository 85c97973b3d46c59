"""The answer of Ollama's ``POST /api/generate`` as deltas, streamed or not.

Source: Ollama's ``api/types.go`` (``GenerateResponse``). It is an answer of ``/api/chat`` but for
the text, which stands in each part itself and not in a message.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ..exceptions import UpstreamError
from ..wire.delta import Delta
from .chat_parts import ChatParts
from .logprobs import Logprob
from .ollama_errors import ollama_error

__all__ = ["GenerateParts"]


class _Part(TypedDict, total=False):
    error: Any
    response: str | None
    thinking: str | None
    logprobs: list[Logprob] | None
    done: bool | None
    done_reason: str | None
    prompt_eval_count: int | None
    eval_count: int | None


_PART = TypeAdapter(_Part)


class GenerateParts(ChatParts):
    """The state of one answer: feed it every part, then ``finish()``."""

    __slots__ = ()

    def feed(self, line: bytes) -> Delta:
        if self._done:
            return Delta(tokens=0)
        try:
            part = _PART.validate_json(line, strict=True)
            if "error" in part:
                raise ollama_error(None, line, param="prompt")
            message = {"content": part["response"], "thinking": part.get("thinking")}
            chat_part: Any = {**part, "message": message}
            return self._delta(chat_part)
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent something that is not an answer.") from error
