"""Sources: the parts of an answer that engines produce at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from .._wire.engine import EngineRequest
from ..backends import BaseBackend
from ..backends._leases import aonce, once
from .stages import Steps

__all__ = ["Method", "Source"]

R = TypeVar("R", bound=EngineRequest)
T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Method(Generic[R, T]):
    """A method of backends, and its async version, which answer requests with an iterator."""

    sync: Callable[[BaseBackend, R], Iterator[T]]
    async_: Callable[[BaseBackend, R], AsyncIterator[T]]

    @classmethod
    def once(
        cls, sync: Callable[[BaseBackend, R], T], async_: Callable[[BaseBackend, R], Awaitable[T]]
    ) -> Method[R, T]:
        """Return a method that answers with one item."""
        return cls(
            lambda backend, request: once(partial(sync, backend, request)),
            lambda backend, request: aonce(partial(async_, backend, request)),
        )


class Source(Generic[R, T]):
    """A part of an answer: the result of ``method`` for ``request``, which is not yet routed."""

    def __init__(self, request: R, method: Method[R, T]) -> None:
        self._request = request
        self._method = method

    def steps(self) -> Steps[T]:
        """Yield requests to the engine, I/O and items, as stages do."""
        yield self._request

    def prepare(self, routed: Any) -> Any:
        """Return the request of this source, made from ``routed``."""
        return routed

    def requests(self, request: R, backend: BaseBackend) -> Iterable[R]:
        """Return the requests to send to ``backend`` for ``request``, one after another."""
        return (request,)

    def calls(self, request: R, backend: BaseBackend) -> Iterator[Iterator[T]]:
        """Return the calls of ``backend`` that answer ``request``, each made when it is read."""
        return map(partial(self._method.sync, backend), self.requests(request, backend))

    def acalls(self, request: R, backend: BaseBackend) -> Iterator[AsyncIterator[T]]:
        """Async version of :meth:`calls`."""
        return map(partial(self._method.async_, backend), self.requests(request, backend))

    def feed(self, item: T) -> T:
        """Return ``item``, which the engine has sent, as the client is to get it."""
        return item

    def own(self, item: T) -> T:
        """Return ``item``, which :meth:`steps` has yielded, as an item of this source."""
        return item
