"""``manage.py ollama pull``: download a model to an Ollama, and retry if the connection is lost."""

from __future__ import annotations

from collections.abc import Generator
from time import sleep
from typing import Final

import httpx
import ollama
from django.core.management.base import CommandError

from .. import _conf
from .._closing import closed
from ..backends._ollama_client import OllamaClient
from .engines import (
    backend_error,
    describe_error,
    invalid_response_errors,
    open_client,
    select_ollamas,
)
from .progress import Progress, progress_in
from .terminal import Terminal, printable

__all__ = ["pull_model"]

#: The maximum number of consecutive attempts without progress.
ATTEMPTS: Final = 5

#: The pause before the second attempt. Each attempt without progress doubles it.
PAUSE_SECONDS: Final = 1


def pull_model(terminal: Terminal, name: str, alias: str | None) -> None:
    """Download the model ``name`` to the backend ``alias``, or to each member of a pool.

    Ollama keeps the completed part of each layer. So if the connection is lost, the pull is
    retried as long as there is progress.

    Raises:
        CommandError: The backend does not exist, Ollama cannot be reached or sends an error, or
            there is no progress. All members of a pool are tried first.
    """
    failures = []
    for backend in select_ollamas(alias or _conf.DEFAULT_BACKEND):
        try:
            with open_client(backend) as client, progress_in(terminal) as progress:
                _Pull(backend.alias, name, client, progress).run()
        except KeyboardInterrupt:
            terminal.info("Interrupted. Run the same command again to continue.")
            raise
        except CommandError as error:
            failures.append(error)
        else:
            done = f"The backend {backend.alias!r} has {name!r}."
            terminal.info((done, terminal.style.SUCCESS))
    if failures:
        raise CommandError("\n".join(map(str, failures))) from failures[0]


class _Interrupted(Exception):
    """The response ended before it was complete."""


class _Pull:
    """The pull of one model, over as many attempts as it takes."""

    def __init__(self, alias: str, name: str, client: OllamaClient, progress: Progress) -> None:
        self._alias = alias
        self._name = name
        self._client = client
        self._progress = progress
        self._completed: dict[str, int] = {}
        self._totals: dict[str, int | None] = {}
        self._statuses: set[str] = set()

    def run(self) -> None:
        failures = 0
        while True:
            before = dict(self._completed)
            try:
                return self._attempt()
            except _Interrupted as error:
                failures = 0 if self._completed != before else failures + 1
                if failures == ATTEMPTS:
                    raise CommandError(
                        f"The backend {self._alias!r}: {error} There was no progress in "
                        f"{ATTEMPTS} attempts. Run the command again to continue."
                    ) from error
                pause = PAUSE_SECONDS * 2 ** max(0, failures - 1)
                self._progress.message(f"{error} Retrying in {pause:g} s.")
                sleep(pause)

    def _attempt(self) -> None:
        """Send the request once, and read the response to its end.

        Raises:
            _Interrupted: The attempt failed, and a retry may help.
            CommandError: The pull failed.
        """
        parts = self._parts()
        with closed(parts):
            for part in parts:
                if part.status == "success":
                    return self._complete_layers()
                self._feed(part)
        raise _Interrupted("The response ended before it was complete.")

    def _parts(self) -> Generator[ollama.ProgressResponse]:
        try:
            with invalid_response_errors():
                yield from self._client.pull(self._name, stream=True)
        except httpx.TransportError as error:
            if not self._statuses and isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise backend_error(self._alias, error) from error
            raise _Interrupted(describe_error(error)) from error
        except Exception as error:
            raise backend_error(self._alias, error) from error

    def _feed(self, part: ollama.ProgressResponse) -> None:
        digest, status = part.digest, printable(part.status or "")
        if digest:
            completed = max(0, part.completed or 0)
            self._completed[digest] = max(self._completed.get(digest, 0), completed)
            self._totals[digest] = part.total
            self._progress.update(digest, completed, part.total)
        else:
            if not status.startswith("pulling"):
                self._complete_layers()
            # Each attempt sends all statuses again.
            if status not in self._statuses:
                self._progress.message(status)
        self._statuses.add(status)

    def _complete_layers(self) -> None:
        # Ollama's last update of a layer is below its total.
        for digest, total in self._totals.items():
            if total is not None:
                self._progress.update(digest, total, total)
