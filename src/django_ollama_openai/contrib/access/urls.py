"""The paths of the app, below every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views.keys import key, keys, rotation
from ._views.limits import limits
from ._views.me import me
from ._views.workspaces import member, members, workspace, workspaces

__all__ = ["urlpatterns"]

urlpatterns = [
    path("api/keys/", keys, name="api_keys"),
    path("api/keys/<str:key_id>/", key, name="api_key"),
    path("api/keys/<str:key_id>/rotate/", rotation, name="api_key_rotation"),
    path("api/limits/", limits, name="limits"),
    path("api/me/", me, name="me"),
    path("api/workspaces/", workspaces, name="workspaces"),
    path("api/workspaces/<str:workspace_id>/", workspace, name="workspace"),
    path("api/workspaces/<str:workspace_id>/members/", members, name="workspace_members"),
    path(
        "api/workspaces/<str:workspace_id>/members/<str:user_id>/", member, name="workspace_member"
    ),
]
