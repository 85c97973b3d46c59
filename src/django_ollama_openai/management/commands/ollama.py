"""``manage.py ollama``: what can be said on the command line, and what it does."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Final

from django.core.checks import Tags
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ..ask import ask
from ..inventory import list_loaded, list_models, remove_models, show_model
from ..pull import pull_model
from ..status import report_status
from ..terminal import Terminal

__all__ = ["Command"]

INTERRUPTED: Final = 130
"""What shells say of a command that Ctrl-C has ended."""


class Command(BaseCommand):
    help = "Look after the engines behind the site's AI gateway and their models, and ask them."

    # Those of OLLAMA_OPENAI, and not those of the site's URLs and tables: what is wrong with these
    # keeps nobody from pulling a model.
    requires_system_checks = [Tags.compatibility]  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = parser.add_subparsers(
            dest="subcommand", required=True, metavar="subcommand", title="subcommands"
        )

        def add(name: str, help: str, backend: str, description: str = "") -> CommandParser:
            command: CommandParser = subcommands.add_parser(
                name,
                help=help,
                description=f"{help} {description}".strip(),
                parents=[_everywhere()],
            )
            command.add_argument("--backend", metavar="ALIAS", help=backend)
            return command

        add(
            "status",
            "Say whether the backends are ready, and what they are.",
            "Ask only the backend with this alias in BACKENDS.",
            "Ends with status 1 if one is not.",
        )
        add(
            "models",
            "List the models of the backends, and the names of MODELS that lead to them.",
            "List only those of the backend with this alias in BACKENDS.",
        )
        pull = add(
            "pull",
            "Have an Ollama download a model.",
            "Alias of the Ollama in BACKENDS, or of a pool of some; 'default' if left out.",
            "If it is interrupted, run it again: it goes on from where it was.",
        )
        pull.add_argument("name", metavar="NAME", help="The model, such as llama3.2 or qwen3:8b.")
        show = add(
            "show",
            "Say what there is to know about a model of an Ollama.",
            "Alias of the Ollama in BACKENDS; 'default' if left out.",
        )
        show.add_argument("name", metavar="NAME", help="The model as Ollama calls it.")
        rm = add(
            "rm",
            "Delete models from an Ollama, without a question.",
            "Alias of the Ollama in BACKENDS, or of a pool of some; 'default' if left out.",
        )
        rm.add_argument("names", metavar="NAME", nargs="+", help="A model as Ollama calls it.")
        add(
            "ps",
            "List the models that the Ollamas have in memory.",
            "List only those of the Ollama with this alias in BACKENDS.",
        )
        asking = add(
            "ask",
            "Ask a model, by the way that a client's request would take.",
            "Ask as a client of a mount with this backend; 'default' if left out.",
            "The answer goes to the standard output as it comes, and what the model thinks before "
            "to the standard error; --verbosity 0 leaves that out.",
        )
        asking.add_argument("question", help="The question; - reads it from the standard input.")
        asking.add_argument(
            "--model", metavar="NAME", help="Public name of the model; DEFAULT_MODEL if left out."
        )
        asking.add_argument("--system", metavar="TEXT", help="What the model is told to be.")

    def handle(self, *args: Any, **options: Any) -> None:
        terminal = Terminal(self.stdout, self.stderr, self.style, options["verbosity"])
        try:
            self._run(terminal, options)
        except ImproperlyConfigured as error:
            # Where the checks were skipped.
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever reads has read enough. What is left to be written would fail once more at the
            # end, if there is any (Python's documentation, "Note on SIGPIPE").
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    def _run(self, terminal: Terminal, options: dict[str, Any]) -> None:
        alias = options["backend"]
        match options["subcommand"]:
            case "status":
                report_status(terminal, alias)
            case "models":
                list_models(terminal, alias)
            case "pull":
                pull_model(terminal, options["name"], alias)
            case "show":
                show_model(terminal, options["name"], alias)
            case "rm":
                remove_models(terminal, options["names"], alias)
            case "ps":
                list_loaded(terminal, alias)
            case "ask":
                ask(
                    terminal,
                    options["question"],
                    model=options["model"],
                    system=options["system"],
                    alias=alias,
                )


def _everywhere() -> CommandParser:
    """Django's own options, which may stand after the subcommand too. There they have no defaults,
    which would undo what was said before it."""
    parser = CommandParser(add_help=False, argument_default=argparse.SUPPRESS)
    hidden = argparse.SUPPRESS
    parser.add_argument("-v", "--verbosity", type=int, choices=range(4), help=hidden)
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, help=hidden)
    for name in ("--no-color", "--force-color", "--traceback", "--skip-checks"):
        parser.add_argument(name, action="store_true", default=hidden, help=hidden)
    return parser
