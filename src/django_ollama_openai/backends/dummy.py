"""A backend with canned replies, for a site's own tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import cycle
from typing import Any

import pydantic_core
from pydantic import validate_call

from ..translation.chat_parts import new_tool_call_id
from ..translation.model_cards import ModelCard
from ..wire.chat import ChatCompletionRequest, content_text
from ..wire.delta import Delta, ToolCallDelta, Usage
from .base import OPTIONAL_PARAMETERS, BaseBackend

__all__ = ["DummyBackend"]


class DummyBackend(BaseBackend):
    """Answers with canned replies, word by word, and keeps the requests it got in ``requests``.

    ``replies`` are given in turn, over and over. A reply is a text, or a dict with any of
    ``content``, ``reasoning``, ``tool_calls`` (a list of ``{"name": …, "arguments": {…}}``) and
    ``finish_reason``. A token is a word, in usage too. Requests for other models than ``models``
    are answered all the same, so that a test need not name them.
    """

    supported_parameters = frozenset(OPTIONAL_PARAMETERS) - {"n"}

    @validate_call
    def __init__(
        self,
        *,
        replies: Sequence[str | dict[str, Any]] = ("This is a canned reply.",),
        models: Sequence[str] = ("dummy",),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not replies:
            raise ValueError("replies must not be empty")
        self.requests: list[ChatCompletionRequest] = []
        self._models = tuple(models)
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
        asked = sum(len(_words(content_text(message.content))) for message in request.messages)
        usage = Usage(
            prompt_tokens=asked,
            completion_tokens=len(reasoning) + len(content) + len(calls),
            reasoning_tokens=len(reasoning),
        )
        reason = canned.get("finish_reason") or ("tool_calls" if calls else "stop")
        yield Delta(finish_reason=reason, usage=usage, tokens=0)

    async def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        for delta in self.stream_chat(request):
            yield delta

    def list_models(self) -> list[ModelCard]:
        return [ModelCard(id=name, owned_by="dummy") for name in self._models]

    async def alist_models(self) -> list[ModelCard]:
        return self.list_models()


def _words(text: str) -> list[str]:
    """``text`` cut before each space that begins a word; nothing of it is lost."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or ([text] if text else [])
