"""The endpoints of the app."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Literal

from django.db.models import QuerySet
from pydantic import BaseModel, ConfigDict, Field

from django_ollama_openai.endpoints import (
    Admission,
    BaseRecorder,
    BatchWriter,
    Endpoint,
    Flow,
    QueryParameters,
    Record,
    Reply,
    RequestBody,
    admit_chat,
    call_blocking,
    run_chat,
)
from django_ollama_openai.exceptions import InvalidRequest, ModelNotFound, NotFound, Unavailable
from django_ollama_openai.types import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from tests.project.notes.conf import notes_settings
from tests.project.notes.models import Note, View
from tests.project.notes.stage import LookUp

__all__ = ["answer", "note", "notes", "views"]

TAGS = {"Notes": "Notes of callers"}

views = BatchWriter[View](View.objects.bulk_create, name="views of notes")


class NewNote(RequestBody):
    title: str = Field(max_length=100)
    text: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)


class Page(QueryParameters):
    limit: int = Field(20, ge=1, le=100)
    after: int | None = None
    title_contains: list[str] = Field(default_factory=list)


class NoteAnswer(BaseModel):
    """A note."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    object: Literal["note"] = "note"
    title: str
    text: str
    metadata: dict[str, str]
    created_at: datetime


class NoteList(BaseModel):
    """Notes, the oldest first."""

    object: Literal["list"] = "list"
    data: list[NoteAnswer]
    has_more: bool


class DeletedNote(BaseModel):
    """The end of a note."""

    id: int
    object: Literal["note.deleted"] = "note.deleted"
    deleted: Literal[True] = True


notes = Endpoint(tags=TAGS)


@notes.get(scope="notes", owner=True, query=Page, response=NoteList)
def list_notes(admission: Admission[None]) -> NoteList:
    """List the caller's notes."""
    page: Page = admission.query
    found = _own(admission).order_by("pk")
    if page.after is not None:
        if not found.filter(pk=page.after).exists():
            raise InvalidRequest(f"There is no note {page.after}.", param="after")
        found = found.filter(pk__gt=page.after)
    for words in page.title_contains:
        found = found.filter(title__contains=words)
    rows = list(found[: page.limit + 1])
    return NoteList(
        data=[NoteAnswer.model_validate(row) for row in rows[: page.limit]],
        has_more=len(rows) > page.limit,
    )


@notes.post(scope="notes", owner=True, body=NewNote, response=NoteAnswer, status=201)
def create_note(admission: Admission[NewNote]) -> NoteAnswer:
    """Create a note."""
    limit = notes_settings().MAX_NOTES
    if _own(admission).count() >= limit:
        raise InvalidRequest(f"You may have up to {limit} notes.", code="too_many_notes")
    body = admission.body
    made = Note.objects.create(
        owner=str(admission.caller.owner),
        title=body.title,
        text=body.text,
        metadata=body.metadata,
    )
    return NoteAnswer.model_validate(made)


note = Endpoint(tags=TAGS)


@note.get(scope="notes", owner=True, response=NoteAnswer, errors=(NotFound,))
def retrieve_note(admission: Admission[None]) -> NoteAnswer:
    """Retrieve a note."""
    found = _get(admission)
    views.put(View(request_id=admission.request_id, note_id=found.pk))
    return NoteAnswer.model_validate(found)


@note.delete(scope="notes", owner=True, response=DeletedNote, errors=(NotFound,))
def delete_note(admission: Admission[None]) -> dict[str, Any]:
    """Delete a note."""
    found = _get(admission)
    number = found.pk
    found.delete()
    return DeletedNote(id=number).model_dump()


class Question(RequestBody):
    question: str
    model: str | None = None
    stream: bool = False


answer = Endpoint(tags=TAGS)


@answer.post(
    scope="chat",
    owner=True,
    makes_chat=True,
    body=Question,
    response=ChatCompletion,
    event=ChatCompletionChunk,
    errors=(NotFound, ModelNotFound, Unavailable),
)
def answer_note(admission: Admission[Question]) -> Flow[Reply]:
    """Answer a question about a note."""
    found = yield from call_blocking(_get, admission)
    body = admission.body
    question = {"role": "user", "content": body.question}
    chat = ChatCompletionRequest.from_dict(
        {
            "model": body.model,
            "stream": body.stream,
            "messages": [{"role": "system", "content": found.text}, *found.messages, question],
        }
    )
    admitted = yield from admit_chat(admission, chat)
    stages = [partial(LookUp, owner=found.owner)]
    recorder = Conversation(found, question)
    return (yield from run_chat(admitted, stages=stages, recorder=recorder))


class Conversation(BaseRecorder):
    """Keeps a question and its answer with the note. Of a failed answer nothing is kept."""

    def __init__(self, kept: Note, question: dict[str, str]) -> None:
        self._note = kept
        self._question = question

    def record(self, record: Record) -> None:
        if record.error is None:
            said = [{"role": "assistant", "content": each["content"]} for each in record.messages]
            self._note.messages += [self._question, *said]
            self._note.save(update_fields=["messages"])


def _own(admission: Admission[Any]) -> QuerySet[Note]:
    return Note.objects.filter(owner=admission.caller.owner)


def _get(admission: Admission[Any]) -> Note:
    found = _own(admission).filter(pk=admission.captured["note_id"]).first()
    if found is None:
        raise NotFound(f"There is no note {admission.captured['note_id']}.")
    return found
