"""Export and import: one session, or all that is the caller's, as a file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from annotated_types import MaxLen
from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.utils.text import slugify
from django.utils.timezone import now
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    model_validator,
)

from ...._gateway.flow import Flow
from ...._translation.spelling import Speller
from ...._wire.case import to_snake
from ...._wire.response_models.common import CompletionUsage
from ...._wire.responses import Metadata
from ...._wire.sse import encode_json
from ....endpoints import Admission, Endpoint, QueryParameters, RequestBody
from ....exceptions import InvalidRequest, NotFound
from ..._downloads import download
from .._store.completions import messages_of
from .._store.completions import present as present_completion
from .._store.files import Media, stored
from .._store.messages import message_rows
from .._store.portability import (
    all_messages,
    items_of,
    markdown,
    plant,
    portions,
    response_items,
    rows_of_items,
)
from .._store.tree import set_leaf
from ..models import MAX_MODEL, Completion, Conversation, Item, Response, Status
from .answers import in_store
from .callers import SCOPE, Owner, find_conversation
from .messages import MessageAnswer, present_all
from .sessions import TAGS, SessionAnswer, SessionUpdate, change, checked_message, present

__all__ = ["export", "session_export", "session_import"]

VERSION: Final = 1
MAX_MESSAGES: Final = 20_000
#: Rows that are read at once.
PAGE: Final = 50


class ExportedMessage(MessageAnswer):
    """A message of an export. ``items`` are OpenAI's, where the message does not say all that they
    do, such as calls of hosted tools."""

    items: list[dict[str, Any]] | None = None


class SessionExport(BaseModel):
    """A session with the messages of all branches, and with their images as data URIs."""

    object: Literal["chat.session.export"] = "chat.session.export"
    version: Literal[1] = 1
    session: SessionAnswer
    messages: list[ExportedMessage]


class CompleteExport(BaseModel):
    """All that is a caller's."""

    object: Literal["chat.export"] = "chat.export"
    version: Literal[1] = 1
    created_at: datetime
    sessions: list[SessionExport]
    responses: list[dict[str, Any]]
    completions: list[dict[str, Any]]


class ExportQuery(QueryParameters):
    """The query parameters of the export of a session."""

    format: Literal["json", "markdown"] = "json"


_session_speller: Final = Speller(SessionAnswer)
_message_speller: Final = Speller(ExportedMessage)

session_export = Endpoint(tags=TAGS)


@session_export.get(
    scope=SCOPE, owner=True, query=ExportQuery, response=SessionExport, errors=(NotFound,)
)
def export_session(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Export a session: all branches as JSON, or the current one as Markdown."""
    row = yield from in_store(_own, admission)
    name = slugify(row.title)[:60] or row.public_id
    if admission.query.format == "markdown":
        text = (piece.encode() for piece in markdown(row))
        return (yield from download(admission, text, "text/markdown; charset=utf-8", f"{name}.md"))
    content = _session_json(row, admission)
    return (yield from download(admission, content, "application/json", f"{name}.json"))


def _own(admission: Admission[Any]) -> Conversation:
    owner = Owner.of(admission.caller)
    return find_conversation(owner, admission.captured["session_id"], writes=True)


export = Endpoint(tags=TAGS)


@export.get(scope=SCOPE, owner=True, response=CompleteExport)
def export_all(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Export all that is the caller's: sessions, stored responses and chat completions."""
    content = _all_json(Owner.of(admission.caller), admission)
    return (yield from download(admission, content, "application/json", "export.json"))


def _all_json(owner: Owner, admission: Admission[Any]) -> Iterator[bytes]:
    head = {"object": "chat.export", "version": VERSION, "created_at": _iso(now())}
    yield encode_json(head)[:-1] + b',"sessions":['
    comma = b""
    for row in _pages(owner.conversations().select_related("leaf")):
        yield comma
        yield from _session_json(row, admission)
        comma = b","
    yield b'],"responses":['
    responses = Response.objects.filter(conversation__owner=owner.text)
    yield from _joined({**row.body, **_items(row, owner)} for row in _pages(responses))
    yield b'],"completions":['
    completions = Completion.objects.filter(owner=owner.text)
    yield from _joined(
        {**present_completion(row), "messages": messages_of(row, range(len(row.messages)))}
        for row in _pages(completions)
    )
    yield b"]}"


def _items(response: Response, owner: Owner) -> dict[str, Any]:
    given, made = response_items(response, owner.text)
    return {"input": given, "output": made}


def _pages(rows: QuerySet[Any]) -> Iterator[Any]:
    """Return ``rows`` by their keys, some at once, and without a cursor, since each may be read in
    another thread."""
    rows, last = rows.order_by("pk"), None
    while page := list((rows if last is None else rows.filter(pk__gt=last))[:PAGE]):
        yield from page
        last = page[-1].pk


def _joined(values: Iterator[Any]) -> Iterator[bytes]:
    comma = b""
    for value in values:
        yield comma + encode_json(value)
        comma = b","


def _session_json(row: Conversation, admission: Admission[Any]) -> Iterator[bytes]:
    case = admission.mount.case
    session = _session_speller.spell(present(row), case)
    head = {"object": "chat.session.export", "version": VERSION, "session": session}
    yield encode_json(head)[:-1] + b',"messages":['
    yield from _joined(
        _message_speller.spell(message, case)
        for page in all_messages(row)
        for message in _exported(row, page)
    )
    yield b"]}"


def _exported(row: Conversation, page: list[list[Item]]) -> Iterator[dict[str, Any]]:
    for groups, locate in portions(page):
        shown = present_all(row, groups, locate)
        for message, rows in zip(shown, groups, strict=True):
            if message["status"] == Status.IN_PROGRESS:
                # As it is so far.
                message["status"] = Status.INCOMPLETE.value
            else:
                items = items_of(rows, locate)
                if items is not None:
                    message["items"] = items
            yield message


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Import


def _snake_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {to_snake(name): _snake_keys(item) for name, item in value.items()}
    return value


def _past(moment: datetime) -> datetime:
    if moment.year < 1970:
        raise ValueError("Input should be later than 1969")
    return min(moment, now())


#: A time of an export, which is not in the future.
Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_past)]


class ImportedError(RequestBody):
    """The error of an answer."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ImportedMessage(RequestBody):
    """A message of an export."""

    id: str
    object: Any = None
    session_id: Any = None
    parent_id: str | None = None
    role: Literal["user", "assistant", "system", "developer", "tool"]
    content: Any = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    status: Literal["completed", "in_progress", "incomplete", "failed"] = "completed"
    finish_reason: Annotated[str, MaxLen(100)] | None = None
    model: Annotated[str, MaxLen(MAX_MODEL)] | None = None
    usage: Annotated[CompletionUsage, BeforeValidator(_snake_keys)] | None = None
    error: ImportedError | None = None
    created_at: Moment | None = None
    sibling_ids: Any = None
    metadata: Metadata = Field(default_factory=dict)
    truncated_messages: int | None = Field(None, ge=0)
    items: list[dict[str, Any]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_second_spelling(cls, value: Any) -> Any:
        """Drop the names that mounts with ``RESPONSE_CASE`` "both" have repeated."""
        if not isinstance(value, dict):
            return value
        fields = cls.model_fields
        return {
            name: item
            for name, item in value.items()
            if name in fields or to_snake(name) not in value.keys() - {name}
        }

    def rows(self, owner: Owner, media: Media, param: str) -> list[Item]:
        """Return new rows for the message, whose place in the request is ``param``.

        Raises:
            InvalidRequest: A field is invalid.
        """
        rows = self._rows(owner, media, param)
        (head,) = [row for row in rows if row.head_id is None]
        status = Status(self.status)
        head.status = Status.INCOMPLETE if status == Status.IN_PROGRESS else status
        head.metadata = self.metadata
        answer: dict[str, Any] = {
            "model": self.model,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "error": None if self.error is None else self.error.model_dump(),
            "truncated_messages": self.truncated_messages,
        }
        known = {name: value for name, value in answer.items() if value is not None}
        head.answer = known or None
        if self.created_at is not None:
            head.created_at = self.created_at
        return rows

    def _rows(self, owner: Owner, media: Media, param: str) -> list[Item]:
        if self.items is not None:
            return rows_of_items(self.items, media, f"{param}.items")
        names = ("content", "reasoning_content", "tool_calls", "tool_call_id")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.role == "assistant" and given.get("content") in ("", []):
            del given["content"]
        message = {"role": self.role, **given}
        if given.keys() & {"content", "tool_calls"} or self.role != "assistant":
            message = checked_message(message, owner, param)
        # Else an answer that ended before its first token.
        return message_rows(message, media, param=param)


class ImportedSession(SessionUpdate):
    """The session of an export."""

    id: Any = None
    object: Any = None
    workspace: Any = None
    message_count: Any = None
    created_at: Moment | None = None
    updated_at: Moment | None = None


class SessionImport(RequestBody):
    """An export of a session."""

    max_nodes: ClassVar[int] = 400_000

    object: Literal["chat.session.export"]
    version: Literal[1]
    session: ImportedSession
    messages: list[ImportedMessage] = Field(max_length=MAX_MESSAGES, fail_fast=True)


session_import = Endpoint(tags=TAGS)


@session_import.post(
    scope=SCOPE, owner=True, body=SessionImport, response=SessionAnswer, status=201
)
def import_session(admission: Admission[SessionImport]) -> dict[str, Any]:
    """Import a session from an export. It and its messages get new ids."""
    owner, body = Owner.of(admission.caller), admission.body
    sent = body.session
    row = Conversation(owner=owner.text, user_id=owner.user_id, workspace=owner.workspace)
    if not owner.workspace:
        sent.model_fields_set.discard("visibility")
    try:
        change(row, sent, owner)
    except InvalidRequest as error:
        if error.param is not None:
            error.message = error.message.replace(f"'{error.param}'", f"'session.{error.param}'")
            error.param = f"session.{error.param}"
        raise
    media = Media()
    heads, planted = _messages(body.messages, owner, media)
    leaf = heads[body.messages[-1].id] if body.messages else None
    if "current_message_id" in sent.model_fields_set:
        leaf = _parent(heads, sent.current_message_id, "session.current_message_id")
    with stored(media):
        row.save(force_insert=True)
        plant(row, planted)
        set_leaf(row, leaf)
        row.created_at = sent.created_at or row.created_at
        row.active_at = row.updated_at = sent.updated_at or now()
        row.save()
    return present(row)


def _messages(
    messages: list[ImportedMessage], owner: Owner, media: Media
) -> tuple[dict[str, Item], list[tuple[Item | None, list[Item]]]]:
    """Return the heads of the new messages by their ids in the export, and for each message the
    head of that which it follows and its rows.

    Raises:
        InvalidRequest: A message is invalid, or follows none before it, as in a cycle.
    """
    heads: dict[str, Item] = {}
    planted: list[tuple[Item | None, list[Item]]] = []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        if message.id in heads:
            raise InvalidRequest(
                f"Invalid value for '{param}.id': another message has it.", param=f"{param}.id"
            )
        parent = _parent(heads, message.parent_id, f"{param}.parent_id")
        rows = message.rows(owner, media, param)
        planted.append((parent, rows))
        heads[message.id] = next(row for row in rows if row.head_id is None)
    return heads, planted


def _parent(heads: dict[str, Item], message_id: str | None, param: str) -> Item | None:
    if message_id is None:
        return None
    found = heads.get(message_id)
    if found is None:
        raise InvalidRequest(
            f"Invalid value for '{param}': no message before this has the id {message_id[:100]!r}.",
            param=param,
        )
    return found
