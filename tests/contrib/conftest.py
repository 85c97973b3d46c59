"""The database of the tests of the optional apps, and its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.conf import settings

from tests.contrib.settings import KIND
from tests.database_servers import RunningServer, running_server


@pytest.fixture(scope="session")
def database_server() -> Iterator[RunningServer | None]:
    """The server of the database; ``None`` for SQLite."""
    with ExitStack() as stack:
        yield None if KIND == "sqlite" else stack.enter_context(running_server(KIND))  # type: ignore[arg-type]  # one of the others


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    database_server: RunningServer | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tell Django where the database is. Overrides the fixture of pytest-django."""
    database: dict[str, Any] = settings.DATABASES["default"]
    if database_server is None:
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "db.sqlite3")
    else:
        database["PORT"] = str(database_server.port)
