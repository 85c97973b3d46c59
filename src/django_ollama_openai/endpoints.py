"""Declare the endpoints of an app: below every mount, in ``openapi.json``, under WSGI and ASGI.

The app's ``AppConfig`` names the module of its ``urlpatterns`` as ``ollama_openai_urls``::

    notes = Endpoint(tags={"Notes": "Notes of callers"})


    @notes.post(scope="notes", owner=True, body=NewNote, response=NoteAnswer, status=201)
    def create_note(admission: Admission[NewNote]) -> NoteAnswer: ...


    urlpatterns = [path("api/notes/", notes, name="notes")]
"""

from __future__ import annotations

from ._batch_writer import BatchWriter
from ._gateway.admission import Admission, admit_chat, admit_without_engine
from ._gateway.blocking import call_blocking
from ._gateway.chat import fetch_remote_images, run_chat
from ._gateway.delivery import Reply, Stopper
from ._gateway.flow import Call, Flow, call
from ._gateway.outcome import Record
from ._gateway.recorder import BaseRecorder
from ._gateway.stages import BaseStage, Steps
from ._translation.chat_completion import (
    ChatCompletionStream,
    ChatCompletionWriter,
    WholeChatCompletion,
)
from ._views.endpoint import Endpoint, endpoint_of, path
from ._wire.query import QueryParameters, RequestBody

__all__ = [
    "Admission",
    "BaseRecorder",
    "BaseStage",
    "BatchWriter",
    "Call",
    "ChatCompletionStream",
    "ChatCompletionWriter",
    "Endpoint",
    "Flow",
    "QueryParameters",
    "Record",
    "Reply",
    "RequestBody",
    "Steps",
    "Stopper",
    "WholeChatCompletion",
    "admit_chat",
    "admit_without_engine",
    "call",
    "call_blocking",
    "endpoint_of",
    "fetch_remote_images",
    "path",
    "run_chat",
]
