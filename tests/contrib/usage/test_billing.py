"""Months that are closed, and invoices that add up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from django_ollama_openai.contrib.access.models import Workspace
from django_ollama_openai.contrib.usage._billing import closing
from django_ollama_openai.contrib.usage._billing.closing import close, is_over, next_month
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import (
    Closing,
    Invoice,
    Price,
    Status,
    UsageRecord,
)
from tests.contrib.access.conftest import World
from tests.contrib.usage.conftest import made, stored

OCTOBER = datetime(2026, 10, 15, 12, tzinfo=UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def of(workspace: Workspace) -> User:
    return User(workspace=workspace.pk, workspace_name=workspace.name)


def bill(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    call_command("ollama", "bill", "--month", "2026-10", *arguments)
    return capsys.readouterr().out


def invoices(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    body = json.loads(bill(capsys, "--json", *arguments))
    assert body["object"] == "list"
    data: list[dict[str, Any]] = body["data"]
    return data


@pytest.fixture
def zoo(world: World) -> Workspace:
    return world.workspace("Zoo")


def test_an_invoice_is_the_sum_of_its_records(
    zoo: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last digit, with prices of six decimals, and one that changes within the month."""
    for number, start in enumerate((LONG_AGO, OCTOBER)):
        Price.objects.create(
            model="llama*",
            starts_at=start,
            input=Decimal("0.333333") + number,
            cached=Decimal("0.000001"),
            output=Decimal("7.777777"),
            request=Decimal("0.000003"),
            second=Decimal("0.000007"),
        )
    Price.objects.create(model="euro", starts_at=LONG_AGO, request="0.1", currency="EUR")
    records = stored(
        *(
            made(
                user=of(zoo),
                model=("llama3.2", "llama3.1", "euro", "free")[number % 4],
                started_at=OCTOBER + timedelta(minutes=number - 50),
                prompt_tokens=number * 7,
                cached_tokens=number,
                completion_tokens=number * 3,
                duration=number * 11 + 500,
            )
            for number in range(100)
        ),
        made(
            user=of(zoo),
            started_at=OCTOBER,
            status=Status.ERROR,
            prompt_tokens=0,
            completion_tokens=0,
            error="x",
        ),
        made(started_at=OCTOBER),
    )
    preview = invoices(capsys, "--workspace", "zoo")
    assert not Invoice.objects.exists()
    dollars, euros = invoices(capsys, "--workspace", "zoo", "--close")
    assert [{**each, "id": None, "closed_at": None} for each in (dollars, euros)] == preview
    for invoice in (dollars, euros):
        expected = sum(
            (
                record.cost
                for record in records
                if record.currency == invoice["currency"] and record.workspace_id is not None
            ),
            Decimal(0),
        )
        assert Decimal(invoice["total"]) == expected > 0
        assert sum(Decimal(line["amount"]) for line in invoice["lines"]) == expected
        assert invoice["id"].startswith("inv_")
        for line in invoice["lines"]:
            price = {name: Decimal(value) for name, value in line["price"].items()}
            tokens = (
                (line["prompt_tokens"] - line["cached_tokens"]) * price["input"]
                + line["cached_tokens"] * price["cached"]
                + line["completion_tokens"] * price["output"]
            )
            amount = tokens / 10**6 + line["requests"] * price["request"]
            amount += Decimal(line["seconds"]) * price["second"]
            assert Decimal(line["amount"]) == amount
    assert [line["model"] for line in dollars["lines"]] == ["llama3.1", "llama3.1"] + [
        "llama3.2"
    ] * 2
    assert sum(line["requests"] for line in dollars["lines"]) == 50
    assert (dollars["unpriced_requests"], euros["unpriced_requests"]) == (25, 0)
    text = bill(capsys, "--workspace", "zoo")
    assert dollars["id"] in text
    assert "25 requests have no price." in text


def test_a_closed_month_never_changes(zoo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    stored(made(user=of(zoo), started_at=OCTOBER))
    first = invoices(capsys, "--close")
    (late,) = stored(made(user=of(zoo), started_at=OCTOBER))
    assert late.month == date(2026, 11, 1)
    Price.objects.create(model="llama3.2", starts_at=OCTOBER - timedelta(days=30), request=5)
    assert invoices(capsys, "--close") == invoices(capsys) == first
    close(zoo, date(2026, 11, 1))
    (later,) = stored(made(user=of(zoo), started_at=OCTOBER))
    assert later.month == date(2026, 12, 1)
    assert [invoice.total for invoice in Invoice.objects.order_by("month")] == [1, 1]
    (elsewhere,) = stored(made(started_at=OCTOBER))
    assert elsewhere.month == date(2026, 10, 1)


def test_a_month_without_usage(zoo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (invoice,) = invoices(capsys, "--close")
    assert (invoice["lines"], invoice["total"], invoice["currency"]) == ([], "0", "USD")


def test_a_month_that_is_not_over(zoo: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Months are those of the site's time zone, and end a minute later."""
    month = date(2026, 10, 1)
    end = datetime(2026, 10, 31, 23, tzinfo=UTC)
    for seconds, expected in ((-1, False), (59, False), (60, True)):
        moment = end + timedelta(seconds=seconds)
        monkeypatch.setattr(closing, "now", lambda moment=moment: moment)
        assert is_over(month) is expected
    with pytest.raises(CommandError, match="is not over"):
        call_command("ollama", "bill", "--month", "2199-01", "--close")
    assert not Closing.objects.exists()


@pytest.mark.parametrize("month", ["2026-13", "2026", "11/2026", "0000-01", "2026-11-01"])
def test_a_wrong_month(zoo: Workspace, month: str) -> None:
    with pytest.raises(CommandError, match="is no month"):
        call_command("ollama", "bill", "--month", month)


def test_an_unknown_workspace(zoo: Workspace) -> None:
    with pytest.raises(CommandError, match="nowhere"):
        call_command("ollama", "bill", "--month", "2026-10", "--workspace", "nowhere")


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    found: list[threading.Thread] = []
    yield found
    for thread in found:
        thread.join()


def test_closing_while_records_are_written(transactional_db: None) -> None:
    """Every record is in one invoice: that of its month, or a later one."""
    zoo = World().workspace("Zoo")
    Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    barrier = threading.Barrier(4)

    def write() -> None:
        barrier.wait()
        for _ in range(10):
            stored(made(user=of(zoo), started_at=OCTOBER))
        connection.close()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in writers:
        thread.start()
    barrier.wait()
    (october,) = close(zoo, date(2026, 10, 1))
    for thread in writers:
        thread.join()
    (november,) = close(zoo, date(2026, 11, 1))
    counted = UsageRecord.objects.filter(month=date(2026, 10, 1)).count()
    assert october.invoice.total == counted
    assert october.invoice.total + november.invoice.total == 30
    assert next_month(date(2026, 12, 1)) == date(2027, 1, 1)
