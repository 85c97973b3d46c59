"""Select the backends of a subcommand, query them, and describe their failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final, TypeVar

import httpx
import ollama
from django.core.management.base import CommandError

from .._gateway.failures import describe_failure, engine_message
from ..backends import BaseBackend, OllamaBackend, backends
from ..backends._http_client import connection_error
from ..backends._ollama_client import OllamaClient
from ..exceptions import GatewayError, UpstreamError
from .survey import Answer, survey
from .terminal import printable

__all__ = [
    "backend_aliases",
    "backend_error",
    "describe_error",
    "invalid_response_errors",
    "open_client",
    "query_ollama",
    "query_ollamas",
    "quoted",
    "select_ollamas",
]

T = TypeVar("T")

WITHIN_SECONDS: Final = 30

#: The maximum length of an error message: a proxy before an engine may send a page of HTML.
MAX_REASON: Final = 2000


def backend_aliases(alias: str | None) -> list[str]:
    """Return the alias if it is not ``None``, or those of all backends.

    Raises:
        CommandError: There is no backend ``alias``.
    """
    known = list(backends)
    if alias is None:
        return known
    if alias not in known:
        raise CommandError(f"There is no backend {alias!r}. BACKENDS has {quoted(known)}.")
    return [alias]


def select_ollamas(alias: str | None) -> list[OllamaBackend]:
    """Return the Ollamas among the backend ``alias`` and its members, or among all backends.

    Raises:
        CommandError: There is no backend ``alias``, or there are no Ollamas.
    """
    found = _ollamas(backend_aliases(alias))
    if found:
        return found
    if alias is None:
        raise CommandError("None of the BACKENDS is an Ollama server.")
    others = [each.alias for each in _ollamas(backends)]
    kind = type(backends[alias]).__name__
    raise CommandError(
        f"The backend {alias!r} is not an Ollama server but a {kind}, whose models cannot be "
        "managed. "
        + (f"Use --backend with one of: {quoted(others)}." if others else "There is no other.")
    )


def _ollamas(aliases: Iterable[str]) -> list[OllamaBackend]:
    made = [backends[each] for alias in aliases for each in backends[alias].engines()]
    # Each once, though a pool may be listed beside its members.
    return [backend for backend in dict.fromkeys(made) if isinstance(backend, OllamaBackend)]


@contextmanager
def open_client(backend: OllamaBackend) -> Iterator[OllamaClient]:
    """Open a new client of ``backend``, and close it at the end."""
    with closing(backend.get_client()) as client:
        yield client


@contextmanager
def invalid_response_errors() -> Iterator[None]:
    """Turn the exceptions of Ollama's client for invalid responses into one.

    Raises:
        UpstreamError: The response was invalid.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UpstreamError("The engine sent an invalid response.") from error


def query_ollamas(
    ollamas: Iterable[OllamaBackend], query: Callable[[OllamaClient], T]
) -> dict[str, Answer[T]]:
    """Return the result of ``query`` for each Ollama, by alias, within ``WITHIN_SECONDS``."""
    by_alias = {backend.alias: backend for backend in ollamas}

    def query_one(backend: BaseBackend) -> T:
        with open_client(by_alias[backend.alias]) as client, invalid_response_errors():
            return query(client)

    return survey(query_one, by_alias, WITHIN_SECONDS)


def query_ollama(backend: OllamaBackend, query: Callable[[OllamaClient], T]) -> Answer[T]:
    """Return the result of ``query`` for ``backend``, within ``WITHIN_SECONDS``."""
    return query_ollamas([backend], query)[backend.alias]


def backend_error(alias: str, error: BaseException) -> CommandError:
    """Return the error for operators about ``error`` of the backend ``alias``."""
    return CommandError(f"The backend {alias!r}: {describe_error(error, alias)}")


def describe_error(error: BaseException, alias: str = "") -> str:
    """Return the reason of ``error`` for operators, with the engine's own message if it sent
    one. ``alias`` is the backend, if known."""
    match error:
        case GatewayError():
            text = describe_failure(error, alias) + engine_message(error)
        case ollama.ResponseError():
            status = f" (status {error.status_code})" if error.status_code > 0 else ""
            text = f"{error.error or 'The engine failed without a message.'}{status}"
        case ConnectionError(__context__=httpx.ConnectError() as behind):
            # Raised by Ollama's client.
            text = describe_error(behind, alias)
        case httpx.HTTPError() | httpx.InvalidURL() | httpx.StreamError():
            failure = connection_error(error)
            failure.__cause__ = error
            text = describe_error(failure, alias)
        case _:
            text = f"{type(error).__name__}: {error}"
    text = printable(text).strip()
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def quoted(aliases: Iterable[str]) -> str:
    """Return ``aliases`` in quotes, separated by commas."""
    return ", ".join(map(repr, aliases))
