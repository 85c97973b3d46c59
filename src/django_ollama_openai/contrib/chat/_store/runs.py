"""Running answers: their locks, leases, beginnings and ends.

Every function that writes expects a transaction, which begins with :func:`lock_row`. Whoever sets
``Run.ended_at`` ends the answer; nobody else writes its items.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils.timezone import now

from ...._ids import uuid7
from ....exceptions import InvalidRequest, NotFound
from ..conf import chat_settings
from ..models import Branch, Conversation, Item, Kind, Piece, Response, Run, Status
from .files import Media
from .items import new_rows
from .tree import append, path_to, root_of, set_leaf

__all__ = [
    "LEASE",
    "ConversationLocked",
    "begin_message",
    "begin_response",
    "check_unlocked",
    "end_expired",
    "end_message",
    "end_response",
    "lock_row",
    "prune_runs",
    "request_stop",
]

#: The time after which another process may end the answer of a process that was killed. It is
#: renewed while the answer runs.
LEASE: Final = timedelta(seconds=60)


class ConversationLocked(InvalidRequest):
    """400: another answer is being written in the conversation."""

    code = "conversation_locked"

    def __init__(self, param: str | None = None) -> None:
        super().__init__(
            "Another process is currently operating on this conversation. Please retry in a few "
            "seconds.",
            param=param,
        )


def lock_row(pk: UUID, owner: str, *, message: str | None = None) -> Conversation:
    """Return the conversation ``pk`` of ``owner``, whose row is locked until the end of the
    transaction: by an update, since SQLite has no other way.

    Raises:
        NotFound: There is no such conversation; ``message`` is the error's.
    """
    rows = Conversation.objects.filter(pk=pk, owner=owner)
    if not rows.update(updated_at=now()):
        raise NotFound(message or f"Conversation with id 'conv_{pk.hex}' not found.")
    return rows.select_related("leaf").get()


def check_unlocked(conversation: Conversation, param: str | None = None) -> None:
    """Check that no answer is running in ``conversation``, whose row is locked.

    Raises:
        ConversationLocked: One is running.
    """
    run = Run.objects.filter(locks=conversation).first()
    if run is None:
        return
    if not _has_expired(run):
        raise ConversationLocked(param)
    _end_abandoned(run)
    conversation.refresh_from_db()


def begin_message(
    conversation: Conversation,
    rows: Sequence[Item],
    after: Item | None,
    *,
    model: str,
    answer_id: UUID,
    is_background: bool,
    answer: dict[str, Any],
) -> tuple[Item, Run]:
    """Add the new messages ``rows`` after the message ``after``, and an answer that is in progress,
    and lock ``conversation``, whose row is locked. Return the answer and its run.

    Raises:
        ConversationLocked: Another answer is running.
    """
    check_unlocked(conversation)
    is_current = conversation.leaf_id == (None if after is None else after.pk)
    if rows:
        append(conversation, rows, after)
    last = next((row for row in reversed(rows) if row.head_id is None), after)
    # A number is left for the reasoning, which precedes the answer.
    conversation.sequence += 1
    head = Item(
        id=answer_id,
        type="message",
        role="assistant",
        status=Status.IN_PROGRESS,
        data={"content": []},
        answer={"model": model, **answer},
    )
    append(conversation, [head], last)
    messages = 1 + sum(row.head_id is None for row in rows)
    count = conversation.message_count + messages if is_current else None
    set_leaf(conversation, head, count=count)
    conversation.save()
    run = Run.objects.create(
        item=head, locks=conversation, background=is_background, lease_until=now() + LEASE
    )
    return head, run


def end_message(
    run: Run, output: list[dict[str, Any]], status: Status, answer: dict[str, Any]
) -> bool:
    """End the answer of ``run`` in a session with ``output``, OpenAI's items of its message.

    Return ``False`` if it has ended already, or was deleted.
    """
    with transaction.atomic():
        if not _end(run):
            return False
        head = Item.objects.select_related("conversation").filter(run=run).first()
        if head is None:
            return False
        _write_message(head, output, status, answer)
    return True


def _write_message(
    head: Item, output: list[dict[str, Any]], status: Status, answer: dict[str, Any]
) -> None:
    conversation = lock_row(head.conversation_id, head.conversation.owner)
    rows = new_rows(output, Media(), keep_ids=True)
    parts: list[Item] = []
    for row in rows:
        if row.pk == head.pk:
            head.data, head.text = row.data, row.text
            continue
        row.head, row.conversation, row.branch = head, conversation, head.branch
        row.status = Status.COMPLETED if status == Status.COMPLETED else row.status
        if row.type == "reasoning" and not parts:
            row.sequence = head.sequence - 1
        else:
            conversation.sequence += 1
            row.sequence = conversation.sequence
        parts.append(row)
    head.status = status
    head.answer = {**(head.answer or {}), **answer}
    head.save(update_fields=["data", "text", "status", "answer"])
    Item.objects.bulk_create(parts)
    conversation.active_at = now()
    conversation.save(update_fields=["sequence", "active_at"])


def begin_response(
    *,
    owner: str,
    user_id: Any,
    response_id: UUID,
    body: dict[str, Any],
    items: Sequence[dict[str, Any]],
    references: Sequence[UUID | None],
    conversation: Conversation | None = None,
    previous: Response | None = None,
    is_background: bool = False,
    media: Media,
) -> tuple[Response, Run]:
    """Store a response that begins, with the ``items`` of its input.

    It has a thread of its own until it is completed, which continues ``conversation``, whose row is
    locked, or the response ``previous``. ``references`` has, for each place of the input, the key
    of the item that the request refers to, or ``None`` for the next of ``items``. ``media``
    receives the images and audio.

    Raises:
        ConversationLocked: Another answer is running in ``conversation``.
    """
    after: Item | None = None
    thread: Conversation | None = None
    if conversation is not None:
        check_unlocked(conversation, "conversation")
        after = conversation.leaf
    elif previous is not None:
        after = _existing_leaf(previous)
        if previous.conversation.kind == Kind.THREAD:
            thread = lock_row(previous.conversation_id, owner)
    if thread is None:
        thread = Conversation(kind=Kind.THREAD, owner=owner, user_id=user_id)
        thread.save(force_insert=True)
        root_of(thread, after)
    response = Response(
        id=response_id,
        conversation=thread,
        status=body["status"],
        background=is_background,
        body={name: value for name, value in body.items() if name != "output"},
    )
    rows = new_rows(items, media, param="input")
    own = iter(rows)
    response.input_ids = [(next(own).pk if key is None else key).hex for key in references]
    response.leaf = next((row for row in reversed(rows) if row.head_id is None), after)
    response.save(force_insert=True)
    for row in rows:
        row.response = response
    append(thread, rows, after)
    thread.save(update_fields=["sequence"])
    run = Run.objects.create(
        response=response,
        locks=conversation,
        background=is_background,
        lease_until=now() + LEASE,
    )
    return response, run


def _existing_leaf(response: Response) -> Item | None:
    """Return the last message of ``response`` that has not been deleted."""
    leaf = Item.objects.filter(pk__in=[response.leaf_id]).first()
    if leaf is not None:
        return leaf
    rows = Item.objects.filter(response=response, head=None)
    return rows.order_by("-sequence").first()


def end_response(
    run: Run, body: dict[str, Any], output: list[dict[str, Any]], *, joins: bool
) -> bool:
    """End the response of ``run`` with ``body``, OpenAI's object, and the items of its ``output``.

    If it ``joins`` the conversation that it locks, its items become the end of this. Return
    ``False`` if it has ended already, or was deleted.
    """
    with transaction.atomic():
        conversation_id = run.locks_id
        if not _end(run):
            return False
        response = Response.objects.select_related("conversation", "leaf").filter(run=run).first()
        if response is None:
            return False
        thread = lock_row(response.conversation_id, response.conversation.owner)
        rows = new_rows(output, Media(), keep_ids=True)
        for row in rows:
            row.response = response
        append(thread, rows, response.leaf)
        thread.save(update_fields=["sequence"])
        response.output_ids = [row.pk.hex for row in rows]
        response.status = body["status"]
        response.body = {name: value for name, value in body.items() if name != "output"}
        head = next((row for row in reversed(rows) if row.head_id is None), None)
        response.leaf = head or response.leaf
        if joins and conversation_id is not None:
            _join(response, thread, conversation_id)
        response.save()
    return True


def _join(response: Response, thread: Conversation, conversation_id: UUID) -> None:
    """Move the items of ``response`` from its own thread to the end of the conversation."""
    if not Conversation.objects.filter(pk=conversation_id).exists():
        return
    conversation = lock_row(conversation_id, thread.owner)
    rows = list(Item.objects.filter(response=response).order_by("sequence"))
    branch, parent = _end_branch(conversation), conversation.leaf
    for row in rows:
        conversation.sequence += 1
        row.conversation, row.branch = conversation, branch
        row.sequence = conversation.sequence
        if row.head_id is None:
            row.parent, parent = parent, row
    Item.objects.bulk_update(rows, ["conversation", "branch", "sequence", "parent"], 200)
    heads = sum(row.head_id is None for row in rows)
    set_leaf(conversation, parent, count=conversation.message_count + heads)
    conversation.save()
    response.conversation = conversation
    Branch.objects.filter(conversation=thread).delete()
    response.save(update_fields=["conversation"])
    thread.delete()


def _end_branch(conversation: Conversation) -> UUID:
    """Return the branch for items after the current leaf of ``conversation``."""
    ranges = path_to(conversation.leaf).ranges
    branch, last = ranges[0] if ranges else (conversation.id, 0)
    if not Item.objects.filter(branch=branch, sequence__gt=last).exists():
        return branch
    row = Branch.objects.create(id=uuid7(), conversation=conversation, parent=branch, fork=last)
    return row.id


def request_stop(run: Run) -> bool:
    """Have the process that writes the answer of ``run`` stop it. Return whether it runs."""
    return bool(Run.objects.filter(pk=run.pk, ended_at=None).update(stop=True))


def end_expired(run: Run) -> bool:
    """End the answer of ``run`` as incomplete if its process was killed. Return whether it was."""
    if not _has_expired(run):
        return False
    with transaction.atomic():
        return _end_abandoned(run)


def end_all_expired() -> None:
    """End the answers of all processes that were killed."""
    for run in Run.objects.filter(ended_at=None, lease_until__lt=now())[:100]:
        end_expired(run)


def prune_runs() -> int:
    """Delete the events of streams that are past ``STREAM_RETENTION_SECONDS``, and return their
    number of streams."""
    before = now() - timedelta(seconds=chat_settings().STREAM_RETENTION_SECONDS)
    old = list(Run.objects.filter(ended_at__lt=before).values_list("pk", flat=True)[:100])
    Piece.objects.filter(run__in=old).delete()
    Run.objects.filter(pk__in=old).delete()
    return len(old)


def _has_expired(run: Run) -> bool:
    return run.ended_at is None and run.lease_until is not None and run.lease_until < now()


def _end(run: Run) -> bool:
    """Mark ``run`` as ended, and unlock its conversation. Return ``False`` if it had ended."""
    rows = Run.objects.filter(pk=run.pk, ended_at=None)
    return bool(rows.update(ended_at=now(), lease_until=None, locks=None, output=[]))


def _end_abandoned(run: Run) -> bool:
    """End the answer of ``run`` as incomplete, with the output that was written until then."""
    output = [
        {**item, "status": Status.INCOMPLETE} if item.get("status") == "in_progress" else item
        for item in run.output
    ]
    if run.item_id is not None:
        return end_message(run, output, Status.INCOMPLETE, {"finish_reason": None})
    response = Response.objects.get(run=run)
    status = Status.CANCELLED if run.stop else Status.INCOMPLETE
    return end_response(run, {**response.body, "status": status}, output, joins=False)
