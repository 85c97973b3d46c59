"""BatchWriter: rows reach a real table from threads, after forks and failures, and at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, OperationalError, connection

from django_ollama_openai import _batch_writer
from django_ollama_openai.endpoints import BatchWriter

TIMEOUT = 30.0
SECRET = "private text of a row"


class Table:
    """Stands in front of the table of groups, and fails as it is told."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.groups: list[list[str]] = []
        self.connections: list[Any] = []
        self.open = threading.Event()
        self.open.set()

    def write(self, names: list[str]) -> None:
        assert self.open.wait(TIMEOUT)
        connection.ensure_connection()
        self.connections.append(connection.connection)
        if self.failures:
            raise self.failures.pop(0)
        Group.objects.bulk_create([Group(name=name) for name in names], batch_size=100)
        self.groups.append(names)


@pytest.fixture
def table(transactional_db: None) -> Iterator[Table]:
    table = Table()
    yield table
    # Django does not close connections to a database in memory.
    for each in table.connections:
        each.close()


@pytest.fixture
def writer_of(table: Table) -> Iterator[Callable[..., BatchWriter[str]]]:
    made: list[BatchWriter[str]] = []

    def make(**options: Any) -> BatchWriter[str]:
        made.append(BatchWriter(table.write, name="groups", **options))
        return made[-1]

    yield make
    table.open.set()
    for writer in made:
        writer.close(TIMEOUT)
    eventually(lambda: threads() == 0)


def stored() -> set[str]:
    return set(Group.objects.values_list("name", flat=True))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threads() -> int:
    return sum(thread.name == "ollama-openai-writer-groups" for thread in threading.enumerate())


Make = Callable[..., BatchWriter[str]]


def test_rows_of_many_threads_are_written_in_groups(writer_of: Make, table: Table) -> None:
    writer = writer_of(max_rows=50, max_seconds=60)
    names = {f"{thread}-{row}" for thread in range(8) for row in range(100)}

    def put(thread: int) -> None:
        for row in range(100):
            assert writer.put(f"{thread}-{row}")

    putting = [threading.Thread(target=put, args=[thread]) for thread in range(8)]
    for each in putting:
        each.start()
    for each in putting:
        each.join()
    assert writer.flush(TIMEOUT)
    assert stored() == names
    assert max(map(len, table.groups)) <= 50
    assert len(table.groups) < 100
    assert threads() == 1
    assert (writer.pending, writer.dropped) == (0, 0)


def test_no_row_waits_longer_than_it_may(writer_of: Make) -> None:
    writer = writer_of(max_rows=1000, max_seconds=0.05)
    assert threads() == 0
    writer.put("a")
    eventually(lambda: writer.pending == 0)
    assert stored() == {"a"}


def test_put_does_not_wait_and_drops_what_is_too_much(
    writer_of: Make, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writer_of(max_rows=2, max_pending=5)
    table.open.clear()
    started = time.monotonic()
    accepted = [writer.put(f"{SECRET} {number}") for number in range(8)]
    assert time.monotonic() - started < 5
    assert accepted == [True] * 5 + [False] * 3
    assert (writer.pending, writer.dropped) == (5, 3)
    assert not writer.flush(0.05)
    table.open.set()
    assert writer.flush(TIMEOUT)
    assert len(stored()) == 5
    # One line a minute, and the rest at the end.
    assert caplog.messages == ["The writer 'groups' has dropped 1 rows"]
    writer.close(TIMEOUT)
    assert caplog.messages[1:] == ["The writer 'groups' has dropped 2 rows"]
    assert SECRET not in caplog.text


@pytest.mark.parametrize("error", [OperationalError(SECRET), ConnectionResetError(SECRET)])
def test_a_group_is_retried_while_the_database_is_gone(
    writer_of: Make, table: Table, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    table.failures = [error] * 3
    writer = writer_of(max_seconds=0.01, max_pending=3)
    for name in "abc":
        writer.put(name)
    assert not writer.put("d")
    assert writer.flush(TIMEOUT)
    assert stored() == {"a", "b", "c"}
    assert (table.failures, writer.dropped) == ([], 1)
    assert f"The writer 'groups' failed: {type(error).__name__}" in caplog.messages
    assert SECRET not in caplog.text


def test_a_row_that_cannot_be_written_harms_no_other(
    writer_of: Make, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    Group.objects.create(name=SECRET)
    writer = writer_of(max_seconds=60)
    for name in ("a", SECRET, "b", "c"):
        writer.put(name)
    assert writer.flush(TIMEOUT)
    assert stored() == {"a", "b", "c", SECRET}
    assert writer.dropped == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert caplog.messages[0].endswith(f"failed: {IntegrityError.__name__}")
    assert SECRET not in caplog.text
    # The next ones go in a group again.
    for name in ("d", "e"):
        writer.put(name)
    assert writer.flush(TIMEOUT)
    assert table.groups[-1] == ["d", "e"]


def test_rows_are_written_before_a_server_that_stops_is_gone(
    writer_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn takes 0.1 seconds at least; of several times the shortest counts, since the machine
    may be busy."""
    writer = writer_of(max_seconds=60)
    seconds = []
    for name in "abcde":
        monkeypatch.setattr(_batch_writer, "is_stopping", lambda: False)
        writer.put(name)
        eventually(lambda: threads() == 1)
        time.sleep(0.02)
        monkeypatch.setattr(_batch_writer, "is_stopping", lambda: True)
        started = time.monotonic()
        eventually(lambda: writer.pending == 0)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.1
    assert stored() == set("abcde")


def test_a_row_after_the_end_is_written_though_a_group_was_given_up(
    writer_of: Make, table: Table
) -> None:
    writer = writer_of(max_rows=2)
    table.open.clear()
    for name in "abc":
        writer.put(name)
    eventually(lambda: threads() == 1)
    writer.close(0.05)
    assert (writer.pending, writer.dropped) == (0, 3)
    writer.put("d")
    table.open.set()
    assert writer.flush(TIMEOUT)
    assert "d" in stored()
    assert (writer.pending, writer.dropped) == (0, 3)


def test_an_idle_writer_has_no_thread(writer_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_writer, "IDLE_SECONDS", 0.05)
    writer = writer_of()
    for name in "ab":
        writer.put(name)
        assert writer.flush(TIMEOUT)
        eventually(lambda: threads() == 0)
    assert stored() == {"a", "b"}
