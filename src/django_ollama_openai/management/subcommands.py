"""Subcommands of ``manage.py ollama`` that optional apps bring.

The app's ``AppConfig`` names them as ``ollama_openai_commands``: a dict of names → dotted paths of
subclasses of :class:`BaseSubcommand`.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandParser
from django.utils.module_loading import import_string

from .. import _conf
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
            try:
                made = import_string(path)()
            except ImportError as error:
                raise ImproperlyConfigured(
                    f"The app {app.name!r} names {path!r}: {error}"
                ) from error
            if not isinstance(made, BaseSubcommand):
                raise ImproperlyConfigured(f"{path!r} is not a subclass of BaseSubcommand.")
            found[name] = made
    return found
