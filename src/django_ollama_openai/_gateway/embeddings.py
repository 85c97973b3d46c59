"""``POST v1/embeddings``. The gates before it stand in :func:`~.exchange.admit`."""

from __future__ import annotations

from typing import Final

from .._translation.embeddings import embeddings_response
from .._wire.case import Case
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .accounting import Account
from .exchange import Exchange, Reply, admit, settle_parameters
from .flow import Flow
from .routing import Route
from .sources import Method, Source
from .work import Work

__all__ = ["embed"]

EMBED: Final = Method[EmbeddingsRequest, Embeddings].once(
    lambda backend, request: backend.embed(request),
    lambda backend, request: backend.aembed(request),
)


def embed(exchange: Exchange) -> Flow[Reply]:
    """Answer a request for embeddings; raises as :meth:`Exchange.reply` does."""
    admitted = yield from admit(exchange, EmbeddingsRequest, "embeddings")
    body, route, case = admitted.body, admitted.route, admitted.mount.case
    body, ignored = settle_parameters(body, route.backend.unsupported_parameters(body), route)
    account = exchange.account(admitted.caller, route, endpoint="embeddings", body=body, choices=0)
    return (yield from exchange.reply(_Embedding(body, route, case, account), ignored))


class _Embedding(Work[Embeddings]):
    """All inputs of a request, in one piece. It has one source."""

    def __init__(self, body: EmbeddingsRequest, route: Route, case: Case, account: Account) -> None:
        super().__init__(route=route, request=body, sources=[Source(body, EMBED)], account=account)
        self._body = body
        self._name = route.name
        self._case = case
        self._answer = b""

    def feed(self, item: Embeddings) -> bytes:
        self.account.feed(Delta(usage=item.usage, tokens=0))
        self._answer = embeddings_response(
            item, self._name, self._body.encoding_format or "float", self._case
        )
        return b""

    def finish(self) -> bytes:
        self.account.finished()
        return self._answer
