"""A limit on how long a thread waits for an engine, over many reads."""

from __future__ import annotations

import time
from typing import Self

__all__ = ["Deadline"]


class Deadline(float):
    """What is left of ``seconds``, for whoever knows to ask; ``seconds`` for anybody else.

    A limit on each read is none on all of them: an engine that sends a byte now and then, or
    something that is no answer, evades it. ``httpcore`` gives each read of a response the same
    number. Given this one, ``InterruptibleTransport`` looks at the clock before each; other
    transports take it for the number that it is.
    """

    __slots__ = ("_until",)

    _until: float

    def __new__(cls, seconds: float) -> Self:
        deadline = super().__new__(cls, seconds)
        deadline.begins(seconds)
        return deadline

    def begins(self, seconds: float) -> None:
        """The thread waits again, for so many seconds from now at the most."""
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """How many seconds it may still wait. There are none if this is not positive."""
        return self._until - time.monotonic()
