from __future__ import annotations

from django.http import HttpRequest

from django_ollama_openai.auth import BaseAuthenticator, Caller, bearer_token
from tests.project.notes.conf import notes_settings

__all__ = ["TokenAuthenticator"]


class TokenAuthenticator(BaseAuthenticator):
    """Recognizes the tokens of the app's settings. Their callers may use notes and chats."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        name = notes_settings().TOKENS.get(bearer_token(request) or "")
        if name is None:
            return None
        return Caller(key_id=name, key_name=name, scopes=frozenset({"chat", "notes"}))
