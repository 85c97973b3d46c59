"""The admin: the page of usage, and who sees it."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import include, path, reverse
from django.utils.timezone import now

from django_ollama_openai.contrib.usage._billing.closing import close
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import (
    Destination,
    Invoice,
    OutboxEvent,
    Price,
    Status,
    UsageRecord,
)
from tests.contrib.access.conftest import World
from tests.contrib.usage.conftest import MOMENT, made, stored

urlpatterns = [
    path("admin/", admin.site.urls),
    path("ai/", include("django_ollama_openai.urls")),
]
pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

RANGE = "start=2026-11-01&end=2026-11-30"


def url(name: str, *arguments: Any) -> str:
    return reverse(f"admin:ollama_openai_usage_{name}", args=arguments)


def page(client: Client, query: str = RANGE) -> str:
    response = client.get(f"{url('usagereport_changelist')}?{query}")
    assert response.status_code == 200
    text: str = response.content.decode()
    return text


def rows(client: Client, name: str, query: str = RANGE) -> list[dict[str, str]]:
    response: Any = client.get(f"{url('usagereport_changelist')}?{query}&csv={name}")
    assert response.headers["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.getvalue().decode())))


@pytest.fixture
def boss(world: World) -> Client:
    client = Client()
    client.force_login(world.user("boss", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def used(world: World) -> None:
    zoo, lab = world.workspace("Zoo <b>"), world.workspace("Lab")
    ada = world.user("ada")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    Price.objects.create(model="a", starts_at=start, request="1.25")
    Price.objects.create(model="e", starts_at=start, request=2, currency="EUR")
    of_zoo = User(workspace=zoo.pk, workspace_name="Zoo <b>", user=ada.pk, username="ada")
    of_lab = User(workspace=lab.pk, workspace_name="Lab", key_name="=1+1", static_key="=1+1")
    stored(
        made(model="a", user=of_zoo),
        made(model="a", user=of_zoo, started_at=MOMENT + timedelta(days=1)),
        made(model="e", user=of_lab),
        made(model="free", user=of_lab, prompt_tokens=900),
        made(
            model="a",
            user=of_zoo,
            status=Status.ERROR,
            error="x",
            prompt_tokens=0,
            completion_tokens=0,
        ),
        made(model="a", started_at=MOMENT - timedelta(days=60)),
    )


def test_the_page(boss: Client, used: None) -> None:
    text = page(boss)
    assert "Zoo &lt;b&gt;" in text
    assert "<b>" not in text.split("</header>")[-1]
    assert "2.00 EUR, 2.50 USD" in text
    assert "1 request has no price" in text
    charts = re.findall(r'<svg class="oou-chart".*?</svg>', text, re.DOTALL)
    assert len(charts) == 7
    for chart in charts:
        assert 'role="img"' in chart
        assert not re.search(r"\bstyle=|<script|onload", chart)
    (spend,) = (chart for chart in charts if "Spend per day, USD" in chart)
    assert len(re.findall('<rect class="oou-bar"', spend)) == 2
    assert "Nov. 5, 2026: 1.25" in spend
    # Each has a table.
    assert text.count('<caption class="oou-hidden"') == len(charts)
    assert "ada" in text
    assert 'href="?start=2026-11-01&amp;end=2026-11-30&amp;csv=users"' in text


def test_csv_is_exact_and_has_no_formulas(boss: Client, used: None) -> None:
    workspaces = {row["name"]: row for row in rows(boss, "workspaces")}
    assert set(workspaces) == {"Zoo <b>", "Lab"}
    assert workspaces["Zoo <b>"]["cost"] == "2.5"
    assert (workspaces["Zoo <b>"]["requests"], workspaces["Zoo <b>"]["errors"]) == ("3", "1")
    assert "'=1+1" in {row["name"] for row in rows(boss, "keys")}
    days = rows(boss, "days")
    assert len(days) == 31
    assert [(row["cost"], row["currency"]) for row in days if row["cost"]] == [
        ("2", "EUR"),
        ("1.25", "USD"),
        ("1.25", "USD"),
    ]
    assert sum(int(row["requests"] or 0) for row in days) == 5


def test_one_workspace(boss: Client, used: None) -> None:
    text = page(boss, f"{RANGE}&workspace=lab")
    assert "2.00 EUR" in text
    assert "USD" not in text
    assert sum(int(row["requests"]) for row in rows(boss, "days", f"{RANGE}&workspace=lab")) == 2


@pytest.mark.parametrize(
    "query",
    [
        "start=2026-11-30&end=2026-11-01",
        "start=2020-01-01&end=2026-11-01",
        "start=tomorrow",
        "workspace=nowhere",
    ],
)
def test_a_wrong_range(boss: Client, used: None, query: str) -> None:
    text = page(boss, query)
    assert "errorlist" in text
    assert "oou-chart" not in text


def test_an_empty_month(boss: Client) -> None:
    assert "Nothing was used on these days." in page(boss, "")


def test_as_many_queries_for_many_workspaces(
    boss: Client, world: World, django_assert_max_num_queries: Any
) -> None:
    spaces = [world.workspace(f"W{number}") for number in range(40)]
    stored(
        *(
            made(user=User(workspace=each.pk, workspace_name=each.name), prompt_tokens=number)
            for number, each in enumerate(spaces)
        )
    )
    with django_assert_max_num_queries(24):
        text = page(boss)
    assert "W39" in text
    assert "W1<" not in text.split("Workspaces</h2>")[1]
    assert "and 30 more" in text
    assert len(rows(boss, "workspaces")) == 40


def test_who_sees_it(world: World, used: None) -> None:
    user = world.user("staff", is_staff=True)
    client = Client()
    client.force_login(user)
    target = url("usagereport_changelist")
    assert client.get(target).status_code == 403
    assert "usagereport" not in client.get("/admin/").content.decode()
    user.user_permissions.add(Permission.objects.get(codename="view_usagerecord"))
    assert client.get(target).status_code == 200
    assert "usagereport" in client.get("/admin/").content.decode()


def test_rows_are_read_only(boss: Client, used: None, world: World) -> None:
    (statement, *_) = close(world.workspace("New"), datetime(2026, 10, 1).date())
    record = UsageRecord.objects.earliest("pk")
    event = OutboxEvent.objects.create(
        destination=Destination.WEBHOOK, type="usage.recorded", payload={}, due_at=None, error="no"
    )
    for name, row in (
        ("usagerecord", record),
        ("invoice", statement.invoice),
        ("outboxevent", event),
    ):
        assert boss.get(url(f"{name}_changelist")).status_code == 200
        assert boss.get(url(f"{name}_change", row.pk)).status_code == 200
        assert boss.get(url(f"{name}_add")).status_code == 403
        assert boss.post(url(f"{name}_delete", row.pk)).status_code == 403
    assert Invoice.objects.count() == 1
    found = boss.get(f"{url('usagerecord_changelist')}?q={record.public_id}")
    assert found.context["cl"].result_count == 1
    again = {"action": "send_again", "_selected_action": [event.pk]}
    assert boss.post(url("outboxevent_changelist"), again).status_code == 302
    event.refresh_from_db()
    assert event.due_at is not None


def test_a_valid_price_is_not_changed(boss: Client) -> None:
    old = Price.objects.create(model="a", starts_at=now() - timedelta(days=1), input=1)
    new = Price.objects.create(model="a", starts_at=now() + timedelta(days=1), input=1)
    assert b'name="input"' not in boss.get(url("price_change", old.pk)).content
    assert b'name="input"' in boss.get(url("price_change", new.pk)).content
    assert boss.post(url("price_delete", old.pk), {"post": "yes"}).status_code == 403
    assert boss.post(url("price_delete", new.pk), {"post": "yes"}).status_code == 302
    form = {
        "model": "a",
        "starts_at_0": f"{old.starts_at:%Y-%m-%d}",
        "starts_at_1": f"{old.starts_at:%H:%M:%S}",
        "currency": "usd",
        **dict.fromkeys(("input", "output", "request", "second"), "0"),
    }
    errors = boss.post(url("price_add"), form).context["adminform"].form.errors
    assert set(errors) == {"currency"}
