"""Rows of a batch writer when its process ends."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers import ROOT

SCRIPT = """
import os, signal, sys, time
import django
django.setup()
from django.contrib.auth.models import Group
from django.core.management import call_command
call_command("migrate", "auth", verbosity=0)
from django.db import connection
connection.close()
from django_ollama_openai.endpoints import BatchWriter

def write(names):
    Group.objects.bulk_create([Group(name=name) for name in names])

writer = BatchWriter(write, name="groups", max_seconds=60)
"""
ENDINGS = {
    "the end": "writer.put('a'); writer.put('b')",
    "an exception": "writer.put('a'); writer.put('b'); raise SystemExit(0)",
    # The writer has no thread then, and there are none to be had.
    "a callback at the end": "import atexit\n"
    "atexit.unregister(__import__('django_ollama_openai')._batch_writer._close_all)\n"
    "atexit.register(__import__('django_ollama_openai')._batch_writer._close_all)\n"
    "atexit.register(lambda: [writer.put('a'), writer.put('b')])",
    "a pause, in which it has no connection": """
from django_ollama_openai import _batch_writer
_batch_writer.IDLE_SECONDS = 0.05
database = os.environ["SITE_DATABASE"]
descriptors = lambda: [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
writer.put('a')
assert writer.flush(30)
while database in descriptors():
    time.sleep(0.01)
writer.put('b')
""",
    "forks": """
writer.put('a')
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    assert writer.pending == 0
    writer.put('b')
""",
    "a fork with a running thread and no rows": """
writer.put('a')
assert writer.flush(30)
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    writer.put('b')
    assert writer.flush(30)
    os._exit(0)
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_are_written_once_before_a_process_ends(tmp_path: Path, ending: str) -> None:
    database = tmp_path / "db.sqlite3"
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "SITE_DATABASE": str(database),
    }
    # Forks of a process with threads are what is tested. Its end closes the script's connection.
    ignored = ["-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"]
    command = [sys.executable, *ignored, "-c", SCRIPT + ENDINGS[ending]]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with closing(sqlite3.connect(database)) as stored:
        rows = stored.execute("SELECT name FROM auth_group ORDER BY name").fetchall()
    assert rows == [("a",), ("b",)]
