"""The site under test in a real server: most tests run it in uvicorn (ASGI) and in gunicorn with
threads (WSGI), and those of what the fast lane does differently also behind that."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx

__all__ = [
    "KEY",
    "NO_TLS",
    "OTHER_SERVERS",
    "SERVERS",
    "SERVERS_AND_LANE",
    "Server",
    "Site",
    "free_port",
    "running",
    "serve",
]

ROOT = Path(__file__).parent.parent
KEY = "sk-test-key"

KEEP_ALIVE = "10"
"""Seconds. Clients close idle connections after 5: with less here, a server may close one at the
moment of the next request."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that are made for one request: reading the system's certificates takes longer."""

FAST_LANE = "+fast-lane"
Server: TypeAlias = Literal[
    "uvicorn",
    "gunicorn",
    "granian",
    "hypercorn",
    "daphne",
    "uvicorn+fast-lane",
    "granian+fast-lane",
    "hypercorn+fast-lane",
    "daphne+fast-lane",
]
"""With the fast lane in front of the site, or without."""
SERVERS: tuple[Server, ...] = ("uvicorn", "gunicorn")
SERVERS_AND_LANE: tuple[Server, ...] = (*SERVERS, "uvicorn+fast-lane")
if ONLY := os.environ.get("TEST_SERVER"):
    # With older versions of Django one of them, so that all versions together take no hours.
    SERVERS = SERVERS_AND_LANE = tuple(each for each in SERVERS if each == ONLY)
OTHER_SERVERS: tuple[Server, ...] = (
    "granian",
    "hypercorn",
    "daphne",
    "granian+fast-lane",
    "hypercorn+fast-lane",
    "daphne+fast-lane",
)


@dataclass
class Site:
    """A running site."""

    server: Server
    url: str
    process: subprocess.Popen[bytes]
    output: Path
    signal_log: Path

    @property
    def has_fast_lane(self) -> bool:
        return self.server.endswith(FAST_LANE)

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given."""
        return f"{self.url}/ai/v1"

    def log(self) -> str:
        """What the server has printed."""
        return self.output.read_text()

    def left(self, *, reset: bool = False) -> dict[str, Any]:
        """What the server's process holds: see ``tests/project/leftovers.py``."""
        query = "?reset" if reset else ""
        answer = httpx.get(f"{self.url}/left/{query}", timeout=60, verify=NO_TLS)
        left: dict[str, Any] = answer.raise_for_status().json()
        return left

    def connect(self) -> socket.socket:
        """Return a connection to the server."""
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname or "", address.port or 0), timeout=60)

    def send(
        self, body: dict[str, Any], request_id: str, path: str = "chat/completions", **headers: str
    ) -> socket.socket:
        """Return a connection on which a request was sent; the test may do with it as it likes."""
        connection = self.connect()
        content = json.dumps(body).encode()
        connection.sendall(self.post(content, path, {"x-request-id": request_id, **headers}))
        return connection

    def post(
        self, content: bytes, path: str = "chat/completions", headers: dict[str, str] | None = None
    ) -> bytes:
        """Return the bytes of a request with ``content``; ``headers`` replace the usual ones."""
        address = urlsplit(f"{self.base_url}/{path}")
        fields = {
            "Host": address.netloc,
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }
        head = [f"POST {address.path} HTTP/1.1", *(f"{key}: {fields[key]}" for key in fields)]
        return "\r\n".join([*head, "", ""]).encode() + content

    def signals(self, request_id: str, count: int, timeout: float = 60) -> list[dict[str, Any]]:
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
    server: Server,
    directory: Path,
    options: dict[str, Any],
    *,
    grace: int | None = 2,
    prefix: str = "",
    threads: int = 16,
    **environment: str,
) -> Iterator[Site]:
    """Run the site in ``server`` with ``options`` as its ``OLLAMA_OPENAI``; ``grace`` is for how
    many seconds requests may go on when it is told to stop, ``prefix`` the path that the site is
    below: a proxy cuts it off before uvicorn, gunicorn does so itself. ``threads`` are gunicorn's,
    of which each request takes one."""
    port = free_port()
    output, signal_log = directory / "output.txt", directory / "signals.jsonl"
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "SITE_OLLAMA_OPENAI": json.dumps(options),
        "SITE_SIGNAL_LOG": str(signal_log),
        "SITE_DATABASE": str(directory / "db.sqlite3"),
        "SITE_MEDIA": str(directory / "media"),
        "PYTHONWARNINGS": "default",
        **environment,
    }
    name = server.removesuffix(FAST_LANE)
    if name != server:
        environ["SITE_FAST_LANE"] = "1"
    command = _command(name, port, grace, threads)
    url = f"http://127.0.0.1:{port}"
    if prefix and name == "uvicorn":
        command += ["--root-path", prefix]
    elif prefix:
        environ["SCRIPT_NAME"] = prefix
        url += prefix
    with running(command, environ, output) as process:
        site = Site(server, url, process, output, signal_log)
        _wait_until_ready(site)
        yield site


@contextmanager
def running(
    command: list[str], environ: dict[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is told to stop at the end, and killed if it does not."""
    with output.open("wb") as log:
        # A group of its own: some servers are several processes.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(server: str, port: int, grace: int | None, threads: int) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port)]
    quiet = ["--log-level", "warning"]
    stop: list[str] = []
    if server == "uvicorn":
        arguments = ["tests.project.asgi:application", "--lifespan", "off", *address, *quiet]
        arguments += ["--timeout-keep-alive", KEEP_ALIVE]
        stop = ["--timeout-graceful-shutdown", str(grace)]
    elif server == "gunicorn":
        arguments = ["tests.project.wsgi:application", "--bind", f"127.0.0.1:{port}", *quiet]
        arguments += ["--worker-class", "gthread", "--threads", str(threads)]
        arguments += ["--no-control-socket"]
        arguments += ["--keep-alive", KEEP_ALIVE]
        stop = ["--graceful-timeout", str(grace)]
    elif server == "granian":
        arguments = ["tests.project.asgi:application", "--interface", "asginl", *address, *quiet]
        stop = ["--workers-kill-timeout", str(grace)]
    elif server == "hypercorn":
        arguments = ["tests.project.asgi:application", "--bind", f"127.0.0.1:{port}", *quiet]
        stop = ["--graceful-timeout", str(grace)]
    else:
        arguments = [
            "tests.project.asgi:application",
            "-b",
            "127.0.0.1",
            "-p",
            str(port),
            "-v",
            "0",
        ]
    return [sys.executable, "-m", server, *arguments, *(stop if grace is not None else [])]


def _wait_until_ready(site: Site) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{site.url}/ai/health?probe=live", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if site.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{site.server} did not start:\n{site.log()}")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
