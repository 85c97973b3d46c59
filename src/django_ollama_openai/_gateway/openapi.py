"""``GET openapi.json``: what is mounted."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.encoding import escape_uri_path

from .. import __version__, _conf
from .._translation.openapi import openapi_document
from .._wire.case import Case
from .._wire.sse import encode_json
from .mount import Mount

__all__ = ["describe_api"]

NAME: Final = "/openapi.json"


def describe_api(request: HttpRequest) -> bytes:
    """The OpenAPI document of the mount that ``request`` came in by, as JSON. It is the same for
    all callers."""
    before, after = _around_the_server(
        Mount.of(request, _conf.get()).case, settings.SESSION_COOKIE_NAME
    )
    mount = escape_uri_path(request.path).removesuffix(NAME)
    return before + encode_json(mount or "/") + after


@cache
def _around_the_server(case: Case, session_cookie: str) -> tuple[bytes, bytes]:
    """What stands before and after the path of the mount: there may be any number of paths."""
    mark = secrets.token_hex(8)
    document = openapi_document(
        case, server=mark, version=__version__, session_cookie=session_cookie
    )
    before, _, after = encode_json(document).partition(b'"%b"' % mark.encode())
    return before, after
