"""Start servers, and measure the CPU time and memory of their processes on Linux."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "BenchmarkError", "Served", "free_port", "module", "run_module", "serving"]

ROOT = Path(__file__).parent.parent
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """The benchmark failed; the message is the reason."""


@dataclass(frozen=True)
class Served:
    """A server process that listens on ``port``, with its children.

    ``store`` is the process id of the server of its database or of Redis, if it has one.
    """

    process: subprocess.Popen[bytes]
    port: int
    store: int | None = None

    def cpu_seconds(self) -> float:
        """Return the CPU time of the processes so far, in user and in system mode."""
        return _cpu_seconds(self.process.pid)

    def store_cpu_seconds(self) -> float | None:
        """Return the CPU time of the store's processes so far, if there is a store."""
        return None if self.store is None else _cpu_seconds(self.store)

    def private_kilobytes(self) -> int:
        """Return the private memory of the processes."""
        return sum(_private_kilobytes(pid) for pid in _tree(self.process.pid))


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-m", name, *arguments]


def run_module(name: str, environment: Mapping[str, str], *arguments: str) -> None:
    """Run a module with this Python to its end.

    Raises:
        BenchmarkError: It failed.
    """
    command = module(name, *arguments)
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise BenchmarkError(f"{command!r} failed; the reason stands above.")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def serving(
    command: Sequence[str], port: int, environment: Mapping[str, str], within_seconds: float = 30
) -> Iterator[Served]:
    """Run ``command`` during the block, which begins when it listens on ``port``."""
    # In a group of its own, so that Ctrl-C only reaches the benchmark, which ends the others.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        # Errors go to standard error, banners to standard output.
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        _wait_until_it_listens(process, port, within_seconds)
        yield Served(process, port)
    finally:
        process.terminate()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(
    process: subprocess.Popen[bytes], port: int, within_seconds: float
) -> None:
    give_up = time.monotonic() + within_seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            pass
        if process.poll() is not None or time.monotonic() > give_up:
            raise BenchmarkError(f"{process.args!r} does not listen; the reason stands above.")
        time.sleep(0.05)


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tree(root: int) -> list[int]:
    """Return the process ids of ``root`` and of those that it has started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def _cpu_seconds(root: int) -> float:
    return sum(_cpu_ticks(pid) for pid in _tree(root)) / _TICKS_PER_SECOND


def _cpu_ticks(pid: int) -> int:
    user, system = _stat(pid)[11:13]
    return int(user) + int(system)


def _private_kilobytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = [line.split() for line in rollup.splitlines()]
    return sum(int(size) for name, size, *_ in fields if name.startswith("Private_"))
