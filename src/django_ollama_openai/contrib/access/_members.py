"""The members of workspaces, and what they may do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet

from .models import Membership, Role, Workspace

__all__ = ["is_member", "managed_by", "members_of", "role_of", "workspaces_of"]


def workspaces_of(user: Any) -> QuerySet[Workspace]:
    """Return the active workspaces of ``user``, by membership or by group."""
    return Workspace.objects.filter(
        Q(pk__in=Membership.objects.filter(user=user).values("workspace"))
        | Q(group__in=user.groups.all()),
        is_active=True,
    )


def managed_by(user: Any) -> QuerySet[Workspace]:
    """Return the active workspaces that ``user`` is owner or admin of."""
    roles = (Role.OWNER, Role.ADMIN)
    return Workspace.objects.filter(
        pk__in=Membership.objects.filter(user=user, role__in=roles).values("workspace"),
        is_active=True,
    )


def members_of(workspace: Workspace) -> QuerySet[Any]:
    """Return the users who are members of ``workspace``, by membership or by group."""
    users = get_user_model()._default_manager
    members = Q(pk__in=Membership.objects.filter(workspace=workspace).values("user"))
    if workspace.group_id is not None:
        members |= Q(groups=workspace.group_id)
    return users.filter(members).distinct()


def role_of(workspace: Workspace, user: Any) -> Role | None:
    """Return the role of ``user`` in ``workspace``; ``None`` if they are no member."""
    role = Membership.objects.filter(workspace=workspace, user=user).values_list("role", flat=True)
    found = role.first()
    if found is not None:
        return Role(found)
    if workspace.group_id is not None and user.groups.filter(pk=workspace.group_id).exists():
        return Role.MEMBER
    return None


def is_member(workspace: Workspace, user: Any) -> bool:
    """Return whether ``user`` is a member of ``workspace``."""
    return role_of(workspace, user) is not None
