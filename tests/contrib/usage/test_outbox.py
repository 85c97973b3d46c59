"""Events that wait in the outbox: one for each record and receiver, claimed by one process."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.access.models import Workspace
from django_ollama_openai.contrib.usage._billing.outbox import (
    claim,
    event_for,
    note_delivered,
    note_failure,
)
from django_ollama_openai.contrib.usage._views.records import present_record
from django_ollama_openai.contrib.usage.models import Destination, OutboxEvent, UsageRecord
from tests.contrib.access.conftest import DUMMY
from tests.contrib.usage.conftest import made, stored

SIZES = {destination.value: 3 for destination in Destination}
WEBHOOK = {"URL": "https://hooks.example.com/", "SECRET": "whsec_" + "c2VjcmV0" * 4}
OPENMETER = {"URL": "http://127.0.0.1:1"}


def customer(record: UsageRecord) -> str | None:
    if record.model == "query":
        Workspace.objects.get(name="nobody's")
    if record.model == "bad":
        raise ValueError("with a secret")
    return None if record.model == "free" else f"cus_{record.model}"


def configure(settings: Settings, **usage: Any) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "USAGE": usage}


def with_stripe(settings: Settings, **more: Any) -> None:
    stripe = {
        "API_KEY": "sk_test_1",
        "EVENT_NAME": "tokens",
        "CUSTOMER": f"{__name__}.customer",
    }
    configure(settings, STRIPE=stripe, **more)


def events(count: int = 1) -> list[OutboxEvent]:
    """Store ``count`` events that are due."""
    made = [event_for(Destination.WEBHOOK, "t", {"number": number}) for number in range(count)]
    return OutboxEvent.objects.bulk_create(made)


def test_a_record_is_an_event_for_each_receiver(db: None, settings: Settings) -> None:
    stored(made())
    assert not OutboxEvent.objects.exists()
    with_stripe(settings, WEBHOOK=WEBHOOK, OPENMETER=OPENMETER)
    stored(made(model="free"))
    (record,) = stored(made(model="paid"))
    found = OutboxEvent.objects.filter(payload__id=record.public_id)
    shown = {event.destination: event.payload for event in found}
    assert {event.type for event in found} == {"usage.recorded"}
    expected = present_record(record)
    assert shown == {
        "webhook": expected,
        "openmeter": expected,
        "stripe": {**expected, "stripe_customer_id": "cus_paid"},
    }
    assert OutboxEvent.objects.count() == 5
    assert not OutboxEvent.objects.exclude(payload__model="paid").filter(destination="stripe")


@pytest.mark.parametrize("model", ["bad", "query"])
def test_a_function_that_fails_loses_no_record(db: None, settings: Settings, model: str) -> None:
    """Not with PostgreSQL either, which refuses what follows a query that fails."""
    with_stripe(settings)
    assert len(stored(made(model=model), made(model="paid"))) == 2
    given_up = OutboxEvent.objects.get(payload__model=model)
    due = OutboxEvent.objects.get(payload__model="paid")
    assert (given_up.due_at, given_up.delivered_at) == (None, None)
    assert given_up.error in ("CUSTOMER failed: ValueError.", "CUSTOMER failed: DoesNotExist.")
    assert due.due_at is not None


def test_a_claim_ends(db: None) -> None:
    """An event of a process that was killed is free again; an acknowledged one never is."""
    (event,) = events()
    assert claim(SIZES, now()) == [event]
    assert claim(SIZES, now()) == []
    OutboxEvent.objects.update(claimed_until=now() - timedelta(seconds=1))
    assert claim(SIZES, now()) == [event]
    note_delivered([event])
    # The late failure of another attempt.
    note_failure([event], "late")
    OutboxEvent.objects.update(claimed_until=None)
    assert claim(SIZES, now() + timedelta(days=1)) == []


def test_simultaneous_claims_share_no_event(transactional_db: None) -> None:
    """And none is left over."""
    expected = {event.pk for event in events(60)}
    barrier = threading.Barrier(3)
    claimed: list[Any] = []

    def work() -> None:
        barrier.wait()
        while found := claim(SIZES, now()):
            claimed.extend(event.pk for event in found)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 60
    assert set(claimed) == expected
