"""``manage.py ollama prune``: delete the old rows of optional apps."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import CommandError

from .progress import bar_class
from .pruning import Pruning, pruners
from .terminal import Terminal

__all__ = ["age", "prune", "run_prunings"]

_AGE: Final = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


def age(text: str) -> timedelta:
    """Return the time that ``text``, such as ``90d``, stands for.

    Raises:
        ArgumentTypeError: It stands for none.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no time such as 12h, 90d or 8w.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def prune(
    terminal: Terminal, *, only: str | None, older_than: timedelta | None, is_dry: bool
) -> None:
    """Delete the old rows of the installed apps, or of the one with the name ``only``. If it
    ``is_dry``, only count them.

    Raises:
        CommandError: There is nothing of that name.
    """
    found = pruners()
    if only is not None and only not in found:
        names = ", ".join(sorted(found)) or "none"
        raise CommandError(f"There is nothing to prune with the name {only!r}, only: {names}.")
    chosen = found.values() if only is None else [found[only]]
    run_prunings(
        terminal, (each for one in chosen for each in one.prunings(older_than)), is_dry=is_dry
    )


def run_prunings(terminal: Terminal, prunings: Iterable[Pruning], *, is_dry: bool) -> None:
    """Carry out ``prunings``, and report the number of deleted rows of each, even if the user
    interrupts it."""
    for pruning in prunings:
        if is_dry:
            terminal.line(f"{pruning.label}: {pruning.count()}")
            continue
        deleted = 0
        try:
            with _bar(terminal, pruning) as update:
                while batch := pruning.delete_batch():
                    deleted += batch
                    update(batch)
        finally:
            terminal.info(f"{pruning.label}: {deleted} deleted")


@contextmanager
def _bar(terminal: Terminal, pruning: Pruning) -> Iterator[Any]:
    """Return the function that moves a progress bar on, which does nothing without a terminal."""
    bar = None if terminal.is_quiet or not terminal.is_interactive else bar_class()
    if bar is None:
        yield lambda count: None
        return
    shown: Any = bar(
        desc=pruning.label,
        total=pruning.count(),
        dynamic_ncols=True,
        leave=False,
        file=terminal.file,
    )
    with shown:
        yield shown.update
