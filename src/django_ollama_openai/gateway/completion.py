"""One completion on its way from the backend to the client: pure state, driven by ``delivery``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from ..backends import BaseBackend
from ..exceptions import GatewayError, InvalidRequest, ModelNotFound
from ..translation.chat_completion import ChatCompletionWriter
from ..wire.chat import ChatCompletionRequest
from ..wire.delta import Delta
from .accounting import Account
from .failures import told
from .routing import Route

__all__ = ["Completion"]


class Completion:
    """Asks the backend, accounts for what it gives, and turns it into what the client gets."""

    def __init__(
        self,
        *,
        request: ChatCompletionRequest,
        route: Route,
        writer: ChatCompletionWriter,
        account: Account,
    ) -> None:
        self.is_stream = bool(request.stream)
        self.account = account
        self._backend: BaseBackend = route.backend
        self._request = request.routed_to(route.model, route.options)
        self._public_name = route.name
        self._writer = writer

    def deltas(self) -> Iterator[Delta]:
        """What the backend gives; a whole answer is one delta."""
        if self.is_stream:
            return self._backend.stream_chat(self._request)
        return iter([self._backend.chat(self._request)])

    def adeltas(self) -> AsyncIterator[Delta]:
        """The same, asynchronously."""
        if self.is_stream:
            return self._backend.astream_chat(self._request)
        return self._awhole()

    async def _awhole(self) -> AsyncIterator[Delta]:
        yield await self._backend.achat(self._request)

    def feed(self, delta: Delta) -> bytes:
        """What the client gets for ``delta``; nothing, as long as the answer is not whole."""
        self.account.feed(delta)
        return self._writer.feed(delta)

    def finish(self) -> bytes:
        """The backend has come to its end."""
        self.account.finished()
        return self._writer.finish()

    def fail(self, error: Exception) -> GatewayError:
        """The backend has failed: what the client is told instead of an answer."""
        told = self._told(error)
        self.account.failed(told)
        return told

    def failure_frame(self, error: GatewayError) -> bytes:
        """The same, for a client that has got a part of the answer already."""
        return self._writer.fail(error)

    def _told(self, error: Exception) -> GatewayError:
        # The backend knows its own name of the model; the client asked for the public one.
        if isinstance(error, ModelNotFound):
            return ModelNotFound(self._public_name)
        if isinstance(error, InvalidRequest):
            name = re.escape(str(self._request.model))
            # As a word of its own: a model may be called "a".
            error.message = re.sub(
                rf"(?<![\w./:-]){name}(?![\w./:-])", lambda _: self._public_name, error.message
            )
        return told(error, self._backend.alias)
