"""The members of workspaces, and what they may do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from .models import Membership, Role, Workspace

__all__ = [
    "LastOwnerError",
    "is_in_group",
    "is_member",
    "joined_by",
    "keep_an_owner",
    "managed_by",
    "member_of",
    "members_of",
    "role_of",
    "shown_id",
    "workspaces_of",
]


class LastOwnerError(Exception):
    """The change would leave a workspace without an owner."""


def joined_by(user: Any) -> QuerySet[Workspace]:
    """Return the workspaces of ``user``, by membership or by group, inactive ones too."""
    return Workspace.objects.filter(
        Q(pk__in=Membership.objects.filter(user=user).values("workspace"))
        | Q(group__in=_groups_of(user))
    )


def _groups_of(user: Any) -> QuerySet[Group]:
    """Return the groups of ``user``; none if the site's users have no groups."""
    groups = getattr(user, "groups", None)
    return Group.objects.none() if groups is None else groups.all()


def workspaces_of(user: Any) -> QuerySet[Workspace]:
    """Return the active workspaces of ``user``, by membership or by group."""
    return joined_by(user).filter(is_active=True)


def managed_by(user: Any) -> QuerySet[Workspace]:
    """Return the workspaces of which ``user`` is an owner or an admin, inactive ones too."""
    roles = (Role.OWNER, Role.ADMIN)
    return Workspace.objects.filter(
        pk__in=Membership.objects.filter(user=user, role__in=roles).values("workspace")
    )


def role_of(workspace: Workspace, user: Any) -> Role | None:
    """Return the role of ``user`` in ``workspace``; ``None`` if the user is not a member."""
    role = Membership.objects.filter(workspace=workspace, user=user).values_list("role", flat=True)
    found = role.first()
    if found is not None:
        return Role(found)
    return Role.MEMBER if is_in_group(workspace, user) else None


def is_in_group(workspace: Workspace, user: Any) -> bool:
    """Return whether ``user`` is in the group of ``workspace``."""
    return (
        workspace.group_id is not None and _groups_of(user).filter(pk=workspace.group_id).exists()
    )


def is_member(workspace: Workspace, user: Any) -> bool:
    """Return whether ``user`` is a member of ``workspace``."""
    return role_of(workspace, user) is not None


def members_of(workspace: Workspace) -> QuerySet[Any]:
    """Return the users in ``workspace``, by membership or by group. Each has its role there as
    ``ollama_role``, and the id of the membership, if there is one, as ``ollama_membership``."""
    memberships = Membership.objects.filter(workspace=workspace)
    users = get_user_model()._default_manager
    is_in = Q(pk__in=memberships.values("user"))
    if workspace.group_id is not None and hasattr(get_user_model(), "groups"):
        is_in |= Q(pk__in=users.filter(groups=workspace.group_id).values("pk"))
    own = memberships.filter(user=OuterRef("pk"))
    return users.filter(is_in).annotate(
        ollama_role=Coalesce(Subquery(own.values("role")), Value(Role.MEMBER.value)),
        ollama_membership=Subquery(own.values("pk")),
    )


def member_of(workspace: Workspace, user_id: object) -> Any:
    """Return the user with the primary key ``user_id`` from :func:`members_of`, or ``None``, also
    for an id that no user can have."""
    try:
        return members_of(workspace).filter(pk=user_id).first()
    except (ValueError, ValidationError, DataError):
        return None


def keep_an_owner(workspace: Workspace, user: Any, role: Role | None) -> None:
    """Check that ``workspace`` keeps an owner when ``user`` gets ``role``, or leaves (``None``), in
    the transaction of that change.

    Raises:
        LastOwnerError: It would have none.
    """
    owners = workspace.memberships.filter(role=Role.OWNER)
    # Lock the rows, so that two owners cannot remove each other. On SQLite, only a write locks.
    owners.update(role=Role.OWNER)
    if role != Role.OWNER and list(owners.values_list("user", flat=True)) == [user.pk]:
        raise LastOwnerError("The last owner of a workspace cannot be removed.")


def shown_id(pk: Any) -> int | str:
    """Return the primary key of a user for JSON: a number as it is, others, such as a UUID, as a
    string."""
    return pk if isinstance(pk, int) else str(pk)
