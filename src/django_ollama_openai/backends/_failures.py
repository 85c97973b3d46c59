"""How an engine failed: the kinds of failure that decide about retries and health."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

import httpx

from ..exceptions import GatewayError
from ._base import BaseBackend
from ._http_client import UpstreamStatusError

__all__ = [
    "causes",
    "is_disconnect",
    "is_error_status",
    "is_unreachable",
    "operator_message",
]

_UNREACHABLE: Final = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)


def is_unreachable(error: BaseException) -> bool:
    """Return whether no connection to the engine could be made. A client cannot cause that while
    the engine is well."""
    return (
        isinstance(error, GatewayError)
        and isinstance(error.__cause__, _UNREACHABLE)
        and not any(map(_is_local, causes(error)))
    )


def _is_local(cause: BaseException) -> bool:
    """Return whether this process has too many open files."""
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def is_error_status(error: BaseException) -> bool:
    """Return whether the engine responded with an error status, which shows that it is alive."""
    return isinstance(error, GatewayError) and isinstance(error.__cause__, UpstreamStatusError)


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection to the engine was lost.

    A request that crashes the engine causes that too, so it predicts little about the next request.
    A timeout predicts nothing: the request may just take long.
    """
    cause = error.__cause__
    return (
        isinstance(error, GatewayError)
        and isinstance(cause, (httpx.TransportError, ConnectionError))
        and not isinstance(cause, (httpx.TimeoutException, httpx.LocalProtocolError))
    )


def operator_message(error: GatewayError, backend: BaseBackend | None) -> str:
    """Return the message of ``error`` for operators. If the engine of ``backend`` cannot be
    reached, it has the address and the remedy; ``error.message``, for clients, has neither.
    """
    if backend is None or not backend.address or not is_unreachable(error):
        return error.message
    return f"The engine cannot be reached at {backend.address}: {backend.advice}."


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that led to ``error``, the nearest first."""
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
