"""The URL patterns of the app, which are part of every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views.files import file
from ._views.messages import message, messages, regeneration, stop
from ._views.portability import export, session_export, session_import
from ._views.sessions import session, sessions

__all__ = ["urlpatterns"]

SESSION = "api/chat/sessions/<str:session_id>/"

urlpatterns = [
    path("api/chat/files/<str:file_id>/", file, name="chat_file"),
    path("api/chat/sessions/", sessions, name="chat_sessions"),
    path("api/chat/export/", export, name="chat_export"),
    # Before the path of one session.
    path("api/chat/sessions/import/", session_import, name="chat_session_import"),
    path(SESSION, session, name="chat_session"),
    path(f"{SESSION}export/", session_export, name="chat_session_export"),
    path(f"{SESSION}messages/", messages, name="chat_messages"),
    path(f"{SESSION}messages/<str:message_id>/", message, name="chat_message"),
    path(
        f"{SESSION}messages/<str:message_id>/regenerate/",
        regeneration,
        name="chat_message_regeneration",
    ),
    path(f"{SESSION}stop/", stop, name="chat_session_stop"),
]
