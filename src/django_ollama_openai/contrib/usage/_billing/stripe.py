"""Send events to a meter of Stripe, with Stripe's own library (the extra ``stripe``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils.timezone import now

from ..conf import usage_settings
from ..models import OutboxEvent
from .outbox import RECORDED
from .receivers import TIMEOUT, DeliveryFailed, is_final

__all__ = ["send"]

#: Stripe takes no older events.
OLDEST: Final = timedelta(days=35)
#: Stripe's code for an event whose identifier it has seen.
DUPLICATE: Final = "duplicate_meter_event"


def send(events: Sequence[OutboxEvent]) -> None:
    """Send one event, whose value is its tokens. Stripe ignores one with an identifier that it has
    seen within a day.

    Raises:
        DeliveryFailed: It was not acknowledged.
    """
    config = usage_settings().STRIPE
    if config is None:
        raise DeliveryFailed("The settings have no STRIPE.")
    (event,) = events
    if event.type != RECORDED:
        # Meters measure usage only.
        return
    payload: dict[str, Any] = event.payload
    moment = datetime.fromisoformat(payload["started_at"])
    if now() - moment > OLDEST:
        raise DeliveryFailed("Stripe takes no events older than 35 days.", is_final=True)
    try:
        import stripe
    except ImportError:
        raise DeliveryFailed("The package stripe is not installed.") from None
    try:
        client = stripe.StripeClient(
            config.API_KEY.get_secret_value(),
            base_addresses={"api": stripe.api_base},
            http_client=stripe.RequestsClient(timeout=TIMEOUT),
            # The outbox repeats them.
            max_network_retries=0,
        )
        client.v1.billing.meter_events.create(
            {
                "event_name": config.EVENT_NAME,
                "identifier": event.public_id,
                "timestamp": int(moment.timestamp()),
                "payload": {
                    "stripe_customer_id": str(payload["stripe_customer_id"]),
                    "value": str(payload["prompt_tokens"] + payload["completion_tokens"]),
                },
            }
        )
    except stripe.InvalidRequestError as error:
        if error.code == DUPLICATE:
            # An attempt whose answer did not arrive.
            return
        raise DeliveryFailed(f"Stripe refuses it: {error.code}.", is_final=True) from None
    except stripe.StripeError as error:
        # Its message may quote the key.
        status = error.http_status
        raise DeliveryFailed(
            f"{type(error).__name__}, status {status}.",
            is_final=status is not None and is_final(status),
        ) from None
