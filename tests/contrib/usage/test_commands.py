"""``manage.py ollama prices`` and ``usage``."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_ollama_openai.contrib.usage._prices import PriceBook
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import Price, UsageBucket, UsageDay, UsageRecord
from tests.contrib.access.conftest import World
from tests.contrib.usage.conftest import MOMENT, made, stored


def ollama(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    call_command("ollama", *arguments)
    return capsys.readouterr()


# Prices


def test_a_price(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = ollama(
        capsys,
        *("prices", "set", "llama3*", "--input", "0.10", "--output", "0.40", "--cached", "0.02"),
        *("--request", "0.000001", "--second", "2", "--currency", "EUR", "--from", "2026-12-01"),
    )
    price = Price.objects.get()
    assert found.out.strip() == price.public_id
    assert price.starts_at == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert (price.model, price.currency) == ("llama3*", "EUR")
    amounts = (price.input, price.output, price.cached, price.request, price.second)
    assert amounts == tuple(map(Decimal, ("0.1", "0.4", "0.02", "0.000001", "2")))
    assert "Budgets are in USD" in found.err
    out = ollama(capsys, "prices", "list").out.splitlines()
    assert out[1].split() == [
        *(price.public_id, "llama3*", "2026-12-01", "00:00", "EUR"),
        *("0.1", "0.4", "0.02", "0.000001", "2"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--input", "1"], "model: This field cannot be blank"),
        (["m", "--input", "-1"], "input: "),
        (["m", "--input", "0.1234567"], "input: "),
        (["m", "--input", "NaN"], "is no decimal number"),
        (["m", "--input", "ten"], "is no decimal number"),
        (["m", "--currency", "Euro"], "currency: "),
        (["m", "--currency", "eur"], "currency: "),
        (["m", "--from", "tomorrow"], "is no date"),
        (["m" * 201], "model: "),
    ],
)
def test_a_wrong_price(db: None, arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("ollama", "prices", "set", *arguments)
    assert not Price.objects.exists()


def test_two_prices_from_the_same_moment(db: None) -> None:
    arguments = ("ollama", "prices", "set", "m", "--input", "1", "--from", "2026-12-01")
    call_command(*arguments)
    with pytest.raises(CommandError, match="There is a price for these models from this moment"):
        call_command(*arguments)
    assert Price.objects.count() == 1


def test_which_price_is_valid(db: None) -> None:
    for number, (model, month) in enumerate(
        [("*", 1), ("llama3*", 1), ("llama3*", 6), ("llama3.2", 9), ("LLAMA3.1", 1)]
    ):
        start = datetime(2026, month, 1, tzinfo=UTC)
        Price.objects.create(model=model, starts_at=start, request=number)
    book = PriceBook.load()
    for model, month, expected in (
        ("qwen", 2, 0),
        ("llama3.2", 2, 1),
        ("llama3.2", 7, 2),
        ("llama3.2:latest", 10, 3),
        ("llama3.1", 10, 4),
    ):
        price = book.price_of(model, datetime(2026, month, 1, tzinfo=UTC))
        assert price is not None
        assert price.request == expected, model
    assert book.price_of("qwen", datetime(2025, 12, 31, tzinfo=UTC)) is None


# Usage


def test_the_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = world.workspace("Zoo")
    Price.objects.create(model="a", starts_at=datetime(2026, 1, 1, tzinfo=UTC), request="1.5")
    user = User(workspace=zoo.pk, workspace_name="Zoo")
    stored(made(model="a", user=user), made(model="a", user=user), made(model="b"))
    arguments = ("--start", "2026-11-01", "--end", "2026-12-01", "--timezone", "UTC")
    lines = ollama(capsys, "usage", *arguments, "--by", "workspace,model").out.splitlines()
    assert lines[0] == "From 2026-11-01 00:00 to before 2026-12-01 00:00, UTC"
    cells = [line.split() for line in lines[1:]]
    assert cells[0][:4] == ["WORKSPACE", "MODEL", "REQUESTS", "COST"]
    assert ["–", "b", "1", "–", "100", "10", "0", "0", "0", "0", "1"] in cells
    assert ["Zoo", "a", "2", "3", "USD", "200", "20", "0", "0", "0", "0", "0"] in cells
    assert cells[-1][:4] == ["Total", "3", "3", "USD"]
    out = ollama(capsys, "usage", *arguments, "--csv", "--bucket", "day").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["model"], row["requests"], row["cost"]) for row in rows] == [
        ("a", "2", "3"),
        ("b", "1", ""),
    ]
    assert rows[0]["start"] == "2026-11-05T00:00:00Z"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_the_terminal(
    world: World, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(made(model="a-model-with-a-very-long-name-" * 3))
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]  # as a terminal
    arguments = ("--start", "2026-11-01", "--end", "2026-12-01", "--by", "model,user")
    call_command("ollama", "usage", *arguments, stdout=out, no_color=True)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[1:])) <= width
    assert ("REASONING" in out.getvalue()) is (width == 200)
    assert "…" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "colour"], "no group 'colour'"),
        (["--timezone", "Mars"], "no time zone 'Mars'"),
        (["--start", "soon"], "'start'"),
        (["--rebuild", "2026-11-02", "2026-11-01"], "after the first"),
    ],
)
def test_wrong_arguments(db: None, arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("ollama", "usage", *arguments)


def sums() -> list[Any]:
    return [
        sorted(map(str, model._default_manager.values_list(*names)))
        for model, names in (
            (UsageBucket, [field.name for field in UsageBucket._meta.fields if field.name != "id"]),
            (UsageDay, [field.name for field in UsageDay._meta.fields if field.name != "id"]),
        )
    ]


def test_sums_are_rebuilt(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same result, also of users who were deleted; other days stay."""
    ada, zoo = world.user("ada"), world.workspace("Zoo")
    Price.objects.create(model="a*", starts_at=datetime(2026, 1, 1, tzinfo=UTC), input="0.1")
    user = User(user=ada.pk, username="ada", workspace=zoo.pk, workspace_name="Zoo")

    stored(
        *(
            made(
                model=("a1", "a2", "b")[number % 3],
                user=user if number % 2 else User(),
                started_at=MOMENT + timedelta(hours=number),
                time_to_first_token=None if number % 5 else 30,
            )
            for number in range(60)
        )
    )
    ada.delete()
    zoo.delete()
    assert set(UsageDay.objects.values_list("subject", flat=True)) == {""}
    assert "ada" in set(UsageDay.objects.values_list("name", flat=True))
    before = sums()
    out = ollama(capsys, "usage", "--rebuild", "2026-11-05", "2026-11-08").out
    assert "2026-11-08 is done." in out
    assert sums() == before
    UsageBucket.objects.filter(start__gte=MOMENT, start__lt=MOMENT + timedelta(days=1)).delete()
    UsageDay.objects.filter(day="2026-11-06").update(requests=7)
    assert sums() != before
    ollama(capsys, "usage", "--rebuild", "2026-11-05", "2026-11-06")
    assert sums() == before
    UsageRecord.objects.all().delete()
    with pytest.raises(CommandError, match="The records of 2026-11-05 have been deleted"):
        call_command("ollama", "usage", "--rebuild", "2026-11-05", "2026-11-06")
    assert sums() == before
