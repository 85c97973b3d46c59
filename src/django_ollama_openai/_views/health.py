"""``GET health``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .._gateway.flow import Flow
from .._gateway.health import check_health
from .endpoint import endpoint
from .responses import json_response

__all__ = ["health"]


@endpoint("GET")
def health(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """Readiness: 200 if every backend is ready, else 503. With ``?probe=live``, liveness: 200
    without asking them."""
    if request.GET.get("probe") == "live":
        return json_response({"status": "ok"})
    ready, report = yield from check_health(request)
    return json_response(report, status=200 if ready else 503)
