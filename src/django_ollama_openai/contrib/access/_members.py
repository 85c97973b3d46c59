"""The members of workspaces, and what they may do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from .models import Membership, Role, Workspace

__all__ = [
    "LastOwnerError",
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
        | Q(group__in=user.groups.all())
    )


def workspaces_of(user: Any) -> QuerySet[Workspace]:
    """Return the active workspaces of ``user``, by membership or by group."""
    return joined_by(user).filter(is_active=True)


def managed_by(user: Any) -> QuerySet[Workspace]:
    """Return the workspaces that ``user`` is owner or admin of, inactive ones too."""
    roles = (Role.OWNER, Role.ADMIN)
    return Workspace.objects.filter(
        pk__in=Membership.objects.filter(user=user, role__in=roles).values("workspace")
    )


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


def members_of(workspace: Workspace) -> QuerySet[Any]:
    """Return the users in ``workspace``, by membership or by group. Each has its role there as
    ``ollama_role``, and the id of the membership, if there is one, as ``ollama_membership``."""
    memberships = Membership.objects.filter(workspace=workspace)
    users = get_user_model()._default_manager
    is_in = Q(pk__in=memberships.values("user"))
    if workspace.group_id is not None:
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
    # Locked, so that two owners cannot remove each other. SQLite has only the lock of a write.
    owners.update(role=Role.OWNER)
    if role != Role.OWNER and list(owners.values_list("user", flat=True)) == [user.pk]:
        raise LastOwnerError("The last owner stays.")


def shown_id(pk: Any) -> int | str:
    """Return the primary key of a user as JSON has it: a number, or a text such as that of a
    UUID."""
    return pk if isinstance(pk, int) else str(pk)
