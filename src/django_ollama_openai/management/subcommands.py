"""Subcommands of ``manage.py ollama`` that optional apps bring.

The app's ``AppConfig`` names them as ``ollama_openai_commands``: a dict of names → dotted paths of
subclasses of :class:`BaseSubcommand`.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import CommandParser

from .. import _conf
from .from_apps import create
from .terminal import Terminal

__all__ = ["BaseSubcommand", "subcommands"]


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
