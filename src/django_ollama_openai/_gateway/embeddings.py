"""``POST v1/embeddings``."""

from __future__ import annotations

from typing import Final

from .._translation.embeddings import embeddings_response
from .._wire.case import Case
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .accounting import Account
from .admission import Admission
from .delivery import Reply, deliver
from .flow import Flow
from .routing import Route
from .sources import Method, Source
from .work import Work

__all__ = ["embed"]

EMBED: Final = Method[EmbeddingsRequest, Embeddings].once(
    lambda backend, request: backend.embed(request),
    lambda backend, request: backend.aembed(request),
)


def embed(admission: Admission[EmbeddingsRequest]) -> Flow[Reply]:
    """Answer a request for embeddings; raises as :func:`~.delivery.deliver` does."""
    route = admission.engine_route
    account = Account(admission, choices=0)
    work = _Embedding(admission.body, route, admission.mount.case, account)
    return (yield from deliver(admission, work))


class _Embedding(Work[Embeddings]):
    """The vectors of all inputs, in one piece, from one source."""

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
