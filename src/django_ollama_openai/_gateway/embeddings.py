"""``POST v1/embeddings``. The gates before it stand in :mod:`~.admission`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from .._translation.embeddings import embeddings_response
from .._wire.case import Case
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .accounting import Account
from .admission import Admission
from .exchange import Reply, settle_parameters
from .flow import Flow
from .routing import Route
from .work import Work

__all__ = ["embed"]


def embed(admission: Admission[EmbeddingsRequest]) -> Flow[Reply]:
    """Answer a request for embeddings; raises as :meth:`Exchange.reply` does."""
    exchange = admission.exchange
    body, route, case = admission.body, admission.route, admission.mount.case
    body, ignored = settle_parameters(body, route.backend.unsupported_parameters(body), route)
    account = exchange.account(admission.caller, route, endpoint="embeddings", body=body, choices=0)
    return (yield from exchange.reply(_Embedding(body, route, case, account), ignored))


class _Embedding(Work[Embeddings]):
    """All inputs of a request, in one piece. It is the only source of itself."""

    def __init__(self, body: EmbeddingsRequest, route: Route, case: Case, account: Account) -> None:
        super().__init__(route=route, request=body, sources=[self], account=account)
        self._body = body
        self._name = route.name
        self._case = case
        self._answer = b""

    def items(self, route: Route) -> Iterator[Embeddings]:
        yield route.backend.embed(self._body.routed_to(route.model, route.options))

    async def aitems(self, route: Route) -> AsyncIterator[Embeddings]:
        yield await route.backend.aembed(self._body.routed_to(route.model, route.options))

    def feed(self, item: Embeddings) -> bytes:
        self.account.feed(Delta(usage=item.usage, tokens=0))
        self._answer = embeddings_response(
            item, self._name, self._body.encoding_format or "float", self._case
        )
        return b""

    def finish(self) -> bytes:
        self.account.finished()
        return self._answer
