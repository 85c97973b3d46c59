"""The database of the tests of the optional apps, and its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from django.conf import settings
from django.test import AsyncClient, Client

from tests.contrib.settings import KIND
from tests.database_servers import RunningServer, running_server

#: Parameters of tests that run with SQLite only: the logic is that of the fast lane, with which the
#: same tests run with each database.
ANY_DATABASE: Final = (Client, AsyncClient, "uvicorn", "gunicorn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, with other databases than SQLite, what does not depend on the database's kind."""
    if KIND == "sqlite":
        return
    left_out = [item for item in items if _is_for_any_database(item)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _is_for_any_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("any_database"):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(each in ANY_DATABASE for each in parameters if isinstance(each, str | type))


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
