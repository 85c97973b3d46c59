"""``v1/organization/projects…``: OpenAI's admin API. A project is a workspace.

Source: the types and resources of ``openai.admin.organization.projects``. Updates are POST, times
are seconds since 1970, and ids of users are texts.
"""

from __future__ import annotations

import functools
import operator
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DataError, transaction
from django.db.models import Q
from django.utils.text import slugify
from django.utils.timezone import now
from django.views.decorators.debug import sensitive_variables
from pydantic import BaseModel, Field

from ...._ids import parse_public_id
from ....endpoints import Admission, Endpoint, QueryParameters, RequestBody
from ....exceptions import InvalidRequest, NotFound
from ..._lists import Deleted, ListAnswer, ListQuery, list_rows, page, unknown_cursor
from .._members import is_member, member_of, members_of
from ..conf import access_settings
from ..models import (
    APIKey,
    Limit,
    Membership,
    Per,
    Role,
    ServiceAccount,
    Target,
    Unit,
    Workspace,
    is_live,
)
from ..validators import validate_scopes
from .actor import Name
from .workspaces import list_users

__all__ = [
    "account",
    "account_keys",
    "accounts",
    "archive",
    "key",
    "keys",
    "project",
    "projects",
    "rate_limit",
    "rate_limits",
    "user",
    "users",
]

TAGS: Final = {"Organization": "OpenAI's admin API: a project is a workspace"}
SCOPE: Final = "admin"
MAX_SECONDS: Final = 10 * 366 * 86400


class ProjectQuery(ListQuery):
    """The query parameters of the list of projects."""

    include_archived: bool = False


class ProjectChange(RequestBody):
    """The fields of a project that can be changed. Fields for OpenAI's own
    service are ignored."""

    name: Name | None = None
    external_key_id: str | None = None
    geography: str | None = None


class ProjectBody(ProjectChange):
    """A project to create."""

    name: Name
    residency: Any = None


class ProjectAnswer(BaseModel):
    """A project."""

    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


class KeyQuery(ListQuery):
    """The query parameters of the list of keys."""

    owner_project_access: Literal["active", "inactive", "any"] = "any"


class KeyBody(RequestBody):
    """The fields of a key that can be changed."""

    expires_in_seconds: int | None = Field(None, ge=1, le=MAX_SECONDS)
    scopes: list[str] | None = None


class NewKeyBody(KeyBody):
    """An additional key to create for a service account."""

    name: Name | None = None


class OwnerUser(BaseModel):
    """The user of a key."""

    id: str
    name: str
    email: str
    role: Literal["owner", "member"]
    created_at: int


class OwnerServiceAccount(BaseModel):
    """The service account of a key, or the key itself if it has neither account nor user."""

    id: str
    name: str
    role: Literal["member"] = "member"
    created_at: int


class OwnerAnswer(BaseModel):
    """The owner of a key."""

    type: Literal["user", "service_account"]
    user: OwnerUser | None = None
    service_account: OwnerServiceAccount | None = None


class KeyAnswer(BaseModel):
    """A key of a project."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: OwnerAnswer
    owner_project_access: Literal["active", "inactive"]


class AccountBody(RequestBody):
    """A service account to create."""

    name: Name
    create_service_account_only: bool | None = None
    expires_in_seconds: int | None = Field(None, ge=1, le=MAX_SECONDS)


class AccountChange(RequestBody):
    """The fields of a service account that can be changed. Its role is always ``member``."""

    name: Name | None = None
    role: Literal["member"] | None = None


class AccountAnswer(BaseModel):
    """A service account."""

    id: str
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: Literal["member"] = "member"
    created_at: int


class AccountKeyAnswer(BaseModel):
    """A key of a service account, with its value, which is shown once."""

    id: str
    object: Literal["organization.project.service_account.api_key"] = (
        "organization.project.service_account.api_key"
    )
    name: str
    value: str
    created_at: int
    expires_at: int | None


class NewAccountAnswer(AccountAnswer):
    """A service account with its first key."""

    api_key: AccountKeyAnswer | None


class RateLimitQuery(QueryParameters):
    """The query parameters of the list of rate limits, with cursors in both directions."""

    limit: int = Field(100, ge=1, le=100)
    after: str | None = None
    before: str | None = None


class RateLimitBody(RequestBody):
    """The rate limits to set; ``null`` removes one. Other units are refused."""

    max_requests_per_1_minute: int | None = Field(None, ge=0)
    max_tokens_per_1_minute: int | None = Field(None, ge=0)
    max_requests_per_1_day: int | None = Field(None, ge=0)


class RateLimitAnswer(BaseModel):
    """The limits of a project for a pattern of models; ``null`` for none."""

    id: str
    object: Literal["project.rate_limit"] = "project.rate_limit"
    model: str
    max_requests_per_1_minute: int | None
    max_tokens_per_1_minute: int | None
    max_requests_per_1_day: int | None


class UserBody(RequestBody):
    """A user to add to a project, by id or by email address."""

    user_id: str | None = None
    email: str | None = None
    role: Literal["owner", "member"]


class UserChange(RequestBody):
    """The role of a user."""

    role: Literal["owner", "member"] | None = None


class UserAnswer(BaseModel):
    """A user of a project."""

    id: str
    object: Literal["organization.project.user"] = "organization.project.user"
    name: str
    email: str
    role: Literal["owner", "member"]
    added_at: int


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


# Projects

projects = Endpoint(tags=TAGS)


@projects.get(scope=SCOPE, query=ProjectQuery, response=ListAnswer[ProjectAnswer])
def list_projects(admission: Admission[None]) -> dict[str, Any]:
    """List projects."""
    query: ProjectQuery = admission.query
    rows = Workspace.objects.all()
    if not query.include_archived:
        rows = rows.filter(is_active=True)
    return list_rows(rows, query, Workspace.prefix, present_project)


@projects.post(scope=SCOPE, body=ProjectBody, response=ProjectAnswer)
def create_project(admission: Admission[ProjectBody]) -> dict[str, Any]:
    """Create a project."""
    name = admission.body.name
    row = Workspace(name=name)
    # The id makes it unique.
    row.slug = f"{slugify(name)[:60] or 'project'}-{row.pk.hex[-12:]}"
    row.save()
    return present_project(row)


project = Endpoint(tags=TAGS)


@project.get(scope=SCOPE, response=ProjectAnswer, errors=(NotFound,))
def retrieve_project(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a project."""
    return present_project(_project(admission))


@project.post(scope=SCOPE, body=ProjectChange, response=ProjectAnswer, errors=(NotFound,))
def update_project(admission: Admission[ProjectChange]) -> dict[str, Any]:
    """Rename a project."""
    row = _project(admission)
    if admission.body.name is not None:
        row.name = admission.body.name
        row.save()
    return present_project(row)


archive = Endpoint(tags=TAGS)


@archive.post(scope=SCOPE, response=ProjectAnswer, errors=(NotFound,))
def archive_project(admission: Admission[None]) -> dict[str, Any]:
    """Archive a project: its keys are refused from then on."""
    row = _project(admission)
    if row.is_active:
        row.is_active, row.archived_at = False, now()
        row.save()
    return present_project(row)


def present_project(row: Workspace) -> dict[str, Any]:
    """Return ``row`` as its answer."""
    return ProjectAnswer(
        id=row.public_id,
        name=row.name,
        created_at=int(row.created_at.timestamp()),
        # An archived project may have been made active again since.
        archived_at=None if row.is_active else _seconds(row.archived_at),
        status="active" if row.is_active else "archived",
    ).model_dump()


def _project(admission: Admission[Any]) -> Workspace:
    found: Workspace = _find(
        Workspace.objects.all(), Workspace.prefix, admission, "project_id", "project"
    )
    return found


def _find(rows: Any, prefix: str, admission: Admission[Any], name: str, kind: str) -> Any:
    public = admission.captured[name]
    pk = parse_public_id(prefix, public)
    found = None if pk is None else rows.filter(pk=pk).first()
    if found is None:
        raise NotFound(f"There is no {kind} {public[:100]!r}.", code=f"{kind}_not_found")
    return found


# Keys

keys = Endpoint(tags=TAGS)


@keys.get(scope=SCOPE, query=KeyQuery, response=ListAnswer[KeyAnswer], errors=(NotFound,))
def list_project_keys(admission: Admission[None]) -> dict[str, Any]:
    """List the API keys of a project that are not revoked."""
    row, query = _project(admission), admission.query
    rows = _keys(row)
    if query.owner_project_access != "any":
        active = rows.filter(_has_access(row))
        is_wanted = query.owner_project_access == "active"
        rows = active if is_wanted else rows.exclude(pk__in=active.values("pk"))
    return list_rows(rows, query, APIKey.prefix, present_key)


key = Endpoint(tags=TAGS)


@key.get(scope=SCOPE, response=KeyAnswer, errors=(NotFound,))
def retrieve_project_key(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve an API key of a project."""
    return present_key(_key(admission))


@key.post(scope=SCOPE, body=KeyBody, response=KeyAnswer, errors=(NotFound,))
def update_project_key(admission: Admission[KeyBody]) -> dict[str, Any]:
    """Change the scopes or the expiry of an API key of a project."""
    found, body = _key(admission), admission.body
    if not is_live(found.expires_at, now()):
        raise InvalidRequest("This API key has expired.", code="api_key_expired")
    if body.scopes is not None:
        found.scopes = _scopes(body.scopes)
    if body.expires_in_seconds is not None:
        found.expires_at = _end(body.expires_in_seconds)
    found.save()
    return present_key(found)


@key.delete(scope=SCOPE, response=Deleted, errors=(NotFound,))
def delete_project_key(admission: Admission[None]) -> dict[str, Any]:
    """Revoke an API key of a project."""
    found = _key(admission)
    found.revoke()
    return Deleted(id=found.public_id, object="organization.project.api_key.deleted").model_dump()


def present_key(row: APIKey) -> dict[str, Any]:
    """Return ``row``, a key of a workspace, as its answer."""
    created = int(row.created_at.timestamp())
    user, account, workspace = row.user, row.service_account, row.workspace
    member = None if user is None or workspace is None else member_of(workspace, user.pk)
    if user is not None:
        owner = OwnerAnswer(
            type="user",
            user=OwnerUser(
                id=str(user.pk),
                name=_name(user),
                email=_email(user),
                role="member" if member is None else _role(member),
                created_at=_seconds(getattr(user, "date_joined", None)) or created,
            ),
        )
    else:
        owner = OwnerAnswer(
            type="service_account",
            service_account=OwnerServiceAccount(
                id=row.public_id if account is None else account.public_id,
                name=row.name if account is None else account.name,
                created_at=created if account is None else int(account.created_at.timestamp()),
            ),
        )
    is_active = user is None or (member is not None and member.is_active)
    return KeyAnswer(
        id=row.public_id,
        name=row.name,
        redacted_value=str(max(row.secrets.all(), key=lambda each: each.pk, default="")),
        created_at=created,
        last_used_at=_seconds(row.last_used_at),
        expires_at=_seconds(row.expires_at),
        owner=owner,
        owner_project_access="active" if is_active else "inactive",
    ).model_dump()


def _has_access(row: Workspace) -> Q:
    """Return the condition of keys of ``row`` whose owner has access to it."""
    return Q(user=None) | Q(user__in=members_of(row).filter(is_active=True).values("pk"))


def _keys(row: Workspace) -> Any:
    found = row.keys.filter(revoked_at=None).select_related("user", "service_account", "workspace")
    return found.prefetch_related("secrets")


def _key(admission: Admission[Any]) -> APIKey:
    found: APIKey = _find(_keys(_project(admission)), APIKey.prefix, admission, "key_id", "api_key")
    return found


def _scopes(scopes: list[str]) -> list[str] | None:
    """Return the scopes of a key. OpenAI's empty list stands for all of them."""
    try:
        validate_scopes(scopes)
    except ValidationError as error:
        raise InvalidRequest(" ".join(error.messages), param="scopes") from error
    if "admin" in scopes:
        raise InvalidRequest("Keys of projects cannot have the scope 'admin'.", param="scopes")
    return scopes or None


def _end(seconds: int | None) -> datetime | None:
    return None if seconds is None else now() + timedelta(seconds=seconds)


# Service accounts

accounts = Endpoint(tags=TAGS)


@accounts.get(scope=SCOPE, query=ListQuery, response=ListAnswer[AccountAnswer], errors=(NotFound,))
def list_service_accounts(admission: Admission[None]) -> dict[str, Any]:
    """List the service accounts of a project."""
    rows = _project(admission).service_accounts.all()
    return list_rows(rows, admission.query, ServiceAccount.prefix, present_account)


@accounts.post(scope=SCOPE, body=AccountBody, response=NewAccountAnswer, errors=(NotFound,))
@sensitive_variables("api_key")
def create_service_account(admission: Admission[AccountBody]) -> dict[str, Any]:
    """Create a service account with a key, whose value is shown once."""
    row, body = _project(admission), admission.body
    only = bool(body.create_service_account_only)
    if only and body.expires_in_seconds is not None:
        raise InvalidRequest(
            "There is no key to expire with 'create_service_account_only'.",
            param="expires_in_seconds",
        )
    with transaction.atomic():
        made = ServiceAccount.objects.create(workspace=row, name=body.name)
        api_key = None if only else _new_key(made, body.name, body.expires_in_seconds, None)
    return {**present_account(made), "api_key": api_key}


account = Endpoint(tags=TAGS)


@account.get(scope=SCOPE, response=AccountAnswer, errors=(NotFound,))
def retrieve_service_account(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a service account."""
    return present_account(_account(admission))


@account.post(scope=SCOPE, body=AccountChange, response=AccountAnswer, errors=(NotFound,))
def update_service_account(admission: Admission[AccountChange]) -> dict[str, Any]:
    """Rename a service account."""
    found = _account(admission)
    if admission.body.name is not None:
        found.name = admission.body.name
        found.save()
    return present_account(found)


@account.delete(scope=SCOPE, response=Deleted, errors=(NotFound,))
def delete_service_account(admission: Admission[None]) -> dict[str, Any]:
    """Delete a service account, and revoke its keys."""
    found = _account(admission)
    public = found.public_id
    for each in found.keys.all():
        each.revoke()
        # Without it, the key stays in lists.
        each.service_account = None
        each.save(update_fields=["service_account"])
    found.delete()
    return Deleted(id=public, object="organization.project.service_account.deleted").model_dump()


account_keys = Endpoint(tags=TAGS)


@account_keys.post(scope=SCOPE, body=NewKeyBody, response=AccountKeyAnswer, errors=(NotFound,))
def create_service_account_key(admission: Admission[NewKeyBody]) -> dict[str, Any]:
    """Create an additional key of a service account. Its value is shown once."""
    found, body = _account(admission), admission.body
    scopes = None if body.scopes is None else _scopes(body.scopes)
    with transaction.atomic():
        return _new_key(found, body.name or found.name, body.expires_in_seconds, scopes)


def present_account(row: ServiceAccount) -> dict[str, Any]:
    """Return ``row`` as its answer."""
    return AccountAnswer(
        id=row.public_id, name=row.name, created_at=int(row.created_at.timestamp())
    ).model_dump()


def _account(admission: Admission[Any]) -> ServiceAccount:
    rows = _project(admission).service_accounts.all()
    found: ServiceAccount = _find(
        rows, ServiceAccount.prefix, admission, "account_id", "service_account"
    )
    return found


@sensitive_variables("value")
def _new_key(
    owner: ServiceAccount, name: str, seconds: int | None, scopes: list[str] | None
) -> dict[str, Any]:
    made = APIKey.objects.create(
        name=name,
        workspace=owner.workspace,
        service_account=owner,
        scopes=scopes,
        expires_at=_end(seconds),
    )
    value = made.new_secret(access_settings().KEY_PREFIX)
    return AccountKeyAnswer(
        id=made.public_id,
        name=name,
        value=value,
        created_at=int(made.created_at.timestamp()),
        expires_at=_seconds(made.expires_at),
    ).model_dump()


# Rate limits

#: The fields of a rate limit, with the unit and the period of each.
RATE_LIMITS: Final = {
    "max_requests_per_1_minute": (Unit.REQUESTS, Per.MINUTE),
    "max_tokens_per_1_minute": (Unit.TOKENS, Per.MINUTE),
    "max_requests_per_1_day": (Unit.REQUESTS, Per.DAY),
}
RATE_LIMIT_PREFIX: Final = "rl-"

rate_limits = Endpoint(tags=TAGS)


@rate_limits.get(
    scope=SCOPE, query=RateLimitQuery, response=ListAnswer[RateLimitAnswer], errors=(NotFound,)
)
def list_rate_limits(admission: Admission[None]) -> dict[str, Any]:
    """List the limits of a project, by pattern of models."""
    row, query = _project(admission), admission.query
    patterns = sorted(set(_rate_limits(row).values_list("model", flat=True)))
    names = [f"{RATE_LIMIT_PREFIX}{pattern}" for pattern in patterns]
    for name in ("after", "before"):
        cursor = getattr(query, name)
        if cursor is not None and cursor not in names:
            raise unknown_cursor(cursor, name)
    start = 0 if query.after is None else names.index(query.after) + 1
    end = len(names) if query.before is None else names.index(query.before)
    if query.before is not None and query.after is None:
        start = max(start, end - query.limit)
    shown = patterns[start:end][: query.limit]
    data = [_present_rate_limit(row, pattern) for pattern in shown]
    return page(data, has_more=start + query.limit < end)


rate_limit = Endpoint(tags=TAGS)


@rate_limit.post(scope=SCOPE, body=RateLimitBody, response=RateLimitAnswer, errors=(NotFound,))
def update_rate_limit(admission: Admission[RateLimitBody]) -> dict[str, Any]:
    """Set limits of a project for a pattern of models."""
    row, body = _project(admission), admission.body
    name: str = admission.captured["rate_limit_id"]
    pattern = name.removeprefix(RATE_LIMIT_PREFIX)
    if pattern == name or not 0 < len(pattern) <= 200 or "\0" in pattern:
        raise NotFound(f"There is no rate limit {name[:100]!r}.", code="rate_limit_not_found")
    with transaction.atomic():
        for field, (unit, per) in RATE_LIMITS.items():
            if field not in body.model_fields_set:
                continue
            amount = getattr(body, field)
            if amount is None:
                _rate_limits(row).filter(model=pattern, unit=unit, per=per).delete()
                continue
            limit = Limit(
                target=Target.WORKSPACE,
                workspace=row,
                unit=unit,
                per=per,
                amount=amount,
                model=pattern,
            )
            try:
                limit.full_clean(validate_unique=False, validate_constraints=False)
            except ValidationError as error:
                raise InvalidRequest(" ".join(error.messages), param=field) from error
            limit.put()
    return _present_rate_limit(row, pattern)


def _rate_limits(row: Workspace) -> Any:
    kinds = [Q(unit=unit, per=per) for unit, per in RATE_LIMITS.values()]
    return row.limits.filter(functools.reduce(operator.or_, kinds), target=Target.WORKSPACE)


def _present_rate_limit(row: Workspace, pattern: str) -> dict[str, Any]:
    amounts = {
        (each.unit, each.per): int(each.amount) for each in _rate_limits(row).filter(model=pattern)
    }
    values = {field: amounts.get(kind) for field, kind in RATE_LIMITS.items()}
    return RateLimitAnswer(id=f"{RATE_LIMIT_PREFIX}{pattern}", model=pattern, **values).model_dump()


# Users

users = Endpoint(tags=TAGS)


@users.get(scope=SCOPE, query=ListQuery, response=ListAnswer[UserAnswer], errors=(NotFound,))
def list_project_users(admission: Admission[None]) -> dict[str, Any]:
    """List the users of a project."""
    row = _project(admission)
    return list_users(row, admission.query, lambda user: present_user(user, row), "id")


@users.post(scope=SCOPE, body=UserBody, response=UserAnswer, errors=(NotFound,))
def add_project_user(admission: Admission[UserBody]) -> dict[str, Any]:
    """Add a user to a project."""
    row, body = _project(admission), admission.body
    user = _find_user(body)
    Membership.objects.update_or_create(workspace=row, user=user, defaults={"role": body.role})
    return present_user(member_of(row, user.pk), row)


user = Endpoint(tags=TAGS)


@user.get(scope=SCOPE, response=UserAnswer, errors=(NotFound,))
def retrieve_project_user(admission: Admission[None]) -> dict[str, Any]:
    """Retrieve a user of a project."""
    row, found = _member(admission)
    return present_user(found, row)


@user.post(scope=SCOPE, body=UserChange, response=UserAnswer, errors=(NotFound,))
def update_project_user(admission: Admission[UserChange]) -> dict[str, Any]:
    """Change the role of a user of a project."""
    row, found = _member(admission)
    role = admission.body.role
    if role is not None and role != _role(found):
        Membership.objects.update_or_create(workspace=row, user=found, defaults={"role": role})
    return present_user(member_of(row, found.pk), row)


@user.delete(scope=SCOPE, response=Deleted, errors=(NotFound,))
def remove_project_user(admission: Admission[None]) -> dict[str, Any]:
    """Remove a user from a project."""
    row, found = _member(admission)
    with transaction.atomic():
        row.memberships.filter(user=found).delete()
        if is_member(row, found):
            raise InvalidRequest(
                "This user is a member by the group of the workspace. Change the group instead.",
                code="member_by_group",
            )
    return Deleted(id=str(found.pk), object="organization.project.user.deleted").model_dump()


def present_user(user: Any, row: Workspace) -> dict[str, Any]:
    """Return ``user``, one of ``members_of(row)``, as their answer."""
    membership: UUID | None = user.ollama_membership
    # A UUID of version 7 begins with its time.
    added = row.created_at.timestamp() if membership is None else (membership.int >> 80) / 1000
    return UserAnswer(
        id=str(user.pk),
        name=_name(user),
        email=_email(user),
        role=_role(user),
        added_at=int(added),
    ).model_dump()


def _name(user: Any) -> str:
    full = getattr(user, "get_full_name", str)()
    return full or str(user.get_username())


def _email(user: Any) -> str:
    return str(getattr(user, user.get_email_field_name(), "") or "")


def _role(member: Any) -> Literal["owner", "member"]:
    """Return the role of one of ``members_of(…)``. OpenAI's projects have no
    admins."""
    return "member" if member.ollama_role == Role.MEMBER else "owner"


def _member(admission: Admission[Any]) -> tuple[Workspace, Any]:
    """Return the project of the path, and its user of the path."""
    row = _project(admission)
    found = member_of(row, admission.captured["user_id"])
    if found is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return row, found


def _find_user(body: UserBody) -> Any:
    users = get_user_model()
    if body.user_id is not None:
        param, wanted = "user_id", {"pk": body.user_id}
    elif body.email:
        param, wanted = "email", {f"{users.get_email_field_name()}__iexact": body.email}
    else:
        raise InvalidRequest("Send 'user_id' or 'email'.", param="user_id")
    try:
        found = list(users._default_manager.filter(**wanted)[:2])
    except (ValueError, ValidationError, DataError):
        # Such as a text for a number, or a NUL, which PostgreSQL does not take.
        found = []
    if len(found) > 1:
        raise InvalidRequest("Several users have this email address. Send 'user_id'.", param=param)
    if not found:
        raise NotFound("There is no such user.", param=param, code="user_not_found")
    return found[0]
