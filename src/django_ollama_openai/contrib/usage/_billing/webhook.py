"""Send events to a webhook, signed as Standard Webhooks says."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from datetime import UTC

from ..conf import usage_settings
from ..models import OutboxEvent
from .receivers import DeliveryFailed, post

__all__ = ["secret_of", "send"]

PREFIX = "whsec_"


def secret_of(text: str) -> bytes:
    """Return the key in ``text``, which is Base64 with or without ``whsec_`` before it.

    Raises:
        ValueError: It is not, or has less than 24 bytes.
    """
    encoded = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("The secret is no Base64.") from error
    if len(key) < 24:
        raise ValueError("The secret has less than 24 bytes.")
    return key


def send(events: Sequence[OutboxEvent]) -> None:
    """Send one event. Its id, in the header ``webhook-id``, is the idempotency key.

    Raises:
        DeliveryFailed: It was not acknowledged.
    """
    config = usage_settings().WEBHOOK
    if config is None:
        raise DeliveryFailed("The settings have no WEBHOOK.")
    (event,) = events
    body = json.dumps(
        {
            "type": event.type,
            "timestamp": event.created_at.astimezone(UTC).isoformat(),
            "data": event.payload,
        }
    ).encode()
    stamp = str(int(time.time()))
    signed = b".".join((event.public_id.encode(), stamp.encode(), body))
    try:
        key = secret_of(config.SECRET.get_secret_value())
    except ValueError as error:
        raise DeliveryFailed(str(error)) from None
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers = {
        "webhook-id": event.public_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }
    post(config.URL, body, headers, is_private=config.ALLOW_PRIVATE)
