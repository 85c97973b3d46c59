"""Budgets: limits of cost, and their thresholds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from django_ollama_openai.contrib.access.checks import check_limits
from django_ollama_openai.contrib.access.models import Limit
from django_ollama_openai.contrib.usage import _budgets
from django_ollama_openai.contrib.usage.models import BudgetAlert, OutboxEvent, Price
from django_ollama_openai.contrib.usage.signals import budget_reached
from tests.contrib.access.conftest import Caller, World
from tests.ollama_server import Answer, OllamaServer, error

MODEL = "smollm2:135m"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
STORES = "django_ollama_openai.contrib.access.stores"


def budget(amount: str, **fields: Any) -> Limit:
    return Limit.objects.create(
        **{"target": "each_user", "unit": "cost", "per": "month", "amount": amount, **fields}
    )


def ask(caller: Caller, **fields: Any) -> Any:
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 1, **fields}
    return caller("POST", "v1/chat/completions", body)


@pytest.fixture
def ada(world: World) -> Caller:
    return world.key(world.user("ada"))


def uses(caller: Caller) -> Any:
    (row,) = caller("GET", "api/limits/").body["data"]
    return row["used"], row["remaining"]


def test_a_budget_stops_at_the_limit(ada: Caller, engine: OllamaServer) -> None:
    Price.objects.create(model="smollm2*", starts_at=LONG_AGO, request="0.5")
    budget("1.2")
    assert [ask(ada).status for _ in range(3)] == [200, 200, 429]
    refused = ask(ada)
    assert refused.error["code"] == refused.error["type"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert uses(ada) == ("1", "0.2")


def test_a_request_is_settled_with_what_it_came_to(ada: Caller, engine: OllamaServer) -> None:
    Price.objects.create(model="*", starts_at=LONG_AGO, input=1, output=2, cached=0)
    budget("10")
    engine.reply(Answer(["a", "b", "c"], prompt_tokens=50))
    assert ask(ada).status == 200
    assert uses(ada) == ("0.000056", "9.999944")


def test_a_failure_gives_the_cost_back(ada: Caller, engine: OllamaServer) -> None:
    Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    budget("1")
    engine.reply(error(500, "boom"))
    assert ask(ada).status == 502
    assert uses(ada) == ("0", "1")
    assert ask(ada).status == 200
    assert ask(ada).status == 429


@pytest.mark.parametrize("currency", [None, "EUR"])
def test_what_has_no_price_uses_no_budget(
    ada: Caller, engine: OllamaServer, currency: str | None
) -> None:
    """A price in another currency is as none."""
    if currency:
        Price.objects.create(model="*", starts_at=LONG_AGO, request=9, currency=currency)
    budget("0")
    assert ask(ada).status == 200
    assert uses(ada) == ("0", "0")


def test_prices_change_at_once(ada: Caller, engine: OllamaServer) -> None:
    price = Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    budget("10")
    ask(ada)
    price.request = Decimal(3)
    price.save()
    ask(ada)
    assert uses(ada) == ("4", "6")


def test_no_warning_that_budgets_have_no_effect(
    db: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--target", "everybody", "--unit", "cost", "--amount", "5.5", "--per", "month")
    call_command("ollama", "limits", "set", *arguments)
    assert capsys.readouterr().err == ""
    assert check_limits(databases=["default"]) == []


@pytest.fixture(params=["DatabaseStore", "RedisStore"])
def store(request: pytest.FixtureRequest, settings: Settings) -> Iterator[None]:
    options = {}
    if request.param == "RedisStore":
        options = {"url": request.getfixturevalue("valkey_url")}
    settings.OLLAMA_OPENAI |= {
        "ACCESS": {"LIMIT_STORE": {"STORE": f"{STORES}.{request.param}", "OPTIONS": options}}
    }
    yield


def test_no_simultaneous_request_is_too_many(
    transactional_db: None, engine: OllamaServer, store: None
) -> None:
    """Of twelve, each of which costs 1, five are admitted."""
    Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    budget("5")
    world = World()
    user = world.user("ada")
    callers = [world.key(user) for _ in range(12)]
    barrier = threading.Barrier(len(callers))
    statuses: list[int] = []

    def post(caller: Caller) -> None:
        barrier.wait()
        statuses.append(ask(caller).status)
        connection.close()

    threads = [threading.Thread(target=post, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 5 + [429] * 7
    assert uses(callers[0]) == ("5", "0")


# Thresholds


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The signals, which are sent at once."""
    found: list[dict[str, Any]] = []

    def receive(**facts: Any) -> None:
        found.append(facts)

    waiting: list[_budgets.Spending] = []
    monkeypatch.setattr(_budgets._queue, "put", waiting.append)
    found_and_checked = _Checked(found, waiting)
    budget_reached.connect(receive, weak=False)
    yield found_and_checked
    budget_reached.disconnect(receive)


class _Checked(list[dict[str, Any]]):
    def __init__(self, found: list[dict[str, Any]], waiting: list[_budgets.Spending]) -> None:
        super().__init__()
        self._found, self._waiting = found, waiting

    def take(self) -> list[int]:
        """Check the budgets, and return the thresholds that were announced since."""
        _budgets.check_budgets(self._waiting)
        self._waiting.clear()
        self.extend(self._found)
        taken = [facts["threshold"] for facts in self._found]
        self._found.clear()
        return taken


def test_each_threshold_is_announced_once(
    ada: Caller, engine: OllamaServer, reached: _Checked, settings: Settings
) -> None:
    webhook = {"URL": "https://example.com", "SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    settings.OLLAMA_OPENAI |= {
        "USAGE": {"WEBHOOK": webhook, "BUDGET_MAIL": ["boss@example.com"], "TIME_ZONE": "UTC"}
    }
    Price.objects.create(model="*", starts_at=LONG_AGO, request=1)
    limit = budget("10")
    announced = []
    for _ in range(11):
        ask(ada)
        announced.append(reached.take())
    assert announced == [[], [], [], [], [50], [], [], [80], [], [100], []]
    facts = reached[1]
    assert (facts["limit"], facts["used"], facts["amount"]) == (limit, 8, 10)
    assert facts["period_start"].day == 1
    assert [message.subject for message in mail.outbox] == [
        f"{threshold} % of the budget of each user is used" for threshold in (50, 80, 100)
    ]
    events = OutboxEvent.objects.filter(type="budget.reached").order_by("pk")
    assert {event.payload["threshold"] for event in events} == {50, 80, 100}
    assert events[0].payload["limit"] == limit.public_id
    # Another process that comes to the same.
    _budgets.check_budgets([_budgets.Spending(("", str(ada.row.user_id), ""), MODEL)])  # type: ignore[attr-defined]  # of the fixture
    assert reached.take() == []
    assert BudgetAlert.objects.count() == 3


def test_several_thresholds_at_once(ada: Caller, engine: OllamaServer, reached: _Checked) -> None:
    Price.objects.create(model="*", starts_at=LONG_AGO, request=9)
    budget("10")
    budget("9", per="day")
    budget("100", per="hour")
    ask(ada)
    assert sorted(reached.take()) == [50, 50, 80, 80, 100]
