"""``api/usage/records/``: the records of requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Literal

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.utils.timezone import get_default_timezone, now
from pydantic import BaseModel

from ...._gateway.flow import Flow, call
from ...._ids import parse_public_id, public_id
from ...._threads import in_separate_thread
from ...._translation.spelling import Speller
from ...._views.http_responses import json_response
from ....endpoints import Admission, Endpoint
from ..._downloads import download
from ..._lists import ListAnswer, ListQuery, list_rows
from ...access._members import shown_id
from .._reports.csv import CSV, rows_as_csv
from .._reports.groups import amount_text
from .._reports.ranges import read_range, zone_of
from ..models import Source, UsageRecord
from .usage import TAGS, iso
from .visible import SCOPE, Scope, own_or_workspace

__all__ = ["present_record", "records"]

#: The records of one query of a CSV file.
PAGE: Final = 1_000


class RecordQuery(ListQuery):
    """The query parameters of the list of records."""

    start: str | None = None
    end: str | None = None
    timezone: str | None = None
    scope: Scope = "me"
    model: str | None = None
    key: str | None = None
    status: Literal["ok", "error", "cancelled"] | None = None
    request_id: str | None = None
    format: Literal["json", "csv"] = "json"


class RecordAnswer(BaseModel):
    """The record of a request. Times are in seconds; ``cost`` is ``null`` without a price."""

    id: str
    object: Literal["usage.record"] = "usage.record"
    request_id: str
    started_at: datetime
    endpoint: str
    model: str
    answered_by: str
    backend: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    source: Literal["reported", "counted", "estimated"]
    status: Literal["ok", "error", "cancelled"]
    error: str | None
    cost: str | None
    currency: str | None
    time_to_first_token: float | None
    duration: float
    queued: float
    key: str | None
    key_name: str | None
    user: Any
    username: str | None
    workspace: str | None
    workspace_name: str | None
    tags: dict[str, str] | None


_speller: Final = Speller(ListAnswer[RecordAnswer])

records = Endpoint(tags=TAGS)


@records.get(scope=SCOPE, owner=True, query=RecordQuery, response=ListAnswer[RecordAnswer])
def list_records(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """List the records of requests, the newest first."""
    query: RecordQuery = admission.query
    if query.format == "csv":
        rows = yield from _in_thread(lambda: _rows(admission))
        return (yield from download(admission, _csv(rows), CSV, "records.csv"))
    found = yield from _in_thread(
        lambda: list_rows(_rows(admission), query, UsageRecord.prefix, present_record)
    )
    return json_response(_speller.spell(found, admission.mount.case))


def _in_thread(read: Any) -> Flow[Any]:
    async def aread() -> Any:
        return await in_separate_thread(read)

    return (yield from call(read, aread))


def _rows(admission: Admission[None]) -> QuerySet[UsageRecord]:
    query: RecordQuery = admission.query
    zone = zone_of(query.timezone, get_default_timezone())
    rows = UsageRecord.objects.filter(own_or_workspace(admission.caller, query.scope))
    if query.start is not None or query.end is not None:
        period = read_range(query.start, query.end, zone, now().astimezone(zone).date(), None)
        rows = rows.filter(started_at__gte=period.start, started_at__lt=period.end)
    if query.model is not None:
        rows = rows.filter(model=query.model)
    if query.key is not None:
        key = parse_public_id("key", query.key)
        rows = rows.filter(static_key=query.key) if key is None else rows.filter(key=key)
    if query.status is not None:
        rows = rows.filter(status=query.status)
    if query.request_id is not None:
        rows = rows.filter(request_id=query.request_id)
    return rows


def present_record(row: UsageRecord) -> dict[str, Any]:
    """Return the object of a record."""
    first = row.time_to_first_token
    return {
        "id": row.public_id,
        "object": "usage.record",
        "request_id": row.request_id,
        "started_at": iso(row.started_at),
        "endpoint": row.endpoint,
        "model": row.model,
        "answered_by": row.answered_by,
        "backend": row.backend,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "source": Source(row.source).name.lower(),
        "status": str(row.status),
        "error": row.error or None,
        "cost": amount_text(row.cost),
        "currency": row.currency or None,
        "time_to_first_token": None if first is None else first / 1000,
        "duration": row.duration / 1000,
        "queued": row.queued / 1000,
        "key": None if row.key_id is None else public_id("key", row.key_id),
        "key_name": row.key_name or None,
        "user": None if row.user_id is None else shown_id(row.user_id),
        "username": row.username or None,
        "workspace": None if row.workspace_id is None else public_id("ws", row.workspace_id),
        "workspace_name": row.workspace_name or None,
        "tags": row.tags,
    }


def _csv(rows: QuerySet[UsageRecord]) -> Iterator[bytes]:
    columns = [name for name in RecordAnswer.model_fields if name not in ("object", "tags")]
    return rows_as_csv(columns, _cells(rows, columns))


def _cells(rows: QuerySet[UsageRecord], columns: list[str]) -> Iterator[list[Any]]:
    # Without a cursor, since each page may be read in another thread.
    last = None
    rows = rows.order_by("-pk")
    while page := list((rows if last is None else rows.filter(pk__lt=last))[:PAGE]):
        for row in page:
            shown = present_record(row)
            yield [shown[name] for name in columns]
        last = page[-1].pk
