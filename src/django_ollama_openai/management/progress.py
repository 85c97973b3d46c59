"""How far a pull has got: bars where somebody looks at them, lines in a log."""

from __future__ import annotations

import re
from typing import Final, Self

from tqdm import tqdm

from .terminal import Terminal, size

__all__ = ["Bars", "Progress", "progress_in"]

NAMED_BY: Final = 12
"""How many digits of its digest a layer is called by, as in Ollama's own messages."""


class Progress:
    """Shows nothing. The layers of a model come one after the other, or several at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Show a line of text."""

    def show(self, digest: str, completed: int, total: int | None) -> None:
        """Show that so many bytes of a layer are there. When a pull goes on after an interruption
        that is what was there before, or a little less."""


class Lines(Progress):
    """A line for every tenth of a layer."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._tenths: dict[str, int] = {}

    def say(self, text: str) -> None:
        self._terminal.line(text)

    def show(self, digest: str, completed: int, total: int | None) -> None:
        tenth = min(10, 10 * completed // total) if total else 0
        if tenth <= self._tenths.get(digest, -1):
            return
        self._tenths[digest] = tenth
        share = f"{10 * tenth} % of {size(total)}" if total else size(completed)
        self._terminal.line(f"{_name(digest)}: {share}")


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread: there is something to show all the time


class Bars(Progress):
    """A bar for each layer, which stays when the layer is there."""

    def __init__(self, terminal: Terminal) -> None:
        self._file = terminal.file
        self._bars: dict[str, _Bar] = {}

    def __exit__(self, *error: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def say(self, text: str) -> None:
        _Bar.write(text, file=self._file)

    def show(self, digest: str, completed: int, total: int | None) -> None:
        bar = self._bars.get(digest)
        if bar is None or (bar.disable and completed != total):
            bar = self._bars[digest] = _Bar(
                desc=_name(digest),
                # What is there already says nothing about the speed.
                initial=completed,
                total=total,
                unit="B",
                unit_scale=True,
                dynamic_ncols=True,
                file=self._file,
            )
        if not bar.disable:
            bar.update(completed - bar.n)
        if completed == total:
            bar.close()


def progress_in(terminal: Terminal) -> Progress:
    """What fits ``terminal``."""
    if terminal.is_quiet:
        return Progress()
    return Bars(terminal) if terminal.is_interactive else Lines(terminal)


def _name(digest: str) -> str:
    return re.sub(r"\W", "", digest.rpartition(":")[2])[:NAMED_BY]
