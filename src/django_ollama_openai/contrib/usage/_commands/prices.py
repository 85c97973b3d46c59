"""The subcommand ``prices`` of ``manage.py ollama``."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.core.management.base import CommandParser
from django.utils.timezone import now

from ....management.subcommands import ActionsSubcommand
from ....management.terminal import Terminal, local_time
from ..conf import usage_settings
from ..models import Price
from .arguments import amount, moment

__all__ = ["Prices"]

#: The options for the fields of a price, and what each is for.
_AMOUNTS = (
    ("input", "a million prompt tokens"),
    ("output", "a million completion tokens"),
    ("cached", "a million cached prompt tokens. Default: as other prompt tokens"),
    ("request", "a request"),
    ("second", "a second of engine time"),
)


class Prices(ActionsSubcommand):
    help = "Set and list the prices of models."

    def add_actions(self, add: Callable[[Callable[..., None], str, str], CommandParser]) -> None:
        set_ = add(self.set, "set", "Set the price of models from a moment on.")
        set_.add_argument(
            "pattern", metavar="PATTERN", help="The models, such as 'llama3*' or '*' for all."
        )
        for name, what in _AMOUNTS:
            set_.add_argument(
                f"--{name}", metavar="PRICE", type=amount, help=f"The price of {what}."
            )
        set_.add_argument(
            "--currency", metavar="CODE", help="The currency, such as EUR. Default: CURRENCY."
        )
        set_.add_argument(
            "--from",
            metavar="DATE",
            type=moment,
            dest="starts_at",
            help="When the price begins, such as 2026-12-01. Default: now.",
        )
        add(self.list, "list", "List all prices.")

    def set(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Set a price."""
        given = {name: options[name] for name, _ in _AMOUNTS if options[name] is not None}
        price = Price(
            model=options["pattern"],
            starts_at=options["starts_at"] or now(),
            currency=options["currency"] or usage_settings().CURRENCY,
            **given,
        )
        price.full_clean()
        price.save()
        terminal.line(price.public_id)
        if options["starts_at"] is not None and price.starts_at < now():
            terminal.write_stderr(
                "Requests that were recorded before keep the price that they have.\n"
            )
        if price.currency != usage_settings().CURRENCY:
            terminal.write_stderr(
                f"Budgets are in {usage_settings().CURRENCY}: they do not count requests at this "
                "price.\n"
            )

    def list(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """List all prices."""
        prices = Price.objects.order_by("model", "starts_at")
        rows = [
            (
                price.public_id,
                price.model,
                local_time(price.starts_at),
                price.currency,
                *(_text(getattr(price, name)) for name, _ in _AMOUNTS),
            )
            for price in prices
        ]
        names = (name.upper() for name, _ in _AMOUNTS)
        terminal.table(("ID", "MODELS", "FROM", "CURRENCY", *names), rows)


def _text(value: Decimal | None) -> str:
    return "" if value is None else f"{value.normalize():f}"
