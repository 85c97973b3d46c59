"""Models of workspaces, members, service accounts, API keys, limits and the use of limits."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator

# Imported by name, since some models have a field ``models``.
from django.db import transaction
from django.db.models import (
    CASCADE,
    SET_NULL,
    BigIntegerField,
    BooleanField,
    CharField,
    CheckConstraint,
    DateTimeField,
    DecimalField,
    ForeignKey,
    Index,
    JSONField,
    Model,
    Q,
    SlugField,
    TextChoices,
    UniqueConstraint,
    UUIDField,
)
from django.db.models.deletion import Collector
from django.utils.formats import number_format
from django.utils.timezone import now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from ..._ids import uuid7
from ...auth import Workspace as WorkspaceRecord
from .._models import PublicModel
from . import _keys
from .validators import validate_models, validate_networks, validate_scopes, validate_timezone

__all__ = [
    "APIKey",
    "APIKeySecret",
    "Limit",
    "LimitAccount",
    "LimitReservation",
    "Membership",
    "ServiceAccount",
    "Workspace",
]


class Workspace(PublicModel):
    """A group of users and keys that share models and limits."""

    prefix = "ws"

    name = CharField(_("name"), max_length=100)
    slug = SlugField(_("slug"), max_length=100, unique=True)
    is_active = BooleanField(
        _("active"), default=True, help_text=_("The keys of an inactive workspace are refused.")
    )
    models = JSONField(
        _("models"),
        null=True,
        blank=True,
        validators=[validate_models],
        help_text=_('Patterns of models, such as ["llama3*"]. Empty for all.'),
    )
    group = ForeignKey(
        Group,
        verbose_name=_("group"),
        null=True,
        blank=True,
        on_delete=SET_NULL,
        related_name="+",
        help_text=_("Users in this group are members, too."),
    )
    created_at = DateTimeField(_("created"), default=now, editable=False)
    archived_at = DateTimeField(_("archived"), null=True, editable=False)

    class Meta:
        verbose_name = _("workspace")
        verbose_name_plural = _("workspaces")

    def __str__(self) -> str:
        return self.name

    def as_record(self) -> WorkspaceRecord:
        """Return the workspace as the ``workspace`` of a caller."""
        patterns = None if self.models is None else tuple(self.models)
        return WorkspaceRecord(id=self.public_id, name=self.name, models=patterns)


class Role(TextChoices):
    """The roles of members of a workspace."""

    OWNER = "owner", _("owner")
    ADMIN = "admin", _("admin")
    MEMBER = "member", _("member")


class Membership(PublicModel):
    """A user in a workspace."""

    prefix = "mem"

    workspace = ForeignKey(
        Workspace,
        verbose_name=_("workspace"),
        on_delete=CASCADE,
        related_name="memberships",
    )
    user = ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=CASCADE,
        related_name="ollama_memberships",
    )
    role = CharField(_("role"), max_length=10, choices=Role, default=Role.MEMBER)

    class Meta:
        verbose_name = _("member")
        verbose_name_plural = _("members")
        constraints: ClassVar = [
            UniqueConstraint(fields=["workspace", "user"], name="ollama_access_member")
        ]

    def __str__(self) -> str:
        return str(self.user)


class ServiceAccount(PublicModel):
    """A member of a workspace for a program instead of a user. Its keys are deleted with it."""

    prefix = "svc"

    workspace = ForeignKey(
        Workspace,
        verbose_name=_("workspace"),
        on_delete=CASCADE,
        related_name="service_accounts",
    )
    name = CharField(_("name"), max_length=100)
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("service account")
        verbose_name_plural = _("service accounts")

    def __str__(self) -> str:
        return self.name


def delete_before(collector: Collector, field: Any, objects: Any, using: str) -> None:
    """Delete ``objects`` before the rows that ``field`` refers to. For ``on_delete``.

    Where a database checks foreign keys at once, such as MySQL, Django's ``CASCADE`` first sets a
    nullable one to NULL, which the constraint on the owner of a key forbids.
    """
    collector.collect(objects, source=field.remote_field.model, fail_on_restricted=False)


class APIKey(PublicModel):
    """A key of a user, of a workspace, or of a user in a workspace. Its secrets are shown once."""

    prefix = "key"

    name = CharField(_("name"), max_length=100)
    user = ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        on_delete=delete_before,
        related_name="ollama_keys",
    )
    workspace = ForeignKey(
        Workspace,
        verbose_name=_("workspace"),
        null=True,
        blank=True,
        on_delete=delete_before,
        related_name="keys",
    )
    service_account = ForeignKey(
        ServiceAccount,
        verbose_name=_("service account"),
        null=True,
        blank=True,
        editable=False,
        on_delete=CASCADE,
        related_name="keys",
    )
    scopes = JSONField(
        _("scopes"),
        null=True,
        blank=True,
        validators=[validate_scopes],
        help_text=_('What the key may do, such as ["chat", "models"]. Empty for all but "admin".'),
    )
    models = JSONField(
        _("models"),
        null=True,
        blank=True,
        validators=[validate_models],
        help_text=_('Patterns of models, such as ["llama3*"]. Empty for all.'),
    )
    networks = JSONField(
        _("networks"),
        null=True,
        blank=True,
        validators=[validate_networks],
        help_text=_('Networks that may use the key, such as ["10.0.0.0/8"]. Empty for all.'),
    )
    created_at = DateTimeField(_("created"), default=now, editable=False)
    expires_at = DateTimeField(_("expires"), null=True, blank=True)
    last_used_at = DateTimeField(_("last used"), null=True, editable=False)
    revoked_at = DateTimeField(_("revoked"), null=True, editable=False)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints: ClassVar = [
            CheckConstraint(
                condition=Q(user__isnull=False) | Q(workspace__isnull=False),
                name="ollama_access_key_owner",
                violation_error_message=_("A key needs a user, a workspace, or both."),
            )
        ]

    def __str__(self) -> str:
        return self.name

    @sensitive_variables("value")
    def new_secret(self, site: str, pk: UUID | None = None) -> str:
        """Create a secret and return its value, which is not stored. ``pk`` is the id of its row:
        a form that is submitted twice has the same one and creates one secret."""
        value = _keys.new_key(site)
        self.secrets.create(
            pk=pk or uuid7(),
            digest=_keys.digest(value),
            start=_keys.start(value),
            last_four=_keys.last_four(value),
        )
        return value

    @transaction.atomic
    def rotate(
        self, site: str, overlap: timedelta = timedelta(hours=24), pk: UUID | None = None
    ) -> str:
        """Create a secret and return its value. Previous ones remain valid for ``overlap``."""
        end = now() + overlap
        self.secrets.filter(Q(expires_at=None) | Q(expires_at__gt=end)).update(expires_at=end)
        return self.new_secret(site, pk)

    def revoke(self) -> None:
        """Revoke the key. It is refused from now on."""
        if self.revoked_at is None:
            self.revoked_at = now()
            self.save(update_fields=["revoked_at"])


class APIKeySecret(Model):
    """The digest of a secret of a key. A rotated key has several."""

    id = UUIDField(primary_key=True, default=uuid7, editable=False)
    key = ForeignKey(APIKey, on_delete=CASCADE, related_name="secrets")
    digest = CharField(max_length=64, unique=True, editable=False)
    start = CharField(max_length=32, editable=False)
    last_four = CharField(max_length=4, editable=False)
    created_at = DateTimeField(default=now, editable=False)
    expires_at = DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("secret")
        verbose_name_plural = _("secrets")

    def __str__(self) -> str:
        return _keys.redacted(self.start, self.last_four)


class Target(TextChoices):
    """The targets of limits."""

    EVERYBODY = "everybody", _("everybody together")
    EACH_WORKSPACE = "each_workspace", _("each workspace")
    EACH_USER = "each_user", _("each user")
    EACH_KEY = "each_key", _("each key")
    WORKSPACE = "workspace", _("one workspace")
    USER = "user", _("one user")
    KEY = "key", _("one key")


class Unit(TextChoices):
    """The units of limits."""

    REQUESTS = "requests", _("requests")
    TOKENS = "tokens", _("tokens")
    COST = "cost", _("cost")
    CONCURRENT = "concurrent", _("simultaneous requests")


class Per(TextChoices):
    """The periods of limits. Minutes and hours refill continuously; the others are calendar
    periods."""

    MINUTE = "minute", _("minute")
    HOUR = "hour", _("hour")
    DAY = "day", _("day")
    WEEK = "week", _("week")
    MONTH = "month", _("month")


class Limit(PublicModel):
    """The most of a unit that a target may use in a period."""

    prefix = "lim"

    target = CharField(_("target"), max_length=20, choices=Target)
    workspace = ForeignKey(
        Workspace,
        verbose_name=_("workspace"),
        null=True,
        blank=True,
        on_delete=CASCADE,
        related_name="limits",
    )
    user = ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        on_delete=CASCADE,
        related_name="ollama_limits",
    )
    key = ForeignKey(
        APIKey,
        verbose_name=_("API key"),
        null=True,
        blank=True,
        on_delete=CASCADE,
        related_name="limits",
    )
    #: The id of the workspace, user or key; empty for other targets. NULLs are never equal, so the
    #: foreign keys cannot be part of a unique constraint.
    subject = CharField(max_length=64, default="", editable=False)
    model = CharField(
        _("models"),
        max_length=200,
        default="*",
        help_text=_("A pattern of model names, such as llama3*."),
    )
    unit = CharField(_("unit"), max_length=20, choices=Unit)
    amount = DecimalField(
        _("amount"), max_digits=19, decimal_places=9, validators=[MinValueValidator(0)]
    )
    per = CharField(
        _("per"),
        max_length=10,
        choices=Per,
        blank=True,
        default="",
        help_text=_("Leave empty for simultaneous requests."),
    )
    timezone = CharField(
        _("time zone"),
        max_length=64,
        default="UTC",
        validators=[validate_timezone],
        help_text=_("The time zone of days, weeks and months, such as Europe/Berlin."),
    )
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        constraints: ClassVar = [
            UniqueConstraint(
                fields=["target", "subject", "unit", "per", "model"], name="ollama_access_limit"
            )
        ]

    def __str__(self) -> str:
        amount = number_format(Decimal(f"{self.amount.normalize():f}"), force_grouping=True)
        words = {"amount": amount, "unit": self.get_unit_display(), "per": self.get_per_display()}
        if self.per:
            return gettext("%(amount)s %(unit)s per %(per)s") % words
        return gettext("%(amount)s %(unit)s") % words

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.subject = self._subject()
        super().save(*args, **kwargs)

    def clean(self) -> None:
        self.subject = self._subject()
        if (self.unit == Unit.CONCURRENT) != (not self.per):
            raise ValidationError(
                {"per": _("Simultaneous requests have no period. All other units need one.")}
            )
        if self.unit != Unit.COST and self.amount != int(self.amount):
            raise ValidationError({"amount": _("Enter a whole number.")})
        named = {"workspace": self.workspace_id, "user": self.user_id, "key": self.key_id}
        for name, value in named.items():
            if (self.target == name) != (value is not None):
                raise ValidationError({name: _("Choose one if this is the target, else none.")})

    def in_english(self) -> str:
        """Return the limit in English, since messages to API clients are not translated."""
        return f"{self.amount.normalize():f} {self.unit}" + (f" per {self.per}" if self.per else "")

    def target_in_words(self) -> str:
        """Return the target in the current language."""
        row = self.workspace or self.user or self.key
        if row is None:
            return self.get_target_display()
        return f"{row._meta.verbose_name} {row}"

    def unique_error_message(self, model_class: Any, unique_check: Any) -> ValidationError:
        return ValidationError(
            _("A limit with this target, unit, period and models exists. Change that one."),
            "unique",
        )

    @transaction.atomic
    def put(self) -> Limit:
        """Save this limit, or update the one with the same target, unit, period and models, and
        return the saved row."""
        same = Limit.objects.filter(
            target=self.target,
            subject=self._subject(),
            unit=self.unit,
            per=self.per,
            model=self.model,
        ).first()
        if same is None:
            self.save()
            return self
        same.amount, same.timezone = self.amount, self.timezone
        same.save()
        return same

    def describe_target(self) -> str:
        """Return the target as ``manage.py ollama limits set`` takes it."""
        match self.target:
            case Target.WORKSPACE if self.workspace is not None:
                return f"{self.target}:{self.workspace.slug}"
            case Target.USER if self.user is not None:
                return f"{self.target}:{self.user.get_username()}"
            case Target.KEY if self.key is not None:
                return f"{self.target}:{self.key.public_id}"
        return str(self.target)

    def _subject(self) -> str:
        match self.target:
            case Target.WORKSPACE:
                return _hex(self.workspace_id)
            case Target.USER:
                return str(self.user_id)
            case Target.KEY:
                return _hex(self.key_id)
        return ""


class LimitAccount(Model):
    """The use of a limit by one workspace, user or key, or by all: see ``_limits.ledger``."""

    id = CharField(primary_key=True, max_length=64)
    tat = BigIntegerField(default=0)
    seen = BigIntegerField(default=0)
    used = BigIntegerField(default=0)
    held = BigIntegerField(default=0)
    period = BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.id


class LimitReservation(Model):
    """The amount that a running request has reserved in an account, until ``expires``."""

    id = UUIDField(primary_key=True, default=uuid7)
    request = UUIDField()
    account = ForeignKey(LimitAccount, on_delete=CASCADE, db_index=False)
    amount = BigIntegerField()
    period = BigIntegerField()
    expires = BigIntegerField()

    class Meta:
        indexes: ClassVar = [
            Index(fields=["account", "expires"], name="ollama_access_expiry"),
            Index(fields=["request"], name="ollama_access_request"),
        ]

    def __str__(self) -> str:
        return str(self.id)


def _hex(value: UUID | None) -> str:
    return "" if value is None else value.hex


def is_live(moment: datetime | None, at: datetime) -> bool:
    """Return whether ``moment``, the end of something, is after ``at``, or is ``None``."""
    return moment is None or moment > at
