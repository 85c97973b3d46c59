"""The paths of the app, below every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views.keys import key, keys, rotation

__all__ = ["urlpatterns"]

urlpatterns = [
    path("api/keys/", keys, name="api_keys"),
    path("api/keys/<str:key_id>/", key, name="api_key"),
    path("api/keys/<str:key_id>/rotate/", rotation, name="api_key_rotation"),
]
