"""``GET openapi.json``."""

from __future__ import annotations

from django.http.response import HttpResponseBase

from .._gateway.admission import Incoming
from .._gateway.flow import Flow
from .._gateway.openapi import describe_api
from .endpoint import endpoint
from .responses import json_bytes

__all__ = ["openapi"]


@endpoint("GET")
def openapi(incoming: Incoming) -> Flow[HttpResponseBase]:
    """Describe what is mounted. It takes no credentials, and says nothing of the site's models."""
    yield from ()
    return json_bytes(describe_api(incoming.request))
