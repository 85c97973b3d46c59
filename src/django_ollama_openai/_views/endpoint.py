"""What every endpoint has in common: one flow for WSGI and ASGI, the request id, the errors."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from django.contrib.auth.decorators import login_not_required
from django.core import exceptions as django_exceptions
from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, URLPattern
from django.urls.resolvers import RoutePattern
from django.views.decorators.csrf import csrf_exempt

from .._gateway.delivery import ClientGone
from .._gateway.flow import Flow, arun, run
from ..exceptions import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
)
from .cors import allow_origin, preflight
from .requests import keep_body_readable
from .responses import json_response

__all__ = ["Endpoint", "EndpointPattern", "endpoint", "endpoint_of"]

logger = logging.getLogger("django_ollama_openai")

View = Callable[..., Flow[HttpResponseBase]]

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_CLOSED_REQUEST = 499


class Endpoint:
    """A view in Django's pair: :meth:`view` for WSGI and :meth:`aview` for ASGI.

    Both drive the same flow, which is called with the request, ``request_id`` and the arguments
    that its path captures.
    """

    def __init__(self, flow: View, methods: tuple[str, ...]) -> None:
        self._flow = flow
        # As in Django's own views, whatever answers GET answers HEAD.
        self._methods = (*methods, "HEAD") if "GET" in methods else methods

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

    def respond(self, request: HttpRequest) -> Flow[HttpResponseBase]:
        """Answer ``request``, which has its ``resolver_match``; raises nothing but what ends the
        server."""
        request_id = _request_id(request)
        response: HttpResponseBase
        try:
            # CommonMiddleware does it too, but not every site has it, and no request of the fast
            # lane passes it.
            request.get_host()
            response = preflight(request, self._methods) or (
                yield from self._answer(request, request_id)
            )
        except ClientGone:
            response = HttpResponse(status=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            response = _error_response(request, request_id, error)
        if request.method == "HEAD" and isinstance(response, HttpResponse):
            # Not every server leaves it out, and gunicorn warns of it.
            response.headers["Content-Length"] = str(len(response.content))
            response.content = b""
        # The cache middleware of early releases of Django 5.2 only respects "private". It would
        # send one caller's response to others.
        response.setdefault("Cache-Control", "private, no-store")
        response.headers["x-request-id"] = request_id
        allow_origin(request, response)
        keep_body_readable(request)
        return response

    def _answer(self, request: HttpRequest, request_id: str) -> Flow[HttpResponseBase]:
        if self._methods and request.method not in self._methods:
            raise MethodNotAllowed(str(request.method), self._methods)
        # Documented, and missing in django-stubs.
        captured = getattr(request.resolver_match, "captured_kwargs", None) or {}
        return (yield from self._flow(request, request_id=request_id, captured=captured))


_endpoints: WeakKeyDictionary[Callable[..., Any], Endpoint] = WeakKeyDictionary()


def endpoint_of(view: Callable[..., Any]) -> Endpoint | None:
    """Return the endpoint that ``view`` belongs to, or ``None`` if it is a view of the site's."""
    return _endpoints.get(view)


def endpoint(*methods: str) -> Callable[[View], Endpoint]:
    """Make an endpoint of a flow that answers ``methods``; of all methods, if none are named."""
    return lambda flow: Endpoint(flow, methods)


class EndpointPattern(URLPattern):
    """A path to an endpoint. It resolves to the view that fits the server.

    Django's handlers look at the view that a path resolves to: an async one is run in a loop of
    its own under WSGI, a sync one in a thread under ASGI, and a stream is then read to its end
    before the first byte leaves. The path is resolved where the view will run, so a running
    event loop tells which of the two it has to be.
    """

    def __init__(self, route: str, endpoint: Endpoint, name: str) -> None:
        pattern = RoutePattern(route, name=name, is_endpoint=True)
        super().__init__(pattern, endpoint.view, name=name)
        self._endpoint = endpoint

    def resolve(self, path: str) -> ResolverMatch | None:
        match = super().resolve(path)
        if match is not None and _in_event_loop():
            match.func = self._endpoint.aview
        return match


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _request_id(request: HttpRequest) -> str:
    given = request.META.get("HTTP_X_REQUEST_ID", "")
    return given if _SANE_REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _error_response(request: HttpRequest, request_id: str, error: Exception) -> HttpResponse:
    told = _as_gateway_error(error)
    if told is None:
        logger.error("Request %s to %r crashed", request_id, request.path, exc_info=error)
        got_request_exception.send(sender=Endpoint, request=request)
        told = GatewayError("The server had an error while processing your request.")
    return json_response(told.envelope(), status=told.status, headers=told.headers)


def _as_gateway_error(error: Exception) -> GatewayError | None:
    """What a hook or an authenticator may raise: this app's errors, or Django's own."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, django_exceptions.PermissionDenied):
        return PermissionDenied(str(error) or "You may not do this.")
    if isinstance(error, django_exceptions.SuspiciousOperation):
        return InvalidRequest("The request is malformed.")
    if isinstance(error, Http404):
        return NotFound("There is nothing here.")
    return None
