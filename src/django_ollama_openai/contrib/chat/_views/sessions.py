"""``api/chat/sessions/``: sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from django.db import transaction
from django.db.models import Q
from django.utils.timezone import now
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, TypeAdapter

from ...._ids import public_id
from ...._wire.chat import ChatCompletionRequest, Message
from ...._wire.responses import Metadata
from ....endpoints import Admission, Endpoint, RequestBody
from ....exceptions import InvalidRequest, NotFound
from ..._lists import Deleted, ListAnswer, ListQuery
from .._store import search
from .._store.files import Media, inline, stored
from .._store.messages import message_rows
from .._store.runs import check_unlocked, lock_row
from .._store.tree import append, set_leaf
from ..models import MAX_MODEL, MAX_TITLE, Conversation, Item, Visibility
from .callers import SCOPE, Owner, find_conversation, message_of

__all__ = ["present", "session", "sessions"]

TAGS: Final = {"Sessions": "Sessions of users with models, and their messages"}
MAX_MESSAGES: Final = 1_000
MAX_INSTRUCTIONS: Final = 200_000
#: Parameters of chat completions that a session has elsewhere, or that are of one answer.
NO_PARAMETERS: Final = ("messages", "model", "tools", "stream", "n", "store", "metadata")


def storable(text: str) -> str:
    """Return ``text`` without NUL, which PostgreSQL does not store."""
    return text.replace("\x00", "\ufffd")


Text = Annotated[str, AfterValidator(storable)]
Title = Annotated[str, StringConstraints(max_length=MAX_TITLE), AfterValidator(storable)]
Model = Annotated[str, StringConstraints(max_length=MAX_MODEL, min_length=1)]


class SessionChange(RequestBody):
    """The fields of a session that can be changed."""

    title: Title = ""
    model: Model | None = None
    instructions: Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    visibility: Literal["private", "workspace"] = "private"
    archived: bool = False
    pinned: bool = False
    current_message_id: str | None = None


class NewSession(SessionChange):
    """A session to create, perhaps with its history."""

    current_message_id: None = None
    messages: list[dict[str, Any]] = Field(default_factory=list, max_length=MAX_MESSAGES)


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
        workspace=row.workspace or None,
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
        rows = owner.readable().filter(workspace=query.workspace, visibility=Visibility.WORKSPACE)
        if query.workspace != owner.workspace:
            rows = rows.none()
    if query.archived != "all":
        rows = rows.filter(archived=query.archived == "true")
    if query.pinned is not None:
        rows = rows.filter(pinned=query.pinned)
    if query.q is not None:
        rows = search.matching(rows, query.q)
    if query.after is not None:
        try:
            last = find_conversation(owner, query.after)
        except NotFound:
            last = None
        if last is None or not rows.filter(pk=last.pk).exists():
            raise InvalidRequest(f"There is no {query.after[:100]!r} in this list.", param="after")
        rows = rows.filter(
            Q(active_at__lt=last.active_at) | Q(active_at=last.active_at, pk__lt=last.pk)
        )
    found = list(rows.order_by("-active_at", "-id")[: query.limit + 1])
    data = [present(row) for row in found[: query.limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > query.limit,
    }


@sessions.post(scope=SCOPE, owner=True, body=NewSession, response=SessionAnswer, status=201)
def create_session(admission: Admission[NewSession]) -> dict[str, Any]:
    """Create a session."""
    owner, body = Owner.of(admission.caller), admission.body
    row = Conversation(owner=owner.text, user_id=owner.user_id, workspace=owner.workspace)
    _change(row, body, body.model_fields_set - {"messages"}, owner)
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


_MESSAGE: Final = TypeAdapter(Message)


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
        named = f"{param}".rstrip(".")
        error.message = error.message.replace("messages[0]", named).replace("'.", "'")
        if error.param is not None:
            error.param = error.param.replace("messages[0]", named).lstrip(".") or None
        raise
    return request.messages[0].model_dump(exclude_unset=True)


session = Endpoint(tags=TAGS)


@session.get(scope=SCOPE, owner=True, response=SessionAnswer, errors=(NotFound,))
def retrieve_session(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a session."""
    owner = Owner.of(admission.caller)
    return present(find_conversation(owner, admission.captured["session_id"]))


@session.patch(
    scope=SCOPE, owner=True, body=SessionChange, response=SessionAnswer, errors=(NotFound,)
)
def update_session(admission: Admission[SessionChange]) -> dict[str, Any]:
    """Change a session."""
    owner, body = Owner.of(admission.caller), admission.body
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    with transaction.atomic():
        row = lock_row(found.pk, owner.text)
        _change(row, body, body.model_fields_set, owner)
        row.save()
    return present(row)


@session.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_session(admission: Admission[None]) -> dict[str, Any]:
    """Delete a session with its messages."""
    owner = Owner.of(admission.caller)
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    public = found.public_id
    found.delete()
    return Deleted(id=public, object="chat.session.deleted").model_dump()


def _change(row: Conversation, body: SessionChange, names: set[str], owner: Owner) -> None:
    """Set the fields ``names`` of ``row`` to those of ``body``.

    Raises:
        InvalidRequest: A field is invalid.
    """
    if names & {"parameters", "tools"}:
        _check_parameters(body, names)
    if "visibility" in names and body.visibility == "workspace" and not row.workspace:
        if not owner.workspace:
            raise InvalidRequest(
                "Invalid value for 'visibility': you are in no workspace.", param="visibility"
            )
        row.workspace = owner.workspace
    for name in names - {"current_message_id", "model", "instructions"}:
        setattr(row, name, getattr(body, name))
    for name in names & {"model", "instructions"}:
        setattr(row, name, getattr(body, name) or "")
    if "current_message_id" in names:
        check_unlocked(row)
        head = None
        if body.current_message_id is not None:
            head = message_of(row, body.current_message_id)
            if head is None:
                raise InvalidRequest(
                    f"There is no message {body.current_message_id[:100]!r} in this session.",
                    param="current_message_id",
                )
        set_leaf(row, head)
    row.updated_at = now()


def _check_parameters(body: SessionChange, names: set[str]) -> None:
    for name in NO_PARAMETERS:
        if name in body.parameters:
            raise InvalidRequest(
                f"Invalid value for 'parameters.{name}': it is no parameter of a session.",
                param=f"parameters.{name}",
            )
    sample = {"messages": [{"role": "user", "content": "."}], **body.parameters}
    if body.tools:
        sample["tools"] = body.tools
    else:
        # It would need the tools, which a message may bring.
        sample.pop("tool_choice", None)
    try:
        ChatCompletionRequest.from_dict(sample)
    except InvalidRequest as error:
        if error.param is not None and not error.param.startswith("tools"):
            error.message = error.message.replace(f"'{error.param}'", f"'parameters.{error.param}'")
            error.param = f"parameters.{error.param}"
        raise
