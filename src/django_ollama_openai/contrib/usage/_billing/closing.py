"""Close months into invoices, which never change: later records belong to the next open month."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Sum
from django.utils.timezone import now

from ...access.models import Workspace
from .._recording.record import billing_zone, month_of, series_of
from .._reports.ranges import midnight
from ..conf import usage_settings
from ..models import Closing, Invoice, InvoiceLine, Price, UsageBucket, UsageRecord

__all__ = [
    "Statement",
    "assign_months",
    "close",
    "end_of",
    "is_over",
    "next_month",
    "present",
    "statements",
]

#: The time after the end of a month in which records of it may still be on their way.
GRACE = timedelta(seconds=60)


def next_month(month: date) -> date:
    """Return the first day of the month after ``month``."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def end_of(month: date) -> datetime:
    """Return the end of ``month`` in the time zone of billing."""
    return midnight(next_month(month), billing_zone())


def is_over(month: date) -> bool:
    """Return whether ``month`` can be closed: it ended at least a minute ago."""
    return now() >= end_of(month) + GRACE


def assign_months(records: Sequence[UsageRecord]) -> None:
    """Give ``records`` of a closed month the first month after it that is open. The caller has the
    transaction that inserts them."""
    current = month_of(now(), billing_zone())
    late = [
        record for record in records if record.workspace_id is not None and record.month < current
    ]
    if not late:
        return
    workspaces = {record.workspace_id for record in late if record.workspace_id is not None}
    _lock(workspaces)
    rows = Closing.objects.filter(workspace__in=workspaces)
    closed = set(rows.values_list("workspace_id", "month"))
    for record in late:
        month = record.month
        while (record.workspace_id, month) in closed:
            month = next_month(month)
        if month != record.month:
            record.month = month
            record.series = series_of(record)


def _lock(workspaces: Iterable[UUID]) -> None:
    """Lock the rows of ``workspaces`` until the end of the transaction, one after the other: by an
    update, since SQLite has no other way."""
    for key in sorted(workspaces):
        Workspace.objects.filter(pk=key).update(name=F("name"))


@dataclass(slots=True)
class Statement:
    """The usage of a workspace in a month, in one currency: an invoice, and its lines."""

    invoice: Invoice
    lines: list[InvoiceLine] = field(default_factory=list)


def statements(workspace: Workspace, month: date) -> list[Statement]:
    """Return what ``workspace`` has to pay for ``month`` as it is now, not stored: one statement
    for each currency, and at least one. Requests without a price are counted by the first."""
    rows = UsageBucket.objects.filter(workspace=workspace, month=month)
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "engine_time")
    sums: dict[str, Any] = {f"{name}_": Sum(name) for name in names}
    sums |= {"requests_": Sum(F("requests") - F("errors")), "amount_": Sum("cost")}
    grouped: Any = rows.filter(price__isnull=False).values("model", "price", "currency")
    found: dict[str, Statement] = {}
    for row in grouped.annotate(**sums).order_by("model", "price"):
        statement = found.setdefault(
            row["currency"], Statement(_invoice(workspace, month, row["currency"]))
        )
        line = InvoiceLine(
            invoice=statement.invoice,
            model=row["model"],
            price_id=row["price"],
            requests=row["requests_"],
            amount=row["amount_"],
            **{name: row[f"{name}_"] for name in names},
        )
        statement.lines.append(line)
        statement.invoice.total = statement.invoice.total + line.amount
    currency = usage_settings().CURRENCY
    if not found:
        found[currency] = Statement(_invoice(workspace, month, currency))
    result = sorted(found.values(), key=_order)
    unpriced = rows.aggregate(count=Sum("unpriced_requests"))["count"] or 0
    result[0].invoice.unpriced_requests = unpriced
    return result


def _order(statement: Statement) -> tuple[bool, str]:
    """Return a key that sorts statements by currency, that of the settings first."""
    currency = statement.invoice.currency
    return currency != usage_settings().CURRENCY, currency


def _invoice(workspace: Workspace, month: date, currency: str) -> Invoice:
    return Invoice(
        workspace=workspace,
        workspace_name=workspace.name,
        month=month,
        currency=currency,
        total=Decimal(0),
    )


def close(workspace: Workspace, month: date) -> list[Statement]:
    """Close ``month``, which is over, for ``workspace``, and return its invoices, stored; those of
    the first time if it is closed already."""
    with transaction.atomic():
        _lock([workspace.pk])
        closing, is_new = Closing.objects.get_or_create(workspace=workspace, month=month)
        if is_new:
            found = statements(workspace, month)
            for statement in found:
                statement.invoice.closing = closing
            Invoice.objects.bulk_create(statement.invoice for statement in found)
            InvoiceLine.objects.bulk_create(line for each in found for line in each.lines)
    return _stored(closing)


def _stored(closing: Closing) -> list[Statement]:
    found = [
        Statement(row, sorted(row.lines.all(), key=lambda line: line.pk))
        for row in closing.invoices.prefetch_related("lines")
    ]
    return sorted(found, key=_order)


def present(statement: Statement, prices: dict[UUID, Price]) -> dict[str, Any]:
    """Return the JSON object of a statement. Its ``id`` is ``null`` while it is not stored."""
    invoice = statement.invoice
    is_stored = not invoice._state.adding
    return {
        "object": "invoice",
        "id": invoice.public_id if is_stored else None,
        "workspace": None if invoice.workspace is None else invoice.workspace.public_id,
        "workspace_name": invoice.workspace_name,
        "month": f"{invoice.month:%Y-%m}",
        "currency": invoice.currency,
        "lines": [_present_line(line, prices[line.price_id]) for line in statement.lines],
        "total": _text(invoice.total),
        "unpriced_requests": invoice.unpriced_requests,
        "closed_at": f"{invoice.closing.closed_at.isoformat()}" if is_stored else None,
    }


def _present_line(line: InvoiceLine, price: Price) -> dict[str, Any]:
    cached = price.input if price.cached is None else price.cached
    return {
        "model": line.model,
        "requests": line.requests,
        "prompt_tokens": line.prompt_tokens,
        "cached_tokens": line.cached_tokens,
        "completion_tokens": line.completion_tokens,
        "seconds": _text(Decimal(line.engine_time).scaleb(-3)),
        "price": {
            "input": _text(price.input),
            "cached": _text(cached),
            "output": _text(price.output),
            "request": _text(price.request),
            "second": _text(price.second),
        },
        "amount": _text(line.amount),
    }


def _text(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
