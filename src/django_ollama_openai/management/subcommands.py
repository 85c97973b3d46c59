"""Subcommands of ``manage.py ollama`` that optional apps bring.

The app's ``AppConfig`` names them as ``ollama_openai_commands``: a dict of names → dotted paths of
subclasses of :class:`BaseSubcommand`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import CommandError, CommandParser

from .. import _conf
from .from_apps import create
from .terminal import Terminal

__all__ = ["ActionsSubcommand", "BaseSubcommand", "subcommands", "validation_message"]


class BaseSubcommand:
    """One subcommand, created for each call of ``manage.py ollama``."""

    #: A sentence for the list of subcommands.
    help: str = ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments of the subcommand to ``parser``."""

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        """Run the subcommand with the parsed ``options``.

        Raises:
            CommandError: It has failed; the message is for people.
        """
        raise NotImplementedError(f"{type(self).__name__} must define handle()")


class ActionsSubcommand(BaseSubcommand):
    """A subcommand with actions of its own, such as ``keys create``."""

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="action")

        def add(action: Callable[..., None], name: str, help: str) -> CommandParser:
            made: CommandParser = actions.add_parser(name, help=help, description=help)
            made.set_defaults(run_action=action)
            return made

        self.add_actions(add)

    def add_actions(self, add: Callable[[Callable[..., None], str, str], CommandParser]) -> None:
        """Add the actions with ``add(method, name, help)``, which returns the action's parser."""
        raise NotImplementedError(f"{type(self).__name__} must define add_actions()")

    def handle(self, terminal: Terminal, options: dict[str, Any]) -> None:
        try:
            options["run_action"](terminal, options)
        except ValidationError as error:
            raise CommandError(validation_message(error)) from error


def validation_message(error: ValidationError) -> str:
    """Return the messages of ``error``, each with the field that it is about."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        text if name == NON_FIELD_ERRORS else f"{name}: {text}"
        for name, texts in error.message_dict.items()
        for text in texts
    )


def subcommands() -> dict[str, BaseSubcommand]:
    """Return the subcommands of the installed apps, by name.

    Raises:
        ImproperlyConfigured: One of them cannot be imported, or is no subcommand.
    """
    found: dict[str, BaseSubcommand] = {}
    for app in apps.get_app_configs():
        for name, path in (getattr(app, _conf.COMMANDS, None) or {}).items():
            found[name] = create(app, path, BaseSubcommand)
    return found
