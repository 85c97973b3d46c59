"""A Redis server of the tests' own, on a free port, without files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.servers import free_port

__all__ = ["RedisServer", "redis_server"]

WITHIN = 30.0


@dataclass
class RedisServer:
    """A process of ``redis-server``, or of ``valkey-server``."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def redis_server(program: str = "redis-server") -> Iterator[RedisServer]:
    """Run a server until the end of the block."""
    command = shutil.which(program)
    assert command is not None, f"{program} is missing: apt-get install {program}"
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [command, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(port, process)
            yield RedisServer(port, process)
        finally:
            process.terminate()
            process.wait(WITHIN)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.02)
        else:
            return
