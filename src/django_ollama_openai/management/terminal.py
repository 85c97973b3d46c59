"""Write to the terminal. Text from engines must not be able to control it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias, cast

from django.core.management.base import OutputWrapper
from django.core.management.color import Style
from django.utils import timezone

__all__ = ["INDENT", "Styled", "Terminal", "local_time", "printable", "pull_advice", "size"]

INDENT: Final = "    "

#: A text, and one of the functions of Django's ``style``.
Styled: TypeAlias = tuple[str, Callable[[str], str]]

# Including those of C1, since U+009B starts an escape sequence like ESC and "[". Characters that
# change the direction of text could disguise it, and U+2028 and U+2029 start lines.
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

#: In bytes. Larger sizes in the responses of engines are invalid.
LARGEST_SIZE: Final = 10**18


def printable(text: str) -> str:
    """Return ``text`` without control characters, except line feeds and tabs, and without
    characters that change the direction of text."""
    return _CONTROL.sub("", text)


def pull_advice(model: str, alias: str) -> str:
    """Return the advice to pull ``model`` to the backend ``alias``, with a command for a shell."""
    command = ["manage.py", "ollama", "pull", model, "--backend", alias]
    return f" Pull it: {shlex.join(' '.join(printable(word).split()) for word in command)}"


class Terminal:
    """The standard output and standard error of a command. A ``verbosity`` of 0 limits them to the
    requested information."""

    def __init__(
        self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style, verbosity: int
    ) -> None:
        self.style = style
        self.is_quiet = verbosity < 1
        self._stdout = stdout
        self._stderr = stderr
        #: The standard output as a file, for progress bars.
        self.file = cast(TextIO, _File(stdout))

    @property
    def is_interactive(self) -> bool:
        """Return whether the standard output is a terminal, and not a file or a pipe."""
        return self._stdout.isatty()

    def line(self, *pieces: str | Styled) -> None:
        """Write a line to the standard output, and flush it for readers of a log."""
        text = "".join(
            printable(piece) if isinstance(piece, str) else piece[1](printable(piece[0]))
            for piece in pieces
        )
        self._stdout.write(_encodable(text, self._stdout))
        self._stdout.flush()

    def info(self, *pieces: str | Styled) -> None:
        """Write a line with additional information to the standard output."""
        if not self.is_quiet:
            self.line(*pieces)

    def write(self, text: str) -> None:
        """Write a part of an answer to the standard output, and flush it. In files and pipes it is
        unchanged."""
        _write_piece(self._stdout, text)

    def write_stderr(self, text: str) -> None:
        """Write a part of additional information to the standard error, and flush it."""
        if not self.is_quiet:
            _write_piece(self._stderr, text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> None:
        """Write ``rows`` below ``head``, in columns as wide as their cells."""
        cells = [[" ".join(printable(cell).split()) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for number, row in enumerate(cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text = indent + "  ".join(padded).rstrip()
            self.line(text if number else (text, self.style.MIGRATE_LABEL))


class _File:
    """A file whose ``write()`` adds neither line feeds nor colours, as that of Django's wrapper
    does."""

    def __init__(self, output: OutputWrapper) -> None:
        self._output = output

    def write(self, text: str) -> None:
        self._output.write(text, _plain, ending="")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)


def _plain(text: str) -> str:
    return text


def _write_piece(output: OutputWrapper, text: str) -> None:
    text = printable(text) if output.isatty() else text
    output.write(_encodable(text, output), _plain, ending="")
    output.flush()


def _encodable(text: str, output: OutputWrapper) -> str:
    """Return ``text`` with a ``?`` for each character that the encoding of ``output`` lacks."""
    encoding = getattr(output, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def size(count: float | None) -> str:
    """Return a number of bytes in decimal units, as Ollama does, or ``""`` if it is unknown or
    impossible."""
    if count is None or not 0 <= count <= LARGEST_SIZE:
        return ""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def local_time(moment: datetime | None) -> str:
    """Return ``moment``, which is in UTC if it is naive, in the site's time zone, to the minute.
    Return ``""`` for ``None``."""
    if moment is None:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return f"{timezone.localtime(aware):%Y-%m-%d %H:%M}"
    except OverflowError:
        # Beyond the range of datetime in the site's time zone.
        return ""
