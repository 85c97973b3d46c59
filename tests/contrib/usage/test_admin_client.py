"""OpenAI's own client of the admin API, unmodified: usage and costs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from django_ollama_openai._ids import public_id
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import Price, Status
from tests.contrib.access.conftest import Caller, World
from tests.contrib.usage.conftest import made, stored

DAY = int(datetime(2026, 11, 5, tzinfo=UTC).timestamp())
USAGE = "v1/organization/usage/completions"


@pytest.fixture
def admin(world: World) -> Caller:
    return world.key(world.user("root", is_superuser=True), scopes=["admin"])


@pytest.fixture
def client(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    """openai-python, whose requests go to the test client."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = str(request.url).split("/ai/")[1]
        found = admin(request.method, path)
        return httpx.Response(found.status, json=found.body, headers={"x-request-id": "1"})

    http_client: Any = httpx.Client(transport=httpx.MockTransport(answer))
    with openai.OpenAI(
        base_url="http://testserver/ai/v1",
        api_key="unused",
        admin_api_key=admin.key,
        http_client=http_client,
        max_retries=0,
    ) as made_client:
        yield made_client


def ask(caller: Caller, path: str = USAGE, **query: Any) -> Any:
    answer = caller("GET", f"{path}?{httpx.QueryParams(query)}")
    assert answer.status == 200, answer.body
    return answer.body


def test_usage_in_buckets(client: openai.OpenAI, world: World) -> None:
    ada = world.user("ada")
    zoo = world.workspace("Zoo", owner=ada)
    key = world.key(ada, zoo).row  # type: ignore[attr-defined]  # of the fixture
    user = User(user=ada.pk, workspace=zoo.pk, key=key.pk, username="ada", workspace_name="Zoo")
    start = datetime.fromtimestamp(DAY, UTC)
    stored(
        made(user=user, started_at=start, cached_tokens=40),
        made(user=user, started_at=start + timedelta(hours=23, minutes=59), model="other"),
        made(started_at=start + timedelta(days=2), status=Status.ERROR, error="x"),
        made(started_at=start, endpoint="embeddings", completion_tokens=0),
        made(started_at=start - timedelta(seconds=1)),
        made(started_at=start + timedelta(days=3)),
    )
    usage = client.admin.organization.usage
    page = usage.completions(start_time=DAY, end_time=DAY + 3 * 86_400)
    assert [(bucket.start_time, bucket.end_time) for bucket in page.data] == [
        (DAY + number * 86_400, DAY + (number + 1) * 86_400) for number in range(3)
    ]
    assert (page.has_more, page.next_page) == (False, None)
    (result,) = page.data[0].results
    assert result.object == "organization.usage.completions.result"
    assert (result.input_tokens, result.output_tokens) == (200, 20)
    assert (result.input_cached_tokens, result.num_model_requests) == (40, 2)
    assert (result.project_id, result.user_id, result.api_key_id, result.model) == (None,) * 4
    assert page.data[1].results == []
    (failed,) = page.data[2].results
    assert failed.object == "organization.usage.completions.result"
    assert failed.num_model_requests == 1
    grouped = usage.completions(
        start_time=DAY,
        end_time=DAY + 86_400,
        group_by=["project_id", "user_id", "api_key_id", "model", "batch"],
    )
    for found, model in zip(grouped.data[0].results, ("llama3.2", "other"), strict=True):
        assert found.object == "organization.usage.completions.result"
        assert (found.project_id, found.user_id) == (zoo.public_id, str(ada.pk))
        assert (found.api_key_id, found.model) == (public_id("key", key.pk), model)
        assert found.batch is False
    (embedded,) = usage.embeddings(start_time=DAY, end_time=DAY + 86_400).data[0].results
    assert embedded.object == "organization.usage.embeddings.result"
    assert (embedded.input_tokens, embedded.num_model_requests) == (100, 1)


def test_pages_and_widths(client: openai.OpenAI, world: World) -> None:
    start = datetime.fromtimestamp(DAY, UTC)
    stored(*(made(started_at=start + timedelta(minutes=7 * number)) for number in range(50)))
    usage = client.admin.organization.usage
    for width, limit in (("1m", 100), ("1h", 2), ("1d", 1)):
        counts = pages = 0
        query: dict[str, Any] = {
            "start_time": DAY,
            "end_time": DAY + 86_400 // 4,
            "bucket_width": width,
            "limit": limit,
        }
        while True:
            found = usage.completions(**query)
            pages += 1
            for bucket in found.data:
                for result in bucket.results:
                    assert result.object == "organization.usage.completions.result"
                    counts += result.num_model_requests
            query["page"] = found.next_page
            if not found.has_more:
                break
        assert counts == 50, width
        assert pages == {"1m": 4, "1h": 3, "1d": 1}[width]


def test_filters(admin: Caller, world: World) -> None:
    ada, zoo = world.user("ada"), world.workspace("Zoo")
    start = datetime.fromtimestamp(DAY, UTC)
    stored(
        made(started_at=start, user=User(user=ada.pk)),
        made(started_at=start, user=User(workspace=zoo.pk)),
        made(started_at=start, user=User(static_key="wiki", key_name="wiki"), model="m"),
    )

    def count(**query: Any) -> int:
        body = ask(admin, start_time=DAY, end_time=DAY + 86_400, **query)
        found: int = sum(each["num_model_requests"] for each in body["data"][0]["results"])
        return found

    assert count() == 3
    assert count(**{"user_ids[]": str(ada.pk)}) == count(user_ids=str(ada.pk)) == 1
    assert count(**{"project_ids[]": zoo.public_id}) == 1
    assert count(**{"api_key_ids[]": "wiki"}) == count(models="m") == 1
    for query in (
        {"user_ids": "x"},
        {"user_ids": "9" * 40},
        {"project_ids": "ws_0"},
        {"batch": "true"},
    ):
        assert count(**query) == 0
    body = ask(admin, start_time=DAY, end_time=DAY + 86_400, group_by="api_key_id")
    assert {each["api_key_id"] for each in body["data"][0]["results"]} == {None, "wiki"}


def test_costs(client: openai.OpenAI, world: World) -> None:
    start = datetime.fromtimestamp(DAY, UTC)
    long_ago = start - timedelta(days=300)
    Price.objects.create(
        model="a", starts_at=long_ago, input=2, cached=1, output=4, request="0.5", second="0.25"
    )
    Price.objects.create(model="b", starts_at=long_ago, request=3, currency="EUR")
    stored(
        *(made(started_at=start, model="a", cached_tokens=40) for _ in range(2)),
        made(started_at=start, model="b"),
        made(started_at=start, model="free"),
        made(
            started_at=start,
            model="a",
            status=Status.ERROR,
            error="x",
            prompt_tokens=0,
            completion_tokens=0,
        ),
    )
    usage = client.admin.organization.usage
    page = usage.costs(start_time=DAY, end_time=DAY + 86_400)
    amounts = {}
    for result in page.data[0].results:
        assert result.object == "organization.costs.result"
        assert result.amount is not None
        assert result.line_item is None
        amounts[result.amount.currency] = result.amount.value
    assert amounts == {"eur": 3.0, "usd": pytest.approx(2 * (0.5 + 0.25 + 0.0002))}
    items = {}
    for result in (
        usage.costs(start_time=DAY, end_time=DAY + 86_400, group_by=["line_item"]).data[0].results
    ):
        assert result.object == "organization.costs.result"
        assert result.amount is not None
        items[result.line_item] = (result.amount.value, result.quantity, result.quantity_unit)
    assert items == {
        "a, input_tokens": (0.00024, 120, "tokens"),
        "a, cached_input_tokens": (0.00008, 80, "tokens"),
        "a, output_tokens": (0.00008, 20, "tokens"),
        "a, requests": (1.0, 2, None),
        "a, seconds": (0.5, 2, "duration_seconds"),
        "b, requests": (3.0, 1, None),
    }


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        (USAGE, "", "start_time"),
        (USAGE, "start_time=-1", "start_time"),
        (USAGE, "start_time=99999999999999999999", "start_time"),
        (USAGE, "start_time=5&end_time=5", "end_time"),
        (USAGE, "start_time=0&limit=32", "limit"),
        (USAGE, "start_time=0&limit=0", "limit"),
        (USAGE, "start_time=0&bucket_width=1w", "bucket_width"),
        (USAGE, "start_time=0&group_by=colour", "group_by"),
        (USAGE, "start_time=0&page=page_AAAA", "page"),
        ("v1/organization/costs", "start_time=0&bucket_width=1h", "bucket_width"),
        ("v1/organization/costs", "start_time=0&limit=181", "limit"),
        ("v1/organization/usage/embeddings", "start_time=0&group_by=batch", "group_by"),
    ],
)
def test_wrong_parameters(admin: Caller, path: str, query: str, param: str) -> None:
    answer = admin("GET", f"{path}?{query}")
    assert (answer.status, answer.error["param"].partition("[")[0]) == (400, param)


def test_a_page_of_another_query(admin: Caller) -> None:
    page = ask(admin, start_time=0, limit=1)["next_page"]
    assert ask(admin, start_time=0, limit=1, page=page)["data"][0]["start_time"] == 86_400
    answer = admin("GET", f"{USAGE}?start_time=0&models=m&page={page}")
    assert (answer.status, answer.error["param"]) == (400, "page")


def test_only_admins(world: World) -> None:
    ada = world.user("ada")
    for path in (USAGE, "v1/organization/costs", "v1/organization/usage/embeddings"):
        assert world.key(ada)("GET", f"{path}?start_time=0").status == 403
        assert world.session(ada)("GET", f"{path}?start_time=0").status == 403
        assert Caller()("GET", f"{path}?start_time=0").status == 401
