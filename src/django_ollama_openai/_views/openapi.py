"""``GET openapi.json``: the endpoints of a mount, as they declare themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.conf import settings
from django.urls import URLPattern, URLResolver
from django.utils.encoding import escape_uri_path
from typing_extensions import TypedDict

from .. import __version__
from .._gateway.admission import Admission
from .._translation.openapi import DescribedPath, openapi_document
from .._wire.case import Case
from .endpoint import Endpoint, EndpointPattern

__all__ = ["describe", "openapi"]

NAME: Final = "/openapi.json"
_ARGUMENT: Final = re.compile(r"<(?:(?P<converter>\w+):)?(?P<name>\w+)>")

Patterns = Sequence[URLPattern | URLResolver]


class OpenAPIDocument(TypedDict):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


def openapi(patterns: Patterns) -> Endpoint:
    """Return the endpoint that describes ``patterns``, which may grow until it is first used."""
    endpoint = Endpoint(tags={"Site": "The gateway itself"})
    documents: dict[tuple[Case, str], dict[str, Any]] = {}

    @endpoint.get(scope=None, response=OpenAPIDocument)
    def describe_api(admission: Admission[None]) -> dict[str, Any]:
        """Describe the API."""
        # All callers get this document: it needs no credentials and names no models.
        key = admission.mount.case, settings.SESSION_COOKIE_NAME
        if key not in documents:
            documents[key] = describe(patterns, key[0], session_cookie=key[1])
        server = escape_uri_path(admission.request.path).removesuffix(NAME) or "/"
        return {**documents[key], "servers": [{"url": server}]}

    return endpoint


def describe(
    patterns: Patterns, case: Case, *, server: str = "/", session_cookie: str = "sessionid"
) -> dict[str, Any]:
    """Return the OpenAPI document of the endpoints in ``patterns`` that have operations."""
    return openapi_document(
        list(_paths(patterns)),
        case,
        server=server,
        version=__version__,
        session_cookie=session_cookie,
    )


def _paths(patterns: Patterns, prefix: str = "/") -> Iterator[DescribedPath]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _paths(pattern.url_patterns, route)
        elif isinstance(pattern, EndpointPattern) and pattern.endpoint.operations:
            yield DescribedPath(
                path=_ARGUMENT.sub(r"{\g<name>}", route),
                arguments={
                    match["name"]: match["converter"] or "str"
                    for match in _ARGUMENT.finditer(route)
                },
                operations=pattern.endpoint.operations,
                tags=pattern.endpoint.tags,
            )
