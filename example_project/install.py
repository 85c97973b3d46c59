"""Install packages with pip, and show its progress in one line.

``python install.py ARGUMENT…`` runs ``pip install ARGUMENT…``. In a terminal one line is
updated in place, with the seconds so far; elsewhere each step is a line of its own. pip's errors
are passed through unchanged.
"""

from __future__ import annotations

import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

STEPS = ("Building ", "Collecting ", "Downloading ", "Installing ", "Obtaining ", "Processing ")


def main() -> int:
    # With "raw" pip reports the progress of downloads to a pipe, too.
    options = ["--disable-pip-version-check", "--progress-bar", "raw"]
    command = [sys.executable, "-m", "pip", "install", *options, *sys.argv[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        show = show_in_terminal if sys.stderr.isatty() else show_in_log
        show(steps(pip))
    return pip.returncode


def steps(pip: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    """Yield pip's current step and its progress as a percentage, at least once a second."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read).start()
    step = done = ""
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            line = ""
        if line is None:
            return
        if progress := re.fullmatch(r"Progress (\d+) of ([1-9]\d*)", line):
            done = f"{int(progress[1]) * 100 // int(progress[2])}%"
        elif line.startswith(STEPS):
            step, done = re.sub(r"https?://\S+/", "", line), ""
        yield step, done


def show_in_terminal(found: Iterator[tuple[str, str]]) -> None:
    """Show the current step in one line of the terminal, and remove the line at the end."""
    began = time.monotonic()
    for step, done in found:
        text = f"{time.monotonic() - began:3.0f} s  {step} {done}"
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def show_in_log(found: Iterator[tuple[str, str]]) -> None:
    """Write each step once, on a line of its own."""
    before = ""
    for step, _ in found:
        if step != before:
            print(step, file=sys.stderr, flush=True)
        before = step


if __name__ == "__main__":
    sys.exit(main())
