"""Running answers: their locks, leases, beginnings and ends.

Every function that writes expects a transaction, which begins with :func:`lock_row` or
:func:`lock_homes`: the same row is locked first by all that change a conversation, so that they
wait for each other instead of running into a deadlock. The process that sets ``Run.ended_at`` ends
the answer: no other one writes its items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models import F
from django.utils.timezone import now

from ...._ids import uuid7
from ...._translation.response_object import CLIENTS_OWN
from ...._wire.case import camel_keys
from ...._wire.sse import DONE, named_frame
from ....exceptions import InvalidRequest, NotFound
from ..._inserts import insert
from ..models import Branch, Conversation, Item, Kind, Piece, Response, Run, Status
from .files import Media
from .items import new_rows
from .retention import delete_response
from .tree import append, branch_for, path_to, place, root_of, set_leaf

__all__ = [
    "LAST_EVENT",
    "LEASE",
    "ConversationLocked",
    "End",
    "HasChanged",
    "Start",
    "begin_message",
    "begin_next",
    "begin_response",
    "check_not_answering",
    "check_unlocked",
    "end_expired",
    "end_messages",
    "end_now",
    "end_response",
    "existing_leaf",
    "lock_homes",
    "lock_row",
    "request_stop",
    "without_output",
]

#: The time after which another process may end the answer of a process that was killed. It is
#: renewed while the answer runs.
LEASE: Final = timedelta(seconds=60)
#: The event at the end of the stream of a response that broke off.
LAST_EVENT: Final = "response.incomplete"


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


def lock_homes(runs: Sequence[Run]) -> bool:
    """Lock the rows of the conversations or threads, each another one, that get the answers of
    ``runs``, until the end of the transaction. Return ``False`` if one was deleted."""
    homes = [run.item or run.response for run in runs]
    keys = [home.conversation_id for home in homes if home is not None]
    moment = now()
    rows = Conversation.objects.filter(pk__in=keys)
    return rows.update(updated_at=moment, active_at=moment) == len(runs)


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


def check_not_answering(conversation: Conversation) -> None:
    """Check that no answer is running in ``conversation``, before its history is read: that would
    lack the answer, which may end before the next one begins.

    Raises:
        ConversationLocked: One is running.
    """
    # A conversation that was read for this has its run already.
    run = getattr(conversation, "run", None)
    if run is not None and not end_expired(run):
        raise ConversationLocked


def begin_message(
    conversation: Conversation,
    rows: Sequence[Item],
    after: Item | None,
    *,
    answer_id: UUID,
    is_background: bool,
    answer: dict[str, Any],
) -> Run:
    """Add the new messages ``rows`` after the message ``after``, and an answer that is in progress,
    and lock ``conversation``, whose row is locked. Return the run of the answer.

    Raises:
        ConversationLocked: Another answer is running.
    """
    check_unlocked(conversation)
    is_current = conversation.leaf_id == (None if after is None else after.pk)
    branch = branch_for(conversation, after)
    head = _place_answer(conversation, rows, after, branch, answer_id, answer)
    Item.objects.bulk_create([*rows, head])
    count = conversation.message_count + _messages(rows) if is_current else None
    set_leaf(conversation, head, count=count)
    conversation.save()
    run = _new_run(conversation, head, is_background=is_background)
    run.save(force_insert=True)
    return run


class HasChanged(Exception):
    """A conversation, or the run of an answer in it, has changed since it was read."""


@dataclass(slots=True, frozen=True)
class Start:
    """New messages, ``rows``, and the answer to them, at the end of ``conversation``, whose last
    item is a message of its own."""

    conversation: Conversation
    rows: Sequence[Item]
    answer_id: UUID
    answer: dict[str, Any]


def begin_next(starts: Sequence[Start]) -> list[Run | None]:
    """Do what :func:`begin_message` does, after the last message of each conversation, whose row is
    locked by the update. Return the runs; ``None`` for a conversation that has changed since it was
    read, in which nothing is written.

    Raises:
        HasChanged: An answer is running in one of them. The caller rolls the transaction back.
    """
    moment = now()
    heads: list[Item | None] = []
    for start in starts:
        row = start.conversation
        leaf, sequence = row.leaf, row.sequence
        branch = row.id if leaf is None else leaf.branch
        head = _place_answer(row, start.rows, leaf, branch, start.answer_id, start.answer)
        unchanged = Conversation.objects.filter(
            pk=row.pk, owner=row.owner, leaf=leaf, sequence=sequence
        )
        is_locked = unchanged.update(
            leaf=head,
            sequence=row.sequence,
            message_count=F("message_count") + _messages(start.rows),
            active_at=moment,
            updated_at=moment,
        )
        heads.append(head if is_locked else None)
    begun = [(start, head) for start, head in zip(starts, heads, strict=True) if head is not None]
    if Run.objects.filter(locks__in=[start.conversation for start, _ in begun]).exists():
        raise HasChanged
    insert(row for start, head in begun for row in (*start.rows, head))
    new = [_new_run(start.conversation, head) for start, head in begun]
    insert(new)
    runs = iter(new)
    return [None if head is None else next(runs) for head in heads]


def _place_answer(
    conversation: Conversation,
    rows: Sequence[Item],
    after: Item | None,
    branch: UUID,
    answer_id: UUID,
    answer: dict[str, Any],
) -> Item:
    """Place ``rows`` after the message ``after``, and an answer to them, which is returned."""
    place(conversation, rows, branch, None if after is None else after.pk)
    last = next((row for row in reversed(rows) if row.head_id is None), after)
    # A number is left for the reasoning, which precedes the answer.
    conversation.sequence += 1
    head = Item(
        id=answer_id,
        type="message",
        role="assistant",
        status=Status.IN_PROGRESS,
        data={"content": []},
        answer=answer,
    )
    place(conversation, [head], branch, None if last is None else last.pk)
    return head


def _messages(rows: Sequence[Item]) -> int:
    """Return the number of messages that ``rows`` and their answer are."""
    return 1 + sum(row.head_id is None for row in rows)


def _new_run(conversation: Conversation, head: Item, *, is_background: bool = False) -> Run:
    lease = now() + LEASE
    return Run(item=head, locks=conversation, background=is_background, lease_until=lease)


@dataclass(slots=True, frozen=True)
class End:
    """The end of the answer of ``run`` in a session. ``output`` has OpenAI's items of its message;
    the fields of ``answer`` are added to those of the item."""

    run: Run
    output: list[dict[str, Any]]
    status: Status
    answer: dict[str, Any]


def end_messages(ends: Sequence[End]) -> bool:
    """End answers in sessions, whose rows are locked. Return ``False`` if one of them has ended
    already, or was deleted; the caller rolls the transaction back if there are others."""
    if not _end([end.run for end in ends]):
        return False
    heads: list[Item] = []
    new: list[Item] = []
    for end in ends:
        head = end.run.item
        if head is None:
            return False
        # No one else has changed it since the run began.
        parts: list[Item] = []
        for row in new_rows(end.output, Media(), keep_ids=True):
            if row.pk == head.pk:
                head.data, head.text = row.data, row.text
                continue
            row.head, row.conversation_id, row.branch = head, head.conversation_id, head.branch
            row.status = Status.COMPLETED if end.status == Status.COMPLETED else row.status
            parts.append(row)
        _number_parts(head, parts)
        head.status = end.status
        head.answer = {**(head.answer or {}), **end.answer}
        heads.append(head)
        new += parts
    _update(heads, ["data", "text", "status", "answer"])
    if new:
        insert(new)
    return True


def _update(rows: Sequence[Item], fields: Sequence[str]) -> None:
    """Store ``fields`` of ``rows``, which exist and are locked, with one statement that grows with
    the rows less than that of ``bulk_update()``."""
    has_target = connections[router.db_for_write(Item)].features
    unique = ["pk"] if has_target.supports_update_conflicts_with_target else None
    Item.objects.bulk_create(
        rows, update_conflicts=True, update_fields=fields, unique_fields=unique
    )


def _number_parts(head: Item, parts: Sequence[Item]) -> None:
    """Give ``parts`` of the answer ``head`` their sequence numbers: reasoning that precedes it has
    one already, and the others follow the last item of the conversation, whose row is locked."""
    following = list(parts)
    if parts and parts[0].type == "reasoning":
        following[0].sequence = head.sequence - 1
        del following[0]
    if following:
        conversation = Conversation.objects.get(pk=head.conversation_id)
        for row in following:
            conversation.sequence += 1
            row.sequence = conversation.sequence
        conversation.save(update_fields=["sequence"])


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
    elif previous is not None and previous.conversation.kind == Kind.THREAD:
        thread = lock_row(previous.conversation_id, owner)
    is_new = thread is None
    if thread is None:
        thread = Conversation(kind=Kind.THREAD, owner=owner, user_id=user_id)
        thread.save(force_insert=True)
    # Now that there is a lock: SQLite cannot get one after it has read.
    if previous is not None:
        after = existing_leaf(previous)
    if is_new:
        root_of(thread, after)
    response = Response(
        id=response_id,
        conversation=thread,
        status=body["status"],
        background=is_background,
        body=without_output(body),
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


def without_output(body: dict[str, Any]) -> dict[str, Any]:
    """Return ``body``, OpenAI's response, as a row has it: its output is items."""
    return {name: value for name, value in body.items() if name != "output"}


def existing_leaf(response: Response) -> Item | None:
    """Return the last message of ``response`` that has not been deleted."""
    leaf = Item.objects.filter(pk__in=[response.leaf_id]).first()
    if leaf is not None:
        return leaf
    rows = Item.objects.filter(response=response, head=None)
    return rows.order_by("-sequence").first()


def end_response(
    run: Run, body: dict[str, Any], output: list[dict[str, Any]], *, joins: bool
) -> bool:
    """End the response of ``run``, whose thread is locked, with ``body``, OpenAI's object, and the
    items of its ``output``.

    If it ``joins`` the conversation that it locks, its items become the end of this. Return
    ``False`` if it has ended already, or was deleted.
    """
    conversation_id = run.locks_id
    if not _end([run]):
        return False
    rows = Response.objects.select_related("conversation", "leaf")
    response = rows.filter(run=run).get()
    thread = response.conversation
    items = new_rows(output, Media(), keep_ids=True)
    for row in items:
        row.response = response
    append(thread, items, response.leaf)
    thread.save(update_fields=["sequence"])
    response.output_ids = [row.pk.hex for row in items]
    response.status = body["status"]
    response.body = without_output(body)
    head = next((row for row in reversed(items) if row.head_id is None), None)
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
    return _has_expired(run) and end_now(run)


def end_now(run: Run) -> bool:
    """End the answer of ``run``, whose process does not. Return ``False`` if it had ended."""
    with transaction.atomic():
        return lock_homes([run]) and _end_abandoned(run)


def end_all_expired() -> None:
    """End the answers of all processes that were killed."""
    rows = Run.objects.select_related("item", "response")
    for run in rows.filter(ended_at=None, lease_until__lt=now())[:100]:
        end_expired(run)


def _has_expired(run: Run) -> bool:
    return run.ended_at is None and run.lease_until is not None and run.lease_until < now()


def _end(runs: Sequence[Run]) -> bool:
    """Mark ``runs`` as ended, and unlock their conversations. Return ``False`` if one of them had
    ended."""
    rows = Run.objects.filter(pk__in=[run.pk for run in runs], ended_at=None)
    ended = rows.update(ended_at=now(), lease_until=None, locks=None, output=[])
    return ended == len(runs)


def _end_abandoned(run: Run) -> bool:
    """End the answer of ``run`` as incomplete, with the output that was written until then.

    Its row may have been read before its process, or another one, has ended it.
    """
    if not Run.objects.filter(pk=run.pk, ended_at=None, lease_until__lt=now()).exists():
        return False
    output = [
        {**item, "status": Status.INCOMPLETE} if item.get("status") == "in_progress" else item
        for item in run.output
    ]
    if run.item_id is not None:
        _end_stream(run, lambda number: DONE)
        return end_messages([End(run, output, Status.INCOMPLETE, {"finish_reason": None})])
    response = Response.objects.get(run=run)
    status = Status.CANCELLED if run.stop else Status.INCOMPLETE
    body = {**response.body, "status": status}
    _end_stream(run, _last_event(run, {**body, "output": output}))
    has_ended = end_response(run, body, output, joins=False)
    if body.get("store") is False:
        delete_response(response)
    return has_ended


def _last_event(run: Run, body: dict[str, Any]) -> Callable[[int], bytes]:
    """Return the function from its number to the last event of a response whose process could not
    write it, in the spelling of the others."""

    def event(number: int) -> bytes:
        fields = {"type": LAST_EVENT, "response": body, "sequence_number": number}
        if '"createdAt"' in run.pieces.get(first=0).data:
            fields = camel_keys(fields, CLIENTS_OWN)
        return named_frame(LAST_EVENT, fields)

    return event


def _end_stream(run: Run, last: Callable[[int], bytes]) -> None:
    """Store the last event of the stream of ``run``, if it has any; ``last`` makes it of its
    number."""
    piece = run.pieces.order_by("first").last()
    if piece is not None:
        number = piece.first + piece.count
        data = last(number).decode()
        Piece.objects.create(run=run, first=number, count=1, data=data)
