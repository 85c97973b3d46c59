"""Every other path below the mount."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .._gateway.flow import Flow
from ..exceptions import NotFound
from .endpoint import endpoint

__all__ = ["not_found"]


@endpoint()
def not_found(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """Say so in OpenAI's envelope, where Django's own answer would be an HTML page."""
    yield from ()
    hint = "" if "/v1/" in request.path else " A base_url for OpenAI's clients ends with '/v1'."
    raise NotFound(f"Unknown request URL: {request.method} {request.path}.{hint}")
