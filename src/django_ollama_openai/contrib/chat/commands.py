"""The subcommand ``erase`` of ``manage.py ollama``."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from ...auth import Caller, Workspace
from ...management.prune import run_prunings
from ...management.subcommands import BaseSubcommand
from ...management.terminal import Terminal
from ._store.retention import (
    delete_completions,
    delete_conversations,
    owned_by,
    pruning_of,
)
from ._views.callers import Owner

__all__ = ["Erase"]


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
        conversations, completions = owned_by(_as_stored(owner))
        prunings = [
            pruning_of("conversations and threads", conversations, delete_conversations),
            pruning_of("completions", completions, delete_completions),
        ]
        run_prunings(terminal, prunings, is_dry=options["dry_run"])


def _as_stored(owner: str) -> str:
    """Return ``owner``, a ``Caller.owner`` or what the admin shows, as rows have it.

    Raises:
        CommandError: It is no owner.
    """
    kind, _, name = owner.partition(":")
    match kind if name else "":
        case "user":
            return Owner.of(Caller(user=get_user_model()(pk=name))).text
        case "workspace":
            return Owner.of(Caller(workspace=Workspace(id=name, name=""))).text
        case "key":
            return Owner.of(Caller(key_id=name)).text
        case "sha256":
            return owner
    raise CommandError(f"{owner!r} is no owner such as user:7, workspace:ws_… or key:wiki.")
