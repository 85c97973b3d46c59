"""Serialise server-sent events: one ``data:`` line each, in the Responses API after an ``event:``
line.

JSON escapes all line breaks below U+0020. The other three (U+0085, U+2028, U+2029) are escaped
here, since many clients treat them as line ends.
"""

from __future__ import annotations

from typing import Any, Final

import pydantic_core

__all__ = ["DONE", "PING", "encode_json", "frame", "named_frame"]

#: The end of every stream, including a failed one.
DONE: Final = b"data: [DONE]\n\n"

#: A comment that keeps proxies and clients from closing an idle stream. After a blank line it would
#: be an event without data, and some clients would end the stream.
PING: Final = b": ping\n"

_NEXT_LINE = "\x85".encode()
_LINE_SEPARATOR = "\u2028".encode()
_PARAGRAPH_SEPARATOR = "\u2029".encode()


def encode_json(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8, without any character that clients treat as a line
    break."""
    # A log probability may be minus infinity, which is not valid JSON.
    data = pydantic_core.to_json(value, inf_nan_mode="null")
    if data.isascii():
        return data
    return (
        data.replace(_NEXT_LINE, rb"\u0085")
        .replace(_LINE_SEPARATOR, rb"\u2028")
        .replace(_PARAGRAPH_SEPARATOR, rb"\u2029")
    )


def frame(value: Any) -> bytes:
    """Return an event with ``value`` as its JSON data."""
    return b"data: %b\n\n" % encode_json(value)


def named_frame(event: str, value: Any) -> bytes:
    """Return an event with a name and ``value`` as its JSON data, as in the Responses API."""
    return b"event: %b\n%b" % (event.encode(), frame(value))
