"""The usage that exists for a caller."""

from __future__ import annotations

from typing import Any, Literal

from django.db.models import Q

from ...._ids import parse_public_id
from ....auth import Caller
from ....exceptions import InvalidRequest, PermissionDenied
from ...access._members import managed_by

__all__ = ["SCOPE", "Scope", "own_or_workspace"]

SCOPE = "usage"
Scope = Literal["me", "workspace"]


def own_or_workspace(caller: Caller, scope: Scope) -> Q:
    """Return the condition of records and sums for ``scope``: ``"me"`` is the caller's user with
    all keys, or a key without a user; ``"workspace"`` the workspace of the request.

    Raises:
        InvalidRequest: The request has no workspace.
        PermissionDenied: The caller is no owner or admin of it.
    """
    return _workspace(caller) if scope == "workspace" else _own(caller)


def _own(caller: Caller) -> Q:
    if caller.user is not None:
        return Q(user=caller.user)
    key_id = caller.key_id or ""
    key: Any = parse_public_id("key", key_id)
    return Q(key=key) if key is not None else Q(static_key=key_id[:150], key=None, user=None)


def _workspace(caller: Caller) -> Q:
    if caller.workspace is None:
        raise InvalidRequest(
            "There is no workspace: name one in the header OpenAI-Project.", param="scope"
        )
    key: Any = parse_public_id("ws", caller.workspace.id)
    if caller.user is None or not managed_by(caller.user).filter(pk=key).exists():
        raise PermissionDenied("Only owners and admins of a workspace may read its usage.")
    return Q(workspace=key)
