"""Deliver the events of the outbox: at least once, with an idempotency key, and never again once
they are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..models import Destination, OutboxEvent
from . import openmeter, stripe, webhook
from .outbox import claim, note_delivered, note_failure
from .receivers import DeliveryFailed

__all__ = ["deliver"]

#: Send events, all or none of them.
Send = Callable[[Sequence[OutboxEvent]], None]

#: The most events of one request to each receiver.
BATCHES: Final = {Destination.WEBHOOK: 1, Destination.STRIPE: 1, Destination.OPENMETER: 100}
#: The events that are claimed at once. With the time limits of requests, delivering them takes less
#: than a claim lasts.
CLAIMED: Final = 20


def deliver() -> Iterator[tuple[int, str]]:
    """Deliver all events that are due. Yield, for each request, the number of its events, and the
    error, or an empty text."""
    senders: dict[str, Send] = {
        Destination.WEBHOOK: webhook.send,
        Destination.STRIPE: stripe.send,
        Destination.OPENMETER: openmeter.send,
    }
    while events := claim(CLAIMED):
        destination = Destination(events[0].destination)
        size = BATCHES[destination]
        for start in range(0, len(events), size):
            batch = events[start : start + size]
            yield len(batch), _deliver(batch, senders[destination])


def _deliver(events: Sequence[OutboxEvent], send: Send) -> str:
    try:
        send(events)
    except DeliveryFailed as error:
        note_failure(events, str(error), is_final=error.is_final)
        return str(error)
    note_delivered(events)
    return ""
