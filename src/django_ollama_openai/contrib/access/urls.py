"""The URL patterns of the app, which are part of every mount."""

from __future__ import annotations

from ...endpoints import path
from ._views import organization
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
    path("v1/organization/projects", organization.projects, name="projects"),
    path("v1/organization/projects/<str:project_id>", organization.project, name="project"),
    path(
        "v1/organization/projects/<str:project_id>/archive",
        organization.archive,
        name="project_archive",
    ),
    path(
        "v1/organization/projects/<str:project_id>/api_keys",
        organization.keys,
        name="project_api_keys",
    ),
    path(
        "v1/organization/projects/<str:project_id>/api_keys/<str:key_id>",
        organization.key,
        name="project_api_key",
    ),
    path(
        "v1/organization/projects/<str:project_id>/service_accounts",
        organization.accounts,
        name="project_service_accounts",
    ),
    path(
        "v1/organization/projects/<str:project_id>/service_accounts/<str:account_id>",
        organization.account,
        name="project_service_account",
    ),
    path(
        "v1/organization/projects/<str:project_id>/service_accounts/<str:account_id>/api_keys",
        organization.account_keys,
        name="project_service_account_api_keys",
    ),
    path(
        "v1/organization/projects/<str:project_id>/rate_limits",
        organization.rate_limits,
        name="project_rate_limits",
    ),
    path(
        "v1/organization/projects/<str:project_id>/rate_limits/<path:rate_limit_id>",
        organization.rate_limit,
        name="project_rate_limit",
    ),
    path(
        "v1/organization/projects/<str:project_id>/users",
        organization.users,
        name="project_users",
    ),
    path(
        "v1/organization/projects/<str:project_id>/users/<str:user_id>",
        organization.user,
        name="project_user",
    ),
]
