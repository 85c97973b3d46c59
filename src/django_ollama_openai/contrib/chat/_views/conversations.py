"""``v1/conversations…``: sessions, as OpenAI's Conversations API has them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from annotated_types import MaxLen
from django.db import transaction
from django.utils.timezone import now
from pydantic import Field
from typing_extensions import TypedDict

from ...._wire.base import FirstErrorOnly, WireModel
from ...._wire.responses import InputItem, ItemReference, Metadata
from ....endpoints import Admission, Endpoint
from ....exceptions import NotFound
from ..._lists import Deleted, unknown_cursor
from .._store.files import Media, load, stored
from .._store.items import as_openai, inlined, item_key, new_rows
from .._store.retention import delete_conversations
from .._store.runs import check_unlocked, lock_row
from .._store.tree import append, delete_item, path_to, set_leaf
from ..models import Conversation, Item
from .callers import SCOPE, Owner, find_conversation, locate
from .items import (
    ItemAnswer,
    ItemQuery,
    ItemsAnswer,
    RetrieveQuery,
    item_list,
    present,
    with_files,
)

__all__ = [
    "conversation",
    "conversation_item",
    "conversation_items",
    "conversations",
    "find",
    "find_item",
]

TAGS: Final = {"Conversations": "OpenAI's Conversations API"}
MAX_ITEMS: Final = 20

Items = Annotated[list[InputItem], MaxLen(MAX_ITEMS), FirstErrorOnly()]


class NewConversation(WireModel):
    """A conversation to create, perhaps with its first items."""

    items: Items | None = None
    metadata: Metadata | None = None


class ConversationChange(WireModel):
    """The new metadata of a conversation."""

    metadata: Metadata | None = Field(...)


class NewItems(WireModel):
    """Items to add to the end of a conversation."""

    items: Items


class ConversationAnswer(TypedDict):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


def present_conversation(row: Conversation) -> dict[str, Any]:
    """Return OpenAI's object for ``row``."""
    return {
        "id": row.public_id,
        "object": "conversation",
        "created_at": int(row.created_at.timestamp()),
        "metadata": row.metadata,
    }


def find(owner: Owner, public: str, *, writes: bool = False) -> Conversation:
    """Return the conversation with the id ``public``; raises as :func:`find_conversation` does."""
    return find_conversation(owner, public, writes=writes, label="Conversation")


def find_item(owner: Owner, public: str, **filters: Any) -> Item:
    """Return the item of ``owner`` with the id ``public``.

    Raises:
        NotFound: It does not exist for ``owner``.
    """
    pk = item_key(public)
    rows = Item.objects.filter(conversation__owner=owner.text, **filters)
    found = None if pk is None else rows.filter(pk=pk).first()
    if found is None:
        raise NotFound(f"Item with id '{public[:100]}' not found.")
    return found


def _rows(items: list[InputItem] | None, owner: Owner, media: Media) -> list[Item]:
    """Return new rows for ``items``; a reference becomes a copy of the item.

    Raises:
        GatewayError: An item does not exist, or has an invalid file.
    """
    sent: list[dict[str, Any]] = []
    for item in items or ():
        if isinstance(item, ItemReference):
            row = find_item(owner, item.id)
            sent.append(as_openai(row, inlined(load([row]))))
        else:
            sent.append(item.model_dump(exclude_unset=True))
    return new_rows(with_files(sent, owner.text, "items"), media)


def _append(row: Conversation, rows: list[Item]) -> None:
    heads = [item for item in rows if item.head_id is None]
    append(row, rows, row.leaf)
    if heads:
        set_leaf(row, heads[-1], count=row.message_count + len(heads))
    row.save()


conversations = Endpoint(tags=TAGS)


@conversations.post(scope=SCOPE, owner=True, body=NewConversation, response=ConversationAnswer)
def create_conversation(admission: Admission[NewConversation]) -> dict[str, Any]:
    """Create a conversation."""
    owner, body = Owner.of(admission.caller), admission.body
    row = Conversation(
        owner=owner.text,
        user_id=owner.user_id,
        workspace=owner.workspace,
        metadata=body.metadata or {},
    )
    media = Media()
    items = _rows(body.items, owner, media)
    with stored(media):
        row.save(force_insert=True)
        _append(row, items)
    return present_conversation(row)


conversation = Endpoint(tags=TAGS)


@conversation.get(scope=SCOPE, owner=True, response=ConversationAnswer, errors=(NotFound,))
def retrieve_conversation(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a conversation."""
    owner = Owner.of(admission.caller)
    return present_conversation(find(owner, admission.captured["conversation_id"]))


@conversation.post(
    scope=SCOPE,
    owner=True,
    body=ConversationChange,
    response=ConversationAnswer,
    errors=(NotFound,),
)
def update_conversation(admission: Admission[ConversationChange]) -> dict[str, Any]:
    """Change the metadata of a conversation."""
    owner = Owner.of(admission.caller)
    found = find(owner, admission.captured["conversation_id"], writes=True)
    with transaction.atomic():
        row = lock_row(found.pk, owner.text)
        row.metadata, row.updated_at = admission.body.metadata or {}, now()
        row.save(update_fields=["metadata", "updated_at"])
    return present_conversation(row)


@conversation.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_conversation(admission: Admission[None]) -> dict[str, Any]:
    """Delete a conversation with its items."""
    row = find(Owner.of(admission.caller), admission.captured["conversation_id"], writes=True)
    delete_conversations([row.pk])
    return Deleted(id=row.public_id, object="conversation.deleted").model_dump()


conversation_items = Endpoint(tags=TAGS)


@conversation_items.get(
    scope=SCOPE, owner=True, query=ItemQuery, response=ItemsAnswer, errors=(NotFound,)
)
def list_conversation_items(admission: Admission[None]) -> dict[str, Any]:
    """List the items of the current branch of a conversation."""
    owner, query = Owner.of(admission.caller), admission.query
    row = find(owner, admission.captured["conversation_id"])
    path = path_to(row.leaf)
    last = None
    if query.after is not None:
        key = item_key(query.after)
        cursor = None if key is None else Item.objects.filter(pk=key).first()
        if cursor is None or not path.has(cursor):
            raise unknown_cursor(query.after)
        last = cursor.sequence
    if query.order == "asc":
        rows = path.oldest(query.limit + 1, above=last)
    else:
        rows = path.newest(query.limit + 1, below=last)
    return item_list(rows[: query.limit], locate(admission), has_more=len(rows) > query.limit)


@conversation_items.post(
    scope=SCOPE,
    owner=True,
    body=NewItems,
    query=RetrieveQuery,
    response=ItemsAnswer,
    errors=(NotFound,),
)
def create_conversation_items(admission: Admission[NewItems]) -> dict[str, Any]:
    """Add items to a conversation."""
    owner = Owner.of(admission.caller)
    found = find(owner, admission.captured["conversation_id"], writes=True)
    media = Media()
    rows = _rows(admission.body.items, owner, media)
    with stored(media):
        row = lock_row(found.pk, owner.text)
        check_unlocked(row, "conversation")
        _append(row, rows)
    return item_list(rows, locate(admission))


conversation_item = Endpoint(tags=TAGS)


def _found_item(admission: Admission[Any], row: Conversation) -> Item:
    """Return the item of the path, in the current branch of ``row``.

    Raises:
        NotFound: It does not exist there.
    """
    public = admission.captured["item_id"]
    key = item_key(public)
    item = None if key is None else Item.objects.select_related("parent").filter(pk=key).first()
    if item is None or not path_to(row.leaf).has(item):
        raise NotFound(f"Item with id '{public[:100]}' not found.")
    return item


@conversation_item.get(
    scope=SCOPE, owner=True, query=RetrieveQuery, response=ItemAnswer, errors=(NotFound,)
)
def retrieve_conversation_item(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve an item of a conversation."""
    row = find(Owner.of(admission.caller), admission.captured["conversation_id"])
    return present(_found_item(admission, row), locate(admission))


@conversation_item.delete(scope=SCOPE, owner=True, response=ConversationAnswer, errors=(NotFound,))
def delete_conversation_item(admission: Admission[None]) -> dict[str, Any]:
    """Delete an item of a conversation."""
    owner = Owner.of(admission.caller)
    found = find(owner, admission.captured["conversation_id"], writes=True)
    with transaction.atomic():
        row = lock_row(found.pk, owner.text)
        check_unlocked(row, "conversation")
        item = _found_item(admission, row)
        if item.conversation_id == row.pk:
            delete_item(row, item)
            row.save()
    return present_conversation(row)
