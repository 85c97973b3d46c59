"""``api/chat/sessions/{id}/messages/``: the messages of a session, and answers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, NotRequired

from django.db import transaction
from django.http.response import HttpResponseBase
from pydantic import BaseModel
from typing_extensions import TypedDict

from ...._gateway.flow import Flow
from ...._ids import public_id
from ...._translation.spelling import Speller
from ...._views.http_responses import json_response
from ...._wire.base import WireModel
from ...._wire.response_models.chat import ChatCompletion, ChatCompletionChunk
from ...._wire.response_models.common import CompletionUsage, ErrorDetails
from ...._wire.responses import Metadata
from ....endpoints import Admission, Endpoint, RequestBody, admit_without_engine
from ....exceptions import InvalidRequest, NotFound
from ..._lists import Deleted, ListAnswer, ListQuery, page, unknown_cursor
from .._store.files import Media, stored
from .._store.items import Locate
from .._store.messages import (
    content_of,
    head_of,
    message_rows,
    reasoning_of,
    role_of,
    tool_calls_of,
)
from .._store.runs import check_unlocked, end_expired
from .._store.tree import append, delete_message, group_of, groups_of, path_to, set_leaf, siblings
from ..models import Conversation, Item, Run, Status
from .answers import Question, answer, in_store
from .callers import (
    SCOPE,
    Owner,
    find_conversation,
    find_message,
    locate,
    lock_session,
    message_of,
)
from .sessions import TAGS, checked_message

__all__ = ["SessionChunk", "message", "messages", "present_one", "regeneration"]


class ImageAddress(TypedDict):
    """The address of an image, for its owner, and its detail."""

    url: str
    detail: NotRequired[str]


class AudioData(TypedDict):
    """Audio."""

    data: str
    format: str


class ContentPart(TypedDict):
    """A part of a content: text, a refusal, an image or audio."""

    type: str
    text: NotRequired[str]
    refusal: NotRequired[str]
    image_url: NotRequired[ImageAddress]
    input_audio: NotRequired[AudioData]


class MessageAnswer(BaseModel):
    """A message of a session."""

    id: str
    object: Literal["chat.message"] = "chat.message"
    session_id: str
    parent_id: str | None
    role: str
    content: str | list[ContentPart]
    reasoning_content: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    status: Status
    finish_reason: str | None
    model: str | None
    usage: CompletionUsage | None
    error: ErrorDetails | None
    created_at: datetime
    sibling_ids: list[str]
    metadata: dict[str, str]
    #: The number of older messages that the model's context had no room for; missing if none.
    truncated_messages: int = 0


class SessionCompletion(ChatCompletion):
    """The answer to a message of a session: a chat completion, with the ids of the session, of the
    answer, and of the message that it answers."""

    session_id: str
    message_id: str
    user_message_id: str | None
    truncated_messages: NotRequired[int]


class SessionChunk(ChatCompletionChunk):
    """A chunk of an answer in a session. The first one has the ids; the last one the number of
    messages that were left out, if any were."""

    sequence_number: int
    session_id: NotRequired[str]
    message_id: NotRequired[str]
    user_message_id: NotRequired[str | None]
    truncated_messages: NotRequired[int]


class AnswerRequest(WireModel):
    """The parameters of an answer: those of chat completions, and these."""

    model: str | None = None
    stream: bool | None = None
    background: bool | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the chat completion.

        Raises:
            InvalidRequest: The request has messages of its own, or wants several choices.
        """
        fields = dict(self.model_extra or {})
        for name, advice in _REFUSED.items():
            if fields.get(name) is not None:
                raise InvalidRequest(f"Unsupported parameter: '{name}'. {advice}", param=name)
        if fields.get("n") not in (None, 1):
            raise InvalidRequest(
                "Invalid value for 'n': a session gets one answer at a time.", param="n"
            )
        # Stored anyway.
        fields.pop("store", None)
        return fields if self.model is None else {**fields, "model": self.model}


_REFUSED: Final = {
    "messages": "The session has the history; send the new message as 'content'.",
    "functions": "Send 'tools'.",
    "function_call": "Send 'tool_choice'.",
    "functionCall": "Send 'tool_choice'.",
}


class NewMessage(AnswerRequest):
    """A message to add, and to answer unless ``reply`` is false."""

    role: Literal["user", "assistant", "system", "developer", "tool"] = "user"
    content: Any = None
    parent_id: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    reply: bool = True
    metadata: Metadata | None = None

    @property
    def message(self) -> dict[str, Any]:
        """Return the message as a request for a chat completion has it."""
        names = ("content", "tool_call_id", "tool_calls", "reasoning_content", "refusal")
        fields = {name: getattr(self, name) for name in names}
        return {
            "role": self.role,
            **{name: value for name, value in fields.items() if value is not None},
        }


class MessageChange(RequestBody):
    """A change of a message: new content makes a sibling of it."""

    content: Any = None
    metadata: Metadata | None = None


class MessageQuery(ListQuery):
    """The query parameters of the list of messages."""

    all: bool = False


def present_all(
    conversation: Conversation, groups: Sequence[list[Item]], locate: Locate
) -> list[dict[str, Any]]:
    """Return the JSON of messages, each the rows of one."""
    heads = list(map(head_of, groups))
    by_parent = siblings(heads)
    running = [head for head in heads if head.status == Status.IN_PROGRESS]
    runs = {run.item_id: run for run in Run.objects.filter(item__in=running)} if running else {}
    return [
        _present(conversation, head, rows, by_parent[head.pk], locate, runs.get(head.pk))
        for head, rows in zip(heads, groups, strict=True)
    ]


def _present(
    conversation: Conversation,
    head: Item,
    rows: Sequence[Item],
    sibling_ids: Sequence[Any],
    locate: Locate,
    run: Run | None,
) -> dict[str, Any]:
    if run is not None:
        if end_expired(run):
            head.refresh_from_db()
            rows = group_of(head)
        else:
            head, rows = _so_far(head, run)
    made = head.answer or {}
    truncated = {key: made[key] for key in ("truncated_messages",) if key in made}
    is_tool = head.type.endswith("_output")
    return MessageAnswer(
        id=head.message_id,
        object="chat.message",
        session_id=conversation.public_id,
        parent_id=None if head.parent_id is None else public_id("msg", head.parent_id),
        role=role_of(head),
        content=content_of(head, locate),
        reasoning_content=reasoning_of(rows),
        tool_calls=tool_calls_of(rows),
        tool_call_id=head.data.get("call_id") if is_tool else None,
        status=Status(head.status),
        finish_reason=made.get("finish_reason"),
        model=made.get("model"),
        usage=made.get("usage"),
        error=made.get("error"),
        created_at=head.created_at,
        sibling_ids=[public_id("msg", pk) for pk in sibling_ids],
        metadata=head.metadata,
        **truncated,
    ).model_dump(mode="json", exclude_unset=True)


def _so_far(head: Item, run: Run) -> tuple[Item, list[Item]]:
    """Return the message of a running answer, as far as it is stored."""
    rows = []
    for item in run.output:
        data = {key: value for key, value in item.items() if key not in ("id", "type", "role")}
        if item["type"] == "message":
            head.data = data
        else:
            rows.append(Item(type=item["type"], data=data, head_id=head.pk))
    return head, [*rows, head]


def present_one(
    admission: Admission[Any], conversation: Conversation, head: Item
) -> dict[str, Any]:
    """Return the JSON of the message ``head``."""
    return present_all(conversation, [group_of(head)], locate(admission))[0]


messages = Endpoint(tags=TAGS)


@messages.get(
    scope=SCOPE,
    owner=True,
    query=MessageQuery,
    response=ListAnswer[MessageAnswer],
    errors=(NotFound,),
)
def list_messages(admission: Admission[None]) -> dict[str, Any]:
    """List the messages of the current branch, the oldest first; with ``all``, those of all
    branches."""
    owner, query = Owner.of(admission.caller), admission.query
    row = find_conversation(owner, admission.captured["session_id"])
    path = path_to(row.leaf)
    last = None
    if query.after is not None:
        last = message_of(row, query.after)
        if last is None or not (query.all or path.has(last)):
            raise unknown_cursor(query.after)
    above = None if last is None else last.sequence
    if query.all:
        rows = Item.objects.filter(conversation=row, head=None)
        if above is not None:
            rows = rows.filter(sequence__gt=above)
        heads = list(rows.order_by("sequence")[: query.limit + 1])
    else:
        heads = path.oldest(query.limit + 1, above=above, head=None)
    shown = heads[: query.limit]
    data = present_all(row, groups_of(shown), locate(admission))
    return page(data, has_more=len(heads) > query.limit)


@messages.post(
    scope=SCOPE,
    owner=True,
    body=NewMessage,
    response=SessionCompletion,
    event=SessionChunk,
    makes_chat=True,
    errors=(NotFound,),
    further={201: "The message, which is not answered", 202: "The answer, which is in progress"},
)
def create_message(admission: Admission[NewMessage]) -> Flow[Any]:
    """Add a message, and answer it."""
    owner, body = Owner.of(admission.caller), admission.body
    find = partial(_question, admission, owner, body)
    if body.reply:
        return (yield from _reply(admission, find))
    question = yield from in_store(find)
    return (yield from _keep(admission, question))


def _question(admission: Admission[NewMessage], owner: Owner, body: NewMessage) -> Question:
    row = find_conversation(owner, admission.captured["session_id"], writes=True)
    after, is_leaf = row.leaf, True
    if "parent_id" in body.model_fields_set:
        after, is_leaf = None, False
        if body.parent_id is not None:
            after = message_of(row, body.parent_id)
            if after is None:
                raise InvalidRequest(
                    f"There is no message {body.parent_id[:100]!r} in this session.",
                    param="parent_id",
                )
    # First: they advise those who send 'messages'.
    fields = body.parameters
    sent = checked_message(body.message, owner, "")
    media = Media()
    rows = message_rows(sent, media)
    head_of(rows).metadata = body.metadata or {}
    return Question(
        row,
        after,
        rows=rows,
        media=media,
        messages=[sent],
        fields=fields,
        is_leaf=is_leaf,
        is_stream=bool(body.stream),
        is_background=bool(body.background),
    )


def _keep(admission: Admission[Any], question: Question) -> Flow[HttpResponseBase]:
    """Store a message that is not to be answered."""
    yield from admit_without_engine(admission)
    found = yield from in_store(_add, admission, question)
    return _json(admission, found, 201)


def _add(admission: Admission[Any], question: Question) -> dict[str, Any]:
    with stored(question.media):
        row = lock_session(question.conversation)
        check_unlocked(row)
        after = row.leaf if question.is_leaf else question.existing()
        is_current = row.leaf_id == (None if after is None else after.pk)
        count = row.message_count + 1 if is_current else None
        append(row, question.rows, after)
        head = head_of(question.rows)
        set_leaf(row, head, count=count)
        row.save()
    return present_one(admission, row, head)


def _reply(admission: Admission[Any], find: Callable[[], Question]) -> Flow[Any]:
    """Answer the question that ``find`` returns; in the background, with the answer's message and
    the status 202."""

    def show(question: Question) -> Flow[HttpResponseBase]:
        shown = yield from in_store(_answer_so_far, admission, question)
        return _json(admission, shown, 202)

    return (yield from answer(admission, find, show))


def _answer_so_far(admission: Admission[Any], question: Question) -> dict[str, Any]:
    head = find_message(question.conversation, public_id("msg", question.answer_id))
    return present_one(admission, question.conversation, head)


_speller: Final = Speller(MessageAnswer)


def _json(admission: Admission[Any], value: dict[str, Any], status: int) -> HttpResponseBase:
    return json_response(_speller.spell(value, admission.mount.case), status=status)


message = Endpoint(tags=TAGS)


@message.get(scope=SCOPE, owner=True, response=MessageAnswer, errors=(NotFound,))
def retrieve_message(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a message."""
    row = find_conversation(Owner.of(admission.caller), admission.captured["session_id"])
    return present_one(admission, row, find_message(row, admission.captured["message_id"]))


@message.patch(
    scope=SCOPE,
    owner=True,
    body=MessageChange,
    response=MessageAnswer,
    errors=(NotFound,),
    further={201: "The new message beside the one with the old content"},
)
def update_message(admission: Admission[MessageChange]) -> Any:
    """Change a message: new content makes a sibling, which is not answered."""
    owner, body = Owner.of(admission.caller), admission.body
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    head = find_message(found, admission.captured["message_id"])
    if "content" not in body.model_fields_set:
        if "metadata" in body.model_fields_set:
            with transaction.atomic():
                head = find_message(lock_session(found), head.message_id)
                head.metadata = body.metadata or {}
                head.save(update_fields=["metadata"])
        return present_one(admission, found, head)
    sent: dict[str, Any] = {"role": role_of(head), "content": body.content}
    if sent["role"] == "tool":
        sent["tool_call_id"] = head.data.get("call_id")
    elif sent["role"] == "assistant" and (calls := tool_calls_of(group_of(head))):
        sent["tool_calls"] = calls
    media = Media()
    rows = message_rows(checked_message(sent, owner, ""), media)
    new = head_of(rows)
    is_kept = "metadata" not in body.model_fields_set
    new.metadata = head.metadata if is_kept else body.metadata or {}
    with stored(media):
        row = lock_session(found)
        check_unlocked(row)
        # It may have been moved up meanwhile.
        parent = find_message(row, head.message_id).parent
        append(row, rows, parent)
        set_leaf(row, new)
        row.save()
    return _json(admission, present_one(admission, row, new), 201)


@message.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_one(admission: Admission[None]) -> dict[str, Any]:
    """Delete a message; those that follow it move up to its parent."""
    owner = Owner.of(admission.caller)
    found = find_conversation(owner, admission.captured["session_id"], writes=True)
    head = find_message(found, admission.captured["message_id"])
    with transaction.atomic():
        row = lock_session(found)
        # Until the end of the transaction nothing may be added to what is deleted. The process that
        # writes the answer finds that its run is gone, and stops.
        list(Run.objects.select_for_update().filter(item=head))
        delete_message(row, find_message(row, head.message_id))
        row.save()
    return Deleted(id=head.message_id, object="chat.message.deleted").model_dump()


regeneration = Endpoint(tags=TAGS)


@regeneration.post(
    scope=SCOPE,
    owner=True,
    body=AnswerRequest,
    response=SessionCompletion,
    event=SessionChunk,
    makes_chat=True,
    errors=(NotFound,),
    further={202: "The answer, which is in progress"},
)
def regenerate_message(admission: Admission[AnswerRequest]) -> Flow[Any]:
    """Answer again: a sibling of an answer, or an answer to a user's message."""
    owner = Owner.of(admission.caller)
    return (yield from _reply(admission, partial(_again, admission, owner)))


def _again(admission: Admission[AnswerRequest], owner: Owner) -> Question:
    body = admission.body
    row = find_conversation(owner, admission.captured["session_id"], writes=True)
    head = find_message(row, admission.captured["message_id"])
    return Question(
        row,
        head.parent if role_of(head) == "assistant" else head,
        fields=body.parameters,
        is_stream=bool(body.stream),
        is_background=bool(body.background),
    )
