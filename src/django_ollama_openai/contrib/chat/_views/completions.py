"""``v1/chat/completions``: chat completions that clients want to be stored."""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired

from django.db import IntegrityError
from pydantic import Field
from typing_extensions import TypedDict

from ...._ids import uuid7
from ...._threads import in_separate_thread
from ...._views.engine import CREATE_CHAT_COMPLETION, chat_completions
from ...._wire.base import WireModel
from ...._wire.chat import ChatCompletionRequest
from ...._wire.response_models.chat import ChatCompletion
from ...._wire.responses import Metadata
from ....endpoints import (
    Admission,
    BaseRecorder,
    ChatCompletionStream,
    Endpoint,
    Flow,
    Record,
    Reply,
    RequestBody,
    WholeChatCompletion,
    chat_writer,
    run_chat,
)
from ....exceptions import NotFound
from ..._group_writer import GroupWriter
from ..._lists import Deleted, ListQuery, page, unknown_cursor
from .._answers.recorder import CANCELLED
from .._store.completions import (
    add_completion,
    add_completions,
    complete,
    completion_key,
    message_rows,
    messages_of,
    present,
    repeated_fields,
    with_metadata,
)
from .._store.files import Media
from .._store.retention import delete_completions, is_deleted
from .._store.text import storable
from ..models import Completion
from .callers import SCOPE, Owner

__all__ = ["completion", "completion_messages", "completions"]

TAGS: Final = {"Stored completions": "Chat completions that were stored"}


class StoredChatCompletion(ChatCompletion):
    """A stored chat completion, with parameters of its request."""

    metadata: dict[str, str]
    request_id: str
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    seed: int | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    input_user: str | None
    service_tier: str | None


class CompletionList(TypedDict):
    """A page of a list of stored chat completions."""

    object: Literal["list"]
    data: list[StoredChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredMessage(TypedDict):
    """A message of the request for a stored chat completion. Its content is in ``content_parts`` if
    it was sent as parts."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, Any]] | None
    name: str | None
    refusal: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    reasoning: NotRequired[str | None]
    tool_calls: NotRequired[list[dict[str, Any]] | None]
    function_call: NotRequired[dict[str, Any] | None]
    tool_call_id: NotRequired[str]


class MessageList(TypedDict):
    """A page of a list of messages."""

    object: Literal["list"]
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageQuery(ListQuery):
    """The query parameters of the list of the messages of a completion."""

    order: Literal["asc", "desc"] = "asc"


class CompletionQuery(MessageQuery):
    """The query parameters of the list of stored completions."""

    model: str | None = None
    metadata: Metadata = Field(default_factory=dict)


class CompletionChange(RequestBody):
    """The fields of a stored completion that can be changed."""

    metadata: Metadata | None


class StoreOptions(WireModel):
    """The fields of a request for a chat completion that only matter if it is stored."""

    store: bool | None = None
    metadata: Metadata | None = None
    user: str | None = None
    service_tier: str | None = None


class CompletionRecorder(BaseRecorder):
    """Stores a chat completion that has finished."""

    def __init__(
        self,
        row: Completion,
        media: Media,
        writer: ChatCompletionStream | WholeChatCompletion,
    ) -> None:
        self._row = row
        self._media = media
        self._writer = writer

    def record(self, record: Record) -> None:
        if record.error is None and record.finish_reason != CANCELLED:
            complete(self._row, self._writer.completion("snake"))
            _add(self._row, self._media)

    async def arecord(self, record: Record) -> None:
        if self._media.found:
            await in_separate_thread(self.record, record)
        elif record.error is None and record.finish_reason != CANCELLED:
            complete(self._row, self._writer.completion("snake"))
            await _inserts.write(self._row)


def _add(row: Completion, media: Media | None = None) -> None:
    try:
        add_completion(row, media or Media())
    except IntegrityError:
        # As if the user had been deleted after it was stored.
        if not is_deleted(row.user_id):
            raise


_inserts: Final = GroupWriter("completions", add_completions, _add)


completions = Endpoint(tags={**chat_completions.tags, **TAGS})


@completions.post(**CREATE_CHAT_COMPLETION)
def create_chat_completion(admission: Admission[ChatCompletionRequest]) -> Flow[Reply]:
    """Create a chat completion, and store it if the client wants that."""
    further = admission.body.model_extra or {}
    if not further.get("store") or admission.caller.owner is None:
        return (yield from run_chat(admission))
    options = StoreOptions.from_dict(further)
    owner, media = Owner.of(admission.caller), Media()
    row = Completion(
        id=uuid7(),
        owner=owner.text,
        user_id=owner.user_id,
        model=admission.engine_route.name,
        metadata=options.metadata or {},
        body=repeated_fields(admission.body, admission.request_id),
    )
    row.messages = message_rows(admission.body, row, media)
    writer = chat_writer(admission, id=row.public_id, is_kept=True)
    recorder = CompletionRecorder(row, media, writer)
    return (yield from run_chat(admission, recorder=recorder, writer=writer))


@completions.get(
    scope=SCOPE, owner=True, query=CompletionQuery, response=CompletionList, tags=tuple(TAGS)
)
def list_chat_completions(admission: Admission[None]) -> dict[str, Any]:
    """List stored chat completions, by default the oldest first."""
    query = admission.query
    rows = _owned(admission).defer("messages")
    if query.model is not None:
        rows = rows.filter(model=query.model)
    rows = with_metadata(rows, query.metadata)
    is_descending = query.order == "desc"
    if query.after is not None:
        last = completion_key(query.after)
        if last is None or not rows.filter(pk=last).exists():
            raise unknown_cursor(query.after)
        rows = rows.filter(pk__lt=last) if is_descending else rows.filter(pk__gt=last)
    found = list(rows.order_by("-pk" if is_descending else "pk")[: query.limit + 1])
    data = [present(row) for row in found[: query.limit]]
    return page(data, has_more=len(found) > query.limit)


completion = Endpoint(tags=TAGS)


@completion.get(scope=SCOPE, owner=True, response=StoredChatCompletion, errors=(NotFound,))
def retrieve_chat_completion(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a stored chat completion."""
    return present(_find(admission))


@completion.post(
    scope=SCOPE,
    owner=True,
    body=CompletionChange,
    response=StoredChatCompletion,
    errors=(NotFound,),
)
def update_chat_completion(admission: Admission[CompletionChange]) -> dict[str, Any]:
    """Change the metadata of a stored chat completion."""
    row = _find(admission)
    row.metadata = storable(admission.body.metadata or {})
    if not _owned(admission).filter(pk=row.pk).update(metadata=row.metadata):
        # It was deleted meanwhile.
        raise _not_found(row.public_id)
    return present(row)


@completion.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_chat_completion(admission: Admission[None]) -> dict[str, Any]:
    """Delete a stored chat completion."""
    row = _find(admission)
    delete_completions([row.pk])
    return Deleted(id=row.public_id, object="chat.completion.deleted").model_dump()


completion_messages = Endpoint(tags=TAGS)


@completion_messages.get(
    scope=SCOPE, owner=True, query=MessageQuery, response=MessageList, errors=(NotFound,)
)
def list_chat_completion_messages(admission: Admission[None]) -> dict[str, Any]:
    """List the messages of the request for a stored chat completion."""
    row, query = _find(admission), admission.query
    numbers = list(range(len(row.messages)))
    if query.order == "desc":
        numbers.reverse()
    if query.after is not None:
        ids = [f"{row.public_id}-{number}" for number in numbers]
        if query.after not in ids:
            raise unknown_cursor(query.after)
        numbers = numbers[ids.index(query.after) + 1 :]
    data = messages_of(row, numbers[: query.limit])
    return page(data, has_more=len(numbers) > query.limit)


def _owned(admission: Admission[Any]) -> Any:
    return Completion.objects.filter(owner=Owner.of(admission.caller).text)


def _find(admission: Admission[Any]) -> Completion:
    """Return the caller's completion whose id is in the path.

    Raises:
        NotFound: It does not exist.
    """
    public = admission.captured["completion_id"]
    key = completion_key(public)
    found: Completion | None = None if key is None else _owned(admission).filter(pk=key).first()
    if found is None:
        raise _not_found(public)
    return found


def _not_found(public: str) -> NotFound:
    return NotFound(f"Chat completion with id '{public[:100]}' not found.")
