from __future__ import annotations

from typing import Any

from django.db import migrations

from django_ollama_openai.contrib.chat._store.search import DROP_INDEX_SQL, INDEX_SQL


def execute(sql: str) -> Any:
    """Return the function for ``RunPython`` that executes ``sql``, only on PostgreSQL: other
    databases search without an index."""

    def run(apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(sql)

    return run


class Migration(migrations.Migration):
    dependencies = [("ollama_openai_chat", "0001_initial")]

    operations = [migrations.RunPython(execute(INDEX_SQL), execute(DROP_INDEX_SQL))]
