"""OpenAI's admin API: usage and costs of the organization, in buckets of time."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Count, F, Q, QuerySet, Sum
from django.http.response import HttpResponseBase
from pydantic import BaseModel, Field

from ...._gateway.flow import Flow, call
from ...._ids import parse_public_id, public_id
from ...._threads import in_separate_thread
from ...._translation.spelling import Speller
from ...._views.http_responses import json_response
from ....endpoints import Admission, Endpoint, QueryParameters
from ....exceptions import InvalidRequest
from .._prices import cost
from .._recording.sums import quarter_of
from ..models import Price, UsageBucket, UsageRecord

__all__ = ["completions", "costs", "embeddings"]

TAGS: Final = {"Organization": "OpenAI's admin API: a project is a workspace"}
SCOPE: Final = "admin"
EMBEDDINGS: Final = "embeddings"

Width = Literal["1m", "1h", "1d"]
_SECONDS: Final[dict[Width, int]] = {"1m": 60, "1h": 3_600, "1d": 86_400}
#: The buckets of a page: the default, and the most.
_LIMITS: Final[dict[Width, tuple[int, int]]] = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
#: The most seconds since 1970: the end of the year 9000.
_MAX_TIME: Final = 221_845_392_000

#: The columns of the groups, and the prefixes of their public ids.
_COLUMNS: Final = {
    "project_id": "workspace",
    "user_id": "user",
    "api_key_id": "key",
    "model": "model",
}
#: The groups of which all usage here is one.
_CONSTANTS: Final[dict[str, Any]] = {
    "batch": False,
    "service_tier": "default",
    "api_source": "unlabeled",
}


class BucketQuery(QueryParameters):
    """The query parameters that usage and costs share. Times are in seconds."""

    start_time: int = Field(ge=0, le=_MAX_TIME)
    end_time: int | None = Field(None, ge=0, le=_MAX_TIME)
    project_ids: list[str] = Field(default_factory=list)
    user_ids: list[str] = Field(default_factory=list)
    api_key_ids: list[str] = Field(default_factory=list)
    limit: int | None = Field(None, ge=1)
    page: str | None = None


class EmbeddingsQuery(BucketQuery):
    """The query parameters of the usage of embeddings."""

    bucket_width: Width = "1d"
    models: list[str] = Field(default_factory=list)
    group_by: list[Literal["project_id", "user_id", "api_key_id", "model"]] = Field(
        default_factory=list
    )


class CompletionsQuery(BucketQuery):
    """The query parameters of the usage of completions."""

    bucket_width: Width = "1d"
    models: list[str] = Field(default_factory=list)
    batch: bool | None = None
    group_by: list[
        Literal[
            "project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"
        ]
    ] = Field(default_factory=list)


class CostsQuery(BucketQuery):
    """The query parameters of costs."""

    bucket_width: Literal["1d"] = "1d"
    line_items: list[str] = Field(default_factory=list)
    group_by: list[Literal["project_id", "user_id", "line_item", "api_key_id", "api_source"]] = (
        Field(default_factory=list)
    )
    limit: int | None = Field(None, ge=1, le=180)


class Grouped(BaseModel):
    """The groups of a result; ``null`` unless the request groups by them."""

    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None


class EmbeddingsResult(Grouped):
    """The usage of embeddings in a bucket."""

    object: Literal["organization.usage.embeddings.result"]
    input_tokens: int
    num_model_requests: int
    model: str | None = None


class CompletionsResult(Grouped):
    """The usage of chat completions, completions and responses in a bucket."""

    object: Literal["organization.usage.completions.result"]
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    num_model_requests: int
    model: str | None = None
    batch: bool | None = None
    service_tier: str | None = None
    api_source: str | None = None


class CostAmount(BaseModel):
    """An amount of money."""

    value: float
    currency: str


class CostsResult(Grouped):
    """The costs in a bucket, in one currency. A line item is a model and what is paid for."""

    object: Literal["organization.costs.result"]
    amount: CostAmount
    line_item: str | None = None
    quantity: float | None = None
    quantity_unit: str | None = None
    api_source: str | None = None


class UsageBucketAnswer(BaseModel):
    """The results of a bucket, from ``start_time`` to before ``end_time``, in seconds."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[CompletionsResult | EmbeddingsResult | CostsResult]


class UsagePage(BaseModel):
    """A page of buckets."""

    object: Literal["page"] = "page"
    data: list[UsageBucketAnswer]
    has_more: bool
    next_page: str | None


_speller: Final = Speller(UsagePage)
#: Return the results of one bucket.
Results = Callable[[datetime, datetime], dict[int, list[dict[str, Any]]]]

completions = Endpoint(tags=TAGS)
embeddings = Endpoint(tags=TAGS)
costs = Endpoint(tags=TAGS)


@completions.get(scope=SCOPE, query=CompletionsQuery, response=UsagePage)
def report_completions(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Report the usage of chat completions, completions and responses."""
    query: CompletionsQuery = admission.query

    def results(begin: datetime, end: datetime) -> dict[int, list[dict[str, Any]]]:
        if query.batch:
            return {}
        return _usage(query, begin, end, ~Q(endpoint=EMBEDDINGS), _as_completions)

    return (yield from _answer(admission, query.bucket_width, results))


@embeddings.get(scope=SCOPE, query=EmbeddingsQuery, response=UsagePage)
def report_embeddings(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Report the usage of embeddings."""
    query: EmbeddingsQuery = admission.query

    def results(begin: datetime, end: datetime) -> dict[int, list[dict[str, Any]]]:
        return _usage(query, begin, end, Q(endpoint=EMBEDDINGS), _as_embeddings)

    return (yield from _answer(admission, query.bucket_width, results))


@costs.get(scope=SCOPE, query=CostsQuery, response=UsagePage)
def report_costs(admission: Admission[None]) -> Flow[HttpResponseBase]:
    """Report costs by day. What has no price is not part of them."""
    query: CostsQuery = admission.query

    def results(begin: datetime, end: datetime) -> dict[int, list[dict[str, Any]]]:
        return _costs(query, begin, end)

    return (yield from _answer(admission, "1d", results, limits=(7, 180)))


def _answer(
    admission: Admission[None],
    width: Width,
    results: Results,
    limits: tuple[int, int] | None = None,
) -> Flow[HttpResponseBase]:
    window = _Window.of(admission.query, width, limits or _LIMITS[width])

    def read() -> dict[int, list[dict[str, Any]]]:
        return results(window.first, window.last)

    async def aread() -> dict[int, list[dict[str, Any]]]:
        return await in_separate_thread(read)

    found = yield from call(read, aread)
    page = {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": start,
                "end_time": start + _SECONDS[width],
                "results": found.get(start, []),
            }
            for start in window.starts
        ],
        "has_more": window.next_page is not None,
        "next_page": window.next_page,
    }
    return json_response(_speller.spell(page, admission.mount.case))


@dataclass(frozen=True, slots=True)
class _Window:
    """The buckets of one page: their beginnings in seconds, and the time that they report on."""

    starts: Sequence[int]
    first: datetime
    last: datetime
    next_page: str | None

    @classmethod
    def of(cls, query: Any, width: Width, limits: tuple[int, int]) -> _Window:
        """Return the page that ``query`` names.

        Raises:
            InvalidRequest: The limit is too high, the time range is empty, or the page is one of
                another query.
        """
        default, most = limits
        limit = query.limit or default
        if limit > most:
            raise InvalidRequest(
                f"Invalid value for 'limit': it may be up to {most} for buckets of {width}.",
                param="limit",
            )
        end = int(time.time()) + 1 if query.end_time is None else query.end_time
        if end <= query.start_time:
            raise InvalidRequest("'end_time' has to be after 'start_time'.", param="end_time")
        seconds = _SECONDS[width]
        begin = query.start_time // seconds * seconds
        if query.page is not None:
            begin = _read_page(query, begin, end, seconds)
        starts = range(begin, min(begin + limit * seconds, end), seconds)
        following = begin + limit * seconds
        first = datetime.fromtimestamp(max(begin, query.start_time), UTC)
        last = datetime.fromtimestamp(min(following, end), UTC)
        return cls(starts, first, last, _page(query, following) if following < end else None)


def _page(query: Any, start: int) -> str:
    token = f"{start}:{_digest(query)}".encode()
    return f"page_{base64.urlsafe_b64encode(token).decode().rstrip('=')}"


def _read_page(query: Any, begin: int, end: int, seconds: int) -> int:
    try:
        encoded = query.page.removeprefix("page_")
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        start, _, digest = text.partition(":")
        position = int(start)
        if digest != _digest(query) or not begin < position < end or position % seconds:
            raise ValueError
    except ValueError:
        raise InvalidRequest(
            f"Invalid value for 'page': {query.page[:100]!r} is no page of this query.",
            param="page",
        ) from None
    return position


def _digest(query: Any) -> str:
    fields = query.model_dump(exclude={"page", "limit", "end_time"})
    return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:16]


def _filters(query: Any) -> Q:
    """Return the condition of the filters of ``query``; ids that do not exist fit nothing."""
    found = Q()
    if query.project_ids:
        found &= Q(workspace__in=_keys("ws", query.project_ids))
    if query.user_ids:
        found &= Q(user__in=_user_keys(query.user_ids))
    if query.api_key_ids:
        static = Q(static_key__in=[value for value in query.api_key_ids if value])
        found &= Q(key__in=_keys("key", query.api_key_ids)) | static
    return found


def _keys(prefix: str, values: Sequence[str]) -> list[Any]:
    return [key for value in values if (key := parse_public_id(prefix, value)) is not None]


def _user_keys(values: Sequence[str]) -> list[Any]:
    field = get_user_model()._meta.pk
    keys = []
    for value in values:
        try:
            key = field.to_python(value)
        except ValidationError:
            continue
        # Greater ones are in no database.
        if not isinstance(key, int) or abs(key) < 2**63:
            keys.append(key)
    return keys


def _group(row: dict[str, Any], group_by: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in group_by:
        if name in _CONSTANTS:
            found[name] = _CONSTANTS[name]
        elif name in _COLUMNS:
            value = row[_COLUMNS[name]]
            if name == "api_key_id":
                value = row["static_key"] or None if value is None else public_id("key", value)
            elif name == "project_id":
                value = None if value is None else public_id("ws", value)
            elif name == "user_id":
                value = None if value is None else str(value)
            found[name] = value
    return found


def _group_columns(group_by: Sequence[str]) -> list[str]:
    columns = [_COLUMNS[name] for name in group_by if name in _COLUMNS]
    return [*columns, *(["static_key"] if "key" in columns else [])]


def _usage(
    query: EmbeddingsQuery | CompletionsQuery,
    begin: datetime,
    end: datetime,
    endpoint: Q,
    present: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[int, list[dict[str, Any]]]:
    """Return the results by the beginnings of buckets."""
    condition = endpoint & _filters(query)
    columns = _group_columns(query.group_by)
    is_minute = query.bucket_width == "1m"
    rows = _of_minutes(condition, begin, end) if is_minute else _of_quarters(condition, begin, end)
    if query.models:
        rows = rows.filter(**{"answered_by__in" if is_minute else "model__in": query.models})
    if is_minute and "model" in columns:
        columns = ["answered_by" if column == "model" else column for column in columns]
    time_column = "started_at" if is_minute else "start"
    requests = Count("pk") if is_minute else Sum("requests")
    sums = {name: Sum(f"{name}_tokens") for name in ("prompt", "cached", "completion")}
    grouped = rows.order_by().values(time_column, *columns).annotate(requests_=requests, **sums)
    seconds = _SECONDS[query.bucket_width]
    totals: dict[tuple[int, tuple[Any, ...]], dict[str, Any]] = {}
    for row in grouped.iterator():
        if "answered_by" in row:
            row["model"] = row["answered_by"]
        start = int(row[time_column].timestamp()) // seconds * seconds
        group = _group(row, query.group_by)
        total = totals.setdefault(
            (start, tuple(group.values())),
            {**group, "prompt": 0, "cached": 0, "completion": 0, "requests_": 0},
        )
        for name in ("prompt", "cached", "completion", "requests_"):
            total[name] += row[name]
    return _by_start({key: present(total) for key, total in totals.items()})


def _of_quarters(condition: Q, begin: datetime, end: datetime) -> QuerySet[Any]:
    return UsageBucket.objects.filter(condition, start__gte=quarter_of(begin), start__lt=end)


def _of_minutes(condition: Q, begin: datetime, end: datetime) -> QuerySet[Any]:
    return UsageRecord.objects.filter(condition, started_at__gte=begin, started_at__lt=end)


def _by_start(
    found: dict[tuple[int, tuple[Any, ...]], dict[str, Any]],
) -> dict[int, list[dict[str, Any]]]:
    results: dict[int, list[dict[str, Any]]] = {}
    for (start, _), result in sorted(found.items(), key=lambda each: str(each[0])):
        results.setdefault(start, []).append(result)
    return results


def _as_completions(total: dict[str, Any]) -> dict[str, Any]:
    groups = ("project_id", "user_id", "api_key_id", "model", *_CONSTANTS)
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": total["prompt"],
        "output_tokens": total["completion"],
        "input_cached_tokens": total["cached"],
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": total["requests_"],
        **{name: total.get(name) for name in groups},
    }


def _as_embeddings(total: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "organization.usage.embeddings.result",
        "input_tokens": total["prompt"],
        "num_model_requests": total["requests_"],
        **{name: total.get(name) for name in ("project_id", "user_id", "api_key_id", "model")},
    }


def _costs(query: CostsQuery, begin: datetime, end: datetime) -> dict[int, list[dict[str, Any]]]:
    rows = _of_quarters(_filters(query) & Q(price__isnull=False), begin, end)
    has_items = "line_item" in query.group_by or bool(query.line_items)
    columns = _group_columns(query.group_by)
    wanted = [*columns, "currency", *(["model", "price"] if has_items else [])]
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "engine_time")
    sums = {f"{name}_": Sum(name) for name in (*names, "cost")}
    billed = Sum(F("requests") - F("errors"))
    grouped = rows.order_by().values("start", *wanted).annotate(billed=billed, **sums)
    prices = Price.objects.in_bulk() if has_items else {}
    totals: dict[tuple[int, tuple[Any, ...]], dict[str, Any]] = {}
    for row in grouped.iterator():
        start = int(row["start"].timestamp()) // 86_400 * 86_400
        group = _group(row, query.group_by)
        items = _line_items(row, prices[row["price"]]) if has_items else _whole(row)
        for item, amount, quantity, unit in items:
            if query.line_items and item not in query.line_items:
                continue
            name = item if "line_item" in query.group_by else None
            total = totals.setdefault(
                (start, (*group.values(), name, row["currency"])),
                {
                    **group,
                    "line_item": name,
                    "currency": row["currency"],
                    "value": Decimal(0),
                    "quantity": None,
                    "unit": unit if name else None,
                },
            )
            total["value"] += amount
            if name and quantity is not None:
                total["quantity"] = (total["quantity"] or 0) + quantity
    return _by_start({key: _as_costs(total) for key, total in totals.items()})


#: The name of a line item, its amount, and its quantity with the unit.
_Item: TypeAlias = tuple[str | None, Decimal, Decimal | None, str | None]


def _whole(row: dict[str, Any]) -> Iterator[_Item]:
    yield None, row["cost_"], None, None


def _line_items(row: dict[str, Any], price: Price) -> Iterator[_Item]:
    """Return the line items of sums at ``price``."""
    uncached = row["prompt_tokens_"] - row["cached_tokens_"]
    nothing = {
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "completion_tokens": 0,
        "engine_time": 0,
        "requests": 0,
    }
    cached = row["cached_tokens_"]
    seconds = Decimal(row["engine_time_"]).scaleb(-3)
    for name, used, quantity, unit in (
        ("input_tokens", {"prompt_tokens": uncached}, uncached, "tokens"),
        (
            "cached_input_tokens",
            {"prompt_tokens": cached, "cached_tokens": cached},
            cached,
            "tokens",
        ),
        (
            "output_tokens",
            {"completion_tokens": row["completion_tokens_"]},
            row["completion_tokens_"],
            "tokens",
        ),
        ("requests", {"requests": row["billed"]}, row["billed"], None),
        ("seconds", {"engine_time": row["engine_time_"]}, seconds, "duration_seconds"),
    ):
        amount = cost(price, **{**nothing, **used})
        if amount:
            yield f"{row['model']}, {name}", amount, Decimal(quantity), unit


def _as_costs(total: dict[str, Any]) -> dict[str, Any]:
    groups = ("project_id", "user_id", "api_key_id", "api_source")
    quantity = total["quantity"]
    return {
        "object": "organization.costs.result",
        "amount": {"value": float(total["value"]), "currency": total["currency"].lower()},
        "line_item": total["line_item"],
        "quantity": None if quantity is None else float(quantity),
        "quantity_unit": total["unit"],
        **{name: total.get(name) for name in groups},
    }
