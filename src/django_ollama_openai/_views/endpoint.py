"""What every endpoint has in common: one flow for WSGI and ASGI, the request id, the errors."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core import exceptions as django_exceptions
from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, URLPattern
from django.urls.resolvers import RoutePattern
from django.views.decorators.csrf import csrf_exempt

from .._gateway.admission import Incoming
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
from .requests import hung_up, keep_body_readable, read_body
from .responses import json_response

__all__ = ["Endpoint", "EndpointPattern", "endpoint"]

logger = logging.getLogger("django_ollama_openai")

View = Callable[[Incoming], Flow[HttpResponseBase]]

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_CLOSED_REQUEST = 499


class Endpoint:
    """A view in Django's pair: :meth:`view` for WSGI and :meth:`aview` for ASGI.

    Both drive the same flow, which is called with the request before the gates.
    """

    def __init__(self, flow: View, methods: tuple[str, ...]) -> None:
        self._flow = flow
        # As in Django's own views, whatever answers GET answers HEAD.
        self._methods = (*methods, "HEAD") if "GET" in methods else methods

        def view(request: HttpRequest, **captured: Any) -> HttpResponseBase:
            return run(self._respond(request))

        async def aview(request: HttpRequest, **captured: Any) -> HttpResponseBase:
            return await arun(self._respond(request))

        # Authenticators check CSRF, and only where the caller is a session's user. A transaction
        # around a stream would be held until its last token; Django refuses it for async views.
        for alias in connections:
            transaction.non_atomic_requests(using=alias)(view)
            transaction.non_atomic_requests(using=alias)(aview)
        # Clients of an API cannot use a login page; the endpoints authenticate callers themselves.
        self.view = login_not_required(csrf_exempt(view))
        self.aview = login_not_required(csrf_exempt(aview))

    def _respond(self, request: HttpRequest) -> Flow[HttpResponseBase]:
        request_id = _request_id(request)
        incoming = Incoming(
            request,
            request_id,
            read_body=partial(read_body, request),
            is_disconnected=partial(hung_up, request),
            # Documented, and missing in django-stubs.
            captured=getattr(request.resolver_match, "captured_kwargs", None) or {},
        )
        response: HttpResponseBase
        try:
            response = preflight(request, self._methods) or (yield from self._answer(incoming))
        except ClientGone:
            response = HttpResponse(status=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            response = _error_response(request, request_id, error)
        for name, value in incoming.headers.items():
            response.headers.setdefault(name, value)
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

    def _answer(self, incoming: Incoming) -> Flow[HttpResponseBase]:
        method = incoming.request.method
        if self._methods and method not in self._methods:
            raise MethodNotAllowed(str(method), self._methods)
        return (yield from self._flow(incoming))


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
        return PermissionDenied(str(error) or "Permission denied.")
    if isinstance(error, django_exceptions.SuspiciousOperation):
        return InvalidRequest("The request is malformed.")
    if isinstance(error, Http404):
        return NotFound("There is nothing here.")
    return None
