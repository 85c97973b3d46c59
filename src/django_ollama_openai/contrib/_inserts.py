"""Insert rows with less work than ``bulk_create()`` takes, for rows that each request adds; or add
their numbers to those of existing rows, which ``bulk_create()`` can only replace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, Model

__all__ = ["insert", "insert_or_add"]


def insert(rows: Iterable[Model]) -> None:
    """Insert ``rows``, all of one model, which are saved for the first time. Their fields have
    values, not expressions; a primary key that the database makes is not known afterwards."""
    _insert(list(rows), "")


def insert_or_add(rows: Sequence[Model], *, unique: Sequence[str], added: Sequence[str]) -> None:
    """Insert ``rows`` of one model; where one has the ``unique`` fields of an existing row, add its
    fields ``added`` to that row instead.

    No two of ``rows`` are equal in ``unique``, by which they are sorted, so that two transactions
    that write the same rows do not run into a deadlock.
    """
    if not rows:
        return
    model = type(rows[0])
    connection = connections[router.db_for_write(model)]
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    column = {field.name: quote(str(field.column)) for field in model._meta.concrete_fields}
    names = [column[name] for name in added]
    if connection.features.supports_update_conflicts_with_target:
        keys = ", ".join(column[name] for name in unique)
        sums = ", ".join(f"{name} = {table}.{name} + EXCLUDED.{name}" for name in names)
        conflict = f" ON CONFLICT ({keys}) DO UPDATE SET {sums}"
    else:
        sums = ", ".join(f"{name} = {name} + VALUES({name})" for name in names)
        conflict = f" ON DUPLICATE KEY UPDATE {sums}"
    _insert(sorted(rows, key=lambda row: [str(getattr(row, name)) for name in unique]), conflict)


def _insert(rows: Sequence[Model], end: str) -> None:
    if not rows:
        return
    model = type(rows[0])
    connection = connections[router.db_for_write(model)]
    fields = _fields(model)
    head, values = _start(model, connection.alias)
    size = connection.ops.bulk_batch_size(fields, rows)
    with connection.cursor() as cursor:
        for start in range(0, len(rows), size):
            group = rows[start : start + size]
            parameters = [
                field.get_db_prep_save(field.pre_save(row, True), connection)
                for row in group
                for field in fields
            ]
            cursor.execute(head + ", ".join([values] * len(group)) + end, parameters)
    for row in rows:
        row._state.adding, row._state.db = False, connection.alias


@lru_cache(maxsize=100)
def _fields(model: type[Model]) -> list[Any]:
    """Return the fields of ``model`` but a primary key that the database makes."""
    return [field for field in model._meta.concrete_fields if not isinstance(field, AutoField)]


@lru_cache(maxsize=100)
def _start(model: type[Model], alias: str) -> tuple[str, str]:
    """Return the statement up to its values, and the placeholders of one row."""
    connection: BaseDatabaseWrapper = connections[alias]
    quote, fields = connection.ops.quote_name, _fields(model)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    # Only names of tables and columns, which are quoted.
    head = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES "  # noqa: S608
    return head, f"({', '.join(['%s'] * len(fields))})"
