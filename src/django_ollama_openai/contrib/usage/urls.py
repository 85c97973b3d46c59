"""The URL patterns of the app, which are part of every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views import organization
from ._views.records import records
from ._views.usage import usage

__all__ = ["urlpatterns"]

urlpatterns = [
    path("api/usage/", usage, name="usage"),
    path("api/usage/records/", records, name="usage_records"),
    path("v1/organization/costs", organization.costs, name="costs"),
    path(
        "v1/organization/usage/completions",
        organization.completions,
        name="usage_completions",
    ),
    path("v1/organization/usage/embeddings", organization.embeddings, name="usage_embeddings"),
]
