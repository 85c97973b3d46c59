"""Reading HTTP requests: the body within its limit, and whether the client is still there."""

from __future__ import annotations

import select
from collections.abc import Callable

from django.http import HttpRequest, UnreadablePostError

from .. import conf
from ..exceptions import InvalidRequest, RequestTooLarge

__all__ = ["hung_up", "read_body"]


def read_body(request: HttpRequest) -> bytes:
    """The body.

    Not ``request.body``: Django's own limit there is 2.5 MB, less than a picture, and exceeding
    it is an HTML page.

    Raises:
        RequestTooLarge: it is larger than ``MAX_BODY_BYTES``.
        InvalidRequest: the client has sent less of it than it said.
    """
    limit = conf.get().MAX_BODY_BYTES
    too_large = RequestTooLarge(f"The body of the request is larger than {limit} bytes.")
    declared = request.META.get("CONTENT_LENGTH") or ""
    # Python refuses to read numbers of thousands of digits.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    try:
        body = request.read(limit + 1)
    except UnreadablePostError as error:
        raise InvalidRequest("The body of the request broke off.") from error
    if len(body) > limit:
        raise too_large
    if declared.isdecimal() and len(body) < int(declared):
        # Under WSGI a connection that is closed for writing looks like the end of the body.
        raise InvalidRequest("The body of the request broke off.")
    if not body and "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", ""):
        # Under WSGI Django takes a body without a length for an empty one.
        raise InvalidRequest("Send the body with a Content-Length, not chunked.")
    return body


def hung_up(request: HttpRequest) -> bool:
    """Whether the client of a WSGI request has closed its connection.

    WSGI has no way to tell; the servers that can are asked in their own: gunicorn gives its
    socket, waitress a function. With others it shows when the next event cannot be sent, which
    keep-alives bound.
    """
    disconnected: Callable[[], bool] | None = request.META.get("waitress.client_disconnected")
    if disconnected is not None:
        return disconnected()
    sock = request.META.get("gunicorn.socket")
    if sock is None:
        return False
    poller = select.poll()
    closed = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
    poller.register(sock, closed)
    return any(event & (closed | select.POLLNVAL) for _, event in poller.poll(0))
