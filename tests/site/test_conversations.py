"""Conversations with a real model that go from sessions to OpenAI's API and back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.servers import KEY, NO_TLS, ROOT, Site, serve

pytestmark = [pytest.mark.once, pytest.mark.llamacpp]

OPTIONS: dict[str, Any] = {
    "BACKENDS": {
        "default": {
            "BACKEND": "django_ollama_openai.backends.LlamaCppBackend",
            "OPTIONS": {"threads": 1},
        },
        "second": {"BACKEND": "django_ollama_openai.backends.DummyBackend"},
    },
    "API_KEYS": [KEY],
    "DEFAULT_MODEL": "smollm2-135m-instruct",
}
PARAMETERS = {"temperature": 0, "seed": 1, "max_tokens": 30}
APP = "django_ollama_openai.contrib.chat"


@contextmanager
def serving(directory: Path) -> Iterator[Site]:
    """Run a site with the app and its tables."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "SITE_APPS": APP,
        "SITE_DATABASE": str(directory / "db.sqlite3"),
        "SITE_OLLAMA_OPENAI": json.dumps(OPTIONS),
    }
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )
    with serve("uvicorn", directory, OPTIONS, SITE_APPS=APP) as site:
        yield site


def test_three_turns_through_both_apis(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as site,
        httpx.Client(
            base_url=f"{site.url}/ai/api/chat/sessions/",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=120,
            verify=NO_TLS,
        ) as http,
        OpenAI(base_url=site.base_url, api_key=KEY, timeout=120) as openai,
    ):
        instructions = "Answer in one sentence."
        session = http.post(
            "", json={"instructions": instructions, "parameters": PARAMETERS}
        ).json()["id"]

        first = http.post(
            f"{session}/messages/", json={"content": "What is the capital of France?"}
        )
        assert first.status_code == 200
        answers = [first.json()["choices"][0]["message"]["content"]]
        assert "Paris" in answers[0]

        second = openai.responses.create(
            conversation=session, input="And of Italy?", temperature=0, max_output_tokens=30
        )
        answers.append(second.output_text)
        assert second.conversation is not None and second.conversation.id == session
        # The instructions and the first turn were before it.
        alone = openai.responses.create(input="And of Italy?", store=False, max_output_tokens=30)
        assert second.usage is not None and alone.usage is not None
        assert second.usage.input_tokens > alone.usage.input_tokens + 15

        third = http.post(f"{session}/messages/", json={"content": "What did I ask first?"})
        answers.append(third.json()["choices"][0]["message"]["content"])
        assert third.json()["usage"]["prompt_tokens"] > second.usage.input_tokens

        asked = ["What is the capital of France?", "And of Italy?", "What did I ask first?"]
        turns = [text for turn in zip(asked, answers, strict=True) for text in turn]
        messages = http.get(f"{session}/messages/").json()["data"]
        assert [message["content"] for message in messages] == turns
        items = [item.to_dict() for item in openai.conversations.items.list(session, order="asc")]
        contents: list[Any] = [item["content"] for item in items]
        assert [content[0]["text"] for content in contents] == turns
        assert [item["id"] for item in items] == [message["id"] for message in messages]


PAGE = (ROOT / "docs" / "stateful.rst").read_text()


def shown(language: str) -> str:
    """Return the block in ``language`` of the documentation's conversation."""
    story = PAGE.partition(".. _curl-to-openai:")[2]
    block = story.partition(f".. code-block:: {language}\n\n")[2]
    return dedent(re.split(r"^(?=\S)", block, maxsplit=1, flags=re.MULTILINE)[0]).strip()


def test_the_conversation_of_the_documentation(tmp_path: Path) -> None:
    typed = [line for line in re.split(r"^\$ ", shown("console"), flags=re.MULTILINE) if line]
    with serving(tmp_path) as site:
        environment = {**os.environ, "OPENAI_BASE_URL": site.base_url, "OPENAI_API_KEY": KEY}
        for step in typed:
            lines = step.replace("http://127.0.0.1:8000", site.url).splitlines()
            ends = [number for number, line in enumerate(lines) if not line.endswith("\\")]
            command, output = "\n".join(lines[: ends[0] + 1]), "\n".join(lines[ends[0] + 1 :])
            if command.startswith("export"):
                continue
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            if "conv_" in output:
                environment["SESSION"] = done.stdout.strip().strip('"')
            else:
                assert done.stdout.strip() == output
        client = [sys.executable, "-c", shown("python")]
        printed = subprocess.run(
            client, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    # The last answer, which the page wraps, depends on the processor.
    assert printed.splitlines()[:-1] == shown("text").splitlines()[:3]
    assert printed.splitlines()[-1].startswith("assistant: ")
