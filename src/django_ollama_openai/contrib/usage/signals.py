"""Signals of budgets."""

from __future__ import annotations

from django.dispatch import Signal

__all__ = ["budget_reached"]

#: A budget, a limit of ``cost`` per day, week or month, has reached a threshold: once for each
#: threshold and period, in one process.
#:
#: The sender is :class:`~django_ollama_openai.contrib.access.models.Limit`. Arguments: ``limit``;
#: ``threshold``, 50, 80 or 100, in percent; ``used`` and ``amount``, of type
#: :class:`~decimal.Decimal`; ``period_start``, the beginning of the period. It is sent a second or
#: so after the request that reached it, in a thread.
budget_reached = Signal()
