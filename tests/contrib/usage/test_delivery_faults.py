"""Deliveries when receivers, processes or settings fail: at least once, and never again once an
event is acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.usage._billing import outbox, receivers
from django_ollama_openai.contrib.usage._billing import stripe as stripe_module
from django_ollama_openai.contrib.usage._billing.outbox import event_for
from django_ollama_openai.contrib.usage.conf import usage_settings
from django_ollama_openai.contrib.usage.models import Destination, OutboxEvent
from tests.contrib.access.conftest import DUMMY
from tests.contrib.usage.conftest import made, stored
from tests.contrib.usage.receiver import Receiver, receiver

SECRET: Final = "whsec_" + "c2VjcmV0" * 4
#: Runs ``manage.py ollama deliver`` with the tests' database.
PROCESS: Final = """
import json, sys, django
from django.conf import settings
database, usage = map(json.loads, sys.argv[1:])
settings.DATABASES["default"].update(database)
settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "USAGE": usage}
django.setup()
from django.core.management import call_command
call_command("ollama", "deliver")
"""


def customer(record: Any) -> str:
    return "cus_1"


@pytest.fixture
def target() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = replace(receivers.ANYWHERE, total_timeout=0.7, idle_timeout=0.7)
    monkeypatch.setattr(receivers, "ANYWHERE", rules)


def webhook(url: str) -> dict[str, Any]:
    return {"WEBHOOK": {"URL": url, "SECRET": SECRET, "ALLOW_PRIVATE": True}}


def use(settings: Settings, usage: dict[str, Any]) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "USAGE": usage}


def event(**fields: Any) -> OutboxEvent:
    made = event_for(Destination.WEBHOOK, "t", {"number": 1})
    for name, value in fields.items():
        setattr(made, name, value)
    made.save()
    return made


def deliver(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    call_command("ollama", "deliver")
    captured = capsys.readouterr()
    return captured.out + captured.err


def due_again() -> None:
    OutboxEvent.objects.filter(due_at__isnull=False).update(due_at=now())


@pytest.mark.parametrize(
    "step", [500, 503, 429, 401, 404, 302, 307, "hang", "drip", "cut head", "close"]
)
def test_an_event_that_is_not_acknowledged_is_sent_again(
    db: None, settings: Settings, target: Receiver, capsys: pytest.CaptureFixture[str], step: Any
) -> None:
    use(settings, webhook(target.url))
    event()
    target.steps = [step]
    assert "Failed: 1." in deliver(capsys)
    row = OutboxEvent.objects.get()
    assert (row.attempts, row.delivered_at, row.claimed_until) == (1, None, None)
    assert row.error
    assert row.due_at is not None
    assert row.due_at > now()
    assert "Failed: 0." in deliver(capsys), "not before its time"
    due_again()
    assert "Delivered: 1." in deliver(capsys)
    first, second = target.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    row.refresh_from_db()
    assert row.delivered_at is not None
    assert row.error == ""
    deliver(capsys)
    assert len(target.received) == 2


@pytest.mark.parametrize("step", [200, 204, "twice", "cut body"])
def test_an_acknowledged_event_is_never_sent_again(
    db: None, settings: Settings, target: Receiver, capsys: pytest.CaptureFixture[str], step: Any
) -> None:
    use(settings, webhook(target.url))
    event()
    target.steps = [step]
    assert "Delivered: 1." in deliver(capsys)
    deliver(capsys)
    assert len(target.received) == 1


def test_a_receiver_that_is_down_does_not_keep_the_command(
    db: None,
    settings: Settings,
    target: Receiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each event has one attempt, though the first is due again when the last has failed."""
    monkeypatch.setattr(outbox, "FIRST_PAUSE", timedelta(milliseconds=1))
    use(settings, webhook(target.url))
    for _ in range(3):
        event()
    target.steps = [500] * 30
    assert "Failed: 3." in deliver(capsys)


def test_an_event_that_cannot_be_sent_does_not_keep_the_others(
    db: None, settings: Settings, target: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    use(settings, {**webhook(target.url), **stripe_settings()})
    broken = event(destination=Destination.STRIPE, type="usage.recorded")
    event()
    assert "Delivered: 1. Failed: 1." in deliver(capsys)
    broken.refresh_from_db()
    assert (broken.attempts, broken.error) == (1, "Unexpected KeyError.")


def start(usage: dict[str, Any]) -> subprocess.Popen[bytes]:
    names = ("NAME", "HOST", "PORT", "USER", "PASSWORD")
    database = json.dumps({name: connection.settings_dict[name] for name in names}, default=str)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.contrib.usage.settings"}
    command = [sys.executable, "-c", PROCESS, database, json.dumps(usage)]
    return subprocess.Popen(command, env=environment)


def test_a_process_that_is_killed_before_it_notes_the_acknowledgement(
    transactional_db: None,
    settings: Settings,
    target: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(settings, webhook(target.url))
    row = event()

    def kill() -> int:
        process.kill()
        process.wait()
        return 200

    target.steps = [kill]
    process = start(webhook(target.url))
    assert process.wait(60) == -9
    deliver(capsys)
    assert len(target.received) == 1, "its claim lasts"
    OutboxEvent.objects.update(claimed_until=now() - timedelta(seconds=1))
    assert "Delivered: 1." in deliver(capsys)
    assert [each.headers["webhook-id"] for each in target.received] == [row.public_id] * 2


def test_two_processes_never_send_an_event_both(
    transactional_db: None, settings: Settings, target: Receiver
) -> None:
    count = 40
    for _ in range(count):
        event()
    processes = [start(webhook(target.url)) for _ in range(2)]
    assert [process.wait(90) for process in processes] == [0, 0]
    ids = [each.headers["webhook-id"] for each in target.received]
    assert (len(ids), len(set(ids))) == (count, count)
    assert OutboxEvent.objects.exclude(delivered_at=None).count() == count


def problems() -> list[str]:
    return [each.msg for each in run_checks() if each.id == "ollama_openai.E014"]


@pytest.mark.parametrize("secret", ["whsec_abc", "whsec_?" + "a" * 40])
def test_a_wrong_secret(db: None, settings: Settings, secret: str) -> None:
    use(settings, {"WEBHOOK": {"URL": "https://hooks.example.com/", "SECRET": secret}})
    (problem,) = problems()
    assert secret not in problem
    assert secret not in repr(usage_settings())


def stripe_settings(**fields: Any) -> dict[str, Any]:
    path = f"{__name__}.customer"
    config = {"API_KEY": "sk_test_hidden", "EVENT_NAME": "tokens", "CUSTOMER": path}
    return {"STRIPE": {**config, **fields}}


@pytest.fixture
def stripe_server(target: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    import stripe

    monkeypatch.setattr(stripe, "api_base", target.url)
    monkeypatch.setattr(stripe_module, "TIMEOUT", 0.7)
    return target


@pytest.mark.parametrize(
    ("step", "code", "expected"),
    [
        (400, "duplicate_meter_event", "Delivered: 1."),
        (400, "other", "Given up: 1."),
        (401, "sk_test_hidden", "Waiting for another attempt: 1."),
        (429, "rate_limit", "Waiting for another attempt: 1."),
        (500, "api_error", "Waiting for another attempt: 1."),
        ("hang", "", "Waiting for another attempt: 1."),
        ("cut body", "", "Waiting for another attempt: 1."),
        ("close", "", "Waiting for another attempt: 1."),
    ],
)
def test_errors_of_stripe(
    db: None,
    settings: Settings,
    stripe_server: Receiver,
    capsys: pytest.CaptureFixture[str],
    step: Any,
    code: str,
    expected: str,
) -> None:
    use(settings, stripe_settings())
    stored(made(started_at=now()))
    error = {"code": code, "message": f"{code} sk_test_hidden", "type": "x"}
    stripe_server.answer = json.dumps({"error": error}).encode()
    stripe_server.steps = [step]
    shown = deliver(capsys)
    assert expected in shown
    assert "hidden" not in shown + OutboxEvent.objects.get().error
    assert len(stripe_server.received) == 1, "its library does not repeat it"


def test_openmeter_gets_batches(
    db: None, settings: Settings, target: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    use(settings, {"OPENMETER": {"URL": target.url, "TOKEN": "om_hidden"}})
    records = stored(*(made() for _ in range(150)))
    target.steps = [500]
    assert "Delivered: 50. Failed: 100." in deliver(capsys)
    due_again()
    assert "Delivered: 100. Failed: 0." in deliver(capsys)
    assert [len(json.loads(each.body)) for each in target.received] == [100, 50, 100]
    acknowledged = [each for request in target.received[1:] for each in json.loads(request.body)]
    assert {each["data"]["id"] for each in acknowledged} == {each.public_id for each in records}
    assert len({each["id"] for each in acknowledged}) == 150
    for each in acknowledged:
        assert (each["specversion"], each["type"]) == ("1.0", "usage.recorded")
        assert datetime.fromisoformat(each["time"]) == records[0].started_at
        assert each["source"]
        assert each["subject"]
    request = target.received[0]
    assert request.path == "/api/v1/events"
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert request.headers["authorization"] == "Bearer om_hidden"
    assert "hidden" not in repr(usage_settings())


@pytest.mark.parametrize("path", ["nowhere.customer", f"{__name__}.nothing", f"{__name__}.SECRET"])
def test_a_customer_function_that_check_refuses(db: None, settings: Settings, path: str) -> None:
    use(settings, stripe_settings(CUSTOMER=path))
    (problem,) = problems()
    assert "CUSTOMER" in problem
