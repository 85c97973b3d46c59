from __future__ import annotations

from django_ollama_openai.endpoints import path
from tests.project.notes.views import answer, note, notes

urlpatterns = [
    path("api/notes/", notes, name="notes"),
    path("api/notes/<int:note_id>/", note, name="note"),
    path("api/notes/<int:note_id>/answer/", answer, name="note_answer"),
]
