"""``GET v1/models`` and ``GET v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .._gateway.flow import Flow
from .._gateway.models import list_models, retrieve_model
from .endpoint import endpoint
from .responses import json_response

__all__ = ["model", "models"]


@endpoint("GET")
def models(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """List the models."""
    return json_response((yield from list_models(request, request_id)))


@endpoint("GET")
def model(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """Describe one model; its id may hold slashes and colons."""
    return json_response((yield from retrieve_model(request, request_id, captured["model_id"])))
