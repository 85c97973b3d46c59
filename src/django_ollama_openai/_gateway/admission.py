"""The gates that every request passes, in their order, from the caller to the use case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django.http import HttpRequest

from .._wire.base import WireModel
from .._wire.engine import EngineRequest
from .._wire.query import QueryParameters
from ..auth import Caller
from ..exceptions import PermissionDenied
from .exchange import Exchange
from .exchange import admit as admit_to_engine
from .flow import Flow
from .gates import authenticate, authorise
from .mount import Mount

__all__ = ["Admission", "Incoming", "admit"]

B = TypeVar("B")


@dataclass(slots=True, frozen=True)
class Incoming:
    """A request before the gates.

    ``read_body`` returns the decoded body, within ``MAX_BODY_BYTES``; ``is_disconnected`` returns,
    under WSGI, whether the client has closed its connection. ``captured`` has the arguments that
    the endpoint's path captures. ``headers`` are added to the response, also to that of an error.
    """

    request: HttpRequest
    request_id: str
    read_body: Callable[[], bytes]
    is_disconnected: Callable[[], bool]
    captured: Mapping[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Admission(Generic[B]):
    """A request that has passed the gates.

    ``body`` is the validated request and ``query`` its validated query parameters, each ``None``
    where an operation declares none. Where no engine is involved, ``route`` is ``None``.
    """

    incoming: Incoming = field(repr=False)
    endpoint: str
    scope: str | None
    caller: Caller
    mount: Mount
    body: B = field(repr=False)
    query: Any = field(default=None, repr=False)
    route: Any = None

    @property
    def request(self) -> HttpRequest:
        """The HTTP request."""
        return self.incoming.request

    @property
    def request_id(self) -> str:
        """The value of the response's ``x-request-id`` header."""
        return self.incoming.request_id

    @property
    def captured(self) -> Mapping[str, Any]:
        """The arguments that the endpoint's path captures."""
        return self.incoming.captured

    @property
    def headers(self) -> dict[str, str]:
        """Headers to add to the response, also to that of an error; may be changed until the
        response begins."""
        return self.incoming.headers

    @property
    def exchange(self) -> Exchange:
        """The request as the use cases take it."""
        incoming = self.incoming
        return Exchange(
            incoming.request, incoming.request_id, incoming.read_body, incoming.is_disconnected
        )


def admit(
    incoming: Incoming,
    *,
    endpoint: str,
    scope: str | None,
    body: type[WireModel] | None = None,
    query: type[QueryParameters] | None = None,
    needs_owner: bool = False,
) -> Flow[Admission[Any]]:
    """Pass all gates.

    ``body`` and ``query`` are the models of the request's body and of its query parameters, which
    are then read. A ``scope`` of ``None`` admits everybody, without credentials.

    Raises:
        GatewayError: The request is refused.
    """
    request = incoming.request
    if scope is not None and body is not None and issubclass(body, EngineRequest):
        exchange = Exchange(
            request, incoming.request_id, incoming.read_body, incoming.is_disconnected
        )
        admitted = yield from admit_to_engine(exchange, body, scope)
        return Admission(
            incoming,
            endpoint,
            scope,
            admitted.caller,
            admitted.mount,
            admitted.body,
            route=admitted.route,
        )
    caller = Caller()
    if scope is not None:
        caller = yield from authenticate(request)
        authorise(caller, scope)
        if needs_owner and caller.owner is None:
            raise PermissionDenied("This request needs a user, a workspace or an API key.")
    parameters = None if query is None else query.read(request.GET.lists())
    content = None if body is None else body.parse(incoming.read_body())
    return Admission(
        incoming, endpoint, scope, caller, Mount.of(request), content, query=parameters
    )
