"""The result of a request, for policies, recorders and signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .._wire.delta import Usage
from ..exceptions import GatewayError
from .django_errors import as_gateway_error

__all__ = ["CANCELLED", "Outcome", "Record", "Timings", "failure_of"]

#: The finish reason of a request whose client disconnected.
CANCELLED: Final = "cancelled"


@dataclass(slots=True, frozen=True)
class Timings:
    """Durations in seconds.

    ``queued`` is the time that the request waited for slots of backends; of several choices, that
    of the one that waited longest. The other two count from the moment the request went to the
    backend, and include it. ``time_to_first_token`` is ``None`` if there was none.
    """

    time_to_first_token: float | None
    total: float
    queued: float


NO_USAGE: Final = Usage()
NO_TIME: Final = Timings(time_to_first_token=None, total=0.0, queued=0.0)


@dataclass(slots=True, frozen=True)
class Outcome:
    """The result of a request.

    ``usage`` is the sum of all choices. ``finish_reason`` is that of the first choice,
    ``"cancelled"`` if the client disconnected, and ``None`` without choices or after an error.
    ``error`` is the error that the client gets. ``answered_by`` is the public name of the model
    that was used last; ``None`` if the request reached none. ``backend`` is the alias of the last
    backend.
    """

    usage: Usage = NO_USAGE
    timings: Timings = NO_TIME
    finish_reason: str | None = None
    error: GatewayError | None = None
    answered_by: str | None = None
    backend: str | None = None


@dataclass(slots=True, frozen=True)
class Record(Outcome):
    """An outcome with the messages of all choices, in OpenAI's format, as far as they were
    produced."""

    messages: tuple[dict[str, Any], ...] = ()


def failure_of(error: BaseException) -> Outcome:
    """Return the outcome of a request that ``error`` ended before it reached a model."""
    client_error = as_gateway_error(error)
    if client_error is None and isinstance(error, Exception):
        client_error = GatewayError("The server had an error while processing your request.")
    return Outcome(finish_reason=CANCELLED if client_error is None else None, error=client_error)
