"""Every other path below the mount."""

from __future__ import annotations

from django.http.response import HttpResponseBase

from .._gateway.admission import Incoming
from .._gateway.flow import Flow
from ..exceptions import NotFound
from .endpoint import endpoint

__all__ = ["not_found"]


@endpoint()
def not_found(incoming: Incoming) -> Flow[HttpResponseBase]:
    """Say so in OpenAI's envelope, where Django's own answer would be an HTML page."""
    yield from ()
    request = incoming.request
    hint = "" if "/v1/" in request.path else " A base_url for OpenAI's clients ends with '/v1'."
    raise NotFound(f"Unknown request URL: {request.method} {request.path}.{hint}")
