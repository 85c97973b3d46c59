"""The backends that a command is about, and what is said when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final, TypeVar

import httpx
import ollama
from django.core.management.base import CommandError

from .. import _conf
from .._gateway.failures import cause_of, said_by, where_of
from ..backends import BaseBackend, OllamaBackend, backends
from ..backends._http_client import connection_failure
from ..backends._ollama_client import OllamaClient
from ..exceptions import GatewayError, UpstreamError
from .survey import Answer, survey
from .terminal import printable

__all__ = [
    "ask_ollama",
    "ask_ollamas",
    "chosen",
    "client_of",
    "failure",
    "listed",
    "making_sense",
    "named_ollamas",
    "reason",
    "the_ollamas",
]

T = TypeVar("T")

WITHIN_SECONDS: Final = 30

MAX_REASON: Final = 2000
"""Characters: what stands between the site and an engine may answer with a page of HTML."""


def chosen(alias: str | None) -> list[str]:
    """The backend that was named, or all there are.

    Raises:
        CommandError: there is no such backend.
    """
    known = list(backends)
    if alias is None:
        return known
    if alias not in known:
        raise CommandError(f"There is no backend {alias!r}. BACKENDS has {listed(known)}.")
    return [alias]


def the_ollamas(alias: str | None) -> list[OllamaBackend]:
    """The same of those that are Ollamas, or are made of some.

    Raises:
        CommandError: there is no such backend, or it is another engine.
    """
    found = _ollamas(chosen(alias))
    if found:
        return found
    if alias is None:
        raise CommandError("None of the BACKENDS is an Ollama.")
    others = [each.alias for each in _ollamas(backends)]
    kind = type(backends[alias]).__name__
    raise CommandError(
        f"The backend {alias!r} is no Ollama ({kind}), so its models are not managed here. "
        + (f"Name an Ollama with --backend: {listed(others)}." if others else "There is no other.")
    )


def named_ollamas(alias: str | None) -> list[OllamaBackend]:
    """Those of the backend that was named, or of ``default``; raises as :func:`the_ollamas`."""
    return the_ollamas(alias or _conf.DEFAULT_BACKEND)


def _ollamas(aliases: Iterable[str]) -> list[OllamaBackend]:
    made = [backends[each] for alias in aliases for each in backends[alias].engines()]
    # A pool and its members may be asked for together.
    return [backend for backend in dict.fromkeys(made) if isinstance(backend, OllamaBackend)]


@contextmanager
def client_of(backend: OllamaBackend) -> Iterator[OllamaClient]:
    """A client for ``backend``, of its own making."""
    with closing(backend.get_client()) as client:
        yield client


@contextmanager
def making_sense() -> Iterator[None]:
    """Read an answer as what it should be, which is how Ollama's client takes it.

    Raises:
        UpstreamError: it was something else.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UpstreamError("The engine said something that makes no sense.") from error


def ask_ollamas(
    ollamas: Iterable[OllamaBackend], ask: Callable[[OllamaClient], T]
) -> dict[str, Answer[T]]:
    """What ``ask`` gives for each Ollama; one that does not answer is given up."""
    asked = {backend.alias: backend for backend in ollamas}

    def ask_one(backend: BaseBackend) -> T:
        with client_of(asked[backend.alias]) as client, making_sense():
            return ask(client)

    return survey(ask_one, asked, WITHIN_SECONDS)


def ask_ollama(backend: OllamaBackend, ask: Callable[[OllamaClient], T]) -> Answer[T]:
    """The same of one."""
    return ask_ollamas([backend], ask)[backend.alias]


def failure(alias: str, error: BaseException) -> CommandError:
    """What the operator is told of an ``error`` of the backend ``alias``."""
    return CommandError(f"The backend {alias!r}: {reason(error, alias)}")


def reason(error: BaseException, alias: str = "") -> str:
    """What has gone wrong, in the engine's own words where it has said any."""
    match error:
        case GatewayError():
            text = where_of(error, alias) + cause_of(error) + said_by(error)
        case ollama.ResponseError():
            status = f" (status {error.status_code})" if error.status_code > 0 else ""
            text = f"{error.error or 'The engine failed, and did not say why.'}{status}"
        case ConnectionError(__context__=httpx.ConnectError() as behind):
            # What Ollama's client makes of it.
            text = reason(behind, alias)
        case httpx.HTTPError() | httpx.InvalidURL() | httpx.StreamError():
            told = connection_failure(error)
            told.__cause__ = error
            text = reason(told, alias)
        case _:
            text = f"{type(error).__name__}: {error}"
    text = printable(text).strip()
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def listed(aliases: Iterable[str]) -> str:
    """``aliases`` as a message has them."""
    return ", ".join(map(repr, aliases))
