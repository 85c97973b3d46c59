"""What only PostgreSQL shows: the size of a record, and connections that its server has ended."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from django_ollama_openai._ids import public_id, uuid7
from django_ollama_openai.contrib.usage._recording import writer
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import UsageRecord
from tests.contrib.access.conftest import World
from tests.contrib.settings import KIND
from tests.contrib.usage.conftest import MOMENT, made, stored

pytestmark = pytest.mark.skipif(KIND != "postgresql", reason="Only PostgreSQL has these.")


def test_a_record_and_its_indexes_are_small(world: World) -> None:
    """Less than 600 bytes, with keys, users and workspaces."""
    spaces = [world.workspace(f"Department {number}") for number in range(20)]
    users = [world.user(f"username{number}") for number in range(200)]
    keys = [world.key(user, name="laptop").row for user in users]  # type: ignore[attr-defined]  # of the fixture
    for batch in range(40):
        numbers = range(500 * batch, 500 * batch + 500)
        writer.write(
            [
                made(
                    request_id=public_id("req", uuid7()),
                    model="llama3.2:3b",
                    user=User(
                        workspace=spaces[number % 20].pk,
                        workspace_name=spaces[number % 20].name,
                        user=users[number % 200].pk,
                        username=users[number % 200].username,
                        key=keys[number % 200].pk,
                        key_name="laptop",
                    ),
                    started_at=MOMENT + timedelta(seconds=number),
                )
                for number in numbers
            ]
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size(%s)", [UsageRecord._meta.db_table])
        ((size,),) = cursor.fetchall()
    assert size / UsageRecord.objects.count() < 600


def test_a_lost_connection(transactional_db: None) -> None:
    stored(made())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    other.close()
    stored(made())
    assert UsageRecord.objects.count() == 2
