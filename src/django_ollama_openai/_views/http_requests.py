"""Read HTTP requests: the body within its limit, and the state of the client's connection."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, UnreadablePostError

from .._wire.content_coding import content_codings, decode
from ..exceptions import InvalidRequest, RequestTooLarge

__all__ = ["is_disconnected", "keep_body_readable", "read_body"]

#: Maximum digits of a length; Python refuses to parse thousands of digits.
MAX_DIGITS: Final = 18


def read_body(request: HttpRequest, limit: int) -> bytes:
    """Return the decoded body of ``request``, at most ``limit`` bytes.

    It does not use ``request.body``: Django's limit there is 2.5 MB, less than an image, and its
    error is an HTML page.

    Raises:
        RequestTooLarge: It is larger, encoded or decoded.
        UnsupportedContentCoding: Its content coding is neither gzip nor deflate.
        InvalidRequest: It is incomplete or invalid, or the server cannot read chunked bodies.
    """
    codings = content_codings(request.META.get("HTTP_CONTENT_ENCODING", ""))
    too_large = RequestTooLarge(f"The request body is larger than {limit} bytes.")
    length = _declared_length(request)
    if length is not None and length > limit:
        raise too_large
    is_chunked = "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    if is_chunked and length is None and request.META.get("wsgi.input_terminated"):
        body = _read_and_keep(request, _reader_of_chunks(request), limit + 1)
    else:
        body = _read_and_keep(request, request.read, limit + 1)
        if not body and is_chunked and "wsgi.input" in request.META:
            # Under WSGI Django treats a body without a length as empty.
            raise InvalidRequest(
                "This server does not support chunked bodies. Send a Content-Length header."
            )
    if len(body) > limit:
        raise too_large
    if length is not None and len(body) < length:
        # Under WSGI a connection that is closed for writing looks like the end of the body.
        raise InvalidRequest("The request body was incomplete.")
    return decode(body, codings, limit)


def keep_body_readable(request: HttpRequest) -> None:
    """Make ``request.body`` readable for middleware after the view, which may not have read it.

    Django raises an error for a body that exceeds its own limit or has an invalid length. After the
    view that would replace the response by an HTML page, so such a body becomes empty.
    """
    if not hasattr(request, "_body"):
        length = _declared_length(request)
        # None means no limit, which django-stubs does not know.
        most: Any = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if length is None or (most is not None and length > most):
            request._body = b""


def _declared_length(request: HttpRequest) -> int | None:
    declared = request.META.get("CONTENT_LENGTH") or ""
    if not declared.isdecimal():
        return None
    return int(declared) if len(declared) <= MAX_DIGITS else 10**MAX_DIGITS


def _reader_of_chunks(request: HttpRequest) -> Callable[[int], bytes]:
    """Return a reader of the server's own stream, which ends at the end of the body."""
    stream = request.META["wsgi.input"]

    def read(size: int) -> bytes:
        try:
            piece: bytes = stream.read(size)
        except Exception as error:
            # Each server has its own errors for incomplete and invalid chunks.
            raise UnreadablePostError(*error.args) from error
        return piece

    return read


def _read_and_keep(request: HttpRequest, read: Callable[[int], bytes], most: int) -> bytes:
    """Return up to ``most`` bytes of the body, and keep them as ``request.body`` for middleware:
    after ``request.read()`` Django refuses to read the body again."""
    pieces: list[bytes] = []
    missing = most
    try:
        while missing > 0 and (piece := read(missing)):
            pieces.append(piece)
            missing -= len(piece)
    except UnreadablePostError as error:
        raise InvalidRequest("The request body was incomplete.") from error
    finally:
        request._body = b"".join(pieces)
    return request._body


def is_disconnected(request: HttpRequest) -> bool:
    """Return whether the client of a WSGI request has closed its connection.

    WSGI itself does not report it. gunicorn passes on its socket, waitress a function. With other
    servers a disconnect shows when the next event cannot be sent, at the latest a keep-alive.
    """
    waitress: Callable[[], bool] | None = request.META.get("waitress.client_disconnected")
    if waitress is not None:
        return waitress()
    sock = request.META.get("gunicorn.socket")
    if sock is None:
        return False
    poller = select.poll()
    closed = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
    poller.register(sock, closed)
    return any(event & (closed | select.POLLNVAL) for _, event in poller.poll(0))
