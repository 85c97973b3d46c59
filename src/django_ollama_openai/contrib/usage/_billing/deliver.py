"""Deliver the events of the outbox: at least once, with an idempotency key, and never again once
they are acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from django.utils.timezone import now

from ..models import Destination, OutboxEvent
from . import openmeter, stripe, webhook
from .outbox import claim, note_delivered, note_failure
from .receivers import DeliveryFailed

__all__ = ["deliver"]

logger = logging.getLogger("django_ollama_openai")

#: Send events, all or none of them.
Send = Callable[[Sequence[OutboxEvent]], None]

#: The most events of one request to each receiver.
BATCHES: Final[dict[str, int]] = {
    Destination.WEBHOOK: 1,
    Destination.STRIPE: 1,
    Destination.OPENMETER: 100,
}


def deliver() -> Iterator[tuple[int, str]]:
    """Deliver all events that are due now. Yield, for each request, the number of its events, and
    the error, or an empty text."""
    # Those that fail are due later, so that a receiver that is down does not keep the process.
    started = now()
    senders: dict[str, Send] = {
        Destination.WEBHOOK: webhook.send,
        Destination.STRIPE: stripe.send,
        Destination.OPENMETER: openmeter.send,
    }
    # Each request has a claim of its own, which lasts longer than the request may take.
    while events := claim(BATCHES, started):
        yield len(events), _deliver(events, senders[events[0].destination])


def _deliver(events: Sequence[OutboxEvent], send: Send) -> str:
    try:
        send(events)
    except DeliveryFailed as error:
        note_failure(events, str(error), is_final=error.is_final)
        return str(error)
    except Exception as error:
        # One event must not keep the others. The message of the error may quote a secret.
        message = f"Unexpected {type(error).__name__}."
        logger.error("%s cannot be delivered: %s", events[0].public_id, message)
        note_failure(events, message)
        return message
    note_delivered(events)
    return ""
