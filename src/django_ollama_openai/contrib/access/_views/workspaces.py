"""``api/workspaces/``: workspaces and their members."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify
from pydantic import BaseModel, Field

from ....endpoints import Admission, Endpoint, RequestBody
from ....exceptions import InvalidRequest, NotFound, PermissionDenied
from ..._lists import Deleted, ListAnswer, ListQuery, list_rows
from .._members import role_of
from ..models import Membership, Role, Workspace
from ..validators import validate_models
from .actor import Actor

__all__ = ["member", "members", "workspace", "workspaces"]

TAGS: Final = {"Workspaces": "Workspaces and their members"}
#: Members see theirs with any key; what a workspace is, only its owners and admins change.
SCOPE: Final = "keys"


class WorkspaceChange(RequestBody):
    """The fields of a workspace that can be changed."""

    name: str = Field("", min_length=1, max_length=100)
    slug: str = Field("", min_length=1, max_length=100, pattern=r"^[-a-zA-Z0-9_]+$")
    models: list[str] | None = None
    is_active: bool = True


class NewWorkspace(WorkspaceChange):
    """A workspace to create. Its creator is its owner."""

    name: str = Field(min_length=1, max_length=100)


class WorkspaceAnswer(BaseModel):
    """A workspace."""

    id: str
    object: Literal["workspace"] = "workspace"
    name: str
    slug: str
    models: list[str] | None
    is_active: bool
    role: Role | None
    created_at: datetime


class NewMember(RequestBody):
    """A member to add, by id or by name."""

    user: int | str | None = None
    username: str | None = None
    role: Role = Field(Role.MEMBER, strict=False)


class MemberChange(RequestBody):
    """The role of a member."""

    role: Role = Field(strict=False)


class MemberAnswer(BaseModel):
    """A member of a workspace."""

    id: str
    object: Literal["workspace.member"] = "workspace.member"
    user: int | str
    username: str
    role: Role


workspaces = Endpoint(tags=TAGS)


@workspaces.get(scope=SCOPE, owner=True, query=ListQuery, response=ListAnswer[WorkspaceAnswer])
def list_workspaces(admission: Admission[None]) -> dict[str, Any]:
    """List the caller's workspaces; with the scope ``admin``, all."""
    actor = Actor.of(admission)
    return list_rows(
        actor.workspaces(), admission.query, Workspace.prefix, lambda row: present(row, actor)
    )


@workspaces.post(scope=SCOPE, owner=True, body=NewWorkspace, response=WorkspaceAnswer, status=201)
def create_workspace(admission: Admission[NewWorkspace]) -> dict[str, Any]:
    """Create a workspace."""
    actor, body = Actor.of(admission), admission.body
    if not (actor.is_admin or actor.has_permission("add_workspace")):
        raise PermissionDenied("You may not create workspaces.")
    row = Workspace(name=body.name, slug=body.slug or _free_slug(body.name))
    _change(row, body, body.model_fields_set - {"slug"} | ({"slug"} if body.slug else set()))
    try:
        with transaction.atomic():
            row.save()
            if actor.user is not None:
                Membership.objects.create(workspace=row, user=actor.user, role=Role.OWNER)
    except IntegrityError as error:
        raise InvalidRequest("There is a workspace with this slug.", param="slug") from error
    return present(row, actor)


workspace = Endpoint(tags=TAGS)


@workspace.get(scope=SCOPE, owner=True, response=WorkspaceAnswer, errors=(NotFound,))
def retrieve_workspace(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a workspace."""
    actor = Actor.of(admission)
    return present(actor.get_workspace(admission.captured["workspace_id"]), actor)


@workspace.patch(
    scope=SCOPE, owner=True, body=WorkspaceChange, response=WorkspaceAnswer, errors=(NotFound,)
)
def update_workspace(admission: Admission[WorkspaceChange]) -> dict[str, Any]:
    """Change a workspace."""
    actor, row = _managed(admission)
    _change(row, admission.body, admission.body.model_fields_set)
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        raise InvalidRequest("There is a workspace with this slug.", param="slug") from error
    return present(row, actor)


@workspace.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_workspace(admission: Admission[None]) -> dict[str, Any]:
    """Delete a workspace, and with it its keys and limits."""
    actor, row = _managed(admission)
    if not actor.owns(row):
        raise PermissionDenied("Only an owner may delete a workspace.")
    public = row.public_id
    row.delete()
    return Deleted(id=public, object="workspace.deleted").model_dump()


members = Endpoint(tags=TAGS)


@members.get(
    scope=SCOPE,
    owner=True,
    query=ListQuery,
    response=ListAnswer[MemberAnswer],
    errors=(NotFound,),
)
def list_members(admission: Admission[None]) -> dict[str, Any]:
    """List the members of a workspace."""
    row = Actor.of(admission).get_workspace(admission.captured["workspace_id"])
    rows = row.memberships.select_related("user")
    return list_rows(rows, admission.query, Membership.prefix, present_member)


@members.post(
    scope=SCOPE,
    owner=True,
    body=NewMember,
    response=MemberAnswer,
    status=201,
    errors=(NotFound,),
)
def add_member(admission: Admission[NewMember]) -> dict[str, Any]:
    """Add a member to a workspace."""
    actor, row = _managed(admission)
    body = admission.body
    _check_role(actor, row, body.role)
    user = _find_user(body)
    try:
        with transaction.atomic():
            made = Membership.objects.create(workspace=row, user=user, role=body.role)
    except IntegrityError as error:
        raise InvalidRequest("This user is a member already.", param="user") from error
    return present_member(made)


member = Endpoint(tags=TAGS)


@member.patch(scope=SCOPE, owner=True, body=MemberChange, response=MemberAnswer, errors=(NotFound,))
def update_member(admission: Admission[MemberChange]) -> dict[str, Any]:
    """Change the role of a member."""
    actor, row = _managed(admission)
    found = _membership(row, admission.captured["user_id"])
    _check_role(actor, row, admission.body.role)
    _check_role(actor, row, Role(found.role))
    with transaction.atomic():
        _keep_an_owner(row, found, admission.body.role)
        found.role = admission.body.role
        found.save()
    return present_member(found)


@member.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def remove_member(admission: Admission[None]) -> dict[str, Any]:
    """Remove a member from a workspace. Their keys of the workspace are refused from then on."""
    actor, row = _managed(admission)
    found = _membership(row, admission.captured["user_id"])
    _check_role(actor, row, Role(found.role))
    with transaction.atomic():
        _keep_an_owner(row, found, None)
        public = found.public_id
        found.delete()
    return Deleted(id=public, object="workspace.member.deleted").model_dump()


def present(row: Workspace, actor: Actor) -> dict[str, Any]:
    """Return ``row`` as its answer, with the role of the actor."""
    return WorkspaceAnswer(
        id=row.public_id,
        name=row.name,
        slug=row.slug,
        models=row.models,
        is_active=row.is_active,
        role=None if actor.user is None else role_of(row, actor.user),
        created_at=row.created_at,
    ).model_dump(mode="json")


def present_member(row: Membership) -> dict[str, Any]:
    """Return ``row`` as its answer."""
    return MemberAnswer(
        id=row.public_id, user=row.user.pk, username=row.user.get_username(), role=Role(row.role)
    ).model_dump(mode="json")


def _managed(admission: Admission[Any]) -> tuple[Actor, Workspace]:
    """Return the actor and the workspace of the path, which the actor manages."""
    actor = Actor.of(admission)
    row = actor.get_workspace(admission.captured["workspace_id"])
    if not actor.manages(row):
        raise PermissionDenied("Only owners and admins may change a workspace.")
    return actor, row


def _change(row: Workspace, body: WorkspaceChange, names: set[str]) -> None:
    if "models" in names and body.models is not None:
        try:
            validate_models(body.models)
        except ValidationError as error:
            raise InvalidRequest(" ".join(error.messages), param="models") from error
    for name in names:
        setattr(row, name, getattr(body, name))


def _check_role(actor: Actor, row: Workspace, role: Role) -> None:
    if role == Role.OWNER and not actor.owns(row):
        raise PermissionDenied("Only an owner may make, change or remove owners.")


def _keep_an_owner(row: Workspace, found: Membership, role: Role | None) -> None:
    # Locked, so that two owners cannot remove each other.
    owners = row.memberships.select_for_update().filter(role=Role.OWNER)
    if found.role == Role.OWNER and role != Role.OWNER and len(owners) == 1:
        raise InvalidRequest("The last owner stays.", code="last_owner")


def _membership(row: Workspace, user_id: str) -> Membership:
    try:
        found = row.memberships.select_related("user").filter(user__pk=user_id).first()
    except (ValueError, ValidationError):
        found = None
    if found is None:
        raise NotFound("There is no such member.")
    return found


def _find_user(body: NewMember) -> Any:
    users = get_user_model()._default_manager
    if (body.user is None) == (body.username is None):
        raise InvalidRequest("Send 'user' or 'username'.", param="user")
    try:
        if body.user is not None:
            found = users.filter(pk=body.user).first()
        else:
            found = users.filter(**{get_user_model().USERNAME_FIELD: body.username}).first()
    except (ValueError, ValidationError):
        found = None
    if found is None:
        raise NotFound("There is no such user.", param="user")
    return found


def _free_slug(name: str) -> str:
    """Return a slug for ``name`` that no workspace has."""
    base = slugify(name)[:90] or "workspace"
    taken = set(Workspace.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    candidates = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next(each for each in candidates if each not in taken)
