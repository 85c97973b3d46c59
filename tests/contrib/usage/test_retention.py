"""``manage.py ollama prune``: old records and events, and accounts of limits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.access._limits.resolve import AppliedLimit, account_id
from django_ollama_openai.contrib.access.models import Limit, LimitAccount
from django_ollama_openai.contrib.access.stores import Claim, DatabaseStore
from django_ollama_openai.contrib.access.stores._base import now as microseconds
from django_ollama_openai.contrib.usage.models import (
    Destination,
    OutboxEvent,
    UsageBucket,
    UsageRecord,
)
from tests.contrib.usage.conftest import made, stored


@pytest.mark.parametrize("how", ["argument", "setting"])
def test_old_records_go_and_sums_stay(
    db: None, settings: Settings, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole days of them: the sums of the others can be rebuilt."""
    stored(*(made(started_at=now() - timedelta(days=days)) for days in (1, 10, 40)))
    arguments = ["--only", "usage"]
    if how == "argument":
        arguments += ["--older-than", "30d"]
    else:
        call_command("ollama", "prune", *arguments)
        assert UsageRecord.objects.count() == 3
        settings.OLLAMA_OPENAI |= {"USAGE": {"RETENTION_DAYS": 30}}
    call_command("ollama", "prune", *arguments)
    assert "usage records" in capsys.readouterr().out
    assert UsageRecord.objects.count() == 2
    assert UsageBucket.objects.count() == 3
    first = UsageRecord.objects.earliest("started_at").started_at
    call_command("ollama", "usage", "--rebuild", f"{first:%Y-%m-%d}", f"{now():%Y-%m-%d}")


def test_events_that_are_over(db: None) -> None:
    old = now() - timedelta(days=36)
    for due, created in ((None, old), (now(), old), (None, now())):
        OutboxEvent.objects.create(
            destination=Destination.WEBHOOK, type="x", payload={}, due_at=due, created_at=created
        )
    call_command("ollama", "prune", "--only", "usage")
    assert OutboxEvent.objects.count() == 2


def test_accounts_of_limits_that_are_not_used(db: None) -> None:
    day = 86_400 * 10**6
    for age in (1, 61, 63):
        LimitAccount.objects.create(id=str(age), seen=microseconds() - age * day)
    call_command("ollama", "prune", "--only", "limits")
    assert set(LimitAccount.objects.values_list("id", flat=True)) == {"1", "61"}


@pytest.mark.parametrize(
    ("unit", "per", "days", "is_kept"),
    [
        ("tokens", "month", 0, True),
        ("tokens", "month", 31, True),
        ("tokens", "month", 100, False),
        ("requests", "hour", 0, True),
        ("requests", "hour", 100, False),
        ("concurrent", "", 0, True),
    ],
)
def test_accounts_of_limits_in_use_stay(
    db: None, unit: str, per: str, days: int, is_kept: bool
) -> None:
    """Those that requests have made, which used something ``days`` ago."""
    moment = microseconds() - days * 86_400 * 10**6
    limit = Limit.objects.create(target="everybody", unit=unit, per=per, amount=100)
    applied = AppliedLimit(limit, account_id(limit, ""))
    store = DatabaseStore(clock=lambda: moment)
    claim = Claim(applied.account, applied.rule(moment), 1, is_leased=unit != "requests")
    verdict = store.reserve(uuid7(), [claim])
    assert verdict.refused is None
    call_command("ollama", "prune", "--only", "limits")
    assert LimitAccount.objects.exists() is is_kept
