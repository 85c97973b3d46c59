"""The subcommand ``erase`` of ``manage.py ollama``."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from ...management.prune import run_prunings
from ...management.subcommands import BaseSubcommand
from ...management.terminal import Terminal
from ._store.retention import (
    delete_completions,
    delete_conversations,
    owned_by,
    owner_key,
    pruning_of,
)

__all__ = ["Erase"]

OWNERS: Final = ("user:", "workspace:", "key:")


class Erase(BaseSubcommand):
    help = "Delete all conversations, responses and completions of an owner, with their files."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "owner",
            metavar="OWNER",
            help="user:ID, workspace:ID or key:NAME, as the admin shows it.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only print how many would be deleted."
        )

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        owner: str = options["owner"]
        if not owner.startswith((*OWNERS, "sha256:")):
            raise CommandError(f"{owner!r} is no owner such as user:7, workspace:ws_… or key:wiki.")
        conversations, completions = owned_by(owner_key(owner))
        prunings = [
            pruning_of("conversations and threads", conversations, delete_conversations),
            pruning_of("completions", completions, delete_completions),
        ]
        run_prunings(terminal, prunings, is_dry=options["dry_run"])
