"""Insert rows, or add their numbers to those of existing rows: Django's ``bulk_create()`` can only
replace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from django.db import connections, router
from django.db.models import Model

__all__ = ["insert_or_add"]

M = TypeVar("M", bound=Model)


def insert_or_add(rows: Sequence[M], *, unique: Sequence[str], added: Sequence[str]) -> None:
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
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    table = quote(model._meta.db_table)
    column = {field.name: quote(str(field.column)) for field in fields}
    names = [column[name] for name in added]
    if connection.features.supports_update_conflicts_with_target:
        keys = ", ".join(column[name] for name in unique)
        sums = ", ".join(f"{name} = {table}.{name} + EXCLUDED.{name}" for name in names)
        conflict = f"ON CONFLICT ({keys}) DO UPDATE SET {sums}"
    else:
        sums = ", ".join(f"{name} = {name} + VALUES({name})" for name in names)
        conflict = f"ON DUPLICATE KEY UPDATE {sums}"
    names_of_columns = ", ".join(column.values())
    # Only names of tables and columns, which are quoted.
    head = f"INSERT INTO {table} ({names_of_columns}) VALUES "  # noqa: S608
    one = f"({', '.join(['%s'] * len(fields))})"
    ordered = sorted(rows, key=lambda row: [str(getattr(row, name)) for name in unique])
    size = connection.ops.bulk_batch_size(fields, ordered)
    with connection.cursor() as cursor:
        for start in range(0, len(ordered), size):
            group = ordered[start : start + size]
            parameters: list[Any] = [
                field.get_db_prep_save(field.pre_save(row, True), connection)
                for row in group
                for field in fields
            ]
            cursor.execute(f"{head}{', '.join([one] * len(group))} {conflict}", parameters)
