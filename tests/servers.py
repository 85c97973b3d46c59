"""The site under test in a real server: uvicorn (ASGI) or gunicorn with threads (WSGI)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import httpx

__all__ = ["KEY", "SERVERS", "Server", "Site", "serve"]

ROOT = Path(__file__).parent.parent
KEY = "sk-test-key"

Server: TypeAlias = Literal["uvicorn", "gunicorn"]
SERVERS: tuple[Server, ...] = ("uvicorn", "gunicorn")


@dataclass
class Site:
    """A running site."""

    server: Server
    url: str
    process: subprocess.Popen[bytes]
    output: Path
    signal_log: Path

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given."""
        return f"{self.url}/ai/v1"

    def log(self) -> str:
        """What the server has printed."""
        return self.output.read_text()

    def signals(self, request_id: str, count: int, timeout: float = 5) -> list[dict[str, Any]]:
        """What was signalled for one request, as soon as there are ``count`` entries."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.signal_log.read_text() if self.signal_log.exists() else ""
            # The last line may still be on its way.
            entries = [json.loads(entry) for entry in text.split("\n")[:-1]]
            mine = [entry for entry in entries if entry["request_id"] == request_id]
            if len(mine) >= count:
                return mine
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} signals expected, there are {mine}\n{self.log()}")
            time.sleep(0.01)


@contextmanager
def serve(
    server: Server, directory: Path, options: dict[str, Any], **environment: str
) -> Iterator[Site]:
    """Run the site in ``server`` with ``options`` as its ``OLLAMA_OPENAI``."""
    port = _free_port()
    output, signal_log = directory / "output.txt", directory / "signals.jsonl"
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.site.settings",
        "SITE_OLLAMA_OPENAI": json.dumps(options),
        "SITE_SIGNAL_LOG": str(signal_log),
        "SITE_DATABASE": str(directory / "db.sqlite3"),
        "PYTHONWARNINGS": "default",
        **environment,
    }
    with output.open("wb") as log:
        process = subprocess.Popen(
            _command(server, port), cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT
        )
    site = Site(server, f"http://127.0.0.1:{port}", process, output, signal_log)
    try:
        _wait_until_ready(site)
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(server: Server, port: int) -> list[str]:
    address = ["127.0.0.1", str(port)]
    if server == "uvicorn":
        arguments = ["uvicorn", "tests.site.asgi:application", "--lifespan", "off"]
        arguments += ["--host", address[0], "--port", address[1], "--log-level", "warning"]
        arguments += ["--timeout-graceful-shutdown", "2"]
    else:
        arguments = ["gunicorn", "tests.site.wsgi:application", "--bind", ":".join(address)]
        arguments += ["--worker-class", "gthread", "--threads", "16", "--log-level", "warning"]
        arguments += ["--graceful-timeout", "2", "--no-control-socket"]
    return [sys.executable, "-m", *arguments]


def _wait_until_ready(site: Site) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{site.url}/ai/health?probe=live", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if site.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{site.server} did not start:\n{site.log()}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
