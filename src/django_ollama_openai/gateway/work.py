"""What a backend is asked to do for one request: pure state, driven by ``delivery``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from ..exceptions import GatewayError, InvalidRequest, ModelNotFound
from .accounting import Account
from .failures import log_missing_model, told
from .routing import Route

__all__ = ["Source", "Work"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Something that the backend produces on its own, beside other sources of the same work."""

    def items(self) -> Iterator[T_co]:
        """What the backend gives."""
        ...

    def aitems(self) -> AsyncIterator[T_co]:
        """The same, asynchronously."""
        ...


class Work(Generic[T]):
    """Asks the backend, accounts for what it gives, and turns it into what the client gets."""

    is_stream = False

    def __init__(self, *, route: Route, sources: Sequence[Source[T]], account: Account) -> None:
        self.sources = sources
        self.account = account
        self.slots = route.backend.slots
        self._route = route

    def feed(self, item: T) -> bytes:
        """What the client gets for ``item``; nothing, as long as the answer is not whole."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """The backend has come to its end: the rest of what the client gets."""
        raise NotImplementedError

    def save(self) -> None:
        """Keep what is to be kept of the answer, before the client gets the last of it."""

    async def asave(self) -> None:
        """The same under ASGI."""

    def fail(self, error: Exception) -> GatewayError:
        """The backend has failed: what the client is told instead of an answer."""
        told = self._told(error)
        self.account.failed(told)
        return told

    def failure_frame(self, error: GatewayError) -> bytes:
        """The same, for a client that has got a part of the answer already."""
        raise NotImplementedError

    def _told(self, error: Exception) -> GatewayError:
        # The backend knows its own name of the model; the client asked for the public one.
        public = self._route.name
        if isinstance(error, ModelNotFound):
            if self._route.promised:
                log_missing_model(self._route, self.account.request_id)
            return ModelNotFound(public)
        if isinstance(error, InvalidRequest):
            name = re.escape(self._route.model)
            # As a word of its own: a model may be called "a".
            error.message = re.sub(
                rf"(?<![\w./:-]){name}(?![\w/:-]|\.\w)", lambda _: public, error.message
            )
        return told(error, self._route.alias, self.account.request_id)
