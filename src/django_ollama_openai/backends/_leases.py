"""Retry: the loop that tries one lease of an engine after another until one answers.

The leases come from a generator, :meth:`BaseBackend.leases`. A failure is thrown into it, where it
yields the next lease or raises the error for the client. So a pool's members and a model's
fallbacks are tried by the code that knows them, and sync and async share it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from .._closing import aclosed, closed
from ._slots import QueueTicket, Slot

if TYPE_CHECKING:
    from ._base import BaseBackend

__all__ = ["Lease", "Leases", "aonce", "astream", "once", "stream"]

T = TypeVar("T")


class Lease(Slot):
    """A slot of ``backend``, for one request to its engine.

    Attributes:
        backend: The backend that has the slot; of a pool's lease, the pool until it is acquired.
        has_begun: Whether the engine has answered something. A later failure is final.
    """

    __slots__ = ("backend", "has_begun")

    def __init__(self, backend: BaseBackend, ticket: QueueTicket) -> None:
        super().__init__(backend.slots, ticket)
        self.backend = backend
        self.has_begun = False


Leases: TypeAlias = Generator[Lease, None, None]


def stream(
    leases: Leases,
    calls: Callable[[Lease], Iterable[Iterator[T]]],
    claim: Callable[[], None] | None = None,
) -> Iterator[T]:
    """Yield the items of the first of ``leases`` that answers.

    Args:
        leases: A generator of leases. It is resumed when one has answered, and thrown the error of
            one that has failed, while that still has its slot.
        calls: Return the calls of the engine for a lease, which are made one after another.
        claim: Called before the first item of a lease; may raise an error.

    Raises:
        Exception: The exception that leaves ``leases`` after the last error.
    """
    lease: Lease | None = next(leases)
    while lease is not None:
        current = lease
        try:
            current.acquire()
            for items in calls(current):
                with closed(items):
                    for item in items:
                        if not current.has_begun:
                            if claim is not None:
                                claim()
                            current.has_begun = True
                        yield item
        except Exception as error:
            lease = leases.throw(error)
            if current.has_begun:
                raise
        else:
            lease = next(leases, None)
        finally:
            current.release()


async def astream(
    leases: Leases,
    calls: Callable[[Lease], Iterable[AsyncIterator[T]]],
    claim: Callable[[], None] | None = None,
) -> AsyncIterator[T]:
    """Async version of :func:`stream`."""
    lease: Lease | None = next(leases)
    while lease is not None:
        current = lease
        try:
            await current.aacquire()
            for items in calls(current):
                async with aclosed(items):
                    async for item in items:
                        if not current.has_begun:
                            if claim is not None:
                                claim()
                            current.has_begun = True
                        yield item
        except Exception as error:
            lease = leases.throw(error)
            if current.has_begun:
                raise
        else:
            lease = next(leases, None)
        finally:
            current.release()


def once(answer: Callable[[], T]) -> Iterator[T]:
    """Yield the result of ``answer()``."""
    yield answer()


async def aonce(answer: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
    """Async version of :func:`once`."""
    yield await answer()
