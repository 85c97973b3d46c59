"""Endpoints: the paths below a mount and their handlers, in one flow for WSGI, ASGI and the fast
lane."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import uuid
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Required, TypedDict, TypeVar, Unpack
from weakref import WeakKeyDictionary

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, URLPattern
from django.urls.resolvers import RoutePattern
from django.views.decorators.csrf import csrf_exempt

from .. import _conf
from .._gateway.admission import Admission, Incoming, admit, carry_out
from .._gateway.blocking import call_blocking
from .._gateway.delivery import ClientDisconnected, Reply
from .._gateway.django_errors import as_gateway_error
from .._gateway.flow import Flow, arun, run
from .._translation.operation import Operation
from .._translation.spelling import Speller, to_json_value
from .._wire.base import WireModel
from .._wire.case import to_camel
from .._wire.query import QueryParameters
from ..exceptions import (
    GatewayError,
    MethodNotAllowed,
)
from .cors import allow_origin, preflight
from .http_requests import is_disconnected, keep_body_readable, read_body
from .http_responses import EventStream, json_bytes, json_response

__all__ = ["Declaration", "Endpoint", "EndpointPattern", "endpoint_of", "path"]

logger = logging.getLogger("django_ollama_openai")

Handler = Callable[[Admission[Any]], Any]
H = TypeVar("H", bound=Handler)

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
CLIENT_CLOSED_REQUEST: Final = 499


class Declaration(TypedDict, total=False):
    """The keywords of :meth:`Endpoint.get` and others: the fields of :class:`Operation`."""

    scope: Required[str | None]
    name: str
    operation_id: str
    owner: bool
    body: type[WireModel]
    query: type[QueryParameters]
    response: Any
    event: Any
    status: int
    summary: str
    description: str
    tags: tuple[str, ...]
    errors: tuple[type[GatewayError], ...]
    captured: Mapping[str, str]
    further: Mapping[int, str]
    media_type: str
    optional_credentials: bool
    makes_chat: bool


@dataclass(frozen=True, slots=True)
class _Handled:
    """An operation with its handler."""

    operation: Operation
    handler: Handler
    is_flow: bool
    speller: Speller

    def answer(self, admission: Admission[Any]) -> Flow[HttpResponseBase]:
        if self.is_flow:
            result = yield from self.handler(admission)
        else:
            result = yield from call_blocking(self.handler, admission)
            if isinstance(result, Generator):
                raise TypeError(
                    f"The handler of {admission.endpoint!r} returned a flow. End it with "
                    "'return (yield from ...)'."
                )
        return self._response(result, admission)

    def _response(self, result: Any, admission: Admission[Any]) -> HttpResponseBase:
        status = self.operation.status
        match result:
            case HttpResponseBase():
                return result
            case Reply():
                return self._reply(result)
            case bytes():
                return json_bytes(result, status=status)
            case _:
                value = self.speller.spell(to_json_value(result), admission.mount.case)
                return json_response(value, status=status)

    def _reply(self, reply: Reply) -> HttpResponseBase:
        response: HttpResponseBase
        if isinstance(reply.content, bytes):
            response = json_bytes(reply.content, status=self.operation.status)
        else:
            response = EventStream(reply.content)
        if reply.ignored_parameters:
            response.headers["x-ignored-parameters"] = ", ".join(reply.ignored_parameters)
        return response


class Endpoint:
    """The operations of a path, by method, declared with :meth:`get` and others.

    ``tags`` are headings of the OpenAPI document with their descriptions; operations stand under
    all of them unless they name their own. A handler gets the
    :class:`~django_ollama_openai.policies.Admission` of a request that has passed the gates. It
    returns a pydantic model, JSON as a dict or as bytes, a ``Reply``, or a Django response; it may
    raise :class:`~django_ollama_openai.exceptions.GatewayError`, ``Http404`` or Django's
    ``PermissionDenied``. Under ASGI, a plain function runs in a thread; a generator function is a
    ``Flow`` and runs in the event loop.
    """

    def __init__(self, *, tags: Mapping[str, str] | None = None) -> None:
        self.tags = dict(tags or {})
        self.operations: dict[str, Operation] = {}
        self.methods: tuple[str, ...] = ()
        self._handled: dict[str, _Handled] = {}

        def view(request: HttpRequest, **captured: Any) -> HttpResponseBase:
            return run(self.respond(request))

        async def aview(request: HttpRequest, **captured: Any) -> HttpResponseBase:
            return await arun(self.respond(request))

        # Authenticators check CSRF, and only where the caller is a session's user. A transaction
        # around a stream would be held until its last token; Django refuses it for async views.
        for alias in connections:
            transaction.non_atomic_requests(using=alias)(view)
            transaction.non_atomic_requests(using=alias)(aview)
        # Clients of an API cannot use a login page; the endpoints authenticate callers themselves.
        self.view = login_not_required(csrf_exempt(view))
        self.aview = login_not_required(csrf_exempt(aview))
        _endpoints[self.view] = _endpoints[self.aview] = self

    def get(self, **declaration: Unpack[Declaration]) -> Callable[[H], H]:
        """Declare the handler of GET, which also answers HEAD."""
        return self._declare("GET", declaration)

    def post(self, **declaration: Unpack[Declaration]) -> Callable[[H], H]:
        """Declare the handler of POST."""
        return self._declare("POST", declaration)

    def put(self, **declaration: Unpack[Declaration]) -> Callable[[H], H]:
        """Declare the handler of PUT."""
        return self._declare("PUT", declaration)

    def patch(self, **declaration: Unpack[Declaration]) -> Callable[[H], H]:
        """Declare the handler of PATCH."""
        return self._declare("PATCH", declaration)

    def delete(self, **declaration: Unpack[Declaration]) -> Callable[[H], H]:
        """Declare the handler of DELETE."""
        return self._declare("DELETE", declaration)

    def _declare(self, method: str, declaration: Declaration) -> Callable[[H], H]:
        if method in self._handled:
            raise TypeError(f"{method} is declared already.")

        def register(handler: H) -> H:
            name = getattr(handler, "__name__", method.lower())
            summary = (inspect.getdoc(handler) or "").partition("\n")[0].rstrip(".")
            defaults = {
                "name": name,
                "operation_id": to_camel(name),
                "summary": summary.replace("``", "`"),
                "tags": tuple(self.tags),
            }
            operation = Operation(**{**defaults, **declaration})  # type: ignore[arg-type]
            if operation.owner and operation.scope is None:
                raise TypeError(
                    f"{name}: 'owner' needs a 'scope', since callers are unknown without one."
                )
            self._handled[method] = _Handled(
                operation,
                handler,
                is_flow=inspect.isgeneratorfunction(handler),
                speller=Speller(operation.response),
            )
            self.operations[method] = operation
            # As in Django's own views.
            self.methods += (method, "HEAD") if method == "GET" else (method,)
            return handler

        return register

    def respond(self, request: HttpRequest) -> Flow[HttpResponseBase]:
        """Answer ``request``, whose ``resolver_match`` is of a path of this endpoint.

        All errors become responses; nothing is raised.
        """
        request_id = _request_id(request)
        headers: dict[str, str] = {}
        origins: Collection[str] = ()
        response: HttpResponseBase
        try:
            settings = _conf.get()
            origins = settings.CORS_ORIGINS
            incoming = Incoming(
                request,
                request_id,
                settings,
                read_body=partial(read_body, request),
                is_disconnected=partial(is_disconnected, request),
                # Documented, and missing in django-stubs.
                captured=getattr(request.resolver_match, "captured_kwargs", None) or {},
                headers=headers,
            )
            # CommonMiddleware does it too, but not every site has it, and no request of the fast
            # lane passes it.
            request.get_host()
            response = preflight(request, self.methods, origins) or (
                yield from self._answer(incoming)
            )
        except ClientDisconnected:
            response = HttpResponse(status=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            response = _error_response(request, request_id, error)
        _add_headers(response, headers, request_id)
        if request.method == "HEAD" and isinstance(response, HttpResponse):
            # Not every server drops the body, and gunicorn logs a warning.
            response.headers["Content-Length"] = str(len(response.content))
            response.content = b""
        # The cache middleware of early releases of Django 5.2 only respects "private". It would
        # send one caller's response to others.
        response.setdefault("Cache-Control", "private, no-store")
        response.headers["x-request-id"] = request_id
        allow_origin(request, response, origins)
        keep_body_readable(request)
        return response

    def _answer(self, incoming: Incoming) -> Flow[HttpResponseBase]:
        method = str(incoming.request.method)
        handled = self._handled.get("GET" if method == "HEAD" else method)
        if handled is None:
            raise MethodNotAllowed(method, self.methods)
        operation = handled.operation
        admission = yield from admit(
            incoming,
            endpoint=operation.name,
            scope=operation.scope,
            body=operation.body,
            query=operation.query,
            needs_owner=operation.owner,
            makes_chat=operation.makes_chat,
        )
        return (yield from carry_out(admission, handled.answer(admission)))


_endpoints: WeakKeyDictionary[Callable[..., Any], Endpoint] = WeakKeyDictionary()


def endpoint_of(view: Callable[..., Any]) -> Endpoint | None:
    """Return the endpoint of ``view``, the ``func`` of a resolver match; ``None`` for a view of the
    site, even if it wraps an endpoint's."""
    try:
        return _endpoints.get(view)
    except TypeError:
        # An object that cannot be a key, or not weakly.
        return None


def path(route: str, endpoint: Endpoint, name: str | None = None) -> EndpointPattern:
    """Return the pattern for ``urlpatterns`` that leads ``route`` to ``endpoint``.

    ``route`` is as in :func:`django.urls.path`. Clients may leave out a slash at its end.
    """
    return EndpointPattern(route, endpoint, name)


class EndpointPattern(URLPattern):
    """A path to an endpoint. It resolves to the view that fits the server.

    Django's handler for WSGI would run an async view in an event loop of its own, its handler for
    ASGI a sync view in a thread; a stream would then be read to its end before the first byte
    leaves. A path is resolved where the view will run: in an event loop to the async view, else to
    the sync one.
    """

    def __init__(self, route: str, endpoint: Endpoint, name: str | None) -> None:
        pattern = RoutePattern(route, name=name, is_endpoint=True)
        super().__init__(pattern, endpoint.view, name=name)
        self.route = route
        self.endpoint = endpoint

    def resolve(self, path: str) -> ResolverMatch | None:
        match = super().resolve(path)
        if match is None and self.route.endswith("/") and not path.endswith("/"):
            match = super().resolve(f"{path}/")
        # A site may have replaced the view, such as with one that a decorator guards.
        if match is not None and match.func is self.endpoint.view and _in_event_loop():
            match.func = self.endpoint.aview
        return match


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _add_headers(response: HttpResponseBase, headers: Mapping[str, str], request_id: str) -> None:
    """Add the headers of policies and handlers, except those that no server can send."""
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(str(name)) and _HEADER_VALUE.fullmatch(str(value)):
            response.headers.setdefault(str(name), value)
        else:
            logger.error("Request %s: the header %.100r is invalid", request_id, name)


def _request_id(request: HttpRequest) -> str:
    sent = request.META.get("HTTP_X_REQUEST_ID", "")
    return sent if _SANE_REQUEST_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"


def _error_response(request: HttpRequest, request_id: str, error: Exception) -> HttpResponse:
    if isinstance(error, SuspiciousOperation):
        # As Django's handler does, which such an error does not reach.
        security = logging.getLogger(f"django.security.{type(error).__name__}")
        security.error(str(error), exc_info=error, extra={"status_code": 400, "request": request})
    client_error = as_gateway_error(error)
    if client_error is not None:
        try:
            return _envelope(client_error)
        except ValueError as invalid:
            # The site's own code has made it, and it cannot be encoded.
            error = invalid
    logger.error("Request %s to %r crashed", request_id, request.path, exc_info=error)
    got_request_exception.send_robust(sender=Endpoint, request=request)
    return _envelope(GatewayError("The server had an error while processing your request."))


def _envelope(error: GatewayError) -> HttpResponse:
    return json_response(error.envelope(), status=error.status, headers=error.headers)
