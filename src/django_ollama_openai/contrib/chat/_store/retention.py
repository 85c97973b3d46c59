"""Delete conversations, responses and completions for good: in small batches, files included.

Django's own cascades would read all rows of a conversation first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.signals import pre_delete
from django.utils.timezone import now

from ....management.pruning import BasePruner, Pruning
from ..conf import chat_settings
from ..models import (
    Attachment,
    Branch,
    Completion,
    Conversation,
    Item,
    Kind,
    Piece,
    Response,
    Run,
)
from .files import delete_file

__all__ = [
    "BATCH",
    "ChatPruner",
    "connect",
    "delete_completions",
    "delete_conversations",
    "delete_response",
    "delete_responses",
    "is_deleted",
    "of_user",
    "owned_by",
    "prune_streams",
    "pruning_of",
]

#: Rows of one statement.
BATCH: Final = 500
#: Conversations, responses or completions of one transaction of a pruning.
PRUNED_AT_ONCE: Final = 100
#: The time for which a thread may be without a response: it is made first.
GRACE: Final = timedelta(hours=1)


def owned_by(owner: str) -> tuple[QuerySet[Conversation], QuerySet[Completion]]:
    """Return the conversations, threads included, and the completions of ``owner``, which is as
    rows have it."""
    return Conversation.objects.filter(owner=owner), Completion.objects.filter(owner=owner)


def is_deleted(user_id: Any) -> bool:
    """Return whether the user with the key ``user_id`` was deleted, so that nothing can be stored
    for them; never for ``None``, which stands for no user."""
    users = get_user_model()._base_manager
    return user_id is not None and not users.filter(pk=user_id).exists()


def of_user(user: Any) -> tuple[QuerySet[Conversation], QuerySet[Completion]]:
    """Return the conversations, threads included, and the completions of a user."""
    of = Q(owner=f"user:{user.pk}") | Q(user=user.pk)
    return Conversation.objects.filter(of), Completion.objects.filter(of)


def connect() -> None:
    """Delete the conversations and completions of each user who is deleted."""
    pre_delete.connect(_delete_of_user, sender=get_user_model())


def _delete_of_user(instance: Any, using: str, **kwargs: Any) -> None:
    conversations, completions = of_user(instance)
    for rows, delete in (
        (conversations, delete_conversations),
        (completions, delete_completions),
    ):
        while keys := _first(rows):
            delete(keys)


def _first(rows: QuerySet[Any], count: int = BATCH) -> list[UUID]:
    return list(rows.order_by("pk").values_list("pk", flat=True)[:count])


def delete_conversations(keys: Sequence[UUID]) -> int:
    """Delete the conversations with these ``keys``, at most some hundred, with all that is theirs,
    in one transaction. Return their number.

    The process that writes an answer in one of them finds that it is gone, and stops.
    """
    with transaction.atomic():
        # A lock on the rows, as every writer takes.
        rows = Conversation.objects.filter(pk__in=keys)
        rows.update(updated_at=now())
        of = Q(item__conversation__in=keys) | Q(response__conversation__in=keys)
        _delete_runs(Run.objects.filter(of))
        # An answer outside that would have joined one of them ends in its own thread.
        Run.objects.filter(locks__in=keys).update(locks=None)
        items = Item.objects.filter(conversation__in=keys)
        while found := _first(items):
            _delete_items(found)
        Item.objects.filter(response__conversation__in=keys).update(response=None)
        _delete(Response.objects.filter(conversation__in=keys))
        _delete(Branch.objects.filter(conversation__in=keys))
        return _delete(rows)


def delete_completions(keys: Sequence[UUID]) -> int:
    """Delete the stored completions with these ``keys`` in one transaction. Return their number."""
    with transaction.atomic():
        _delete_attachments(Attachment.objects.filter(completion__in=keys))
        return _delete(Completion.objects.filter(pk__in=keys))


def delete_response(response: Response) -> None:
    """Delete ``response`` in one transaction. Of its thread those items stay that another response
    continues; with the last response the thread goes. In a conversation its items stay."""
    with transaction.atomic():
        rows = Conversation.objects.filter(pk=response.conversation_id)
        if not rows.update(updated_at=now()):
            # Deleted by another process, with all that is in it.
            return
        conversation = rows.get()
        _delete_runs(Run.objects.filter(response=response))
        Item.objects.filter(response=response).update(response=None)
        _delete(Response.objects.filter(pk=response.pk))
        if conversation.kind != Kind.THREAD:
            return
        if not Response.objects.filter(conversation=conversation).exists():
            delete_conversations([conversation.pk])
            return
        _delete_orphans(conversation)


def _delete_orphans(thread: Conversation) -> None:
    """Delete the items of ``thread`` that are on the path of no response."""
    leaves = Response.objects.filter(conversation=thread).values("leaf")
    rows = Item.objects.filter(Q(pk__in=leaves) | Q(head__in=leaves))
    branches = {row.id: row for row in Branch.objects.filter(conversation=thread)}
    #: The sequence number up to which a branch is needed.
    needed: dict[UUID, int] = {}
    for branch, last in rows.values_list("branch", "sequence"):
        while needed.get(branch, 0) < last:
            needed[branch] = last
            row = branches.get(branch)
            if row is None:
                break
            branch, last = row.parent, row.fork
    orphans = Item.objects.filter(conversation=thread, response=None)
    for branch in orphans.order_by().values_list("branch", flat=True).distinct():
        of_branch = orphans.filter(branch=branch, sequence__gt=needed.get(branch, 0))
        while found := _first(of_branch):
            _delete_items(found)


def _delete_items(keys: Sequence[UUID]) -> None:
    _delete_runs(Run.objects.filter(item__in=keys))
    _delete_attachments(Attachment.objects.filter(item__in=keys))
    _delete(Item.objects.filter(pk__in=keys))


def _delete_runs(runs: QuerySet[Run]) -> None:
    while keys := _first(runs):
        # Until the end of the transaction nothing may be added to what is deleted.
        list(Run.objects.select_for_update().filter(pk__in=keys).values_list("pk"))
        _delete(Piece.objects.filter(run__in=keys))
        _delete(Run.objects.filter(pk__in=keys))


def _delete_attachments(attachments: QuerySet[Attachment]) -> None:
    rows = list(attachments.only("file"))
    _delete(Attachment.objects.filter(pk__in=[row.pk for row in rows]))
    for row in rows:
        delete_file(row)


def _delete(rows: QuerySet[Any]) -> int:
    """Delete ``rows`` without Django's cascade."""
    deleted: int = rows._raw_delete(rows.db)
    return deleted


class ChatPruner(BasePruner):
    """Deletes what is older than ``CHAT["RETENTION_DAYS"]``, and what streams have left behind."""

    name = "chat"

    def prunings(self, older_than: timedelta | None) -> Iterable[Pruning]:
        days = chat_settings().RETENTION_DAYS

        def before(kept: int | None) -> datetime | None:
            age = older_than or (None if kept is None else timedelta(days=kept))
            return None if age is None else now() - age

        threads = Conversation.objects.filter(kind=Kind.THREAD)
        kinds: list[tuple[str, QuerySet[Any], datetime | None, Callable[[Sequence[UUID]], int]]] = [
            (
                "responses",
                Response.objects.filter(conversation__kind=Kind.THREAD),
                before(days.responses),
                delete_responses,
            ),
            ("threads", threads.filter(responses=None), now() - GRACE, delete_conversations),
            ("completions", Completion.objects.all(), before(days.completions), delete_completions),
            (
                "conversations",
                Conversation.objects.filter(kind=Kind.CONVERSATION),
                before(days.conversations),
                delete_conversations,
            ),
        ]
        for label, rows, end, delete in kinds:
            if end is not None:
                yield pruning_of(label, rows.filter(created_at__lt=end), delete)
        yield _pruning_of_streams()


def prune_streams() -> None:
    """Delete the events of streams that are past ``STREAM_RETENTION_SECONDS``."""
    pruning = _pruning_of_streams()
    while pruning.delete_batch():
        pass


def _pruning_of_streams() -> Pruning:
    end = now() - timedelta(seconds=chat_settings().STREAM_RETENTION_SECONDS)
    return pruning_of("streams", Run.objects.filter(ended_at__lt=end), _delete_streams)


def pruning_of(label: str, rows: QuerySet[Any], delete: Callable[[Sequence[UUID]], int]) -> Pruning:
    """Return the pruning of all ``rows``, some of which ``delete`` deletes by their keys."""

    def next_batch() -> int:
        keys = _first(rows, PRUNED_AT_ONCE)
        return delete(keys) if keys else 0

    return Pruning(label, rows.count, next_batch)


def delete_responses(keys: Sequence[UUID]) -> int:
    """Delete the responses with these ``keys``, each in a transaction of its own: see
    :func:`delete_response`. Return their number."""
    for response in Response.objects.filter(pk__in=keys):
        delete_response(response)
    return len(keys)


def _delete_streams(keys: Sequence[UUID]) -> int:
    with transaction.atomic():
        _delete_runs(Run.objects.filter(pk__in=keys))
    return len(keys)
