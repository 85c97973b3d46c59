"""``manage.py ollama``: the command line of all subcommands."""

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
from ..prune import age, prune
from ..pull import pull_model
from ..status import report_status
from ..subcommands import subcommands as subcommands_of_apps
from ..terminal import Terminal

__all__ = ["Command"]

#: The exit code after Ctrl-C, as in shells.
INTERRUPTED: Final = 130


class Command(BaseCommand):
    help = "Checks the engines behind the site's AI gateway, manages their models, and asks them."

    # Those of OLLAMA_OPENAI only: errors in the site's URLs and models need not prevent a pull.
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
                parents=[_django_options()],
            )
            command.add_argument("--backend", metavar="ALIAS", help=backend)
            return command

        add(
            "status",
            "Check whether the backends are ready.",
            "Alias of the backend in BACKENDS; all backends by default.",
            "The exit code is 1 if one is not.",
        )
        add(
            "models",
            "List the models of the backends, with their names in MODELS.",
            "Alias of the backend in BACKENDS; all backends by default.",
        )
        pull = add(
            "pull",
            "Download a model to an Ollama.",
            "Alias of an Ollama in BACKENDS, or of a pool of them; 'default' by default.",
            "An interrupted download continues when the command is run again.",
        )
        pull.add_argument("name", metavar="NAME", help="The model, such as llama3.2 or qwen3:8b.")
        show = add(
            "show",
            "Show details of a model of an Ollama.",
            "Alias of an Ollama in BACKENDS, or of a pool of them; 'default' by default.",
        )
        show.add_argument("name", metavar="NAME", help="Ollama's name of the model.")
        rm = add(
            "rm",
            "Delete models from an Ollama, without confirmation.",
            "Alias of an Ollama in BACKENDS, or of a pool of them; 'default' by default.",
        )
        rm.add_argument("names", metavar="NAME", nargs="+", help="Ollama's name of a model.")
        add(
            "ps",
            "List the models that the Ollamas have in memory.",
            "Alias of an Ollama in BACKENDS, or of a pool of them; all by default.",
        )
        ask_parser = add(
            "ask",
            "Ask a model a question, on the path of a client's request.",
            "Alias in BACKENDS of the mount's backend; 'default' by default.",
            "The answer is written to standard output while it is generated, the model's reasoning "
            "to standard error. --verbosity 0 omits the reasoning.",
        )
        ask_parser.add_argument("question", help="The question; - reads it from standard input.")
        ask_parser.add_argument(
            "--model", metavar="NAME", help="Public name of the model; DEFAULT_MODEL by default."
        )
        ask_parser.add_argument("--system", metavar="TEXT", help="A system message.")
        self._add_prune(subcommands)
        for name, subcommand in subcommands_of_apps().items():
            parser_of_app: CommandParser = subcommands.add_parser(
                name, help=subcommand.help, description=subcommand.help, parents=[_django_options()]
            )
            subcommand.add_arguments(parser_of_app)
            parser_of_app.set_defaults(subcommand_of_app=subcommand)

    def _add_prune(self, subcommands: Any) -> None:
        help = "Delete what installed apps have kept for long enough."
        parser: CommandParser = subcommands.add_parser(
            "prune",
            help=help,
            description=f"{help} It works in small batches; Ctrl-C ends it at any time.",
            parents=[_django_options()],
        )
        parser.add_argument(
            "--only", metavar="NAME", help="What to prune, such as chat; all by default."
        )
        parser.add_argument(
            "--older-than",
            metavar="AGE",
            type=age,
            help="The age, such as 90d, in place of those in the settings.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only print how many would be deleted."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        terminal = Terminal(self.stdout, self.stderr, self.style, options["verbosity"])
        try:
            self._run(terminal, options)
        except ImproperlyConfigured as error:
            # With --skip-checks.
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader has closed the pipe. Flushing the rest at exit would fail, too (Python's
            # documentation, "Note on SIGPIPE").
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    def _run(self, terminal: Terminal, options: dict[str, Any]) -> None:
        if (subcommand := options.get("subcommand_of_app")) is not None:
            subcommand.handle(terminal, options)
            return
        if options["subcommand"] == "prune":
            prune(
                terminal,
                only=options["only"],
                older_than=options["older_than"],
                is_dry=options["dry_run"],
            )
            return
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


def _django_options() -> CommandParser:
    """Return a parser of Django's own options, which may also follow the subcommand. It has no
    defaults, which would override the options before the subcommand."""
    parser = CommandParser(add_help=False, argument_default=argparse.SUPPRESS)
    hidden = argparse.SUPPRESS
    parser.add_argument("-v", "--verbosity", type=int, choices=range(4), help=hidden)
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, help=hidden)
    for name in ("--no-color", "--force-color", "--traceback", "--skip-checks"):
        parser.add_argument(name, action="store_true", default=hidden, help=hidden)
    return parser
