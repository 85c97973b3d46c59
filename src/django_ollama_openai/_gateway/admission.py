"""Decide whether a request is admitted: the gates in their order, up to the use case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django.http import HttpRequest

from .._translation.operation import Operation
from .._wire.engine import EngineRequest
from ..auth import Caller
from ..exceptions import PermissionDenied
from .exchange import Exchange
from .exchange import admit as admit_to_engine
from .flow import Flow
from .gates import authenticate, authorise
from .mount import Mount

__all__ = ["Admission", "admit"]

B = TypeVar("B")


@dataclass(slots=True, kw_only=True)
class Admission(Generic[B]):
    """A request that has passed the gates.

    ``captured`` are the arguments of its path, ``query`` its validated query parameters, ``route``
    the way to the engine, or ``None`` if no engine is involved. ``headers`` are added to the
    response, to errors and streams, too.
    """

    request: HttpRequest
    request_id: str
    endpoint: str
    scope: str | None
    caller: Caller
    mount: Mount
    body: B
    captured: Mapping[str, Any]
    query: Any
    # Engines' use cases have one; ``None`` where no engine is involved.
    route: Any
    headers: dict[str, str] = field(default_factory=dict)
    hung_up: Callable[[], bool]

    @property
    def exchange(self) -> Exchange:
        """The request as the use cases take it."""
        return Exchange(self.request, self.request_id, lambda: b"", self.hung_up)


def admit(
    operation: Operation,
    request: HttpRequest,
    request_id: str,
    *,
    captured: Mapping[str, Any],
    headers: dict[str, str],
    read_body: Callable[[], bytes],
    hung_up: Callable[[], bool],
) -> Flow[Admission[Any]]:
    """Admit ``request`` to ``operation``.

    Raises:
        GatewayError: It is refused.
    """
    caller = Caller()
    body: Any = None
    route: Any = None
    query: Any = None
    kind = operation.body
    if operation.scope is not None and kind is not None and issubclass(kind, EngineRequest):
        exchange = Exchange(request, request_id, read_body, hung_up)
        admitted = yield from admit_to_engine(exchange, kind, operation.scope)
        caller, body, mount, route = admitted.caller, admitted.body, admitted.mount, admitted.route
    else:
        if operation.scope is not None:
            caller = yield from authenticate(request)
            authorise(caller, operation.scope)
        if operation.owner and caller.owner is None:
            raise PermissionDenied("This needs a user, a workspace or a key that owns things.")
        if operation.query is not None:
            query = operation.query.read(request.GET.lists())
        if kind is not None:
            body = kind.parse(read_body())
        mount = Mount.of(request)
    return Admission(
        request=request,
        request_id=request_id,
        endpoint=operation.name,
        scope=operation.scope,
        caller=caller,
        mount=mount,
        body=body,
        captured=captured,
        query=query,
        route=route,
        headers=headers,
        hung_up=hung_up,
    )
