"""Write records with their sums and events, in one transaction: soon after the end of their
requests, or before it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import DatabaseError, IntegrityError, InterfaceError, router, transaction

from ...._batch_writer import BatchWriter
from ...._connections import call_reconnecting
from ..._group_writer import GroupWriter
from ..._inserts import insert
from ...access.models import APIKey, Workspace
from .._billing.closing import assign_months
from .._billing.outbox import events_of
from .._budgets import note
from .._prices import PriceBook
from ..models import Price, UsageRecord
from .record import Draft, finished, without
from .sums import add

__all__ = ["acommit", "commit", "put", "queue", "write"]

#: The records of one transaction.
MAX_ROWS: Final = 500
#: The records that wait for the database; about a kilobyte each.
MAX_PENDING: Final = 100_000

logger = logging.getLogger("django_ollama_openai")


def write(drafts: Sequence[Draft]) -> None:
    """Write the records of ``drafts``, all or none of them, and each once: those that exist already
    are left out, after a transaction whose end is unknown."""
    try:
        _write(drafts)
    except IntegrityError:
        _write(_writable(drafts))


def _write(drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    # Before the transaction: SQLite cannot get a lock after it has read.
    alias = router.db_for_read(Price)
    records = finished(drafts, call_reconnecting(alias, PriceBook.load))
    with transaction.atomic():
        assign_months(records)
        insert(records)
        add(records)
        if events := events_of(records):
            insert(events)
    note(records)


def _writable(drafts: Sequence[Draft]) -> list[Draft]:
    """Return those of ``drafts`` that do not exist, without what was deleted meanwhile."""
    ids = [draft.id for draft in drafts]
    existing = set(UsageRecord.objects.filter(pk__in=ids).values_list("pk", flat=True))
    lost: dict[str, set[Any]] = {}
    for name, model in (
        ("workspace", Workspace),
        ("user", get_user_model()),
        ("key", APIKey),
    ):
        keys = {getattr(draft.user, name) for draft in drafts} - {None}
        found = model._base_manager.filter(pk__in=keys).values_list("pk", flat=True)
        lost[name] = keys - set(found)
    return [
        without(draft, {name for name, keys in lost.items() if getattr(draft.user, name) in keys})
        for draft in drafts
        if draft.id not in existing
    ]


queue: Final = BatchWriter(write, name="usage records", max_rows=MAX_ROWS, max_pending=MAX_PENDING)
_commits: Final = GroupWriter[Draft]("usage", write, lambda draft: write([draft]))


def put(draft: Draft) -> None:
    """Write the record of ``draft`` soon."""
    queue.put(draft)


def commit(draft: Draft) -> None:
    """Write the record of ``draft`` now; if the database does not take it, later."""
    try:
        write([draft])
    except (DatabaseError, InterfaceError) as error:
        _write_later(draft, error)


async def acommit(draft: Draft) -> None:
    """Async version of :func:`commit`; writes together those that wait."""
    try:
        await _commits.write(draft)
    except (DatabaseError, InterfaceError) as error:
        _write_later(draft, error)


def _write_later(draft: Draft, error: Exception) -> None:
    # The message of the error may quote rows.
    logger.error(
        "The usage of request %s could not be stored yet: %s",
        draft.request_id,
        type(error).__name__,
    )
    queue.put(draft)
