"""Server-sent events as OpenAI's clients read them: one ``data:`` line a frame, in the Responses
API after a line with the event's name.

The frames are safe by construction: JSON escapes every line break below U+0020, and the three
that it does not (U+0085, U+2028, U+2029) are escaped here, since many clients split a stream with
a reader that takes them for line ends too.
"""

from __future__ import annotations

from typing import Any, Final

import pydantic_core

__all__ = ["DONE", "PING", "encode_json", "frame", "named_frame"]

DONE: Final = b"data: [DONE]\n\n"
"""The end of every stream, a failed one included."""

PING: Final = b": ping\n"
"""A comment that keeps proxies and clients from closing a silent stream. A blank line after it
would make it an event without data, at which some clients end the stream."""

_NEXT_LINE = "\x85".encode()
_LINE_SEPARATOR = "\u2028".encode()
_PARAGRAPH_SEPARATOR = "\u2029".encode()


def encode_json(value: Any) -> bytes:
    """``value`` as one line of JSON, in UTF-8, free of anything that may pass for a line break."""
    # A log probability may be minus infinity, which JSON cannot say.
    data = pydantic_core.to_json(value, inf_nan_mode="null")
    if data.isascii():
        return data
    return (
        data.replace(_NEXT_LINE, rb"\u0085")
        .replace(_LINE_SEPARATOR, rb"\u2028")
        .replace(_PARAGRAPH_SEPARATOR, rb"\u2029")
    )


def frame(value: Any) -> bytes:
    """One event with ``value`` as its JSON data."""
    return b"data: %b\n\n" % encode_json(value)


def named_frame(event: str, value: Any) -> bytes:
    """The same with the name of the event, as OpenAI's Responses have it."""
    return b"event: %b\n%b" % (event.encode(), frame(value))
