"""What the benchmarks stand on: an engine that speaks as Ollama does, and checked answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks import engine_wire
from benchmarks.load import Job, Result
from benchmarks.processes import ROOT, free_port, module, serving
from tests import recordings

JOB = Job(
    port=0,
    path="/api/chat",
    key="",
    dialect="ollama",
    mode="flood",
    tokens=16,
    stream=True,
    requests=6,
    at_a_time=3,
)


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    """A job for the engine, which runs."""
    port = free_port()
    with serving(module("benchmarks.upstream", str(port)), port, environment={}):
        yield dataclasses.replace(JOB, port=port)


def do(job: Job) -> subprocess.CompletedProcess[str]:
    command = module("benchmarks.load", json.dumps(dataclasses.asdict(job)))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def shape(line: bytes) -> bytes:
    """A line with its values reduced to their types; the keys stay, in their order."""
    return re.sub(rb"\b\d+(?=[,}])", b"0", re.sub(rb':"(?:[^"\\]|\\.)*"', b':""', line))


@pytest.mark.parametrize("name", ["chat_stream", "chat"])
def test_the_engine_writes_as_ollama_does(job: Job, name: str) -> None:
    recording = recordings.load(name)
    body = {**recording.request["json"], "model": "flood:16"}

    answer = httpx.post(f"http://127.0.0.1:{job.port}/api/chat", json=body, trust_env=False)

    lines = answer.content.splitlines()
    assert [shape(line) for line in lines] == [shape(line) for line in recording.lines]
    assert answer.content.endswith(b"\n") == recording.body.endswith(b"\n")
    assert answer.headers.keys() == {key.lower() for key in recording.headers}
    assert answer.headers["Content-Type"] == recording.headers["Content-Type"]


@pytest.mark.parametrize("stream", [True, False])
def test_right_answers_are_timed(job: Job, stream: bool) -> None:
    completed = do(dataclasses.replace(job, stream=stream))

    result = Result(**json.loads(completed.stdout))
    assert len(result.durations) == len(result.first_tokens) == job.requests
    assert all(
        0 < first <= whole <= result.elapsed
        for first, whole in zip(result.first_tokens, result.durations, strict=True)
    )


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"path": "/nowhere"}, "Not a 200"),
        ({"dialect": "openai"}, "does not end with [DONE]"),
        ({"port": 1}, "Connect"),
    ],
)
def test_a_wrong_answer_ends_the_run(job: Job, wrong: dict[str, Any], reason: str) -> None:
    completed = do(dataclasses.replace(job, **wrong))

    assert completed.returncode != 0
    assert completed.stdout == ""
    assert reason in completed.stderr


def test_a_missing_token_ends_the_run(job: Job) -> None:
    async def serve_one_less(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = engine_wire.lines(job.model)
        body = b"".join(map(engine_wire.chunked, lines[1:])) + b"0\r\n\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def run() -> subprocess.CompletedProcess[str]:
        server = await asyncio.start_server(serve_one_less, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(
                do, dataclasses.replace(job, port=port, requests=1, at_a_time=1)
            )

    completed = asyncio.run(run())

    assert completed.returncode != 0
    assert "15 pieces came of 16" in completed.stderr
