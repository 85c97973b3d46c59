"""``api/usage/``: time ranges in any zone, groups, currencies, and whose usage it is."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pytest_django import Settings

from django_ollama_openai._ids import public_id
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import Price, UsageRecord
from tests.contrib.access.conftest import Caller, World
from tests.contrib.usage.conftest import made, stored

RANGE = "start=2026-11-01&end=2026-12-01&timezone=UTC"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]  # year, month, day, …


def report(caller: Caller, query: str = RANGE, path: str = "api/usage/") -> Any:
    answer = caller("GET", f"{path}?{query}")
    assert answer.status == 200, answer.body
    return answer.body


def of_user(user: Any) -> User:
    return User(user=user.pk, username=user.username)


def test_the_shape(world: World) -> None:
    ada = world.user("ada")
    caller = world.key(ada)
    Price.objects.create(model="llama*", starts_at=utc(2026, 1, 1), input="0.1", output=1)
    stored(made(user=of_user(ada), cached_tokens=30, reasoning_tokens=4))
    line = {
        "requests": 1,
        "prompt_tokens": 100,
        "cached_tokens": 30,
        "completion_tokens": 10,
        "reasoning_tokens": 4,
        "errors": 0,
        "cancelled": 0,
        "cost": "0.00002",
        "currency": "USD",
        "unpriced_requests": 0,
    }
    assert report(caller) == {
        "object": "usage",
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "timezone": "UTC",
        "data": [{"start": "2026-11-05T00:00:00Z", **line}],
        "total": {**line, "costs": [{"cost": "0.00002", "currency": "USD"}]},
    }
    (row,) = report(caller, f"{RANGE}&group_by=model,user,key,workspace")["data"]
    assert {name: row[name] for name in row if name not in line} == {
        "start": "2026-11-05T00:00:00Z",
        "model": "llama3.2",
        "user": ada.pk,
        "username": "ada",
        "key": None,
        "key_name": "",
        "workspace": None,
        "workspace_name": "",
    }


def test_this_month_is_the_default(world: World) -> None:
    body = report(world.key(world.user("ada")), "")
    zone = ZoneInfo("Europe/Berlin")
    month = datetime.now(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(body["start"]) == month
    assert body["timezone"] == "Europe/Berlin"
    assert body["data"] == []
    assert body["total"]["requests"] == 0
    assert body["total"]["cost"] is None


ZONES = [
    "UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "America/Santiago",
    "Pacific/Apia",
]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("bucket", ["hour", "day", "month"])
def test_every_hour_day_and_month_is_right(world: World, zone: str, bucket: str) -> None:
    """Also when clocks change; compared with each record by itself."""
    ada = world.user("ada")
    random.seed(f"{zone} {bucket}")
    changes = [utc(2026, 3, 29), utc(2026, 10, 25), utc(2026, 4, 5), utc(2026, 10, 4)]
    changes += [utc(2026, 11, 1), utc(2026, 3, 8), utc(2026, 9, 6), utc(2026, 4, 4)]
    moments = [
        change + timedelta(minutes=random.randrange(-36 * 60, 36 * 60))
        for change in changes
        for _ in range(12)
    ]
    stored(*(made(user=of_user(ada), started_at=moment) for moment in moments))
    query = f"start=2026-01-01&end=2027-01-01&timezone={zone}&bucket={bucket}"
    expected: Counter[str] = Counter()
    for moment in moments:
        local = moment.astimezone(ZoneInfo(zone))
        if bucket == "hour":
            # The clocks may have changed within the hour, so that its beginning has no local name.
            key = str(moment - timedelta(minutes=local.minute))
        else:
            day = local.replace(hour=0, minute=0, fold=0)
            key = str((day if bucket == "day" else day.replace(day=1)).astimezone(UTC))
        expected[key] += 1
    found = report(world.session(ada), query)
    starts = {
        str(datetime.fromisoformat(line["start"])): line["requests"] for line in found["data"]
    }
    assert starts == expected
    assert list(starts) == sorted(starts)
    assert found["total"]["requests"] == len(moments)


def test_the_repeated_hour_is_two(world: World) -> None:
    ada = world.user("ada")
    for hour in (0, 1, 2):
        stored(made(user=of_user(ada), started_at=utc(2026, 10, 25, hour, 40)))
    query = "start=2026-10-25&end=2026-10-26&timezone=Europe/Berlin&bucket=hour"
    starts = [line["start"] for line in report(world.session(ada), query)["data"]]
    assert starts == [f"2026-10-25T0{hour}:00:00Z" for hour in (0, 1, 2)]
    days = report(world.session(ada), query.replace("hour", "day"))
    (day,) = days["data"]
    assert (day["start"], day["requests"]) == ("2026-10-24T22:00:00Z", 3)
    assert days["end"] == "2026-10-25T23:00:00Z"


def test_currencies_are_never_added(world: World) -> None:
    ada = world.user("ada")
    Price.objects.create(model="a", starts_at=utc(2026, 1, 1), request=1, currency="EUR")
    Price.objects.create(model="b", starts_at=utc(2026, 1, 1), request=2, currency="USD")
    stored(*(made(user=of_user(ada), model=model) for model in ("a", "b", "free")))
    body = report(world.session(ada))
    assert [
        (line["currency"], line["cost"], line["requests"], line["unpriced_requests"])
        for line in body["data"]
    ] == [("USD", "2", 2, 1), ("EUR", "1", 1, 0)]
    total = body["total"]
    assert (total["requests"], total["cost"], total["currency"]) == (3, None, None)
    assert total["costs"] == [
        {"cost": "1", "currency": "EUR"},
        {"cost": "2", "currency": "USD"},
    ]
    assert [
        (line["model"], line["cost"], line["currency"])
        for line in report(world.session(ada), f"{RANGE}&group_by=model")["data"]
    ] == [("a", "1", "EUR"), ("b", "2", "USD"), ("free", None, "USD")]


def test_whose_usage_it_is(world: World, settings: Settings) -> None:
    settings.OLLAMA_OPENAI |= {"API_KEYS": [{"KEY": "sk-wiki", "NAME": "wiki"}]}
    ada, bob, eve = map(world.user, ("ada", "bob", "eve"))
    zoo = world.workspace("Zoo", owner=ada, member=bob)
    other = world.workspace("Other", owner=eve)
    service = world.key(None, zoo, name="service")
    key = service.row.pk  # type: ignore[attr-defined]  # of the fixture
    stored(
        made(user=User(user=ada.pk, username="ada", workspace=zoo.pk, workspace_name="Zoo")),
        made(user=User(user=bob.pk, username="bob", workspace=zoo.pk, workspace_name="Zoo")),
        made(user=User(user=bob.pk, username="bob")),
        made(user=User(workspace=zoo.pk, workspace_name="Zoo", key=key, key_name="service")),
        made(user=User(key_name="wiki", static_key="wiki")),
        made(user=User(key_name="wiki", username="gone")),
        made(user=User(user=eve.pk, username="eve", workspace=other.pk, workspace_name="Other")),
    )

    def count(caller: Caller, query: str = "") -> list[int]:
        rows = caller("GET", f"api/usage/records/?limit=100&{query}").body["data"]
        total = report(caller, f"{RANGE}&{query}")["total"]["requests"]
        assert total == len(rows)
        return [total]

    assert [*count(world.session(ada)), *count(world.key(bob)), *count(service)] == [1, 2, 1]
    assert count(Caller("sk-wiki")) == [1]
    assert count(world.session(ada), "scope=workspace") == [3]
    assert count(world.key(ada, zoo), "scope=workspace") == [3]
    assert count(world.session(eve), "scope=workspace") == [1]
    for caller, status in (
        (world.session(bob), 403),
        (world.key(bob, zoo), 403),
        (service, 403),
        (Caller("sk-wiki"), 400),
        (world.session(world.user("new")), 400),
    ):
        for path in ("api/usage/", "api/usage/records/"):
            answer = caller("GET", f"{path}?scope=workspace")
            assert answer.status == status, answer.body
    # A workspace of somebody else does not exist.
    header = {"OpenAI-Project": public_id("ws", other.pk)}
    assert world.session(ada)("GET", "api/usage/?scope=workspace", **header).status == 404
    assert Caller()("GET", "api/usage/").status == 401
    assert world.key(ada, scopes=["chat"])("GET", "api/usage/records/").status == 403


def test_records_in_pages(world: World) -> None:
    ada = world.user("ada")
    caller = world.key(ada)
    rows = stored(*(made(user=of_user(ada), model=f"m{number % 2}") for number in range(5)))
    expected = [row.public_id for row in reversed(rows)]
    found: list[str] = []
    query = "limit=2"
    while True:
        page = report(caller, query, "api/usage/records/")
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=2&after={page['last_id']}"
    assert found == expected
    (first, *_) = report(caller, "limit=1", "api/usage/records/")["data"]
    assert (first["duration"], first["time_to_first_token"], first["cost"]) == (1.5, 0.7, None)
    assert first["started_at"] == "2026-11-05T12:07:00Z"
    assert len(report(caller, "model=m0", "api/usage/records/")["data"]) == 3
    assert report(caller, "start=2026-11-06", "api/usage/records/")["data"] == []
    other = world.user("bob")
    (foreign,) = stored(made(user=of_user(other)))
    answer = caller("GET", f"api/usage/records/?after={foreign.public_id}")
    assert (answer.status, answer.error["param"]) == (400, "after")


def test_csv(world: World) -> None:
    ada = world.user("ada")
    name = '=HYPERLINK("http://evil")'
    stored(made(user=User(user=ada.pk, username=name), model="-1+1"), made(user=of_user(ada)))
    for path, query in (
        ("api/usage/", f"{RANGE}&group_by=user,model&format=csv"),
        ("api/usage/records/", "format=csv"),
    ):
        answer = world.session(ada)("GET", f"{path}?{query}")
        assert answer.headers["Content-Type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
        assert {row["model"] for row in rows} == {"'-1+1", "llama3.2"}
        assert f"'{name}" in {row["username"] for row in rows}
        assert {row["prompt_tokens"] for row in rows} == {"100"}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("timezone=Mars/Olympus", "timezone"),
        ("timezone=../../etc/passwd", "timezone"),
        ("start=yesterday", "start"),
        ("start=0001-01-01", "start"),
        ("end=9999-12-31", "end"),
        ("start=2026-11-02&end=2026-11-02", "end"),
        ("start=2016-01-01&end=2026-01-01&bucket=hour", "start"),
        ("bucket=minute", "bucket"),
        ("group_by=model,colour", "group_by"),
        ("scope=everybody", "scope"),
        ("format=xml", "format"),
    ],
)
def test_wrong_parameters(world: World, query: str, param: str) -> None:
    answer = world.session(world.user("ada"))("GET", f"api/usage/?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


def test_camel_case(world: World, settings: Settings) -> None:
    settings.OLLAMA_OPENAI |= {"RESPONSE_CASE": "camel"}
    ada = world.user("ada")
    stored(made(user=of_user(ada)))
    body = report(world.session(ada), f"{RANGE}&groupBy=workspace")
    assert body["data"][0]["promptTokens"] == 100
    assert body["data"][0]["workspaceName"] == ""
    (row,) = report(world.session(ada), "", "api/usage/records/")["data"]
    assert row["timeToFirstToken"] == 0.7


def test_sums_equal_records(world: World) -> None:
    ada = world.user("ada")
    price = Decimal("0.123457")
    Price.objects.create(model="*", starts_at=utc(2026, 1, 1), input=price, second="0.000001")
    stored(
        *(
            made(user=of_user(ada), prompt_tokens=number, duration=number * 7)
            for number in range(200)
        )
    )
    total = sum((row.cost or Decimal(0) for row in UsageRecord.objects.all()), Decimal(0))
    assert Decimal(report(world.session(ada))["total"]["cost"]) == total > 0
