"""``GET health``."""

from __future__ import annotations

from django.http.response import HttpResponseBase

from .._gateway.admission import Incoming
from .._gateway.flow import Flow
from .._gateway.health import check_health
from .endpoint import endpoint
from .responses import json_response

__all__ = ["health"]


@endpoint("GET")
def health(incoming: Incoming) -> Flow[HttpResponseBase]:
    """Readiness: 200 if every backend is ready, else 503. With ``?probe=live``, liveness: 200
    without asking them."""
    if incoming.request.GET.get("probe") == "live":
        return json_response({"status": "ok"})
    ready, report = yield from check_health(incoming.request)
    return json_response(report, status=200 if ready else 503)
