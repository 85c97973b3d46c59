"""The ``llm`` command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.clients.scripts import (
    ANSWER,
    BROKEN,
    CITY,
    CITY_ANSWER,
    FORECASTS,
    MODEL,
    TEXT,
    TOOLS_MODEL,
    WEATHER_ANSWERS,
    WEATHER_TEXT,
    City,
    assert_round_trip,
)
from tests.ollama_server import OllamaServer
from tests.servers import KEY, Site

Run: TypeAlias = Callable[..., subprocess.CompletedProcess[bytes]]

GET_WEATHER = f"""
def get_weather(place: dict, days: int) -> str:
    "Get the weather."
    return {FORECASTS}[place["city"]]
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "object", "additionalProperties": True},
                "days": {"type": "integer"},
            },
            "required": ["place", "days"],
        },
    },
}


@pytest.fixture
def run(site: Site, tmp_path: Path) -> Run:
    """The command, set up for the site as its documentation says."""
    models = [
        {
            "model_id": f"site/{name}",
            "model_name": name,
            "api_base": site.base_url,
            "api_key_name": "site",
            "supports_schema": True,
            "supports_tools": True,
        }
        for name in (MODEL, TOOLS_MODEL, "missing")
    ]
    models.append({**models[0], "model_id": "site/text", "completion": True})
    models.append({**models[1], "model_id": "site/responses", "responses": True})
    # JSON is YAML.
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    (tmp_path / "keys.json").write_text(json.dumps({"site": KEY}))
    environ = {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}

    def run(model: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "llm", "--model", f"site/{model}", *options, "Say hello."],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )

    return run


def printed(ended: subprocess.CompletedProcess[bytes]) -> str:
    """What a run that went well has printed."""
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode().removesuffix("\n")


@pytest.mark.parametrize("options", [[], ["--no-stream"]], ids=["stream", "no stream"])
def test_chat(run: Run, ollama: OllamaServer, options: list[str]) -> None:
    ollama.reply(ANSWER)
    ended = run(MODEL, "--option", "temperature", "0.5", "--usage", *options)
    assert printed(ended) == TEXT
    assert b"12 input, 5 output" in ended.stderr
    sent = ollama.chats()[0].body
    assert sent["messages"] == [{"role": "user", "content": "Say hello."}]
    assert sent["options"]["temperature"] == 0.5
    assert sent["stream"] is (not options)


def test_tools(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    assert printed(run(TOOLS_MODEL, "--functions", GET_WEATHER)) == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)
    assert ollama.chats()[0].body["tools"] == [WEATHER]


def test_structured_output(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(CITY_ANSWER)
    schema = City.model_json_schema()
    assert json.loads(printed(run(MODEL, "--schema", json.dumps(schema)))) == CITY.model_dump()
    assert ollama.chats()[0].body["format"] == schema


def test_a_completion(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(ANSWER)
    assert printed(run("text")) == TEXT
    (request,) = ollama.generates()
    assert request.body["prompt"] == "Say hello."


def test_tools_of_responses(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(*WEATHER_ANSWERS)
    assert printed(run("responses", "--functions", GET_WEATHER)) == WEATHER_TEXT
    assert_round_trip(ollama, stream=True)


def test_a_wrong_key(run: Run, ollama: OllamaServer) -> None:
    ended = run(MODEL, "--key", "wrong")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr == b"Error: Error code: 401 - Incorrect API key provided.\n"
    assert ollama.requests == []


def test_an_unknown_model(run: Run) -> None:
    ended = run("missing")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"Error: Error code: 404 - The model 'missing' does not exist" in ended.stderr


def test_a_failure_in_mid_stream(run: Run, ollama: OllamaServer) -> None:
    ollama.reply(BROKEN)
    ended = run(MODEL)
    assert (ended.returncode, ended.stdout) == (1, b"Hel")
    assert b"failed while generating" in ended.stderr
