"""Send events to OpenMeter: CloudEvents, several in one request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ..conf import usage_settings
from ..models import OutboxEvent
from .receivers import DeliveryFailed, post

__all__ = ["send"]

PATH: Final = "/api/v1/events"
SOURCE: Final = "django-ollama-openai"


def send(events: Sequence[OutboxEvent]) -> None:
    """Send ``events``. OpenMeter ignores those whose id and source it has seen.

    Raises:
        DeliveryFailed: They were not acknowledged.
    """
    config = usage_settings().OPENMETER
    if config is None:
        raise DeliveryFailed("The settings have no OPENMETER.")
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    if config.TOKEN is not None:
        headers["Authorization"] = f"Bearer {config.TOKEN.get_secret_value()}"
    body = json.dumps([_cloud_event(event) for event in events]).encode()
    # An operator names the server, which is often one of the site's own.
    post(config.URL.rstrip("/") + PATH, body, headers, is_private=True)


def _cloud_event(event: OutboxEvent) -> dict[str, Any]:
    payload = event.payload
    subject = payload.get("workspace") or payload.get("username") or payload.get("key_name")
    return {
        "specversion": "1.0",
        "id": event.public_id,
        "source": SOURCE,
        "type": event.type,
        "subject": subject or "anonymous",
        "time": payload.get("started_at", event.created_at.isoformat()),
        "datacontenttype": "application/json",
        "data": payload,
    }
