"""The work for one request: which model answers it, and what the client gets. Pure state."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured

from .._wire.engine import EngineRequest
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError, InvalidRequest, ModelNotFound, ShuttingDown
from .accounting import Account
from .failures import log_fallback, log_missing_model, to_client_error
from .routing import Route
from .sources import Source

__all__ = ["Attempt", "Work", "is_backend_failure"]

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Attempt:
    """One way to an answer: the request's own route, or one of its fallbacks."""

    route: Route
    ticket: QueueTicket


class Work(Generic[T]):
    """Accounts for what the sources produce, and turns it into what the client gets.

    ``request`` is the client's, which decides which fallbacks can answer it.
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
        """Return whether a source may use the first item of ``attempt``. It may not if another
        source has left the attempt: an answer comes from one model."""
        with self._lock:
            self._has_begun = self._has_begun or attempt is self.attempt
            return attempt is self.attempt

    def next_attempt(self, failed: Attempt, error: Exception) -> None:
        """Make another attempt the current one, unless ``failed`` no longer is.

        Raises:
            Exception: ``error``, if another model cannot help; the error of the first attempt, if
                no model is left, or the client already has something of this one.
        """
        with self._lock:
            if failed is self.attempt:
                self.attempt = self._fallback(error)

    def _fallback(self, error: Exception) -> Attempt:
        if not self._route.fallbacks or self._has_begun:
            raise error
        if self._failure is None and not is_backend_failure(error):
            raise error
        told = self._told(error)
        self._failure = self._failure or told
        while self._fallbacks and is_backend_failure(error):
            route = self._fallbacks.pop(0)
            if self._can_answer(route):
                log_fallback(self._route, route, self.account.request_id)
                self.account.falls_back(route, told)
                return Attempt(route, self.account.new_ticket())
        # Of the first one, as the client is told.
        self.account.all_have_failed(self._route, told)
        raise self._failure

    def _can_answer(self, route: Route) -> bool:
        """Whether all that the request asks for can be had there."""
        try:
            backend = route.backend
            backend.check_support(self._request)
        except InvalidRequest:
            return False
        except ImproperlyConfigured as error:
            # The system checks say so, too. Another one may do.
            to_client_error(error, route.alias, self.account.request_id)
            return False
        return not backend.unsupported_parameters(self._request)

    def feed(self, item: T) -> bytes:
        """What the client gets for ``item``; nothing, as long as the answer is not whole."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """The backend has come to its end: the rest of what the client gets."""
        raise NotImplementedError

    def fail(self, error: Exception) -> GatewayError:
        """The backend has failed: what the client is told instead of an answer."""
        told = self._failure if error is self._failure else self._told(error)
        self.account.failed(told)
        return told

    def failure_frame(self, error: GatewayError) -> bytes:
        """The same, for a client that has got a part of the answer already."""
        raise NotImplementedError

    def _told(self, error: Exception) -> GatewayError:
        # The backend knows its own name of the model; the client asked for the public one.
        public, route = self._route.name, self.attempt.route
        if isinstance(error, ModelNotFound):
            # What a model falls back on is named by the settings, too.
            if route.configured or route is not self._route:
                log_missing_model(route, self.account.request_id)
            return ModelNotFound(public)
        if isinstance(error, InvalidRequest):
            name = re.escape(route.model)
            # As a word of its own: a model may be called "a". Registries stand before it.
            error.message = re.sub(
                rf"(?<![\w./:-])(?:[\w.-]+(?::\d+)?/)*{name}(?![\w/:-]|\.\w)",
                lambda _: public,
                error.message,
            )
        return to_client_error(error, route.alias, self.account.request_id)


def is_backend_failure(error: Exception) -> bool:
    """Return whether another model may do better: nothing is wrong with the request."""
    if not isinstance(error, GatewayError):
        return True
    is_failure = error.status >= 500 and not isinstance(error, ShuttingDown)
    return is_failure or isinstance(error, ModelNotFound)
