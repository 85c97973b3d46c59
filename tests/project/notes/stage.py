from __future__ import annotations

from dataclasses import replace
from typing import Final

from django_ollama_openai.endpoints import BaseStage, Steps, call_blocking
from django_ollama_openai.types import ChatCompletionRequest, Delta
from tests.project.notes.models import Note

__all__ = ["LookUp"]

COMMAND: Final = "LOOKUP "


class LookUp(BaseStage):
    """Lets a model read another note of the owner: an answer that is ``LOOKUP title`` is kept from
    the client, and the model is asked again with the text of that note."""

    def __init__(self, request: ChatCompletionRequest, *, owner: str) -> None:
        super().__init__(request)
        self._owner = owner
        self._text = ""
        self._is_for_client = False

    def steps(self) -> Steps[Delta]:
        yield self.request
        if self._is_for_client:
            return
        self._is_for_client = True
        title = self._text.removeprefix(COMMAND).strip()
        text = yield from call_blocking(_text_of, self._owner, title)
        more = ChatCompletionRequest.from_dict(
            {
                "messages": [
                    {"role": "assistant", "content": self._text},
                    {"role": "user", "content": text},
                ]
            }
        )
        messages = [*self.request.messages, *more.messages]
        yield self.request.model_copy(update={"messages": messages})

    def feed(self, delta: Delta) -> Delta:
        if self._is_for_client:
            return delta
        self._text += delta.content or ""
        is_command = self._text.startswith(COMMAND)
        if is_command or (COMMAND.startswith(self._text) and delta.finish_reason is None):
            return replace(delta, content="", finish_reason=None)
        self._is_for_client = True
        return replace(delta, content=self._text)


def _text_of(owner: str, title: str) -> str:
    found = Note.objects.filter(owner=owner, title=title).first()
    return "There is no such note." if found is None else found.text
