"""``api/me/``: the caller of the request."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel

from ....auth import ANY_SCOPE
from ....endpoints import Admission, Endpoint
from .._members import role_of, shown_id, workspaces_of
from ..models import Role, Workspace

__all__ = ["me"]

TAGS: Final = {"Caller": "The caller of a request"}


class UserAnswer(BaseModel):
    """A user of the site."""

    id: int | str
    username: str


class NamedAnswer(BaseModel):
    """A key or a workspace."""

    id: str
    name: str


class MemberOf(NamedAnswer):
    """A workspace of the caller."""

    role: Role


class CallerAnswer(BaseModel):
    """The caller, and what the request may do."""

    object: Literal["caller"] = "caller"
    user: UserAnswer | None
    key: NamedAnswer | None
    workspace: NamedAnswer | None
    workspaces: list[MemberOf]
    scopes: list[str] | None
    models: list[str] | None


me = Endpoint(tags=TAGS)


@me.get(scope=ANY_SCOPE, response=CallerAnswer)
def retrieve_me(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve the caller."""
    caller = admission.caller
    user, workspace = caller.user, caller.workspace
    found: list[Workspace] = [] if user is None else list(workspaces_of(user).order_by("pk"))
    patterns = caller.models
    if patterns is None and workspace is not None:
        patterns = workspace.models
    return CallerAnswer(
        user=None
        if user is None
        else UserAnswer(id=shown_id(user.pk), username=user.get_username()),
        key=_named(caller.key_id, caller.key_name),
        workspace=None if workspace is None else _named(workspace.id, workspace.name),
        workspaces=[
            MemberOf(id=each.public_id, name=each.name, role=role)
            for each in found
            if (role := role_of(each, user)) is not None
        ],
        scopes=None if caller.scopes is None else sorted(caller.scopes),
        models=None if patterns is None else list(patterns),
    ).model_dump(mode="json")


def _named(id: str | None, name: str | None) -> NamedAnswer | None:
    return None if id is None else NamedAnswer(id=id, name=name or "")
