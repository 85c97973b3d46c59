"""A backend with canned replies, for a site's own tests."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import cycle
from typing import Any

import pydantic_core
from pydantic import PositiveInt, validate_call

from .._translation.embeddings import to_embeddings
from .._translation.model_cards import ModelCard
from .._wire.chat import ChatCompletionRequest, content_text
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings, ToolCallDelta, Usage, new_tool_call_id
from .._wire.embeddings import EmbeddingsRequest
from ._base import OPTIONAL_PARAMETERS, BaseBackend

__all__ = ["DummyBackend"]


class DummyBackend(BaseBackend):
    """Answers with canned replies, word by word, and records requests in ``requests``.

    ``replies`` are used in turn, repeatedly. A reply is a string, or a dict with any of
    ``content``, ``reasoning``, ``tool_calls`` (a list of ``{"name": …, "arguments": {…}}``) and
    ``finish_reason``; text completions ignore the calls. A token is a word, also in usage.
    ``models`` are listed; requests for other models are answered as well.

    An embedding is a unit vector with ``dimensions`` components, made from a hash of the text:
    equal for equal texts, but not similar for similar texts.
    """

    supports_completions = True
    supports_embeddings = True

    supported_parameters = frozenset(OPTIONAL_PARAMETERS) | {"token_input"}

    @validate_call
    def __init__(
        self,
        *,
        replies: Sequence[str | dict[str, Any]] = ("This is a canned reply.",),
        models: Sequence[str] = ("dummy",),
        dimensions: PositiveInt = 8,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not replies:
            raise ValueError("replies must not be empty")
        self.requests: list[Any] = []
        self._models = tuple(models)
        self._dimensions = dimensions
        self._replies = cycle(replies)

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        self.requests.append(request)
        reply = next(self._replies)
        canned = {"content": reply} if isinstance(reply, str) else reply
        calls = [
            ToolCallDelta(
                index,
                id=call.get("id") or new_tool_call_id(),
                name=call["name"],
                arguments=pydantic_core.to_json(call.get("arguments", {})).decode(),
            )
            for index, call in enumerate(canned.get("tool_calls", ()))
        ]
        reasoning, content = _words(canned.get("reasoning", "")), _words(canned.get("content", ""))
        for word in reasoning:
            yield Delta(reasoning=word)
        for word in content:
            yield Delta(content=word)
        if calls:
            yield Delta(tool_calls=calls)
        prompt_tokens = sum(
            len(_words(content_text(message.content))) for message in request.messages
        )
        usage = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=len(reasoning) + len(content) + len(calls),
            reasoning_tokens=len(reasoning),
        )
        reason = canned.get("finish_reason") or ("tool_calls" if calls else "stop")
        yield Delta(finish_reason=reason, usage=usage, tokens=0)

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_chat(request):
            yield delta

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        self.requests.append(request)
        reply = next(self._replies)
        canned = {"content": reply} if isinstance(reply, str) else reply
        reasoning, content = _words(canned.get("reasoning", "")), _words(canned.get("content", ""))
        for word in reasoning:
            yield Delta(reasoning=word)
        for word in content:
            yield Delta(content=word)
        usage = Usage(
            prompt_tokens=sum(map(_size, request.prompts())),
            completion_tokens=len(reasoning) + len(content),
            reasoning_tokens=len(reasoning),
        )
        yield Delta(finish_reason=canned.get("finish_reason") or "stop", usage=usage, tokens=0)

    async def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_complete(request):
            yield delta

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        self.requests.append(request)
        inputs = request.inputs()
        dimensions = min(request.dimensions or self._dimensions, self._dimensions)
        vectors = [_unit_vector(repr(text), dimensions) for text in inputs]
        usage = Usage(prompt_tokens=sum(map(_size, inputs)))
        return to_embeddings(vectors, usage, request)

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        return self.embed(request)

    def list_models(self) -> list[ModelCard]:
        return [ModelCard(id=name, owned_by="dummy") for name in self._models]

    async def alist_models(self) -> list[ModelCard]:
        return self.list_models()


def _words(text: str) -> list[str]:
    """Return the words of ``text``, each with the white space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or ([text] if text else [])


def _size(text: str | list[int]) -> int:
    return len(_words(text) if isinstance(text, str) else text)


def _unit_vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.shake_128(text.encode()).digest(4 * dimensions)
    # No component is 0, so that the vector has a length.
    numbers = [number + 0.5 for number in struct.unpack(f"<{dimensions}i", digest)]
    length = math.hypot(*numbers)
    return [float(f"{number / length:.9g}") for number in numbers]
