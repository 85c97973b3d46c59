"""The URL patterns of the app, which are part of every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views.completions import completion, completion_messages, completions
from ._views.conversations import (
    conversation,
    conversation_item,
    conversation_items,
    conversations,
)
from ._views.files import file
from ._views.messages import message, messages, regeneration
from ._views.portability import export, session_export, session_import
from ._views.responses import (
    cancellation,
    compaction,
    input_items,
    input_tokens,
    response,
    responses,
)
from ._views.sessions import session, sessions
from ._views.streams import stop, stream
from ._views.titles import title

__all__ = ["urlpatterns"]

SESSION = "api/chat/sessions/<str:session_id>/"
CONVERSATION = "v1/conversations/<str:conversation_id>"
RESPONSE = "v1/responses/<str:response_id>"

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
    path(f"{SESSION}messages/<str:message_id>/stream/", stream, name="chat_message_stream"),
    path(f"{SESSION}stop/", stop, name="chat_session_stop"),
    # In place of the gateway's own.
    path("v1/chat/completions", completions, name="ollama_openai_chat_completions"),
    path("v1/chat/completions/<str:completion_id>", completion, name="chat_completion"),
    path(
        "v1/chat/completions/<str:completion_id>/messages",
        completion_messages,
        name="chat_completion_messages",
    ),
    path("v1/conversations", conversations, name="chat_conversations"),
    path(CONVERSATION, conversation, name="chat_conversation"),
    path(f"{CONVERSATION}/items", conversation_items, name="chat_conversation_items"),
    path(f"{CONVERSATION}/items/<str:item_id>", conversation_item, name="chat_conversation_item"),
    # In place of the gateway's own.
    path("v1/responses", responses, name="ollama_openai_responses"),
    path("v1/responses/input_tokens", input_tokens, name="chat_input_tokens"),
    path("v1/responses/compact", compaction, name="chat_compaction"),
    path(RESPONSE, response, name="chat_response"),
    path(f"{RESPONSE}/cancel", cancellation, name="chat_response_cancellation"),
    path(f"{RESPONSE}/input_items", input_items, name="chat_response_input_items"),
    path(f"{SESSION}title/", title, name="chat_session_title"),
]
