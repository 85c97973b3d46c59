"""``api/keys/``: API keys of the caller, and of workspaces that the caller manages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.timezone import now
from django.views.decorators.debug import sensitive_variables
from pydantic import BaseModel, BeforeValidator, Field

from ....endpoints import Admission, Endpoint, RequestBody
from ....exceptions import InvalidRequest, NotFound, PermissionDenied
from ..._lists import Deleted, ListAnswer, ListQuery, list_rows
from .._members import member_of, shown_id
from ..conf import access_settings
from ..models import APIKey, Workspace
from ..validators import includes, validate_models, validate_networks, validate_scopes
from .actor import Actor, Name

__all__ = ["key", "keys", "rotation"]

TAGS: Final = {"API keys": "API keys of the caller, and of workspaces that the caller manages"}
SCOPE: Final = "keys"
MAX_OVERLAP: Final = 30 * 24 * 3600

#: The lists of a key that restrict it, and their checks.
LISTS: Final[dict[str, Callable[[Any], None]]] = {
    "scopes": validate_scopes,
    "models": validate_models,
    "networks": validate_networks,
}


def _parse_moment(value: Any) -> Any:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("the time needs a time zone, such as Z")
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("the time is too late or too early") from error
    return value


Moment = Annotated[datetime, BeforeValidator(_parse_moment)]


class KeyChange(RequestBody):
    """The fields of a key that can be changed."""

    name: Name = ""
    scopes: list[str] | None = None
    models: list[str] | None = None
    networks: list[str] | None = None
    expires_at: Moment | None = None


class NewKey(KeyChange):
    """A key to create."""

    name: Name
    workspace: str | None = None
    user: int | str | None = None


class Rotation(RequestBody):
    """How long the previous values remain valid."""

    overlap_seconds: int = Field(86400, ge=0, le=MAX_OVERLAP)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Parse ``body``, which may be empty."""
        return super().parse(body or b"{}")


class KeyAnswer(BaseModel):
    """An API key."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    workspace: str | None
    user: int | str | None
    redacted_value: str
    scopes: list[str] | None
    models: list[str] | None
    networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKeyAnswer(KeyAnswer):
    """An API key, with its value, which is shown once."""

    value: str


def present(key: APIKey) -> dict[str, Any]:
    """Return ``key`` as its answer, without any secret."""
    secrets = sorted(key.secrets.all(), key=lambda secret: secret.pk)
    return KeyAnswer(
        id=key.public_id,
        name=key.name,
        workspace=None if key.workspace is None else key.workspace.public_id,
        user=None if key.user_id is None else shown_id(key.user_id),
        redacted_value=str(secrets[-1]) if secrets else "",
        scopes=key.scopes,
        models=key.models,
        networks=key.networks,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    ).model_dump(mode="json")


keys = Endpoint(tags=TAGS)


@keys.get(scope=SCOPE, owner=True, query=ListQuery, response=ListAnswer[KeyAnswer])
def list_keys(admission: Admission[None]) -> dict[str, Any]:
    """List API keys."""
    rows = Actor.of(admission).keys().select_related("workspace").prefetch_related("secrets")
    return list_rows(rows, admission.query, APIKey.prefix, present)


@keys.post(
    scope=SCOPE, owner=True, body=NewKey, response=NewKeyAnswer, status=201, errors=(NotFound,)
)
@sensitive_variables("value")
def create_key(admission: Admission[NewKey]) -> dict[str, Any]:
    """Create an API key."""
    actor, body = Actor.of(admission), admission.body
    workspace = _workspace(actor, body)
    key = APIKey(name=body.name, workspace=workspace, user=_user(actor, body, workspace))
    _change(key, actor, body, {"scopes", "models", "networks", "expires_at"})
    with transaction.atomic():
        key.save()
        value = key.new_secret(access_settings().KEY_PREFIX)
    return {**present(key), "value": value}


key = Endpoint(tags=TAGS)


@key.get(scope=SCOPE, owner=True, response=KeyAnswer, errors=(NotFound,))
def retrieve_key(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve an API key."""
    return present(_get(admission))


@key.patch(scope=SCOPE, owner=True, body=KeyChange, response=KeyAnswer, errors=(NotFound,))
def update_key(admission: Admission[KeyChange]) -> dict[str, Any]:
    """Change an API key."""
    actor, found = Actor.of(admission), _get(admission)
    _refuse_revoked(found)
    _refuse_powerful(found, actor)
    _change(found, actor, admission.body, admission.body.model_fields_set)
    found.save()
    return present(found)


@key.delete(scope=SCOPE, owner=True, response=Deleted, errors=(NotFound,))
def revoke_key(admission: Admission[None]) -> dict[str, Any]:
    """Revoke an API key. It stays in lists."""
    found = _get(admission)
    found.revoke()
    return Deleted(id=found.public_id, object="api_key.deleted").model_dump()


rotation = Endpoint(tags=TAGS)


@rotation.post(
    scope=SCOPE,
    owner=True,
    body=Rotation,
    response=NewKeyAnswer,
    status=201,
    errors=(NotFound,),
)
@sensitive_variables("value")
def rotate_key(admission: Admission[Rotation]) -> dict[str, Any]:
    """Give an API key a new value. Previous values remain valid for ``overlap_seconds``."""
    actor, found = Actor.of(admission), _get(admission)
    _refuse_revoked(found)
    _refuse_powerful(found, actor)
    _refuse_more(found, actor)
    overlap = timedelta(seconds=admission.body.overlap_seconds)
    value = found.rotate(access_settings().KEY_PREFIX, overlap)
    return {**present(found), "value": value}


def _get(admission: Admission[Any]) -> APIKey:
    return Actor.of(admission).get_key(admission.captured["key_id"])


def _refuse_revoked(key: APIKey) -> None:
    if key.revoked_at is not None:
        raise InvalidRequest("This API key is revoked.", code="api_key_revoked")


def _workspace(actor: Actor, body: NewKey) -> Workspace | None:
    if body.workspace is not None:
        return actor.get_workspace(body.workspace, param="workspace")
    return None if actor.key is None else actor.key.workspace


def _user(actor: Actor, body: NewKey, workspace: Workspace | None) -> Any:
    """Return the user of a new key: the caller, or in a workspace that the caller manages, the
    member or ``None`` in the request."""
    is_named = "user" in body.model_fields_set
    if not is_named or (actor.user and str(body.user) == str(actor.user.pk)):
        if actor.user is None:
            raise PermissionDenied("A key without a user cannot create keys.")
        return actor.user
    if workspace is None or not actor.manages(workspace):
        raise NotFound("There is no such user.", param="user")
    if body.user is None:
        return None
    member = member_of(workspace, body.user)
    if member is None:
        raise NotFound("There is no such user.", param="user")
    return member


def _change(key: APIKey, actor: Actor, body: KeyChange, names: set[str]) -> None:
    """Set the fields ``names`` of ``key``, within what the caller's own key has.

    Raises:
        InvalidRequest: A value is invalid.
        PermissionDenied: The caller's own key allows less.
    """
    own = actor.key
    for name in [name for name in LISTS if name in names]:
        value = getattr(body, name)
        if value is not None:
            try:
                LISTS[name](value)
            except ValidationError as error:
                raise InvalidRequest(" ".join(error.messages), param=name) from error
        if own is not None:
            value = getattr(own, name) if value is None else value
            if _exceeds(own, name, value):
                raise PermissionDenied(
                    f"The key would exceed the {name} of your own key.", code="exceeds_own_key"
                )
        setattr(key, name, value)
    _refuse_powerful(key, actor)
    if "name" in names:
        key.name = body.name
    if "expires_at" in names:
        if body.expires_at is not None and body.expires_at <= now():
            raise InvalidRequest("This time must be in the future.", param="expires_at")
        key.expires_at = body.expires_at
        key.expires_at = min(filter(None, (key.expires_at, actor.ends)), default=None)


def _exceeds(own: APIKey, name: str, value: list[str] | None) -> bool:
    """Return whether ``value``, the list ``name`` of another key, allows more than that of
    ``own``."""
    most = getattr(own, name)
    if most is None:
        # All scopes except that one.
        return name == "scopes" and "admin" in (value or ())
    return value is None or not all(includes(name, most, entry) for entry in value)


def _refuse_more(key: APIKey, actor: Actor) -> None:
    """Check that the caller's own key allows as much as ``key``, whose value it gets.

    Raises:
        PermissionDenied: The caller's own key allows less.
    """
    own = actor.key
    if own is None:
        return
    exceeded = [name for name in LISTS if _exceeds(own, name, getattr(key, name))]
    ends = actor.ends
    if ends is not None and (key.expires_at is None or key.expires_at > ends):
        exceeded.append("lifetime")
    if exceeded:
        raise PermissionDenied(
            f"The key exceeds the {exceeded[0]} of your own key.", code="exceeds_own_key"
        )


def _refuse_powerful(key: APIKey, actor: Actor) -> None:
    """Check that the caller may create, change or rotate ``key``.

    Raises:
        PermissionDenied: The key has the scope ``admin`` or a superuser's permissions, and the
            caller does not.
    """
    is_superuser = _is_superuser(actor.user)
    if "admin" in (key.scopes or ()) and not (is_superuser and (actor.is_admin or not actor.key)):
        raise PermissionDenied(
            "Only superusers may create, change or rotate keys with the scope 'admin'."
        )
    if _is_superuser(key.user) and not is_superuser:
        raise PermissionDenied("Only superusers may create, change or rotate keys of superusers.")


def _is_superuser(user: Any) -> bool:
    return bool(getattr(user, "is_superuser", False))
