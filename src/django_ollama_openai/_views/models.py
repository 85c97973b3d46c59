"""``GET v1/models`` and ``GET v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from .._gateway.admission import Admission
from .._gateway.flow import Flow
from .._gateway.models import list_models as listed
from .._gateway.models import retrieve_model as retrieved
from .._translation.operation import ENGINE_ERRORS
from .._wire.response_models.models import Model, ModelList
from ..exceptions import InvalidRequest
from .endpoint import Endpoint
from .http_responses import json_response

__all__ = ["model", "models"]

_TAGS = {"Models": "The models that this site offers"}

models = Endpoint(tags=_TAGS)


@models.get(
    scope="models",
    name="models",
    response=ModelList,
    errors=(InvalidRequest, *ENGINE_ERRORS),
)
def list_models(admission: Admission[None]) -> Flow[HttpResponse]:
    """List the models."""
    return json_response((yield from listed(admission)))


model = Endpoint(tags=_TAGS)


@model.get(
    scope="models",
    name="models",
    response=Model,
    errors=(InvalidRequest, *ENGINE_ERRORS),
    captured={"model_id": "Its public name. It may contain colons, and slashes as they are."},
)
def retrieve_model(admission: Admission[None]) -> Flow[HttpResponse]:
    """Retrieve a model."""
    name: Any = admission.captured["model_id"]
    return json_response((yield from retrieved(admission, name)))
