"""``api/usage/``: what was used, by the caller or by the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

from django.http.response import HttpResponseBase
from django.utils.timezone import get_default_timezone, now
from pydantic import BaseModel

from ...._gateway.flow import Flow, call
from ...._threads import in_separate_thread
from ...._translation.spelling import Speller
from ...._views.http_responses import json_response
from ....endpoints import Admission, Endpoint, QueryParameters
from ....exceptions import InvalidRequest
from ..._downloads import download
from .._reports.csv import CSV, rows_as_csv
from .._reports.groups import FIGURES, GROUPS, Group, Line, amount_text, lines, totals
from .._reports.ranges import Bucket, TimeRange, read_range, zone_of
from ..conf import usage_settings
from ..models import UsageBucket
from .visible import SCOPE, Scope, own_or_workspace

__all__ = ["TAGS", "iso", "usage"]

TAGS: Final = {"Usage": "What was used, and what it costs"}


class UsageQuery(QueryParameters):
    """The query parameters of a report. ``group_by`` has names of groups, with commas."""

    start: str | None = None
    end: str | None = None
    bucket: Bucket = "day"
    timezone: str | None = None
    group_by: str = ""
    scope: Scope = "me"
    format: Literal["json", "csv"] = "json"


class Figures(BaseModel):
    """Sums of requests. A ``cost`` of ``null`` means that none of them has a price."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    errors: int
    cancelled: int
    cost: str | None
    currency: str | None
    unpriced_requests: int


class UsageLine(Figures):
    """The sums of one hour, day or month, group and currency. It has the fields of the groups that
    the request names."""

    start: datetime
    model: str | None = None
    key: str | None = None
    key_name: str | None = None
    user: Any = None
    username: str | None = None
    workspace: str | None = None
    workspace_name: str | None = None


class Amount(BaseModel):
    """An amount of money, a decimal number."""

    cost: str
    currency: str


class UsageTotal(Figures):
    """The sums of all lines. With several currencies ``cost`` is ``null``: they are never added."""

    costs: list[Amount]


class UsageReport(BaseModel):
    """A report on usage from ``start`` to before ``end``."""

    object: Literal["usage"] = "usage"
    start: datetime
    end: datetime
    timezone: str
    data: list[UsageLine]
    total: UsageTotal


_speller: Final = Speller(UsageReport)

usage = Endpoint(tags=TAGS)


@usage.get(scope=SCOPE, owner=True, query=UsageQuery, response=UsageReport)
def report_usage(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Report what the caller used, or the workspace, by time and groups."""

    def read() -> tuple[TimeRange, list[Group], list[Line]]:
        return _read(admission)

    async def aread() -> tuple[TimeRange, list[Group], list[Line]]:
        return await in_separate_thread(read)

    period, groups, found = yield from call(read, aread)
    if admission.query.format == "csv":
        return (yield from download(admission, _csv(groups, found), CSV, "usage.csv"))
    return json_response(_speller.spell(_report(period, found), admission.mount.case))


def _read(admission: Admission[None]) -> tuple[TimeRange, list[Group], list[Line]]:
    query: UsageQuery = admission.query
    zone = zone_of(query.timezone, get_default_timezone())
    today = now().astimezone(zone).date()
    period = read_range(query.start, query.end, zone, today, query.bucket)
    groups = read_groups(query.group_by)
    rows = UsageBucket.objects.filter(own_or_workspace(admission.caller, query.scope))
    currency = usage_settings().CURRENCY
    found = lines(rows, period, bucket=query.bucket, group_by=groups, currency=currency)
    return period, groups, found


def read_groups(text: str, param: str = "group_by") -> list[Group]:
    """Return the groups that ``text`` names, with commas.

    Raises:
        InvalidRequest: There is no such group.
    """
    groups: list[Group] = []
    for name in filter(None, map(str.strip, text.split(","))):
        match name:
            case "model" | "key" | "user" | "workspace":
                if name not in groups:
                    groups.append(name)
            case _:
                raise InvalidRequest(
                    f"Invalid value for '{param}': there is no group {name[:100]!r}. Choose some "
                    f"of {', '.join(GROUPS)}, with commas.",
                    param=param,
                )
    return groups


def _report(period: TimeRange, found: list[Line]) -> dict[str, Any]:
    figures, costs = totals(found)
    amounts = [
        {"cost": amount_text(cost), "currency": currency}
        for currency, cost in sorted(costs.items())
    ]
    alone = amounts[0] if len(amounts) == 1 else {"cost": None, "currency": None}
    if not amounts:
        alone = {"cost": None, "currency": usage_settings().CURRENCY}
    return {
        "object": "usage",
        "start": iso(period.start),
        "end": iso(period.end),
        "timezone": str(period.zone),
        "data": [
            {
                "start": iso(line.start),
                **line.group,
                **line.figures,
                "cost": amount_text(line.cost),
                "currency": line.currency,
            }
            for line in found
        ],
        "total": {**figures, **alone, "costs": amounts},
    }


def _csv(groups: list[Group], found: list[Line]) -> Iterator[bytes]:
    columns = [column for name in groups for column in GROUPS[name]]
    rows = (
        [
            iso(line.start),
            *(line.group[column] for column in columns),
            *(line.figures[name] for name in FIGURES),
            line.cost if line.cost is None else amount_text(line.cost),
            line.currency,
        ]
        for line in found
    )
    return rows_as_csv(["start", *columns, *FIGURES, "cost", "currency"], rows)


def iso(moment: datetime) -> str:
    """Return ``moment`` as ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
