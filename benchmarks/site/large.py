"""Fill the site's database with keys and workspaces, and measure what depends on their number.

``python -m benchmarks.site.large KEYS WORKSPACES SAMPLES`` prints a JSON object: the title of each
operation → its durations in milliseconds, and the tables of which it reads every row.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import django
from django.core.management import call_command
from django.db import connection
from django.test import Client
from tqdm import tqdm

__all__ = ["main"]

MODEL = "llama3"
GROUP = 2000


def main() -> None:
    """Fill, measure and print."""
    keys, workspaces, samples = map(int, sys.argv[1:])
    django.setup()
    call_command("migrate", verbosity=0)
    values = _fill(keys, workspaces)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    found = {}
    for title, operation in _operations(values).items():
        operation()
        durations = []
        for _ in tqdm(range(samples), title, leave=False):
            started = time.perf_counter()
            operation()
            durations.append(1000 * (time.perf_counter() - started))
        found[title] = {"durations": durations, "scans": _scans(operation)}
    print(json.dumps(found))


def _fill(keys: int, workspaces: int) -> list[str]:
    """Make the rows, and return the values of some keys, the first of which may do everything."""
    from django.contrib.auth import get_user_model

    from django_ollama_openai.contrib.access import _keys
    from django_ollama_openai.contrib.access import models as m

    user = get_user_model()
    users = _made(
        (user(username=f"user{n}", is_superuser=not n, is_staff=not n) for n in range(workspaces)),
        workspaces,
    )
    spaces = _made(
        (m.Workspace(name=f"Workspace {n}", slug=f"w{n}") for n in range(workspaces)), workspaces
    )
    _made(
        (m.Membership(workspace=spaces[n], user=users[n], role="owner") for n in range(workspaces)),
        workspaces,
    )
    # The first belongs to a superuser, and may administrate the organization.
    rows = _made(
        (
            m.APIKey(
                name=f"Key {n}",
                user=users[n % workspaces],
                workspace=spaces[n % workspaces] if n else None,
                scopes=None if n else ["admin", "chat"],
            )
            for n in range(keys)
        ),
        keys,
    )
    values = [_keys.new_key("site") for _ in range(keys)]
    _made(
        (
            m.APIKeySecret(
                key=row,
                digest=_keys.digest(value),
                start=_keys.start(value),
                last_four=_keys.last_four(value),
            )
            for row, value in zip(rows, values, strict=True)
        ),
        keys,
    )
    _made(_limits(rows, spaces), len(rows) // 10 + len(spaces) // 2)
    _made((m.LimitAccount(pk=f"{n:064x}", tat=n) for n in range(keys)), keys)
    return [values[0], *random.sample(values[1:], min(1000, keys - 1))]


def _limits(keys: list[Any], workspaces: list[Any]) -> Iterator[Any]:
    from django_ollama_openai.contrib.access.models import Limit

    minute = {"per": "minute", "amount": 10**6}
    yield Limit(target="each_key", unit="requests", **minute)
    yield Limit(target="each_key", unit="tokens", per="minute", amount=10**9)
    yield Limit(target="each_key", unit="concurrent", amount=10**4)
    for key in keys[::10]:
        # bulk_create() calls no save().
        yield Limit(target="key", key=key, subject=key.pk.hex, unit="requests", **minute)
    for each in workspaces[::2]:
        fields = {"workspace": each, "subject": each.pk.hex}
        yield Limit(target="workspace", unit="requests", **fields, **minute)


def _made(rows: Iterator[Any], count: int) -> list[Any]:
    made: list[Any] = []
    with tqdm(total=count, leave=False) as bar:
        while group := list(islice(rows, GROUP)):
            bar.set_description(str(group[0]._meta.verbose_name_plural))
            made += type(group[0])._default_manager.bulk_create(group)
            bar.update(len(group))
    return made


def _operations(values: list[str]) -> dict[str, Callable[[], object]]:
    from django_ollama_openai.contrib._ids import uuid7

    from django_ollama_openai.contrib.access import _key_cache, _keys
    from django_ollama_openai.contrib.access._limits import resolve
    from django_ollama_openai.contrib.access.models import APIKeySecret
    from django_ollama_openai.contrib.access.stores import (
        BaseStore,
        Claim,
        DatabaseStore,
        Settlement,
    )
    from django_ollama_openai.contrib.access.stores._base import now
    from django_ollama_openai.contrib.access.stores._redis import RedisStore

    superuser, *others = values
    redis = RedisStore(url=os.environ["BENCHMARK_REDIS"])

    def lookup() -> None:
        loaded = _key_cache.load(_keys.digest(random.choice(others)))
        assert loaded.value is not None

    subjects = []
    for value in others:
        secret = APIKeySecret.objects.select_related("key").get(digest=_keys.digest(value))
        key = secret.key
        workspace = "" if key.workspace_id is None else key.workspace_id.hex
        subjects.append((workspace, str(key.user_id), key.pk.hex))

    def reserve(store: BaseStore, limits: list[resolve.AppliedLimit]) -> None:
        request, moment = uuid7(), now()
        claims = [
            Claim(each.account, each.rule(moment), 1, each.limit.unit != "requests")
            for each in limits
        ]
        verdict = store.reserve(request, claims)
        assert verdict.held
        leased = [each for each in verdict.held if each.claim.is_leased]
        store.settle(request, [Settlement(each, 1) for each in leased])

    def uncached(store: BaseStore) -> Callable[[], None]:
        return lambda: reserve(store, resolve.applied_limits(random.choice(subjects), MODEL))

    cached = [resolve.applied_limits(each, MODEL) for each in subjects[:100]]
    client, member = (
        Client(SERVER_NAME="127.0.0.1", headers={"Authorization": f"Bearer {value}"})
        for value in (superuser, others[-1])
    )
    browser = Client(SERVER_NAME="127.0.0.1")
    browser.force_login(_superuser())

    def get(client: Client, path: str) -> Callable[[], None]:
        def call() -> None:
            response = client.get(path)
            assert response.status_code == 200, response.content

        return call

    listed = "/admin/ollama_openai_access/apikey/"
    return {
        "Key, not remembered": lookup,
        "Reservation and settlement in the database": uncached(DatabaseStore()),
        "The same in Redis, limits not remembered": uncached(redis),
        "The same in Redis, limits remembered": lambda: reserve(redis, random.choice(cached)),
        "GET api/keys/": get(member, "/ai/api/keys/"),
        "GET v1/organization/projects": get(client, "/ai/v1/organization/projects?limit=20"),
        "Admin: first page of keys": get(browser, listed),
        "Admin: search for a key": get(browser, f"{listed}?q={_keys.start(others[0])}"),
    }


def _superuser() -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model()._default_manager.get(is_superuser=True)


def _scans(operation: Callable[[], object]) -> list[str]:
    """Return the names of the tables of which ``operation`` reads all rows."""
    statements: list[tuple[str, Any]] = []

    def record(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not many and sql.startswith(("SELECT", "UPDATE", "DELETE")):
            statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        operation()
    is_sqlite = connection.vendor == "sqlite"
    explain, scan = (
        ("EXPLAIN QUERY PLAN ", r"SCAN (\w+)\b(?! USING)")
        if is_sqlite
        else ("EXPLAIN ", r"Seq Scan on (\w+)")
    )
    found = set()
    with connection.cursor() as cursor:
        for sql, params in statements:
            cursor.execute(explain + sql, params)
            for row in cursor.fetchall():
                found |= set(re.findall(scan, str(row[-1])))
    return sorted(found)


if __name__ == "__main__":
    main()
