"""The events of one answer, and those in this process who wait for more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["FRAME_END", "Events"]

#: The end of an event.
FRAME_END: Final = b"\n\n"
#: The size from which data is read in parts: a reader that does not go on keeps one of them.
PART_BYTES: Final = 65_536


class Events:
    """A list of encoded events, which one thread extends and any number of threads read."""

    def __init__(self) -> None:
        self.has_ended = False
        self._data: list[bytes] = []
        self._waiting: set[Callable[[], object]] = set()

    def add(self, data: bytes) -> None:
        """Add one or more events. It is called for every token."""
        if data:
            self._data.append(data)
            if self._waiting:
                self._wake()

    def end(self, data: bytes = b"") -> None:
        """Add the last events, and end."""
        self.add(data)
        self.has_ended = True
        self._wake()

    @property
    def end_position(self) -> int:
        """Return the position after all data so far."""
        return len(self._data)

    def read(self, position: int) -> tuple[bytes, int]:
        """Return the next part of the data from ``position`` on, and the next position."""
        size, end = 0, position
        while size < PART_BYTES and end < len(self._data):
            size += len(self._data[end])
            end += 1
        return b"".join(self._data[position:end]), end

    def on_change(self, wake: Callable[[], object]) -> None:
        """Call ``wake`` once when there is more to read, from any thread."""
        self._waiting.add(wake)

    def forget(self, wake: Callable[[], object]) -> None:
        """Do not call ``wake`` any more."""
        self._waiting.discard(wake)

    def _wake(self) -> None:
        # Others may add themselves meanwhile; those may be called once too often.
        for _ in range(len(self._waiting)):
            try:
                wake = self._waiting.pop()
            except KeyError:
                return
            wake()
