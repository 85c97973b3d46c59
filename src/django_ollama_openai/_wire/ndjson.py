"""Newline-delimited JSON, as Ollama streams it.

Only ``\\n`` ends a line. ``httpx``'s own line iterator also splits at U+0085, U+2028 and U+2029,
which Ollama may send unescaped within a string, and so breaks the JSON around them.
"""

from __future__ import annotations

from typing import ClassVar

from ..exceptions import UpstreamError

__all__ = ["Lines"]


class Lines:
    """Cuts a stream of bytes into lines; no line may be longer than ``max_bytes``."""

    __slots__ = ("_max_bytes", "_tail")

    is_over: ClassVar[bool] = False
    """Which line is the last, only its text tells."""

    def __init__(self, max_bytes: int = 16 * 2**20) -> None:
        self._tail = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends, blank ones left out.

        Raises:
            UpstreamError: a line is too long.
        """
        is_whole = not self._tail and data.endswith(b"\n") and len(data) <= self._max_bytes
        # Nearly all reads end with a line.
        lines = data.split(b"\n") if is_whole else self.cut(data)
        return [line for line in lines if line and not line.isspace()]

    def cut(self, data: bytes) -> list[bytes]:
        """The same with the blank ones."""
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
        """What came after the last line end: the last line, if its end is missing."""
        tail = bytes(self._tail)
        self._tail.clear()
        return [tail] if tail.strip() else []

    def _keep(self, data: bytes) -> None:
        self._tail += data
        self._limit(self._tail)

    def _limit(self, line: bytes | bytearray) -> None:
        if len(line) > self._max_bytes:
            raise UpstreamError("The engine sent a line that is too long.")
