"""Close an iterator after a block, if it has a method for that, as generators have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

__all__ = ["aclosed", "closed"]


@contextmanager
def closed(closable: object) -> Iterator[None]:
    """Call ``closable.close()`` after the block, if there is such a method."""
    try:
        yield
    finally:
        close: Callable[[], None] | None = getattr(closable, "close", None)
        if close is not None:
            close()


class aclosed:
    """Await ``closable.aclose()`` after the block, if there is such a method.

    A class, because every stream uses it several times, and a generator costs more.
    """

    __slots__ = ("_closable",)

    def __init__(self, closable: object) -> None:
        self._closable = closable

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        aclose: Callable[[], Awaitable[None]] | None = getattr(self._closable, "aclose", None)
        if aclose is not None:
            await aclose()
