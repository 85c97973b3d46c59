"""The outbox: events for billing systems, stored together with what they tell, and kept until they
are acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import Q
from django.utils.module_loading import import_string
from django.utils.timezone import now

from .._views.records import present_record
from ..conf import UsageSettings, usage_settings
from ..models import Destination, OutboxEvent, UsageRecord

__all__ = [
    "RECORDED",
    "claim",
    "destinations",
    "event_for",
    "events_of",
    "note_delivered",
    "note_failure",
]

logger = logging.getLogger("django_ollama_openai")

RECORDED: Final = "usage.recorded"
#: The pause after the first failure, which doubles, and the longest.
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=1)
#: The time for which a process claims events: longer than it takes to deliver them.
CLAIM: Final = timedelta(minutes=5)


def destinations(settings: UsageSettings) -> list[Destination]:
    """Return the receivers in the settings."""
    found = {
        Destination.WEBHOOK: settings.WEBHOOK,
        Destination.STRIPE: settings.STRIPE,
        Destination.OPENMETER: settings.OPENMETER,
    }
    return [destination for destination, config in found.items() if config is not None]


def events_of(records: Sequence[UsageRecord]) -> list[OutboxEvent]:
    """Return the events of ``records``, not inserted yet: one for each receiver in the settings."""
    settings = usage_settings()
    wanted = destinations(settings)
    if not wanted:
        return []
    events = []
    for record in records:
        shown = present_record(record)
        for destination in wanted:
            event = event_for(destination, RECORDED, dict(shown))
            stripe = settings.STRIPE if destination == Destination.STRIPE else None
            if stripe is None or _add_customer(event, record, stripe.CUSTOMER):
                events.append(event)
    return events


def event_for(destination: Destination, type: str, payload: dict[str, Any]) -> OutboxEvent:
    """Return an event, not inserted yet."""
    return OutboxEvent(destination=destination, type=type, payload=payload)


def _add_customer(event: OutboxEvent, record: UsageRecord, function: str) -> bool:
    """Add Stripe's customer to ``event``, and return whether there is one. Where the site's
    function fails, the event is given up, with the error: the record must not be lost."""
    try:
        # Its queries may fail, too, and PostgreSQL would refuse all later ones.
        with transaction.atomic():
            customer = import_string(function)(record)
    except Exception as error:
        event.due_at = None
        event.error = f"CUSTOMER failed: {type(error).__name__}."
        logger.exception("STRIPE['CUSTOMER'] failed for the record %s", record.public_id)
        return True
    event.payload["stripe_customer_id"] = customer
    return customer is not None


def claim(sizes: Mapping[str, int], due_by: datetime) -> list[OutboxEvent]:
    """Claim events of one receiver that are due at ``due_by``, so that no other process delivers
    them meanwhile, and return them, the oldest first; none if none is left. ``sizes`` has the most
    events for each receiver."""
    while True:
        free = Q(claimed_until=None) | Q(claimed_until__lt=now())
        due = OutboxEvent.objects.filter(free, due_at__lte=due_by)
        first = due.order_by("due_at", "pk").first()
        if first is None:
            return []
        rows = due.filter(destination=first.destination).order_by("due_at", "pk")
        keys = list(rows.values_list("pk", flat=True)[: sizes[first.destination]])
        until = now() + CLAIM
        # Each by itself: another process may have claimed some of them, or all.
        claimed = [key for key in keys if due.filter(pk=key).update(claimed_until=until)]
        if claimed:
            return sorted(OutboxEvent.objects.filter(pk__in=claimed), key=lambda event: event.pk)


def note_delivered(events: Sequence[OutboxEvent]) -> None:
    """Note that ``events`` were acknowledged: they are never sent again."""
    rows = OutboxEvent.objects.filter(pk__in=[event.pk for event in events])
    rows.update(delivered_at=now(), due_at=None, claimed_until=None, error="")


def note_failure(events: Sequence[OutboxEvent], error: str, *, is_final: bool = False) -> None:
    """Note that the delivery of ``events`` has failed: they are due again after a pause, or never
    if that ``is_final``. ``error`` has no secrets."""
    for event in events:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(event.attempts, 20))
        OutboxEvent.objects.filter(pk=event.pk, delivered_at=None).update(
            attempts=min(event.attempts + 1, 32_767),
            due_at=None if is_final else now() + pause,
            claimed_until=None,
            error=error[:200],
        )
