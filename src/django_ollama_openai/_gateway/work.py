"""The work for one request: the attempts at it, and the bytes for the client. No I/O."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured

from .._wire.engine import EngineRequest
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError, InvalidRequest, ModelNotFound
from .accounting import Account
from .failures import is_backend_failure, log_fallback, log_missing_model, to_client_error
from .routing import Route
from .sources import Source

__all__ = ["Attempt", "Work", "allows_fallback"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Attempt:
    """One attempt at an answer: with the request's own route, or with one of its fallbacks."""

    route: Route
    ticket: QueueTicket


class Work(Generic[T]):
    """Account for the items of ``sources``, and turn them into bytes for the client.

    ``request`` is the client's request: it decides which fallbacks can answer.
    """

    is_stream = False

    def __init__(
        self,
        *,
        route: Route,
        request: EngineRequest,
        sources: Sequence[Source[Any, T]],
        account: Account,
    ) -> None:
        self.sources = sources
        self.account = account
        #: The current attempt. The sources go from one to the next together.
        self.attempt = Attempt(route, account.new_ticket())
        self._route = route
        self._request = request
        self._fallbacks = list(route.fallbacks)
        self._failure: GatewayError | None = None
        self._has_begun = False
        self._lock = threading.Lock()

    def claim(self, attempt: Attempt) -> bool:
        """Return whether a source may use the first item of ``attempt``. It may not if the attempt
        is no longer the current one: an answer comes from one model."""
        with self._lock:
            self._has_begun = self._has_begun or attempt is self.attempt
            return attempt is self.attempt

    def next_attempt(self, failed: Attempt, error: Exception) -> None:
        """Make the next attempt the current one, unless ``failed`` no longer is.

        Raises:
            Exception: ``error``, if another model cannot help or the answer has begun; the error of
                the first attempt, if no model is left.
        """
        with self._lock:
            if failed is self.attempt:
                self.attempt = self._fallback(error)

    def _fallback(self, error: Exception) -> Attempt:
        if not self._route.fallbacks or self._has_begun:
            raise error
        if self._failure is None and not allows_fallback(error):
            raise error
        client_error = self.to_client_error(error)
        self._failure = self._failure or client_error
        while self._fallbacks and allows_fallback(error):
            route = self._fallbacks.pop(0)
            if self._can_answer(route):
                log_fallback(self._route, route, self.account.request_id)
                self.account.note_fallback(route, client_error)
                return Attempt(route, self.account.new_ticket())
        # The client gets the error of the first attempt.
        self.account.note_last_failure(self._route, client_error)
        raise self._failure

    def _can_answer(self, route: Route) -> bool:
        """Return whether the backend of ``route`` supports the request with all its parameters."""
        try:
            backend = route.backend
            backend.check_support(self._request)
        except InvalidRequest:
            return False
        except ImproperlyConfigured as error:
            # The system checks report it, too.
            to_client_error(error, route.alias, self.account.request_id)
            return False
        return not backend.unsupported_parameters(self._request)

    def begin(self) -> bytes:
        """Return the bytes to send before an engine has answered. After them, a failure is a part
        of the stream."""
        return b""

    def feed(self, item: T) -> bytes:
        """Return the bytes to send for ``item``: none until the answer is complete, unless it is
        streamed."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """Note that the sources have ended, and return the last bytes to send."""
        raise NotImplementedError

    def fail(self, error: Exception) -> GatewayError:
        """Note that ``error`` has ended the answer, and return the error that the client gets."""
        client_error = self._failure if error is self._failure else self.to_client_error(error)
        self.account.failed(client_error)
        return client_error

    def failure_frame(self, error: GatewayError) -> bytes:
        """Return the bytes that end a stream with ``error`` after a part of it was sent."""
        raise NotImplementedError

    def to_client_error(self, error: Exception) -> GatewayError:
        """Log ``error`` of the current attempt, and return the error that the client gets. It names
        the model as the client does: the backend has its own name for it."""
        public, route = self._route.name, self.attempt.route
        if isinstance(error, ModelNotFound):
            # Fallbacks are named by the settings, too.
            if route.configured or route is not self._route:
                log_missing_model(route, self.account.request_id)
            return ModelNotFound(public)
        if isinstance(error, InvalidRequest):
            name = re.escape(route.model)
            # As a whole word: a model may be called "a". A registry may stand before it.
            error.message = re.sub(
                rf"(?<![\w./:-])(?:[\w.-]+(?::\d+)?/)*{name}(?![\w/:-]|\.\w)",
                lambda _: public,
                error.message,
            )
        return to_client_error(error, route.alias, self.account.request_id)


def allows_fallback(error: Exception) -> bool:
    """Return whether another model may succeed after ``error``: the request is not the reason."""
    if not isinstance(error, GatewayError):
        return True
    return is_backend_failure(error) or isinstance(error, ModelNotFound)
