"""The actor of a request to manage keys and workspaces, and the rows that exist for the actor."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from django.db.models import Q, QuerySet
from pydantic import AfterValidator, StringConstraints

from ...._ids import parse_public_id
from ....endpoints import Admission
from ....exceptions import NotFound, PermissionDenied
from .._members import joined_by, managed_by, role_of
from ..authentication import KeyCaller
from ..models import APIKey, APIKeySecret, Role, Workspace

__all__ = ["Actor", "Name"]


def _check_name(name: str) -> str:
    if all(not each.isprintable() or each.isspace() for each in name):
        raise ValueError("a name needs a visible character")
    # They would move the cursor where names are listed, and PostgreSQL stores no NUL.
    if any(unicodedata.category(each) == "Cc" for each in name):
        raise ValueError("a name has no control characters")
    return name


#: The name of a key, a workspace or an account.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_check_name)]


@dataclass(frozen=True, slots=True)
class Actor:
    """The user of a request, its key, or both.

    ``ends`` is when the key, or the secret of it that was sent, expires; ``None`` for never.
    """

    user: Any
    key: APIKey | None
    ends: datetime | None = None

    @classmethod
    def of(cls, admission: Admission[Any], *scopes: str) -> Actor:
        """Return the actor of ``admission``, which needs one of ``scopes`` if there are any.

        Raises:
            PermissionDenied: It is neither a user nor a key of this app, or lacks the scopes.
        """
        caller = admission.caller
        key_id = parse_public_id(APIKey.prefix, caller.key_id or "")
        key = None if key_id is None else APIKey.objects.filter(pk=key_id).first()
        if key is None and caller.user is None:
            raise PermissionDenied("API keys from the settings cannot manage keys or workspaces.")
        if scopes and not any(map(caller.may, scopes)):
            raise PermissionDenied(f"This API key lacks the scope {scopes[0]!r}.")
        if key is None:
            return cls(caller.user, key)
        digest = caller.digest if isinstance(caller, KeyCaller) else ""
        secret = APIKeySecret.objects.filter(digest=digest).first()
        ends = (key.expires_at, None if secret is None else secret.expires_at)
        return cls(caller.user, key, min(filter(None, ends), default=None))

    def keys(self) -> QuerySet[APIKey]:
        """Return the keys that exist for the actor: the user's, and those of workspaces that the
        user manages. For a key without a user, only itself exists; for one of a workspace, only
        the keys of that workspace."""
        if self.user is None:
            return APIKey.objects.filter(pk__in=[] if self.key is None else [self.key.pk])
        keys = APIKey.objects.filter(
            Q(user=self.user) | Q(workspace__in=managed_by(self.user).values("pk"))
        )
        if self.key is not None and self.key.workspace_id is not None:
            return keys.filter(workspace=self.key.workspace_id)
        return keys

    def workspaces(self) -> QuerySet[Workspace]:
        """Return the workspaces that exist for the actor."""
        if self.is_admin:
            return Workspace.objects.all()
        if self.key is not None and self.key.workspace_id is not None:
            return Workspace.objects.filter(pk=self.key.workspace_id)
        return Workspace.objects.none() if self.user is None else joined_by(self.user)

    @property
    def is_admin(self) -> bool:
        """Return whether the actor's key has the scope ``admin``: all workspaces exist for it."""
        return self.key is not None and "admin" in (self.key.scopes or ())

    def has_permission(self, name: str) -> bool:
        """Return whether the user has a permission of the app, such as ``add_workspace``."""
        label = Workspace._meta.app_label
        return self.user is not None and self.user.has_perm(f"{label}.{name}")

    def owns(self, workspace: Workspace) -> bool:
        """Return whether the actor is an owner of ``workspace``."""
        if self.is_admin:
            return True
        return self.user is not None and role_of(workspace, self.user) == Role.OWNER

    def manages(self, workspace: Workspace) -> bool:
        """Return whether the actor is an owner or an admin of ``workspace``."""
        if self.is_admin:
            return True
        return self.user is not None and managed_by(self.user).filter(pk=workspace.pk).exists()

    def get_key(self, public: str) -> APIKey:
        """Return a key by its public id.

        Raises:
            NotFound: It does not exist for the actor.
        """
        pk = parse_public_id(APIKey.prefix, public)
        found = None if pk is None else self.keys().filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no API key {public[:100]!r}.")
        return found

    def get_workspace(self, public: str, param: str | None = None) -> Workspace:
        """Return a workspace by its public id; ``param`` is the field that names it.

        Raises:
            NotFound: It does not exist for the actor.
        """
        pk = parse_public_id(Workspace.prefix, public)
        found = None if pk is None else self.workspaces().filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no workspace {public[:100]!r}.", param=param)
        return found
