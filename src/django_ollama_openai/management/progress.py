"""Progress: bars in a terminal, and for a pull lines in a log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Self

from .terminal import Terminal, size

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Bars", "Lines", "Progress", "bar_class", "progress_in"]

#: The number of digits of a digest that name a layer, as in Ollama's own messages.
DIGEST_DIGITS: Final = 12


class Progress:
    """Progress without any output. The layers of a model are pulled in turn, or several at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def message(self, text: str) -> None:
        """Show a line of text."""

    def update(self, digest: str, completed: int, total: int | None) -> None:
        """Show the completed bytes of a layer. A pull that is retried starts with those completed
        before, or slightly less."""


class Lines(Progress):
    """A line for every tenth of a layer."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._tenths: dict[str, int] = {}

    def message(self, text: str) -> None:
        self._terminal.line(text)

    def update(self, digest: str, completed: int, total: int | None) -> None:
        tenth = min(10, 10 * completed // total) if total else 0
        if tenth <= self._tenths.get(digest, -1):
            return
        self._tenths[digest] = tenth
        share = f"{10 * tenth} % of {size(total)}" if total else size(completed)
        self._terminal.line(f"{_name(digest)}: {share}")


class Bars(Progress):
    """A bar for each layer, which stays when the layer is complete. ``bar`` is tqdm's class."""

    def __init__(self, terminal: Terminal, bar: type[tqdm[Any]]) -> None:
        self._file = terminal.file
        self._bar = bar
        self._bars: dict[str, tqdm[Any]] = {}

    def __exit__(self, *error: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def message(self, text: str) -> None:
        self._bar.write(text, file=self._file)

    def update(self, digest: str, completed: int, total: int | None) -> None:
        bar = self._bars.get(digest)
        if bar is None or (bar.disable and completed != total):
            bar = self._bars[digest] = self._bar(
                desc=_name(digest),
                # For the speed only bytes of this attempt count.
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


def bar_class() -> type[tqdm[Any]] | None:
    """Return tqdm's class, or ``None`` if tqdm, the extra ``progress``, is not installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    # No thread: the bars are redrawn often enough.
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def progress_in(terminal: Terminal) -> Progress:
    """Return the progress for ``terminal``. Bars need tqdm, the extra ``progress``."""
    if terminal.is_quiet:
        return Progress()
    bar = bar_class() if terminal.is_interactive else None
    if bar is not None:
        return Bars(terminal, bar)
    return Lines(terminal)


def _name(digest: str) -> str:
    return re.sub(r"\W", "", digest.rpartition(":")[2])[:DIGEST_DIGITS]
