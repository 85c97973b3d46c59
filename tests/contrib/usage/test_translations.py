"""The German texts of the app."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from django_ollama_openai.contrib import usage
from tests.contrib.access.test_admin import gettext_tool

LOCALE = Path(usage.__file__).parent / "locale" / "de" / "LC_MESSAGES"


def test_german_is_complete(tmp_path: Path) -> None:
    shutil.copytree(LOCALE.parents[2], tmp_path / "usage")
    command = [sys.executable, "-m", "django", "makemessages", "--locale", "de", "--no-location"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    subprocess.run(command, cwd=tmp_path / "usage", env=env, check=True, capture_output=True)
    made = tmp_path / "usage" / LOCALE.relative_to(LOCALE.parents[2]) / "django.po"
    for missing in ("--untranslated", "--only-fuzzy", "--only-obsolete"):
        assert gettext_tool("msgattrib", missing, made) == ""
    compiled = tmp_path / "django.mo"
    gettext_tool("msgfmt", "--check-format", "-o", compiled, LOCALE / "django.po")
    assert gettext_tool("msgunfmt", compiled) == gettext_tool("msgunfmt", LOCALE / "django.mo")
