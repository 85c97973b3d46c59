"""Responses that are not stored yet.

A response on its own, which continues nothing and is not in the background, is stored when it has
ended, or after two seconds at the latest: most of them are stored at once and whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.utils.timezone import now

from ..._inserts import insert as insert_rows
from ..models import Conversation, Item, Kind, Response, Run
from .files import Media
from .items import new_rows
from .runs import LEASE, without_output

__all__ = ["Draft", "end", "insert", "new_draft"]

#: The sequence numbers that the thread of a running response keeps for its output.
RESERVED: Final = 10_000


@dataclass(slots=True)
class Draft:
    """A response, its thread, the items of its input, and its run. With ``is_inserted`` they are in
    the database."""

    thread: Conversation
    response: Response
    items: list[Item]
    run: Run = field(init=False)
    is_inserted: bool = False

    def __post_init__(self) -> None:
        self.run = Run(response=self.response)


def new_draft(
    *,
    owner: str,
    user_id: Any,
    response_id: UUID,
    body: dict[str, Any],
    items: Sequence[dict[str, Any]],
    references: Sequence[UUID | None],
    media: Media,
) -> Draft:
    """Return a response with the ``items`` of its input. ``references`` and ``media`` are as for
    :func:`~.runs.begin_response`."""
    thread = Conversation(kind=Kind.THREAD, owner=owner, user_id=user_id)
    rows = new_rows(items, media, param="input")
    own = iter(rows)
    response = Response(
        id=response_id,
        conversation=thread,
        status=body["status"],
        body=without_output(body),
        input_ids=[(next(own).pk if key is None else key).hex for key in references],
    )
    return Draft(thread, response, rows)


def insert(drafts: Sequence[Draft]) -> None:
    """Insert responses that are in progress, with their runs. The caller has a transaction, and
    sets ``is_inserted`` afterwards."""
    items: list[Item] = []
    for draft in drafts:
        items += _placed(draft, draft.items)
        # The output needs no further update of the thread.
        draft.thread.sequence += RESERVED
        draft.run.lease_until = now() + LEASE
    _insert(drafts, items)
    insert_rows(draft.run for draft in drafts)


def end(ends: Sequence[tuple[Draft, dict[str, Any], list[dict[str, Any]]]]) -> list[bool]:
    """End responses: each a draft, OpenAI's object, and the items of the output. Return, for each,
    ``False`` if it was deleted, or another process has ended it. The caller has a transaction,
    which may be repeated."""
    inserted = [draft for draft, _, _ in ends if draft.is_inserted]
    running: set[UUID] = set()
    if inserted:
        # The same row first as in a deletion, so that neither is a deadlock.
        threads = Conversation.objects.filter(pk__in=[draft.thread.pk for draft in inserted])
        threads.update(updated_at=now())
        runs = [draft.run.pk for draft in inserted]
        rows = Run.objects.filter(pk__in=runs, ended_at=None)
        running = set(rows.select_for_update().values_list("pk", flat=True))
        rows.filter(pk__in=running).update(ended_at=now(), lease_until=None, output=[])
    new: list[Draft] = []
    items: list[Item] = []
    changed: list[Response] = []
    for draft, body, output in ends:
        if draft.is_inserted and draft.run.pk not in running:
            continue
        added = new_rows(output, Media(), keep_ids=True)
        response = draft.response
        response.status, response.body = body["status"], without_output(body)
        response.output_ids = [row.pk.hex for row in added]
        placed = _placed(draft, [*draft.items, *added])
        if draft.is_inserted:
            items += placed[len(draft.items) :]
            changed.append(response)
        else:
            items += placed
            new.append(draft)
    _insert(new, items)
    for response in changed:
        response.save(update_fields=["status", "body", "output_ids", "leaf"])
    return [not draft.is_inserted or draft.run.pk in running for draft, _, _ in ends]


def _insert(drafts: Sequence[Draft], items: Sequence[Item]) -> None:
    if drafts:
        insert_rows(draft.thread for draft in drafts)
        insert_rows(draft.response for draft in drafts)
    if items:
        insert_rows(items)


def _placed(draft: Draft, rows: list[Item]) -> list[Item]:
    """Return ``rows``, all items of the thread of ``draft``, with their places in its one
    branch."""
    thread, response = draft.thread, draft.response
    response.leaf = None
    for number, row in enumerate(rows, 1):
        row.conversation, row.branch, row.sequence = thread, thread.id, number
        row.response = response
        if row.head_id is None:
            row.parent, response.leaf = response.leaf, row
    thread.sequence = len(rows)
    return rows
