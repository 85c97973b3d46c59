"""Models of usage records and their sums, prices, invoices, and events for billing systems."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator, RegexValidator
from django.db.models import (
    CASCADE,
    PROTECT,
    SET_NULL,
    BigIntegerField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    ForeignKey,
    Index,
    JSONField,
    Model,
    PositiveIntegerField,
    PositiveSmallIntegerField,
    Q,
    TextChoices,
    UniqueConstraint,
    UUIDField,
)
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from .._models import PublicModel
from ..access.models import APIKey, Limit, Workspace
from ._fields import MoneyField, MoneySumField

__all__ = [
    "BudgetAlert",
    "Closing",
    "Invoice",
    "InvoiceLine",
    "OutboxEvent",
    "Price",
    "Source",
    "Status",
    "UsageBucket",
    "UsageDay",
    "UsageRecord",
    "UsageReport",
]

MAX_MODEL = 1_024
MAX_NAME = 150

currency_validator = RegexValidator(r"^[A-Z]{3}$", _("Enter three capital letters, such as USD."))


class CurrencyField(CharField):  # type: ignore[type-arg]  # as its base class
    """The three letters of a currency."""

    def __init__(self, **options: Any) -> None:
        label, validators = _("currency"), [currency_validator]
        defaults = {"verbose_name": label, "max_length": 3, "validators": validators}
        super().__init__(**{**defaults, **options})


class UnitPriceField(DecimalField):  # type: ignore[type-arg]  # as its base class
    """A price with up to six decimal places."""

    def __init__(self, *args: Any, **options: Any) -> None:
        least = [MinValueValidator(0)]
        options = {"max_digits": 14, "decimal_places": 6, "validators": least, **options}
        super().__init__(*args, **options)


class Price(PublicModel):
    """The price of the models that match a pattern, from a moment on. It ends when the next price
    of the same pattern begins."""

    prefix = "price"

    model = CharField(
        _("models"),
        max_length=200,
        help_text=_("A pattern of model names, such as llama3*. The most particular one counts."),
    )
    starts_at = DateTimeField(_("valid from"), default=now)
    currency = CurrencyField(default="USD")
    input = UnitPriceField(_("per million prompt tokens"), default=0)
    cached = UnitPriceField(
        _("per million cached prompt tokens"),
        null=True,
        blank=True,
        help_text=_("Empty for the price of other prompt tokens."),
    )
    output = UnitPriceField(_("per million completion tokens"), default=0)
    request = UnitPriceField(_("per request"), default=0)
    second = UnitPriceField(_("per second of engine time"), default=0)
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints: ClassVar = [
            UniqueConstraint(
                fields=["model", "starts_at"],
                name="ollama_usage_price",
                violation_error_message=_("There is a price for these models from this moment on."),
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.starts_at:%Y-%m-%d %H:%M}"


class Source(TextChoices):
    """The source of the token counts of a record, a letter: there are many records."""

    REPORTED = "r", _("reported by the engine")
    COUNTED = "c", _("counted by the gateway")
    ESTIMATED = "e", _("estimated")


class Status(TextChoices):
    """The result of a request."""

    OK = "ok", _("ok")
    ERROR = "error", _("error")
    CANCELLED = "cancelled", _("cancelled")


class _Used(Model):
    """The workspace, user and key of a request, with the names they had, and the model.

    A deleted one becomes ``None``; its name stays. A static key has a name only.
    """

    workspace = ForeignKey(
        Workspace, null=True, on_delete=SET_NULL, related_name="+", db_index=False
    )
    user = ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=SET_NULL, related_name="+", db_index=False
    )
    key = ForeignKey(APIKey, null=True, on_delete=SET_NULL, related_name="+", db_index=False)
    workspace_name = CharField(_("workspace"), max_length=MAX_NAME, blank=True, default="")
    username = CharField(_("user"), max_length=MAX_NAME, blank=True, default="")
    key_name = CharField(_("API key"), max_length=MAX_NAME, blank=True, default="")
    #: The id of a static key, whose settings name it; else empty.
    static_key = CharField(max_length=MAX_NAME, blank=True, default="")
    endpoint = CharField(_("endpoint"), max_length=40)
    price = ForeignKey(Price, null=True, on_delete=PROTECT, related_name="+", db_index=False)
    #: Of the price; empty without one.
    currency = CurrencyField(blank=True, default="")
    #: The first day of the month whose invoice has it.
    month = DateField(_("billing month"))
    #: Identifies all of the above and the model that answered: records with the same one are added
    #: up. It stays when a user, workspace or key is deleted.
    series = UUIDField(editable=False)

    class Meta:
        abstract = True


class UsageRecord(_Used, PublicModel):
    """A request that reached an engine."""

    prefix = "usage"

    request_id = CharField(_("request id"), max_length=255)
    started_at = DateTimeField(_("started"))
    #: In milliseconds, as the next two.
    duration = PositiveIntegerField(_("duration"), default=0)
    queued = PositiveIntegerField(_("queued"), default=0)
    time_to_first_token = PositiveIntegerField(_("time to first token"), null=True)
    model = CharField(_("model"), max_length=MAX_MODEL)
    answered_by = CharField(_("answered by"), max_length=MAX_MODEL)
    backend = CharField(_("backend"), max_length=100)
    prompt_tokens = PositiveIntegerField(_("prompt tokens"), default=0)
    cached_tokens = PositiveIntegerField(_("cached tokens"), default=0)
    completion_tokens = PositiveIntegerField(_("completion tokens"), default=0)
    reasoning_tokens = PositiveIntegerField(_("reasoning tokens"), default=0)
    source = CharField(_("source"), max_length=1, choices=Source.choices)
    status = CharField(_("status"), max_length=9, choices=Status.choices)
    error = CharField(_("error"), max_length=64, blank=True, default="")
    #: ``None`` without a price.
    cost = MoneyField(_("cost"), null=True)
    tags = JSONField(_("tags"), null=True)

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("usage records")
        indexes: ClassVar = [
            Index(fields=["started_at"], name="ollama_usage_started"),
            Index(fields=["workspace", "started_at"], name="ollama_usage_workspace"),
            Index(fields=["user", "started_at"], name="ollama_usage_user"),
            Index(fields=["key", "started_at"], name="ollama_usage_key"),
        ]

    def __str__(self) -> str:
        return self.public_id


class _Sums(Model):
    """The sums of records."""

    requests = BigIntegerField(_("requests"), default=0)
    errors = BigIntegerField(_("errors"), default=0)
    cancelled = BigIntegerField(_("cancelled"), default=0)
    unpriced_requests = BigIntegerField(_("without a price"), default=0)
    prompt_tokens = BigIntegerField(_("prompt tokens"), default=0)
    cached_tokens = BigIntegerField(_("cached tokens"), default=0)
    completion_tokens = BigIntegerField(_("completion tokens"), default=0)
    reasoning_tokens = BigIntegerField(_("reasoning tokens"), default=0)
    cost = MoneySumField(_("cost"), default=0)
    #: In milliseconds. The engine's time is the duration without the time in queues.
    duration = BigIntegerField(default=0)
    engine_time = BigIntegerField(default=0)
    #: The times to the first token, and the number of records that have one.
    first_token_time = BigIntegerField(default=0)
    first_tokens = BigIntegerField(default=0)

    class Meta:
        abstract = True


class UsageBucket(_Used, _Sums):
    """The sums of the records of one series that started in one quarter of an hour."""

    start = DateTimeField(_("start"))
    model = CharField(_("model"), max_length=MAX_MODEL)

    class Meta:
        verbose_name = _("sum of usage")
        verbose_name_plural = _("sums of usage")
        constraints: ClassVar = [
            UniqueConstraint(fields=["start", "series"], name="ollama_usage_bucket")
        ]
        indexes: ClassVar = [
            Index(fields=["workspace", "start"], name="ollama_usage_sums_workspace"),
            Index(fields=["user", "start"], name="ollama_usage_sums_user"),
            Index(fields=["key", "start"], name="ollama_usage_sums_key"),
        ]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} {self.model}"


class Dimension(TextChoices):
    """The groups of the sums of days."""

    ALL = "all", _("all")
    WORKSPACE = "workspace", _("workspace")
    USER = "user", _("user")
    KEY = "key", _("API key")
    MODEL = "model", _("model")


class UsageDay(_Sums):
    """The sums of a day in the site's time zone, by one dimension, for the page in the admin."""

    day = DateField(_("day"))
    dimension = CharField(max_length=9, choices=Dimension.choices)
    #: Identifies the subject: the workspace, user, key or model.
    series = UUIDField(editable=False)
    #: The primary key of the workspace, user or key, as text, and its name; of a model its name.
    subject = CharField(max_length=64, blank=True, default="")
    name = CharField(max_length=MAX_MODEL, blank=True, default="")
    currency = CurrencyField(blank=True, default="")

    class Meta:
        verbose_name = _("sum of a day")
        verbose_name_plural = _("sums of days")
        constraints: ClassVar = [
            UniqueConstraint(
                fields=["dimension", "day", "series", "currency"], name="ollama_usage_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.dimension} {self.name}"


class UsageReport(UsageDay):
    """The page of usage in the admin."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("usage")
        verbose_name_plural = _("usage")


class Closing(Model):
    """A month of a workspace that is closed: later records belong to the next one."""

    workspace = ForeignKey(
        Workspace, null=True, on_delete=SET_NULL, related_name="+", verbose_name=_("workspace")
    )
    month = DateField(_("month"))
    closed_at = DateTimeField(_("closed"), default=now, editable=False)

    class Meta:
        verbose_name = _("closed month")
        verbose_name_plural = _("closed months")
        constraints: ClassVar = [
            UniqueConstraint(fields=["workspace", "month"], name="ollama_usage_closing")
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class Invoice(PublicModel):
    """What a workspace has to pay for a month, in one currency. It never changes."""

    prefix = "inv"

    closing = ForeignKey(Closing, on_delete=PROTECT, related_name="invoices", editable=False)
    workspace = ForeignKey(
        Workspace,
        verbose_name=_("workspace"),
        null=True,
        on_delete=SET_NULL,
        related_name="+",
        editable=False,
    )
    workspace_name = CharField(_("workspace"), max_length=MAX_NAME, editable=False)
    month = DateField(_("month"), editable=False)
    currency = CurrencyField(editable=False)
    total = MoneySumField(_("total"), editable=False)
    #: Requests of this month without a price, which the total does not contain.
    unpriced_requests = BigIntegerField(_("without a price"), default=0, editable=False)
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")
        constraints: ClassVar = [
            UniqueConstraint(fields=["closing", "currency"], name="ollama_usage_invoice")
        ]

    def __str__(self) -> str:
        return f"{self.workspace_name} {self.month:%Y-%m}"


class InvoiceLine(Model):
    """The usage of one model at one price."""

    invoice = ForeignKey(Invoice, on_delete=CASCADE, related_name="lines", editable=False)
    model = CharField(_("model"), max_length=MAX_MODEL, editable=False)
    price = ForeignKey(Price, on_delete=PROTECT, related_name="+", editable=False)
    requests = BigIntegerField(_("requests"), editable=False)
    prompt_tokens = BigIntegerField(_("prompt tokens"), editable=False)
    cached_tokens = BigIntegerField(_("cached tokens"), editable=False)
    completion_tokens = BigIntegerField(_("completion tokens"), editable=False)
    #: In milliseconds.
    engine_time = BigIntegerField(_("engine time"), editable=False)
    amount = MoneySumField(_("amount"), editable=False)

    class Meta:
        verbose_name = _("line")
        verbose_name_plural = _("lines")

    def __str__(self) -> str:
        return self.model


class Destination(TextChoices):
    """The receivers of events."""

    WEBHOOK = "webhook", _("webhook")
    STRIPE = "stripe", "Stripe"
    OPENMETER = "openmeter", "OpenMeter"


class OutboxEvent(PublicModel):
    """An event for a billing system, until it has been acknowledged."""

    prefix = "evt"

    destination = CharField(_("receiver"), max_length=9, choices=Destination.choices)
    type = CharField(_("type"), max_length=40)
    payload = JSONField(_("content"))
    created_at = DateTimeField(_("created"), default=now, editable=False)
    #: The time of the next attempt; ``None`` after the last one.
    due_at = DateTimeField(_("next attempt"), null=True, default=now)
    attempts = PositiveSmallIntegerField(_("attempts"), default=0)
    #: Until this time a process is delivering it.
    claimed_until = DateTimeField(null=True, editable=False)
    error = CharField(_("last error"), max_length=200, blank=True, default="")
    delivered_at = DateTimeField(_("acknowledged"), null=True)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        indexes: ClassVar = [
            Index(
                fields=["due_at"],
                name="ollama_usage_due",
                condition=Q(due_at__isnull=False),
            ),
            Index(fields=["delivered_at"], name="ollama_usage_delivered"),
        ]

    def __str__(self) -> str:
        return self.public_id


class BudgetAlert(Model):
    """A threshold of a budget that was reached in a period, which is announced once."""

    limit = ForeignKey(Limit, on_delete=CASCADE, related_name="+")
    #: The account of the limit, and the start of its period in microseconds since 1970.
    account = CharField(max_length=64)
    period = BigIntegerField()
    #: In percent.
    threshold = PositiveSmallIntegerField()
    reached_at = DateTimeField(default=now)

    class Meta:
        constraints: ClassVar = [
            UniqueConstraint(
                fields=["limit", "account", "period", "threshold"], name="ollama_usage_alert"
            )
        ]

    def __str__(self) -> str:
        return f"{self.threshold} %"
