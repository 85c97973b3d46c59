from __future__ import annotations

from typing import Any

from django_ollama_openai.auth import Caller
from django_ollama_openai.response_store import BaseResponseStore

__all__ = ["MemoryStore"]


class MemoryStore(BaseResponseStore):
    """Keeps conversations for as long as the process lasts; knows only synchronous methods."""

    def __init__(self) -> None:
        self._conversations: dict[str, list[dict[str, Any]]] = {}

    def load(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        return self._conversations.get(response_id)

    def save(self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller) -> None:
        self._conversations[response["id"]] = [*items, *response["output"]]
