"""Install packages with pip, and show its progress in one line.

``python install.py ARGUMENT…`` runs ``pip install ARGUMENT…``. In a terminal the line is written
over and over; elsewhere each step is a line of its own. pip's errors appear as they are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

STEPS = ("Building ", "Collecting ", "Downloading ", "Installing ", "Obtaining ", "Processing ")


def main() -> int:
    # "raw" makes pip report the progress of downloads also to a pipe.
    options = ["--disable-pip-version-check", "--progress-bar", "raw"]
    command = [sys.executable, "-m", "pip", "install", *options, *sys.argv[1:]]
    terminal = sys.stderr.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        assert pip.stdout is not None
        step = ""
        for line in map(str.strip, pip.stdout):
            if progress := re.fullmatch(r"Progress (\d+) of (\d+)", line):
                if terminal and (total := int(progress[2])):
                    show(f"{step} {int(progress[1]) * 100 // total}%")
            elif re.match(
                r"(Obtaining|Processing|Collecting|Downloading|Building|Installing) ", line
            ):
                step = re.sub(r"https?://\S+/", "", line)
                if terminal:
                    show(step)
                else:
                    print(step, file=sys.stderr, flush=True)
        if terminal:
            show("")
    return pip.returncode


def show(text: str) -> None:
    """Replace the current line of the terminal."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
