"""What the operator sees, and that it is text: what an engine says must not steer the terminal."""

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

Styled: TypeAlias = tuple[str, Callable[[str], str]]
"""A text, and one of the functions of Django's ``style``."""

# Those of C1 too: U+009B begins an escape sequence as well as ESC and "[" do. Those that turn the
# direction of writing show a text as another one, and U+2028 and U+2029 begin lines.
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

LARGEST_SIZE: Final = 10**18
"""Bytes. No file is larger, but an engine may say so."""


def printable(text: str) -> str:
    """``text`` without what controls a terminal or the order of characters; line feeds and tabs
    stay."""
    return _CONTROL.sub("", text)


def pull_advice(model: str, alias: str) -> str:
    """Return the advice to pull ``model`` to the backend ``alias``, with a command for a shell."""
    command = ["manage.py", "ollama", "pull", model, "--backend", alias]
    return f" Pull it: {shlex.join(' '.join(printable(word).split()) for word in command)}"


class Terminal:
    """The two outputs of a command. With a ``verbosity`` of 0 it says only what was asked for."""

    def __init__(
        self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style, verbosity: int
    ) -> None:
        self.style = style
        self.is_quiet = verbosity < 1
        self._stdout = stdout
        self._stderr = stderr
        self.file = cast(TextIO, _File(stdout))
        """The standard output as a file, for whoever draws in it."""

    @property
    def is_interactive(self) -> bool:
        """Whether somebody looks at the standard output, and not a file or a pipe."""
        return self._stdout.isatty()

    def line(self, *pieces: str | Styled) -> None:
        """Write a line to the standard output, at once: somebody may follow a log."""
        text = "".join(
            printable(piece) if isinstance(piece, str) else piece[1](printable(piece[0]))
            for piece in pieces
        )
        self._stdout.write(_encodable(text, self._stdout))
        self._stdout.flush()

    def tell(self, *pieces: str | Styled) -> None:
        """The same with a line that only says what is being done."""
        if not self.is_quiet:
            self.line(*pieces)

    def piece(self, text: str) -> None:
        """Write a part of an answer to the standard output, at once; as it is, unless somebody
        looks at it."""
        _write_piece(self._stdout, text)

    def aside(self, text: str) -> None:
        """Write a part of what accompanies an answer to the standard error, at once."""
        if not self.is_quiet:
            _write_piece(self._stderr, text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> None:
        """Write ``rows`` in columns as wide as they need to be."""
        cells = [[" ".join(printable(cell).split()) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for number, row in enumerate(cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text = indent + "  ".join(padded).rstrip()
            self.line(text if number else (text, self.style.MIGRATE_LABEL))


class _File:
    """``write()`` of Django's wrapper ends every text with a line feed, and may colour it."""

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
    """``text`` with a ``?`` for each character that ``output`` has no bytes for."""
    encoding = getattr(output, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def size(count: float | None) -> str:
    """A number of bytes in the units that Ollama uses, which are decimal; nothing for one that is
    not known or cannot be."""
    if count is None or not 0 <= count <= LARGEST_SIZE:
        return ""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def local_time(moment: datetime | None) -> str:
    """``moment`` in the site's time zone, to the minute; one without a time zone is in UTC."""
    if moment is None:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return f"{timezone.localtime(aware):%Y-%m-%d %H:%M}"
    except OverflowError:
        # The site's time zone takes it out of the calendar.
        return ""
