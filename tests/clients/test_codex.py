"""Codex CLI, with its own configuration but for the site that it goes to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.ollama_server import Answer, OllamaServer
from tests.servers import KEY, Site

SECONDS = 60


class Codex:
    """Runs turns, each of them in a process of its own, in a directory of their own."""

    def __init__(self, program: Path, directory: Path, site: Site, model: str | None) -> None:
        home = directory / "home"
        self._work = directory / "work"
        for each in (home, self._work):
            each.mkdir()
        (home / "config.toml").write_text(
            ("" if model is None else f'model = "{model}"\n') + 'model_provider = "site"\n'
            "[model_providers.site]\n"
            'name = "site"\n'
            f'base_url = "{site.base_url}"\n'
            'env_key = "SITE_KEY"\n'
        )
        self._program = program
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CODEX_HOME": str(home),
            "SITE_KEY": KEY,
            # It asks nobody but the site.
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """What has happened in a turn."""
        done = subprocess.run(
            [self._program, "exec", *arguments, "--skip-git-repo-check", "--json"],
            cwd=self._work,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        events = map(json.loads, done.stdout.splitlines())
        return [event["item"] for event in events if event["type"] == "item.completed"]


@pytest.mark.parametrize(
    ("model", "tool", "arguments"),
    [
        # A model that Codex knows gets its tools with the input, one of them takes a program.
        (
            None,
            "functions__exec",
            {"input": 'text((await tools.exec_command({cmd: "echo $((6*7))"})).output);'},
        ),
        # Any other has functions, a namespace of them and a hosted tool.
        ("team/coder:1b", "exec_command", {"cmd": "echo $((6*7))"}),
    ],
    ids=["Codex's model", "another model"],
)
def test_two_turns_with_a_tool(
    node_directory: Path,
    tmp_path: Path,
    any_model_site: Site,
    ollama: OllamaServer,
    model: str | None,
    tool: str,
    arguments: dict[str, Any],
) -> None:
    codex = Codex(
        node_directory / "node_modules" / ".bin" / "codex", tmp_path, any_model_site, model
    )
    function = {"index": 0, "name": tool, "arguments": arguments}
    ollama.reply(
        Answer(["Let me see."], tool_calls=[{"id": "call_7", "function": function}]),
        Answer(["It", " is 42."]),
        Answer(["You are welcome."]),
    )
    first = codex.run("What is 6 times 7?")
    second = codex.run("resume", "--last", "Thank you.")
    assert [item.get("text") for item in (first[-1], second[-1])] == [
        "It is 42.",
        "You are welcome.",
    ]
    (command,) = (item for item in first if item["type"] == "command_execution")
    assert (command["aggregated_output"], command["exit_code"]) == ("42\n", 0)

    *_, last = ollama.chats()
    names = [offered["function"]["name"] for offered in last.body["tools"]]
    assert tool in names
    assert any("__" in name for name in names)
    *_, asked, called, result, answer, thanks = last.body["messages"]
    assert asked == {"role": "user", "content": "What is 6 times 7?"}
    assert called["tool_calls"] == [{"id": "call_7", "function": function}]
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_7")
    assert "42" in result["content"]
    assert answer == {"role": "assistant", "content": "It is 42."}
    assert thanks == {"role": "user", "content": "Thank you."}
