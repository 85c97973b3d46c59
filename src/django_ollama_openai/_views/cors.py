"""Handle cross-origin requests of browsers: ``CORS_ORIGINS``.

Pages of other origins call the gateway with a key. ``Access-Control-Allow-Credentials`` is never
sent, so browsers hide from them any response to a request with a session cookie.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from .. import _conf

__all__ = ["EXPOSED_HEADERS", "allow_origin", "preflight"]

#: The response headers that pages may read, besides those that browsers always allow.
EXPOSED_HEADERS: Final = (
    "x-request-id",
    "x-ignored-parameters",
    "retry-after",
    *(
        f"x-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
)

ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

#: Seconds for which a browser may cache a preflight response; Chromium caps longer times.
MAX_AGE: Final = 7200

_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]+")


def preflight(
    request: HttpRequest, methods: tuple[str, ...], origins: Collection[str]
) -> HttpResponse | None:
    """Return the response to a preflight from one of ``origins``, or ``None`` for other requests.

    ``methods`` are those of the endpoint; if empty, every method is allowed.
    """
    if request.method != "OPTIONS" or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in request.META:
        return None
    if _allowed(request, origins) is None:
        return None
    response = HttpResponse(headers={"Content-Length": "0"})
    del response.headers["Content-Type"]
    response.headers["Access-Control-Allow-Methods"] = ", ".join(methods or ANY_METHOD)
    # In browsers "*" does not include Authorization.
    wanted = request.META.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if _HEADER_NAMES.fullmatch(wanted):
        response.headers["Access-Control-Allow-Headers"] = wanted
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE)
    patch_vary_headers(
        response, ["Access-Control-Request-Method", "Access-Control-Request-Headers"]
    )
    return response


def allow_origin(
    request: HttpRequest, response: HttpResponseBase, origins: Collection[str]
) -> None:
    """Add the headers with which pages of ``origins`` may read ``response``, even an error."""
    if not origins:
        return
    # Even if the origin is not allowed: a cache must not send this response to another origin.
    patch_vary_headers(response, ["Origin"])
    allowed = _allowed(request, origins)
    if allowed is not None:
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)


def _allowed(request: HttpRequest, origins: Collection[str]) -> str | None:
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return None
    if _conf.ANY_ORIGIN in origins:
        return _conf.ANY_ORIGIN
    return origin if origin in origins else None
