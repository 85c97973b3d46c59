"""The admin of usage, prices, invoices and events."""

from __future__ import annotations

from django.contrib import admin

from ._admin.report import ReportAdmin
from ._admin.rows import InvoiceAdmin, OutboxEventAdmin, PriceAdmin, UsageRecordAdmin
from .models import Invoice, OutboxEvent, Price, UsageRecord, UsageReport

__all__ = ["InvoiceAdmin", "OutboxEventAdmin", "PriceAdmin", "ReportAdmin", "UsageRecordAdmin"]

admin.site.register(UsageReport, ReportAdmin)
admin.site.register(Price, PriceAdmin)
admin.site.register(UsageRecord, UsageRecordAdmin)
admin.site.register(Invoice, InvoiceAdmin)
admin.site.register(OutboxEvent, OutboxEventAdmin)
