"""Commands of the site in a process of their own, with a terminal or without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.servers import ROOT

__all__ = ["Running", "manage", "run"]

LIMIT_SECONDS = 60


@dataclass
class Running:
    """A command that runs, and what has been read of its output; a terminal shows both outputs."""

    process: subprocess.Popen[bytes]
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    _readers: list[threading.Thread] = field(default_factory=list)

    def read(self, source: int, into: bytearray, enough: int | None = None) -> None:
        """Read ``source`` beside all else: to its end, or until there is ``enough``."""

        def follow() -> None:
            try:
                while len(into) != enough and (data := os.read(source, enough or 65536)):
                    into.extend(data)
            except OSError:  # how a terminal ends
                pass
            os.close(source)

        reader = threading.Thread(target=follow)
        reader.start()
        self._readers.append(reader)

    def wait_for(self, text: str) -> None:
        """Until ``text`` has been written."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while text.encode() not in self.stdout + self.stderr:
            if time.monotonic() > deadline or not any(
                map(threading.Thread.is_alive, self._readers)
            ):
                raise TimeoutError(f"{text!r} is not in {self.stdout + self.stderr!r}")
            time.sleep(0.005)

    @property
    def said(self) -> tuple[str, str]:
        """Both outputs."""
        return self.stdout.decode(), self.stderr.decode()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """The status that it ends with."""
        status = self.process.wait(LIMIT_SECONDS)
        for reader in self._readers:
            reader.join(LIMIT_SECONDS)
        return status


@contextmanager
def manage(
    *args: str,
    options: dict[str, Any],
    columns: int | None = None,
    stdin: bytes = b"",
    enough: int | None = None,
    program: Sequence[str] = ("-m", "django"),
    **environment: str,
) -> Iterator[Running]:
    """Run a command of the site with ``options`` as its ``OLLAMA_OPENAI``, or another ``program``
    of Python's; in a terminal with so many ``columns``, or with pipes. The standard output is
    closed when ``enough`` was read."""
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "SITE_OLLAMA_OPENAI": json.dumps(options),
        "PYTHONWARNINGS": "default",
        "PYTHONIOENCODING": "utf-8",
        **environment,
    }
    if columns is None:
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    else:
        out, out_end = pty.openpty()
        err, err_end = -1, out_end
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(out_end, termios.TIOCSWINSZ, size)
    # Where the tests run in the background of a shell Ctrl-C is ignored, and so it would be there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, *program, *args],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=out_end,
            stderr=err_end,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    for end in {out_end, err_end}:
        os.close(end)
    running = Running(process)
    running.read(out, running.stdout, enough)
    if err >= 0:
        running.read(err, running.stderr)
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(stdin)
    try:
        yield running
    finally:
        process.kill()
        running.end()


def run(*args: str, options: dict[str, Any], **more: Any) -> tuple[int, str, str]:
    """The status and the two outputs of a command that ends by itself."""
    with manage(*args, options=options, **more) as running:
        status = running.end()
    return status, *running.said
