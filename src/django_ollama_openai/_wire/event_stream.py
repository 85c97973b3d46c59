"""Parse the server-sent events of engines with OpenAI's API.

Source: the HTML standard, "Interpreting an event stream". Event names, ids and comments are
ignored, since OpenAI's events have all information in their data.
"""

from __future__ import annotations

from ..exceptions import UpstreamError
from .ndjson import Lines

__all__ = ["Events"]

_DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"


class Events:
    """A parser that splits a stream of bytes into the data of its events.

    OpenAI's ``[DONE]`` sets ``is_over`` and ends the stream. ``max_bytes`` is the maximum size of
    one event's data.
    """

    __slots__ = ("_data", "_ends_in_cr", "_has_begun", "_lines", "_max_bytes", "_size", "is_over")

    def __init__(self, max_bytes: int = 16 * 2**20) -> None:
        self._lines = Lines(max_bytes)
        self._max_bytes = max_bytes
        self._data: list[bytes] = []
        self._size = 0
        self._ends_in_cr = False
        self._has_begun = False
        self.is_over = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of each event that ``data`` completes.

        Raises:
            UpstreamError: An event is too long.
        """
        if b"\r" in data or self._ends_in_cr:
            data = self._with_line_feeds(data)
        events: list[bytes] = []
        for line in self._lines.split_lines(data):
            if not self._has_begun:
                self._has_begun = True
                line = line.removeprefix(_BOM)
            if line[:5] == b"data:":
                self._keep(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                self._dispatch(events)
        return events

    def finish(self) -> list[bytes]:
        """Return the data of the last event if the blank line after it is missing."""
        events = self.feed(b"\n")
        if self._data:
            self._dispatch(events)
        return events

    def _keep(self, value: bytes) -> None:
        # Including the line feeds between the lines. The last line, which is not complete yet, is
        # checked on its own.
        self._size += len(value) + 1
        if self._size > self._max_bytes + 1:
            raise UpstreamError("The engine sent an event that is too long.")
        self._data.append(value)

    def _dispatch(self, events: list[bytes]) -> None:
        event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        if event == _DONE:
            self.is_over = True
        elif event and not self.is_over:
            events.append(event)

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Return ``data`` with line feeds as line ends. JSON has no other carriage returns."""
        if not data:
            return data
        ends_in_cr = data[-1:] == b"\r"
        if self._ends_in_cr and data[:1] == b"\n":
            data = data[1:]
        self._ends_in_cr = ends_in_cr
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
