"""Announce the thresholds of budgets that have been reached: once for each, and period."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from ..._batch_writer import BatchWriter
from ..access._limits.periods import CALENDAR
from ..access._limits.resolve import AppliedLimit, Subjects, applied_limits
from ..access._limits.usage import current_uses
from ..access.models import Limit, Unit
from ..access.stores._base import now
from ._billing.outbox import event_for
from .conf import usage_settings
from .models import BudgetAlert, Destination, UsageRecord
from .signals import budget_reached

__all__ = ["THRESHOLDS", "check_budgets", "note"]

#: In percent of a budget.
THRESHOLDS: Final = (50, 80, 100)
REACHED: Final = "budget.reached"

logger = logging.getLogger("django_ollama_openai")


@dataclass(frozen=True, slots=True)
class Spending:
    """Somebody who has spent something on a model."""

    subjects: Subjects
    model: str


def note(records: Iterable[UsageRecord]) -> None:
    """Have the budgets that ``records`` count for checked, when their limits are settled."""
    spent = {
        Spending(
            (
                "" if record.workspace_id is None else record.workspace_id.hex,
                "" if record.user_id is None else str(record.user_id),
                record.static_key if record.key_id is None else record.key_id.hex,
            ),
            record.model,
        )
        for record in records
        if record.cost
    }
    for each in spent:
        _queue.put(each)


def check_budgets(spent: Sequence[Spending]) -> None:
    """Announce the thresholds that the budgets of ``spent`` have reached."""
    budgets: dict[str, AppliedLimit] = {}
    for each in dict.fromkeys(spent):
        for applied in applied_limits(each.subjects, each.model):
            if applied.limit.unit == Unit.COST and applied.limit.per in CALENDAR:
                budgets[applied.account] = applied
    found = list(budgets.values())
    moment = now()
    for applied, use in zip(found, current_uses(found), strict=True):
        if use is None or not use.amount:
            continue
        used, amount = Decimal(use.used), Decimal(use.amount)
        period = applied.rule(moment).begin
        reached = [each for each in THRESHOLDS if used * 100 >= amount * each]
        known = BudgetAlert.objects.filter(
            limit=applied.limit, account=applied.account, period=period
        )
        if reached:
            for threshold in sorted({*reached} - {*known.values_list("threshold", flat=True)}):
                _announce(applied, threshold, used, amount, period)


def _announce(
    applied: AppliedLimit, threshold: int, used: Decimal, amount: Decimal, period: int
) -> None:
    limit = applied.limit
    started = datetime.fromtimestamp(period / 10**6, UTC)
    try:
        with transaction.atomic():
            BudgetAlert.objects.create(
                limit=limit, account=applied.account, period=period, threshold=threshold
            )
            if usage_settings().WEBHOOK is not None:
                payload = _payload(limit, threshold, used, amount, started)
                event_for(Destination.WEBHOOK, REACHED, payload).save()
    except IntegrityError:
        # Another process has announced it, or the limit was deleted.
        return
    facts: dict[str, Any] = {
        "limit": limit,
        "threshold": threshold,
        "used": used,
        "amount": amount,
        "period_start": started,
    }
    for receiver, error in budget_reached.send_robust(Limit, **facts):
        if isinstance(error, Exception):
            logger.error("A receiver of budget_reached failed: %r", receiver, exc_info=error)
    _send_mail(limit, threshold, used, amount)


def _payload(
    limit: Limit, threshold: int, used: Decimal, amount: Decimal, started: datetime
) -> dict[str, Any]:
    return {
        "limit": limit.public_id,
        "target": limit.describe_target(),
        "model": limit.model,
        "per": limit.per,
        "period_start": started.isoformat().replace("+00:00", "Z"),
        "threshold": threshold,
        "used": f"{used.normalize():f}",
        "amount": f"{amount.normalize():f}",
        "currency": usage_settings().CURRENCY,
    }


def _send_mail(limit: Limit, threshold: int, used: Decimal, amount: Decimal) -> None:
    settings = usage_settings()
    if not settings.BUDGET_MAIL:
        return
    words = {
        "target": limit.target_in_words(),
        "threshold": threshold,
        "used": f"{used.normalize():f} {settings.CURRENCY}",
        "amount": f"{amount.normalize():f} {settings.CURRENCY}",
        "limit": str(limit),
    }
    try:
        send_mail(
            _("%(threshold)d %% of the budget of %(target)s is used") % words,
            _("%(used)s of %(amount)s are used: %(limit)s, %(target)s.") % words,
            None,
            settings.BUDGET_MAIL,
        )
    except OSError as error:
        logger.error("The mail on a budget was not sent", exc_info=error)


# A second after the records: the limits of their requests are settled then.
_queue: Final = BatchWriter(check_budgets, name="budgets to check")
