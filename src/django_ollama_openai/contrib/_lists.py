"""Lists with OpenAI's cursors: ``limit`` and ``after``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

from django.db.models import Model, QuerySet
from pydantic import BaseModel, Field

from .._ids import parse_public_id
from ..endpoints import QueryParameters
from ..exceptions import InvalidRequest

__all__ = ["Deleted", "ListAnswer", "ListQuery", "list_rows", "page", "unknown_cursor"]

M = TypeVar("M", bound=Model)
T = TypeVar("T", bound=BaseModel)


class ListQuery(QueryParameters):
    """The query parameters of a list."""

    limit: int = Field(20, ge=1, le=100)
    after: str | None = None


class ListAnswer(BaseModel, Generic[T]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """The answer to a ``DELETE`` request."""

    id: str
    object: str
    deleted: Literal[True] = True


def list_rows(
    rows: QuerySet[M], query: ListQuery, prefix: str, present: Callable[[M], Any]
) -> dict[str, Any]:
    """Return the page of ``rows`` that ``query`` selects, newest first, each formatted by
    ``present``.

    Args:
        prefix: The prefix of the rows' public ids.

    Raises:
        InvalidRequest: ``after`` is not the id of one of ``rows``.
    """
    if query.after is not None:
        last = parse_public_id(prefix, query.after)
        if last is None or not rows.filter(pk=last).exists():
            raise unknown_cursor(query.after)
        rows = rows.filter(pk__lt=last)
    found = list(rows.order_by("-pk")[: query.limit + 1])
    data = [present(row) for row in found[: query.limit]]
    return page(data, has_more=len(found) > query.limit)


def page(data: list[dict[str, Any]], *, has_more: bool, key: str = "id") -> dict[str, Any]:
    """Return the page of a list with the objects ``data``, whose ids are their fields ``key``."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0][key] if data else None,
        "last_id": data[-1][key] if data else None,
        "has_more": has_more,
    }


def unknown_cursor(cursor: str, param: str = "after") -> InvalidRequest:
    """Return the error for the value ``cursor`` of ``param`` that is no id in the list."""
    return InvalidRequest(f"There is no {cursor[:100]!r} in this list.", param=param)
