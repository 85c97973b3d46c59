"""The URL patterns of the app, which are part of every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views.completions import completion, completion_messages, completions
from ._views.messages import message, messages, regeneration, stop
from ._views.sessions import session, sessions

__all__ = ["urlpatterns"]

SESSION = "api/chat/sessions/<str:session_id>/"

urlpatterns = [
    path("api/chat/sessions/", sessions, name="chat_sessions"),
    path(SESSION, session, name="chat_session"),
    path(f"{SESSION}messages/", messages, name="chat_messages"),
    path(f"{SESSION}messages/<str:message_id>/", message, name="chat_message"),
    path(
        f"{SESSION}messages/<str:message_id>/regenerate/",
        regeneration,
        name="chat_message_regeneration",
    ),
    path(f"{SESSION}stop/", stop, name="chat_session_stop"),
    path("v1/chat/completions", completions, name="ollama_openai_chat_completions"),
    path("v1/chat/completions/<str:completion_id>", completion, name="chat_completion"),
    path(
        "v1/chat/completions/<str:completion_id>/messages",
        completion_messages,
        name="chat_completion_messages",
    ),
]
