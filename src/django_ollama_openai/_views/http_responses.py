"""Write HTTP responses: JSON, and streams of server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse

from .._gateway.delivery import AsyncDelivery, Delivery
from .._wire.sse import encode_json

__all__ = ["EventStream", "json_bytes", "json_response"]


def json_response(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return a response with ``value`` as JSON."""
    return json_bytes(encode_json(value), status=status, headers=headers)


def json_bytes(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return a response with ``body``, which is encoded JSON."""
    response = HttpResponse(body, status=status, content_type="application/json")
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


class EventStream(StreamingHttpResponse):
    """A stream of ``events``, encoded, that no proxy and no middleware holds back."""

    def __init__(
        self, events: Delivery | AsyncDelivery | Iterator[bytes] | AsyncIterator[bytes]
    ) -> None:
        super().__init__(events, content_type="text/event-stream; charset=utf-8")
        self.events = events
        self.headers["Cache-Control"] = "no-cache"
        # nginx would wait for a full buffer.
        self.headers["X-Accel-Buffering"] = "no"
        # GZipMiddleware would wait for all of it (Django 6.0) or compress token by token.
        self.headers["Content-Encoding"] = "identity"
