"""Parse newline-delimited JSON, the format of Ollama's streams.

Only ``\\n`` ends a line. ``httpx``'s own line iterator also splits at U+0085, U+2028 and U+2029,
which Ollama may send unescaped within a string, and so would break the JSON.
"""

from __future__ import annotations

from typing import ClassVar

from ..exceptions import UpstreamError

__all__ = ["Lines"]


class Lines:
    """A parser that splits a stream of bytes into lines of at most ``max_bytes``."""

    __slots__ = ("_max_bytes", "_tail")

    #: Always false: the stream has no end marker.
    is_over: ClassVar[bool] = False

    def __init__(self, max_bytes: int = 16 * 2**20) -> None:
        self._tail = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without line ends and blank lines.

        Raises:
            UpstreamError: A line is too long.
        """
        is_whole = not self._tail and data.endswith(b"\n") and len(data) <= self._max_bytes
        # Nearly all reads end with a line.
        lines = data.split(b"\n") if is_whole else self.split_lines(data)
        return [line for line in lines if line and not line.isspace()]

    def split_lines(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without line ends but with blank lines.

        Raises:
            UpstreamError: A line is too long.
        """
        if self._tail:
            end = data.find(b"\n")
            if end < 0:
                self._keep(data)
                return []
            lines = [bytes(self._tail) + data[:end], *data[end + 1 :].split(b"\n")]
            self._tail.clear()
        else:
            lines = data.split(b"\n")
        self._keep(lines.pop())
        for line in lines:
            self._limit(line)
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line if its line end is missing."""
        tail = bytes(self._tail)
        self._tail.clear()
        return [tail] if tail.strip() else []

    def _keep(self, data: bytes) -> None:
        self._tail += data
        self._limit(self._tail)

    def _limit(self, line: bytes | bytearray) -> None:
        if len(line) > self._max_bytes:
            raise UpstreamError("The engine sent a line that is too long.")
