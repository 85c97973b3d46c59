"""``api/workspaces/``: workspaces and their members."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction
from django.utils.text import slugify
from pydantic import BaseModel, Field

from ....auth import ANY_SCOPE
from ....endpoints import Admission, Endpoint, RequestBody
from ....exceptions import InvalidRequest, NotFound, PermissionDenied
from ..._lists import Deleted, ListAnswer, ListQuery, list_rows, page, unknown_cursor
from .._members import (
    LastOwnerError,
    is_in_group,
    keep_an_owner,
    member_of,
    members_of,
    role_of,
    shown_id,
)
from ..models import Membership, Role, Workspace
from ..validators import validate_models
from .actor import Actor, Name

__all__ = ["list_users", "member", "members", "workspace", "workspaces"]

TAGS: Final = {"Workspaces": "Workspaces and their members"}
#: The scopes for these endpoints: ``keys`` for the user's workspaces, ``admin`` for all.
SCOPES: Final = ("keys", "admin")


class WorkspaceChange(RequestBody):
    """The fields of a workspace that can be changed."""

    name: Name = ""
    slug: str = Field("", min_length=1, max_length=100, pattern=r"^[-a-zA-Z0-9_]+$")
    models: list[str] | None = None
    is_active: bool = True


class NewWorkspace(WorkspaceChange):
    """A workspace to create. The user who creates it becomes its owner."""

    name: Name


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
    """A member to add, by user id or username."""

    user: int | str | None = None
    username: str | None = None
    role: Role = Field(Role.MEMBER, strict=False)


class MemberChange(RequestBody):
    """The role of a member."""

    role: Role = Field(strict=False)


class MemberAnswer(BaseModel):
    """A member of a workspace, by membership or by the workspace's group."""

    user: int | str
    username: str
    role: Role
    object: Literal["workspace.member"] = "workspace.member"


class MemberList(BaseModel):
    """A page of the members of a workspace. Their ids are those of users."""

    object: Literal["list"] = "list"
    data: list[MemberAnswer]
    first_id: int | str | None
    last_id: int | str | None
    has_more: bool


class RemovedMember(BaseModel):
    """The answer to a ``DELETE`` request for a member."""

    id: int | str
    object: Literal["workspace.member.deleted"] = "workspace.member.deleted"
    deleted: Literal[True] = True


workspaces = Endpoint(tags=TAGS)


@workspaces.get(scope=ANY_SCOPE, owner=True, query=ListQuery, response=ListAnswer[WorkspaceAnswer])
def list_workspaces(admission: Admission[None]) -> dict[str, Any]:
    """List the caller's workspaces; with the scope ``admin``, all."""
    actor = Actor.of(admission, *SCOPES)
    return list_rows(
        actor.workspaces(), admission.query, Workspace.prefix, lambda row: present(row, actor)
    )


@workspaces.post(
    scope=ANY_SCOPE, owner=True, body=NewWorkspace, response=WorkspaceAnswer, status=201
)
def create_workspace(admission: Admission[NewWorkspace]) -> dict[str, Any]:
    """Create a workspace."""
    actor, body = Actor.of(admission, *SCOPES), admission.body
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
        raise InvalidRequest("A workspace with this slug already exists.", param="slug") from error
    return present(row, actor)


workspace = Endpoint(tags=TAGS)


@workspace.get(scope=ANY_SCOPE, owner=True, response=WorkspaceAnswer, errors=(NotFound,))
def retrieve_workspace(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a workspace."""
    actor = Actor.of(admission, *SCOPES)
    return present(actor.get_workspace(admission.captured["workspace_id"]), actor)


@workspace.patch(
    scope=ANY_SCOPE, owner=True, body=WorkspaceChange, response=WorkspaceAnswer, errors=(NotFound,)
)
def update_workspace(admission: Admission[WorkspaceChange]) -> dict[str, Any]:
    """Change a workspace."""
    actor, row = _managed(admission)
    _change(row, admission.body, admission.body.model_fields_set)
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        raise InvalidRequest("A workspace with this slug already exists.", param="slug") from error
    return present(row, actor)


@workspace.delete(scope=ANY_SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def delete_workspace(admission: Admission[None]) -> dict[str, Any]:
    """Delete a workspace with its keys and limits."""
    actor, row = _managed(admission)
    if not actor.owns(row):
        raise PermissionDenied("Only an owner may delete a workspace.")
    public = row.public_id
    row.delete()
    return Deleted(id=public, object="workspace.deleted").model_dump()


members = Endpoint(tags=TAGS)


@members.get(scope=ANY_SCOPE, owner=True, query=ListQuery, response=MemberList, errors=(NotFound,))
def list_members(admission: Admission[None]) -> dict[str, Any]:
    """List the members of a workspace."""
    row = Actor.of(admission, *SCOPES).get_workspace(admission.captured["workspace_id"])
    return list_users(row, admission.query, present_member, "user")


@members.post(
    scope=ANY_SCOPE,
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
            Membership.objects.create(workspace=row, user=user, role=body.role)
    except IntegrityError as error:
        param = "user" if body.username is None else "username"
        raise InvalidRequest("This user is already a member.", param=param) from error
    return present_member(member_of(row, user.pk))


member = Endpoint(tags=TAGS)


@member.patch(
    scope=ANY_SCOPE, owner=True, body=MemberChange, response=MemberAnswer, errors=(NotFound,)
)
def update_member(admission: Admission[MemberChange]) -> dict[str, Any]:
    """Change the role of a member."""
    actor, row = _managed(admission)
    found, role = _member(row, admission.captured["user_id"]), admission.body.role
    _check_role(actor, row, role)
    _check_role(actor, row, Role(found.ollama_role))
    with transaction.atomic():
        _keep_an_owner(row, found, role)
        Membership.objects.update_or_create(workspace=row, user=found, defaults={"role": role})
    return present_member(member_of(row, found.pk))


@member.delete(scope=ANY_SCOPE, owner=True, response=RemovedMember, errors=(NotFound,))
def remove_member(admission: Admission[None]) -> dict[str, Any]:
    """Remove a member from a workspace, where the member's keys are refused from then on."""
    actor, row = _managed(admission)
    found = _member(row, admission.captured["user_id"])
    _check_role(actor, row, Role(found.ollama_role))
    if row.group is not None and is_in_group(row, found):
        raise InvalidRequest(
            f"This user is a member by the group {row.group.name!r}. Change the group instead.",
            code="member_by_group",
        )
    with transaction.atomic():
        _keep_an_owner(row, found, None)
        row.memberships.filter(user=found).delete()
    return RemovedMember(id=shown_id(found.pk)).model_dump()


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


def present_member(user: Any) -> dict[str, Any]:
    """Return ``user``, one of :func:`members_of`, as their answer."""
    return MemberAnswer(
        user=shown_id(user.pk), username=user.get_username(), role=Role(user.ollama_role)
    ).model_dump(mode="json")


def list_users(
    row: Workspace, query: ListQuery, present: Callable[[Any], dict[str, Any]], name: str
) -> dict[str, Any]:
    """Return the page of the members of ``row`` that ``query`` selects, each formatted by
    ``present`` with the id in the field ``name``.

    Raises:
        InvalidRequest: ``after`` is not the id of a member.
    """
    users = members_of(row)
    if query.after is not None:
        last = member_of(row, query.after)
        if last is None:
            raise unknown_cursor(query.after)
        users = users.filter(pk__lt=last.pk)
    found = list(users.order_by("-pk")[: query.limit + 1])
    data = [present(user) for user in found[: query.limit]]
    return page(data, has_more=len(found) > query.limit, key=name)


def _managed(admission: Admission[Any]) -> tuple[Actor, Workspace]:
    """Return the actor and the workspace of the path, which the actor manages."""
    actor = Actor.of(admission, *SCOPES)
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
        raise PermissionDenied("Only an owner may add, change or remove owners.")


def _keep_an_owner(row: Workspace, user: Any, role: Role | None) -> None:
    try:
        keep_an_owner(row, user, role)
    except LastOwnerError as error:
        raise InvalidRequest(str(error), code="last_owner") from error


def _member(row: Workspace, user_id: str) -> Any:
    found = member_of(row, user_id)
    if found is None:
        raise NotFound(f"There is no member {user_id[:100]!r}.")
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
    except (ValueError, ValidationError, DataError):
        # PostgreSQL takes no NUL.
        found = None
    if found is None:
        param = "user" if body.username is None else "username"
        raise NotFound("There is no such user.", param=param)
    return found


def _free_slug(name: str) -> str:
    """Return a slug for ``name`` that no workspace has."""
    base = slugify(name)[:90] or "workspace"
    taken = set(Workspace.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    candidates = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next(each for each in candidates if each not in taken)
