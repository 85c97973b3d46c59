"""How the example site chooses what answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import django_ollama_openai
from tests.conftest import DEAD_HOST
from tests.ollama_server import OllamaServer

EXAMPLE = Path(__file__).parents[2] / "example_project"
PATH = str(Path(django_ollama_openai.__file__).parent.parent)
SETTINGS = {"DJANGO_SETTINGS_MODULE": "example.settings"}

pytestmark = pytest.mark.once


def run(*args: str, host: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": PATH, **SETTINGS, "OLLAMA_HOST": host, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("asked", [{"EXAMPLE_ENGINE": "ollama"}, {"EXAMPLE_MODEL": "mine"}])
def test_commands_run_while_ollama_is_down(asked: dict[str, str]) -> None:
    done = run("manage.py", "check", host=DEAD_HOST, **asked)
    assert done.returncode == 0
    assert f"reached at {DEAD_HOST}: start it with `ollama serve`" in done.stderr
    assert "Traceback" not in done.stderr
    print_problem = "from example.settings import ENGINE; print(ENGINE.problem)"
    model = asked.get("EXAMPLE_MODEL", "llama3.2")
    assert f"'ollama pull {model}'" in run("-c", print_problem, host=DEAD_HOST, **asked).stdout


def test_a_model_is_chosen_that_can_chat(ollama: OllamaServer) -> None:
    # As Ollama lists an embedding model whose weights it has converted itself.
    wrong = dict(ollama.models["all-minilm:22m"], capabilities=["completion"])
    wrong["details"] = {
        name: value
        for name, value in wrong["details"].items()
        if name not in ("context_length", "embedding_length")
    }
    ollama.models = {"all-minilm:22m": wrong, "smollm2:135m": ollama.models["smollm2:135m"]}
    choose = "from example.engine import find_chat_model; print(find_chat_model())"
    assert run("-c", choose, host=ollama.url).stdout == "smollm2:135m\n"
