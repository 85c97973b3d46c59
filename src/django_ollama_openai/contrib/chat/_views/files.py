"""``api/chat/files/{id}/``: the images, audio and other files of messages."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpResponse

from ....endpoints import Admission, Endpoint
from ....exceptions import NotFound
from .._store.files import find_attachment
from .callers import SCOPE, Owner
from .sessions import TAGS

__all__ = ["file"]

#: A browser shows these; others it only saves. None of them runs scripts.
EXTENSIONS: Final = {
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
}

file = Endpoint(tags=TAGS)


@file.get(scope=SCOPE, owner=True, media_type="application/octet-stream", errors=(NotFound,))
def retrieve_file(admission: Admission[Any]) -> HttpResponse:
    """Retrieve a file of a message of the caller's."""
    file_id = admission.captured["file_id"]
    found = find_attachment(file_id, Owner.of(admission.caller).text)
    try:
        # No larger than the body of the request that brought it.
        with found.file.open("rb") as opened:
            content = opened.read()
    except FileNotFoundError:
        raise NotFound(f"File with id '{found.public_id}' not found.") from None
    extension = EXTENSIONS.get(found.content_type)
    name = found.public_id if extension is None else f"{found.public_id}.{extension}"
    response = HttpResponse(content, content_type=found.content_type)
    disposition = "attachment" if extension is None else "inline"
    response.headers["Content-Disposition"] = f'{disposition}; filename="{name}"'
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "private"
    return response
