"""Invoices, and the outbox of events for billing systems."""
