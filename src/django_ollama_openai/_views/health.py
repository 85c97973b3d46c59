"""``GET health``."""

from __future__ import annotations

from django.http import HttpResponse
from pydantic import Field

from .._gateway.admission import Admission
from .._gateway.flow import Flow
from .._gateway.health import check_health as checked
from .._wire.query import QueryParameters
from .._wire.response_models.health import Health
from .endpoint import Endpoint
from .http_responses import json_response

__all__ = ["health"]


class HealthQuery(QueryParameters):
    """The query parameters of ``GET health``."""

    probe: str = Field(
        "",
        description="`live` checks the process only, and no backend.",
        examples=["live"],
    )


health = Endpoint(tags={"Site": "The gateway itself"})


@health.get(
    scope=None,
    query=HealthQuery,
    response=Health,
    further={503: "A backend is not ready"},
    optional_credentials=True,
)
def check_health(admission: Admission[None]) -> Flow[HttpResponse]:
    """Report whether the site is alive and its backends are ready."""
    if admission.query.probe == "live":
        return json_response({"status": "ok"})
    ready, report = yield from checked(admission)
    return json_response(report, status=200 if ready else 503)
