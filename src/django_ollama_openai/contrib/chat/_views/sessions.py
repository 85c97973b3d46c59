"""``api/chat/sessions/``: sessions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from django.db import transaction
from django.utils.timezone import now
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError, to_json

from ...._ids import parse_public_id, public_id
from ...._wire.case import to_camel, to_snake
from ...._wire.chat import ChatCompletionRequest
from ...._wire.responses import Metadata
from ....endpoints import Admission, Endpoint, RequestBody
from ....exceptions import InvalidRequest, NotFound
from ..._lists import Deleted, ListAnswer, ListQuery, page, unknown_cursor
from .._store import search
from .._store.files import Media, inline, stored
from .._store.messages import message_rows
from .._store.retention import delete_conversations
from .._store.runs import check_unlocked
from .._store.tree import append, set_leaf
from ..models import MAX_MODEL, MAX_TITLE, Conversation, Item, Visibility
from .callers import (
    SCOPE,
    Owner,
    find_conversation,
    lock_session,
    message_of,
    rename_field,
)

__all__ = [
    "TAGS",
    "SessionAnswer",
    "Title",
    "change",
    "checked_message",
    "present",
    "session",
    "sessions",
]

T = TypeVar("T")

TAGS: Final = {"Sessions": "Sessions of users with models, and their messages"}
MAX_MESSAGES: Final = 1_000
MAX_INSTRUCTIONS: Final = 200_000
#: Bytes of JSON. The parameters and the tools of a session go into each of its requests.
MAX_JSON: Final = 200_000
#: Parameters of chat completions that a session has elsewhere, or that are of one answer.
NO_PARAMETERS: Final = frozenset(
    {"background", "function_call", "functions", "messages", "metadata", "model", "n", "store"}
    | {"stream", "tools"}
)


def _limited(value: T) -> T:
    if len(to_json(value)) > MAX_JSON:
        raise PydanticCustomError("size", f"Input should have at most {MAX_JSON} bytes of JSON")
    return value


Title = Annotated[str, StringConstraints(max_length=MAX_TITLE)]


class SessionChange(RequestBody):
    """The fields of a session that can be changed."""

    title: Title = ""
    model: Annotated[str, StringConstraints(max_length=MAX_MODEL, min_length=1)] | None = None
    instructions: Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS)] | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_limited)] = Field(default_factory=dict)
    tools: Annotated[list[dict[str, Any]], AfterValidator(_limited)] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    visibility: Literal["private", "workspace"] = "private"
    archived: bool = False
    pinned: bool = False


class SessionUpdate(SessionChange):
    """A change of a session."""

    current_message_id: str | None = None


class NewSession(SessionChange):
    """A session to create, perhaps with its history."""

    messages: list[dict[str, Any]] = Field(
        default_factory=list, max_length=MAX_MESSAGES, fail_fast=True
    )


class SessionAnswer(BaseModel):
    """A session."""

    id: str
    object: Literal["chat.session"] = "chat.session"
    title: str
    model: str | None
    instructions: str | None
    parameters: dict[str, Any]
    tools: list[dict[str, Any]]
    metadata: dict[str, str]
    visibility: Visibility
    workspace: str | None
    archived: bool
    pinned: bool
    current_message_id: str | None
    message_count: int
    created_at: datetime
    updated_at: datetime


def present(row: Conversation) -> dict[str, Any]:
    """Return the JSON of a session."""
    leaf = row.leaf_id
    return SessionAnswer(
        id=row.public_id,
        title=row.title,
        model=row.model or None,
        instructions=row.instructions or None,
        parameters=row.parameters,
        tools=row.tools,
        metadata=row.metadata,
        visibility=Visibility(row.visibility),
        workspace=row.workspace if row.visibility == Visibility.WORKSPACE else None,
        archived=row.archived,
        pinned=row.pinned,
        current_message_id=None if leaf is None else public_id("msg", leaf),
        message_count=row.message_count,
        created_at=row.created_at,
        updated_at=max(row.updated_at, row.active_at),
    ).model_dump(mode="json")


class SessionQuery(ListQuery):
    """The query parameters of the list of sessions."""

    q: str | None = Field(None, max_length=1_000)
    archived: Literal["true", "false", "all"] = "false"
    pinned: bool | None = None
    workspace: str | None = None


sessions = Endpoint(tags=TAGS)


@sessions.get(scope=SCOPE, owner=True, query=SessionQuery, response=ListAnswer[SessionAnswer])
def list_sessions(admission: Admission[None]) -> dict[str, Any]:
    """List sessions, the latest activity first."""
    owner, query = Owner.of(admission.caller), admission.query
    rows = owner.conversations()
    if query.workspace is not None:
        rows = owner.shared() if query.workspace == owner.workspace else rows.none()
    if query.pinned is not None:
        rows = rows.filter(pinned=query.pinned)
    if query.q is not None:
        rows = search.matching(rows, query.q)
    kinds = {"true": [True], "false": [False], "all": [False, True]}[query.archived]
    if query.after is not None:
        pk = parse_public_id(Conversation.prefix, query.after)
        last = None if pk is None else rows.filter(pk=pk, archived__in=kinds).first()
        if last is None:
            raise unknown_cursor(query.after)
        # The first condition is for the index.
        rows = rows.filter(active_at__lte=last.active_at).exclude(
            active_at=last.active_at, pk__gte=last.pk
        )
    # Each in the order of the index, so that no database reads and sorts them all.
    parts = [rows.filter(archived=kind).order_by("-active_at", "-id") for kind in kinds]
    found = [row for part in parts for row in part[: query.limit + 1]]
    found.sort(key=lambda row: (row.active_at, row.pk), reverse=True)
    data = [present(row) for row in found[: query.limit]]
    return page(data, has_more=len(found) > query.limit)


@sessions.post(scope=SCOPE, owner=True, body=NewSession, response=SessionAnswer, status=201)
def create_session(admission: Admission[NewSession]) -> dict[str, Any]:
    """Create a session."""
    owner, body = Owner.of(admission.caller), admission.body
    row = Conversation(owner=owner.text, user_id=owner.user_id)
    change(row, body, owner)
    media = Media()
    items = _rows(body.messages, owner, media)
    with stored(media):
        row.save(force_insert=True)
        if items:
            append(row, items, None)
            heads = [item for item in items if item.head_id is None]
            set_leaf(row, heads[-1], count=len(heads))
            row.save()
    return present(row)


def _rows(messages: list[dict[str, Any]], owner: Owner, media: Media) -> list[Item]:
    """Return new rows for a history that a client sends.

    Raises:
        InvalidRequest: A message is invalid.
    """
    rows: list[Item] = []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        rows += message_rows(checked_message(message, owner, param), media, param=param)
    return rows


def checked_message(message: dict[str, Any], owner: Owner, param: str) -> dict[str, Any]:
    """Return ``message``, which a client sends, in snake_case and with its images inside.

    Raises:
        InvalidRequest: It is no message of a chat completion; the error names the field below
            ``param``.
    """
    content = inline(message.get("content"), owner.text, f"{param}.content".lstrip("."))
    try:
        request = ChatCompletionRequest.from_dict({"messages": [{**message, "content": content}]})
    except InvalidRequest as error:
        rename_field(error, "messages[0]", param)
        raise
    return request.messages[0].dump_sent()


session = Endpoint(tags=TAGS)


@session.get(scope=SCOPE, owner=True, response=SessionAnswer, errors=(NotFound,))
def retrieve_session(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a session."""
    owner = Owner.of(admission.caller)
    return present(find_conversation(owner, admission.captured["session_id"]))


@session.patch(
    scope=SCOPE, owner=True, body=SessionUpdate, response=SessionAnswer, errors=(NotFound,)
)
def update_session(admission: Admission[SessionUpdate]) -> dict[str, Any]:
    """Change a session."""
    owner, body = Owner.of(admission.caller), admission.body
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    with transaction.atomic():
        row = lock_session(found)
        change(row, body, owner)
        if "current_message_id" in body.model_fields_set:
            check_unlocked(row)
            _choose_leaf(row, body.current_message_id)
        row.save()
    return present(row)


@session.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_session(admission: Admission[None]) -> dict[str, Any]:
    """Delete a session with its messages."""
    owner = Owner.of(admission.caller)
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    delete_conversations([found.pk])
    return Deleted(id=found.public_id, object="chat.session.deleted").model_dump()


def change(row: Conversation, body: SessionChange, owner: Owner) -> None:
    """Set the fields of ``row`` that ``body`` names.

    Raises:
        InvalidRequest: A field is invalid.
    """
    names = body.model_fields_set & SessionChange.model_fields.keys()
    if "visibility" in names and body.visibility == "workspace":
        if not owner.workspace:
            raise InvalidRequest(
                "Invalid value for 'visibility': you are in no workspace.", param="visibility"
            )
        row.workspace = owner.workspace
    for name in names:
        value = getattr(body, name)
        setattr(row, name, "" if value is None else value)
    if names & {"parameters", "tools"}:
        _check_parameters(row)
    row.updated_at = now()


def _choose_leaf(row: Conversation, message_id: str | None) -> None:
    """Make the branch of the message with the id ``message_id`` the current one.

    Raises:
        InvalidRequest: It is no message of the session.
    """
    head = None if message_id is None else message_of(row, message_id)
    if message_id is not None and head is None:
        raise InvalidRequest(
            f"There is no message {message_id[:100]!r} in this session.", param="current_message_id"
        )
    set_leaf(row, head)


def _check_parameters(row: Conversation) -> None:
    """Check the parameters and the tools of ``row``, as those of a chat completion.

    Raises:
        InvalidRequest: One is invalid.
    """
    for name in row.parameters:
        if to_snake(name) in NO_PARAMETERS:
            raise InvalidRequest(
                f"Invalid value for 'parameters.{name}': it is no parameter of a session.",
                param=f"parameters.{name}",
            )
    sample = {**row.parameters, "messages": [{"role": "user", "content": "."}]}
    if row.tools:
        sample["tools"] = row.tools
    else:
        # A message may bring the tools.
        for name in ("tool_choice", to_camel("tool_choice")):
            sample.pop(name, None)
    try:
        ChatCompletionRequest.from_dict(sample)
    except InvalidRequest as error:
        name = re.split(r"[.\[]", error.param or "")[0]
        if name not in ("", "tools"):
            rename_field(error, name, f"parameters.{name}")
        raise
