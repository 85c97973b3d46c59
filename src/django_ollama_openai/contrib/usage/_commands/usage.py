"""The subcommand ``usage`` of ``manage.py ollama``."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.utils.timezone import now

from ....exceptions import InvalidRequest
from ....management.subcommands import BaseSubcommand
from ....management.terminal import Terminal
from .._recording.record import billing_zone
from .._recording.sums import PrunedError, rebuild
from .._reports.csv import rows_as_csv
from .._reports.groups import FIGURES, GROUPS, Group, Line, amount_text, lines, totals
from .._reports.ranges import read_range, zone_of
from .._views.usage import iso, read_groups
from ..conf import usage_settings
from ..models import UsageBucket

__all__ = ["Usage"]

#: The columns of the table, the most important first: those at the end go where a terminal is
#: narrow.
_COLUMNS: Final = (
    ("requests", "REQUESTS"),
    ("cost", "COST"),
    ("prompt_tokens", "PROMPT"),
    ("completion_tokens", "COMPLETION"),
    ("errors", "ERRORS"),
    ("cancelled", "CANCELLED"),
    ("cached_tokens", "CACHED"),
    ("reasoning_tokens", "REASONING"),
    ("unpriced_requests", "NO PRICE"),
)
GAP: Final = 2
NARROWEST_NAME: Final = 12


class Usage(BaseSubcommand):
    help = "Show what was used, and what it costs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--start", metavar="DATE", help="A date or time. Default: the first of this month."
        )
        parser.add_argument(
            "--end", metavar="DATE", help="A date or time, exclusive. Default: the next month."
        )
        parser.add_argument(
            "--by",
            metavar="GROUPS",
            default="model",
            help=f"Some of {', '.join(GROUPS)}, with commas. Default: model.",
        )
        parser.add_argument(
            "--bucket", choices=("hour", "day", "month"), help="A line for each of them."
        )
        parser.add_argument("--timezone", metavar="ZONE", help="Such as Europe/Berlin.")
        parser.add_argument("--csv", action="store_true", help="Write CSV.")
        parser.add_argument(
            "--rebuild",
            nargs=2,
            metavar=("FIRST", "LAST"),
            type=_day,
            help="Make the sums of these days anew from their records.",
        )

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        if options["rebuild"]:
            _rebuild(terminal, *options["rebuild"])
            return
        try:
            zone = zone_of(options["timezone"], billing_zone(), "--timezone")
            today = now().astimezone(zone).date()
            period = read_range(options["start"], options["end"], zone, today, options["bucket"])
            groups = read_groups(options["by"], "--by")
        except InvalidRequest as error:
            raise CommandError(error.message) from error
        found = lines(
            UsageBucket.objects.all(),
            period,
            bucket=options["bucket"],
            group_by=groups,
            currency=usage_settings().CURRENCY,
        )
        columns = [column for name in groups for column in GROUPS[name]]
        if options["csv"]:
            cells = (
                [
                    *([iso(line.start)] if options["bucket"] else []),
                    *(line.group[column] for column in columns),
                    *(line.figures[name] for name in FIGURES),
                    amount_text(line.cost),
                    line.currency,
                ]
                for line in found
            )
            head = [*(["start"] if options["bucket"] else []), *columns, *FIGURES]
            for piece in rows_as_csv([*head, "cost", "currency"], cells):
                terminal.write(piece.decode())
            return
        start, end = (moment.astimezone(zone) for moment in (period.start, period.end))
        terminal.info(f"From {start:%Y-%m-%d %H:%M} to before {end:%Y-%m-%d %H:%M}, {zone}")
        _table(terminal, found, groups, options["bucket"], zone)


def _table(
    terminal: Terminal, found: Sequence[Line], groups: Sequence[Group], bucket: Any, zone: Any
) -> None:
    pattern = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}
    names = [name.upper() for name in groups]
    head = [*([bucket.upper()] if bucket else []), *names]
    rows = []
    for line in found:
        start = [line.start.astimezone(zone).strftime(pattern[bucket])] if bucket else []
        rows.append([*start, *(_name(line, name) for name in groups), *_figures(line)])
    figures, costs = totals(found)
    for number, (currency, cost) in enumerate(sorted(costs.items()) or [("", None)]):
        total = Line(found[0].start if found else now(), {}, currency, dict(figures), cost)
        cells = _figures(total) if not number else ["", f"{cost:,f} {currency}"]
        cells += [""] * (len(_COLUMNS) - len(cells))
        label = ["Total" if not number else "", *[""] * (len(head) - 1)] if head else []
        rows.append([*label, *cells])
    titles = [*head, *(title for _, title in _COLUMNS)]
    _fit(terminal, titles, rows, len(head))


def _name(line: Line, group: Group) -> str:
    """Return the name of a group in a line; a dash for none."""
    return str(line.group[GROUPS[group][-1]] or "–")


def _figures(line: Line) -> list[str]:
    cost = "–" if line.cost is None else f"{line.cost.normalize():,f} {line.currency}"
    return [cost if name == "cost" else f"{line.figures[name]:,}" for name, _ in _COLUMNS]


def _fit(
    terminal: Terminal, head: Sequence[str], rows: Sequence[Sequence[str]], names: int
) -> None:
    """Write a table: in a terminal, with as many columns as have room, and long names cut."""
    count = len(head)
    if terminal.is_interactive:
        room = shutil.get_terminal_size().columns

        def width(column: int) -> int:
            return max(len(row[column]) for row in (head, *rows)) + GAP

        count, left = names, room - names * (NARROWEST_NAME + GAP)
        while count < len(head) and width(count) <= left:
            left -= width(count)
            count += 1
        longest = NARROWEST_NAME + left // max(names, 1)
        rows = [
            [
                cell[: longest - 1] + "…" if n < names and len(cell) > longest else cell
                for n, cell in enumerate(row)
            ]
            for row in rows
        ]
    terminal.table(list(head[:count]), [list(row[:count]) for row in rows])


def _day(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, such as 2026-11-01.") from None
    return found


def _rebuild(terminal: Terminal, first: date, last: date) -> None:
    if last < first or last - first > timedelta(days=3_660):
        raise CommandError("The last day has to be within ten years after the first.")
    try:
        for day in rebuild(first, last):
            terminal.info(f"{day} is done.")
    except PrunedError as error:
        raise CommandError(f"{error} Its sums stay as they are.") from error
