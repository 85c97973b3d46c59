"""Files that are read from the database while they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from .._gateway.flow import Flow, call
from .._threads import in_separate_thread
from ..endpoints import Admission

__all__ = ["download"]


def download(
    admission: Admission[Any], content: Iterator[bytes], kind: str, name: str
) -> Flow[HttpResponseBase]:
    """Return ``content``, which reads the database, as a file of the media type ``kind``."""

    def stream() -> HttpResponseBase:
        return StreamingHttpResponse(content, content_type=kind)

    async def astream() -> HttpResponseBase:
        return StreamingHttpResponse(_read(content), content_type=kind)

    response: HttpResponseBase
    if admission.request.method == "HEAD":
        response = HttpResponse(content_type=kind)
    else:
        response = yield from call(stream, astream)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def _read(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await in_separate_thread(next, content, None)) is not None:
        yield piece
