"""The subcommands ``bill`` and ``deliver`` of ``manage.py ollama``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.timezone import now

from ....management.progress import bar_class
from ....management.subcommands import BaseSubcommand
from ....management.terminal import Terminal
from ...access.commands import find_workspace
from ...access.models import Workspace
from .._billing.closing import Statement, close, is_over, present, statements
from .._billing.deliver import deliver
from ..models import Closing, OutboxEvent, Price
from .arguments import month

__all__ = ["Bill", "Deliver"]


class Bill(BaseSubcommand):
    help = "Show what workspaces have to pay for a month, and close it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--month", required=True, type=month, help="The month: 2026-11.")
        parser.add_argument(
            "--workspace",
            metavar="WORKSPACE",
            help="The slug, id or name of the workspace. Default: all.",
        )
        parser.add_argument(
            "--close",
            action="store_true",
            help="Close the month: the invoices never change, and later records belong to the "
            "next one.",
        )
        parser.add_argument("--json", action="store_true", help="Write JSON.")

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        named, wanted = options["workspace"], options["month"]
        workspaces = (
            [find_workspace(named)] if named else list(Workspace.objects.order_by("name", "pk"))
        )
        if options["close"] and not is_over(wanted):
            raise CommandError(f"{wanted:%Y-%m} is not over: it cannot be closed yet.")
        found: list[Statement] = []
        for workspace in workspaces:
            is_closed = Closing.objects.filter(workspace=workspace, month=wanted).exists()
            if options["close"] or is_closed:
                found += close(workspace, wanted)
            else:
                found += statements(workspace, wanted)
        prices = Price.objects.in_bulk()
        shown = [present(statement, prices) for statement in found]
        if options["json"]:
            data = {"object": "list", "data": shown}
            terminal.line(json.dumps(data, indent=2, ensure_ascii=False))
            return
        for number, invoice in enumerate(shown):
            if number:
                terminal.line("")
            _print(terminal, invoice)


def _print(terminal: Terminal, invoice: dict[str, Any]) -> None:
    title = f"{invoice['workspace_name']}, {invoice['month']}, {invoice['currency']}"
    terminal.line(title, ": ", invoice["id"] or "not closed")
    rows = [
        (
            line["model"],
            f"{line['requests']:,}",
            f"{line['prompt_tokens']:,}",
            f"{line['cached_tokens']:,}",
            f"{line['completion_tokens']:,}",
            f"{Decimal(line['amount']):,f}",
        )
        for line in invoice["lines"]
    ]
    total = ("Total", "", "", "", "", f"{Decimal(invoice['total']):,f}")
    amount = f"AMOUNT ({invoice['currency']})"
    head = ("MODEL", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", amount)
    terminal.table(head, [*rows, total])
    if invoice["unpriced_requests"]:
        terminal.line(f"{invoice['unpriced_requests']:,} requests have no price.")


@contextmanager
def _bar(terminal: Terminal) -> Iterator[Callable[[int], object]]:
    """Return the function that moves a progress bar on, which does nothing without a terminal."""
    bar = None if terminal.is_quiet or not terminal.is_interactive else bar_class()
    if bar is None:
        yield lambda count: None
        return
    due = OutboxEvent.objects.filter(due_at__lte=now()).count()
    options: Any = {"total": due, "dynamic_ncols": True, "leave": False, "file": terminal.file}
    with bar(**options) as shown:
        yield shown.update


class Deliver(BaseSubcommand):
    help = "Deliver the events of the outbox that are due to the webhook, Stripe or OpenMeter."

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        delivered = failed = 0
        with _bar(terminal) as update:
            for count, error in deliver():
                update(count)
                if error:
                    failed += count
                    terminal.write_stderr(f"{count} not delivered: {error}\n")
                else:
                    delivered += count
        terminal.info(f"Delivered: {delivered}. Failed: {failed}.")
        waiting = OutboxEvent.objects.filter(due_at__isnull=False).count()
        if waiting:
            terminal.info(f"Waiting for another attempt: {waiting}.")
        given_up = OutboxEvent.objects.filter(due_at=None, delivered_at=None).count()
        if given_up:
            terminal.info(f"Given up: {given_up}. Their errors are in the admin.")
