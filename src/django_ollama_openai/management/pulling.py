"""``manage.py ollama pull``: have an Ollama download a model, and see it through."""

from __future__ import annotations

from collections.abc import Generator
from time import sleep
from typing import Final

import httpx
import ollama
from django.core.management.base import CommandError

from .._closing import closed
from ..backends._ollama_client import OllamaClient
from .engines import client_of, failure, making_sense, named_ollamas, reason
from .progress import Progress, progress_in
from .terminal import Terminal, printable

__all__ = ["pull_model"]

ATTEMPTS: Final = 5
"""How often in a row a pull may break off without having got any further."""

PAUSE_SECONDS: Final = 1
"""Before the second attempt; each that gets no further doubles it."""


def pull_model(terminal: Terminal, name: str, alias: str | None) -> None:
    """Download the model ``name``, to each member if the backend is a pool. Ollama keeps what it
    has of a layer, and goes on from there when it is asked again: so a connection that breaks off
    is no failure as long as that helps.

    Raises:
        CommandError: there is no such backend, Ollama cannot be reached, refuses, or gets no
            further; the other members have the model by then.
    """
    failures = []
    for backend in named_ollamas(alias):
        try:
            with client_of(backend) as client, progress_in(terminal) as progress:
                _Pull(backend.alias, name, client, progress).run()
        except KeyboardInterrupt:
            terminal.tell("Interrupted. Run the same command again to go on from here.")
            raise
        except CommandError as error:
            failures.append(error)
        else:
            done = f"The backend {backend.alias!r} has {name!r}."
            terminal.tell((done, terminal.style.SUCCESS))
    if failures:
        raise CommandError("\n".join(map(str, failures))) from failures[0]


class _BrokenOff(Exception):
    """The answer has ended before it was complete."""


class _Pull:
    """One model on its way, over as many requests as it takes."""

    def __init__(self, alias: str, name: str, client: OllamaClient, progress: Progress) -> None:
        self._alias = alias
        self._name = name
        self._client = client
        self._progress = progress
        self._completed: dict[str, int] = {}
        self._totals: dict[str, int | None] = {}
        self._said: set[str] = set()

    def run(self) -> None:
        fruitless = 0
        while True:
            before = dict(self._completed)
            try:
                return self._ask()
            except _BrokenOff as error:
                fruitless = 0 if self._completed != before else fruitless + 1
                if fruitless == ATTEMPTS:
                    raise CommandError(
                        f"The backend {self._alias!r}: {error} It has got no further in "
                        f"{ATTEMPTS} attempts. Run the command again to go on from there."
                    ) from error
                pause = PAUSE_SECONDS * 2 ** max(0, fruitless - 1)
                self._progress.say(f"{error} Asking again in {pause:g} s.")
                sleep(pause)

    def _ask(self) -> None:
        """Ask for the model once, and read until it is there.

        Raises:
            _BrokenOff: it may help to ask again.
            CommandError: it would not.
        """
        parts = self._parts()
        with closed(parts):
            for part in parts:
                if part.status == "success":
                    return self._all_there()
                self._feed(part)
        raise _BrokenOff("The answer ended too early.")

    def _parts(self) -> Generator[ollama.ProgressResponse]:
        try:
            with making_sense():
                yield from self._client.pull(self._name, stream=True)
        except httpx.TransportError as error:
            if not self._said and isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise failure(self._alias, error) from error
            raise _BrokenOff(reason(error)) from error
        except Exception as error:
            raise failure(self._alias, error) from error

    def _feed(self, part: ollama.ProgressResponse) -> None:
        digest, status = part.digest, printable(part.status or "")
        if digest:
            completed = max(0, part.completed or 0)
            self._completed[digest] = max(self._completed.get(digest, 0), completed)
            self._totals[digest] = part.total
            self._progress.show(digest, completed, part.total)
        else:
            if not status.startswith("pulling"):
                self._all_there()
            # A further attempt goes through the same steps.
            if status not in self._said:
                self._progress.say(status)
        self._said.add(status)

    def _all_there(self) -> None:
        # The last that Ollama says of a layer is less than the whole.
        for digest, total in self._totals.items():
            if total is not None:
                self._progress.show(digest, total, total)
