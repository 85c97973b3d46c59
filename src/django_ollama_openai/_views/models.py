"""``GET v1/models`` and ``GET v1/models/{id}``."""

from __future__ import annotations

from django.http.response import HttpResponseBase

from .._gateway.admission import Incoming, admit, carry_out
from .._gateway.flow import Flow
from .._gateway.models import list_models, retrieve_model
from .endpoint import endpoint
from .responses import json_response

__all__ = ["model", "models"]


@endpoint("GET")
def models(incoming: Incoming) -> Flow[HttpResponseBase]:
    """List the models."""
    admission = yield from admit(incoming, endpoint="models", scope="models")
    return json_response((yield from carry_out(admission, list_models(admission))))


@endpoint("GET")
def model(incoming: Incoming) -> Flow[HttpResponseBase]:
    """Describe one model; its id may hold slashes and colons."""
    admission = yield from admit(incoming, endpoint="models", scope="models")
    name = admission.captured["model_id"]
    return json_response((yield from carry_out(admission, retrieve_model(admission, name))))
