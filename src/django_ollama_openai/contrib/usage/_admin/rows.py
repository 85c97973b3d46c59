"""The admins of prices, records, invoices and events."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ...._ids import parse_public_id
from ..._admin import ModelAdmin, TabularInline
from ..models import Invoice, InvoiceLine, OutboxEvent, Price, UsageRecord
from .charts import shown

__all__ = ["InvoiceAdmin", "OutboxEventAdmin", "PriceAdmin", "UsageRecordAdmin"]


class _ReadOnlyAdmin(ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """The base of the admins of rows that nobody changes."""

    show_full_result_count = False
    list_per_page = 50
    list_display_links = ("public_id",)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("id"), ordering="pk")
    def public_id(self, row: Any) -> str:
        found: str = row.public_id
        return found


class PriceAdmin(ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Prices. One that is valid already is not changed: the next one replaces it."""

    list_display = (
        "model",
        "starts_at",
        "currency",
        "input",
        "cached",
        "output",
        "request",
        "second",
    )
    ordering = ("model", "-starts_at")
    search_fields = ("model",)
    # Deleting the selected rows would not look at each of them.
    actions = None
    fields = ("model", "starts_at", "currency", "input", "cached", "output", "request", "second")

    def get_readonly_fields(self, request: HttpRequest, obj: Price | None = None) -> Any:
        return () if obj is None or obj.starts_at > now() else self.fields

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        is_valid = obj is not None and obj.starts_at <= now()
        return not is_valid and super().has_delete_permission(request, obj)


class UsageRecordAdmin(_ReadOnlyAdmin):
    """The records of requests."""

    list_display = (
        "public_id",
        "started_at",
        "workspace_name",
        "username",
        "key_name",
        "answered_by",
        "status",
        "prompt_tokens",
        "completion_tokens",
        "amount",
    )
    list_filter = ("status", "endpoint")
    ordering = ("-started_at",)
    search_fields = ("pk",)
    search_help_text = _("Id of a record or request, or a username")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        key = parse_public_id(UsageRecord.prefix, term)
        if key is not None:
            return queryset.filter(pk=key), False
        return queryset.filter(Q(user__username=term) | Q(request_id=term)), False

    @admin.display(description=_("cost"))
    def amount(self, record: UsageRecord) -> str:
        return "–" if record.cost is None else f"{shown(record.cost)} {record.currency}"


class InvoiceLineInline(TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = InvoiceLine
    extra = 0
    can_delete = False
    fields = (
        "model",
        "requests",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "money",
    )
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    @admin.display(description=_("amount"))
    def money(self, line: InvoiceLine) -> str:
        return shown(line.amount)


class InvoiceAdmin(_ReadOnlyAdmin):
    """Invoices with their lines."""

    list_display = ("public_id", "workspace_name", "month", "money")
    list_filter = ("currency",)
    ordering = ("-month", "workspace_name")
    search_fields = ("workspace_name",)
    fields = ("public_id", "workspace_name", "month", "money", "unpriced_requests", "created_at")
    readonly_fields = fields
    inlines = (InvoiceLineInline,)

    @admin.display(description=_("total"))
    def money(self, invoice: Invoice) -> str:
        return f"{shown(invoice.total)} {invoice.currency}"


class OutboxEventAdmin(_ReadOnlyAdmin):
    """Events for billing systems. A failed one can be sent again."""

    list_display = (
        "public_id",
        "destination",
        "type",
        "created_at",
        "due_at",
        "attempts",
        "error",
        "delivered_at",
    )
    list_filter = ("destination", "type")
    ordering = ("-pk",)
    actions = ("send_again",)

    @admin.action(
        description=_("Send selected events again, unless they were acknowledged"),
        permissions=["send"],
    )
    def send_again(self, request: HttpRequest, queryset: QuerySet[OutboxEvent]) -> None:
        rows = queryset.filter(delivered_at=None)
        count = rows.update(due_at=now(), claimed_until=None)
        self.message_user(
            request, ngettext("%d event is due.", "%d events are due.", count) % count
        )

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ollama_openai_usage.change_outboxevent")
