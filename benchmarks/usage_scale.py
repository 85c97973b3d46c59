"""Measure usage with ten million records in PostgreSQL: ``python -m benchmarks.usage_scale``.

It generates a month of records with their sums, and measures a month's page of the admin,
``api/usage/``, the size of a record, and pruning while records are written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any, Final

from .contenders import KEY, WithAccess, contenders
from .report import table

__all__ = ["main"]

USERS: Final = 3_000
WORKSPACES: Final = 300
BEGIN: Final = datetime(2026, 10, 1, tzinfo=UTC)

RECORDS: Final = """
INSERT INTO ollama_openai_usage_usagerecord
  (id, request_id, started_at, duration, queued, time_to_first_token, model, answered_by, backend,
   prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, source, status, error, cost,
   workspace_id, workspace_name, user_id, username, key_name, static_key, endpoint, price_id,
   currency, month, series)
SELECT gen_random_uuid(), 'req_' || md5(n::text), at, 1500 + n %% 9000, 0, 200 + n %% 900,
  'llama3.' || n %% 5, 'llama3.' || n %% 5, 'default', 200 + n %% 3000, 0, 20 + n %% 900, 0, 'r',
  CASE WHEN n %% 50 = 0 THEN 'cancelled' ELSE 'ok' END, '', 100000000 + n, w.id, w.name,
  u.id, u.username, 'laptop', '', 'chat.completions', p.id, 'USD', '2026-10-01',
  md5(w.id::text || u.id || n %% 5)::uuid
FROM (SELECT n, %s::timestamptz + n * interval '31 days' / %s AS at, n %% %s AS user_number
      FROM generate_series(0, %s - 1) n) numbers
JOIN (SELECT id, username, row_number() OVER (ORDER BY id) - 2 AS number FROM auth_user) u
  ON u.number = numbers.user_number
JOIN (SELECT id, name, row_number() OVER (ORDER BY slug) - 2 AS number
      FROM ollama_openai_access_workspace) w ON w.number = numbers.user_number %% %s
CROSS JOIN ollama_openai_usage_price p
"""
SUMS: Final = (
    "count(*), 0, count(*) FILTER (WHERE status = 'cancelled'), 0, sum(prompt_tokens), 0, "
    "sum(completion_tokens), 0, sum(cost), sum(duration), sum(duration), "
    "sum(time_to_first_token), count(time_to_first_token)"
)
SUM_COLUMNS: Final = (
    "requests, errors, cancelled, unpriced_requests, prompt_tokens, cached_tokens, "
    "completion_tokens, reasoning_tokens, cost, duration, engine_time, first_token_time, "
    "first_tokens"
)
BUCKETS: Final = f"""
INSERT INTO ollama_openai_usage_usagebucket
  (start, series, workspace_id, workspace_name, user_id, username, key_name, static_key, endpoint,
   model, price_id, currency, month, {SUM_COLUMNS})
SELECT date_bin('15 minutes', started_at, '2026-01-01'), series, workspace_id, workspace_name,
  user_id, username, key_name, static_key, endpoint, answered_by, price_id, currency, month, {SUMS}
FROM ollama_openai_usage_usagerecord
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
"""  # noqa: S608  # only constants
#: The subject, and the name, of each dimension.
DIMENSIONS: Final = {
    "all": ("''", "''"),
    "workspace": ("replace(workspace_id::text, '-', '')", "workspace_name"),
    "user": ("user_id::text", "username"),
    "key": ("''", "username"),
    "model": ("''", "answered_by"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usage_scale", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--pruned", type=int, default=1_000_000, help="records to prune")
    arguments = parser.parse_args()
    contender = contenders(litellm=None)["fast-lane-usage"]
    assert isinstance(contender, WithAccess)
    if missing := contender.missing():
        print(f"benchmarks: {', '.join(missing)} is missing.", file=sys.stderr)
        return 1
    with contender.settings() as (settings, _):
        os.environ |= {**settings, "BENCHMARK_UPSTREAM": "", "BENCHMARK_KEY": KEY}
        os.environ["BENCHMARK_STORE"] = json.dumps(
            {"STORE": "django_ollama_openai.contrib.access.stores.DatabaseStore", "OPTIONS": {}}
        )
        from .site.prepare import main as prepare

        prepare()
        _fill(arguments.records)
        print(table(("Figure", "Measured"), _measured(arguments.pruned)))
    return 0


def _fill(records: int) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection

    from django_ollama_openai.contrib.access.models import Workspace

    users = get_user_model()
    users._default_manager.bulk_create(users(username=f"user{n}") for n in range(USERS))
    Workspace.objects.bulk_create(
        Workspace(name=f"Department {n}", slug=f"w{n:03}") for n in range(WORKSPACES)
    )
    begun = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(RECORDS, [BEGIN, records, USERS, records, WORKSPACES - 1])
        cursor.execute(BUCKETS)
        for dimension, (subject, name) in DIMENSIONS.items():
            cursor.execute(
                f"INSERT INTO ollama_openai_usage_usageday (day, dimension, series, subject, "  # noqa: S608  # only constants
                f"name, currency, {SUM_COLUMNS}) SELECT (started_at AT TIME ZONE 'UTC')::date, "
                f"%s, md5(%s || {subject} || {name})::uuid, {subject}, {name}, currency, {SUMS} "
                "FROM ollama_openai_usage_usagerecord GROUP BY 1, 3, 4, 5, 6",
                [dimension, dimension],
            )
        cursor.execute("VACUUM ANALYZE")
    print(f"{records:,} records and their sums: {time.monotonic() - begun:.0f} s", flush=True)


def _measured(pruned: int) -> list[tuple[str, str]]:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    from django_ollama_openai.contrib.access.models import Membership, Workspace
    from django_ollama_openai.contrib.usage.models import UsageRecord

    users = get_user_model()
    boss = users._default_manager.create(username="boss", is_staff=True, is_superuser=True)
    user = users._default_manager.get(username="user7")
    Membership.objects.create(workspace=Workspace.objects.get(slug="w007"), user=user, role="owner")
    admin, own = (Client(SERVER_NAME="127.0.0.1") for _ in range(2))
    admin.force_login(boss)
    own.force_login(user)
    month = "start=2026-10-01&end=2026-11-01"
    page = "/admin/ollama_openai_usage/usagereport/?start=2026-10-01&end=2026-10-31"
    found = [
        ("A month's page of the admin, ms", _milliseconds(lambda: admin.get(page))),
        (
            "api/usage/ of a user by day and model, ms",
            _milliseconds(lambda: own.get(f"/ai/api/usage/?{month}&group_by=model")),
        ),
        (
            "api/usage/ of a workspace by user, ms",
            _milliseconds(lambda: own.get(f"/ai/api/usage/?{month}&scope=workspace&group_by=user")),
        ),
    ]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size(%s)", [UsageRecord._meta.db_table])
        ((size,),) = cursor.fetchall()
    found.append(
        ("Bytes of a record with its indexes", f"{size / UsageRecord.objects.count():.0f}")
    )
    return [*found, *_pruned(pruned)]


def _milliseconds(get: Callable[[], Any]) -> str:
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        response = get()
        times.append(1000 * (time.perf_counter() - begun))
        assert response.status_code == 200, response.content
    return f"{statistics.median(times):.0f}"


def _pruned(count: int) -> list[tuple[str, str]]:
    """Prune ``count`` records while others are written."""
    from django.utils.timezone import now

    from django_ollama_openai.contrib.usage.models import UsageRecord
    from django_ollama_openai.contrib.usage.retention import UsagePruner

    before = [_written() for _ in range(200)]
    last = UsageRecord.objects.order_by("started_at")[count : count + 1].get().started_at
    begun = time.monotonic()
    deleted = 0

    def prune() -> None:
        nonlocal deleted
        (pruning, _) = UsagePruner().prunings(now() - last - timedelta(seconds=1))
        while deleted < count and (batch := pruning.delete_batch()):
            deleted += batch

    thread = Thread(target=prune)
    thread.start()
    during = []
    while thread.is_alive():
        during.append(_written())
        time.sleep(0.01)
    seconds = time.monotonic() - begun
    return [
        (f"Pruning {deleted:,} records, s", f"{seconds:.0f}"),
        ("Writing a record before, median and most, ms", _spread(before)),
        ("Writing a record meanwhile, median and most, ms", _spread(during)),
    ]


def _written() -> float:
    """Write a record, and return the milliseconds that this takes."""
    from django_ollama_openai._ids import uuid7
    from django_ollama_openai.contrib.usage._recording import writer
    from django_ollama_openai.contrib.usage._recording.record import Draft, User
    from django_ollama_openai.contrib.usage.models import Source, Status

    draft = Draft(
        id=uuid7(),
        request_id="req_benchmark",
        started_at=datetime.now(UTC),
        user=User(),
        endpoint="chat.completions",
        model="llama3.1",
        answered_by="llama3.1",
        backend="default",
        prompt_tokens=100,
        cached_tokens=0,
        completion_tokens=10,
        reasoning_tokens=0,
        source=Source.REPORTED,
        status=Status.OK,
        error="",
        duration=1_500,
        queued=0,
        time_to_first_token=300,
        tags=None,
    )
    begun = time.perf_counter()
    writer.write([draft])
    return 1000 * (time.perf_counter() - begun)


def _spread(times: list[float]) -> str:
    return f"{statistics.median(times):.1f}, {max(times):.1f}"


if __name__ == "__main__":
    sys.exit(main())
