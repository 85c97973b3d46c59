"""A completion: the choices of its answer, each asked for on its own, all at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .._closing import aclosed, closed
from .._translation.chat_completion import ChatCompletionWriter
from .._translation.tool_choice import Answering
from .._wire.delta import Delta
from .._wire.engine import EngineRequest
from ..exceptions import GatewayError
from .accounting import Account
from .routing import Route
from .work import Work

__all__ = ["Asking", "Choice", "Completion", "whole"]

R = TypeVar("R", bound=EngineRequest)


def whole(
    ask: Callable[[R], Delta], aask: Callable[[R], Awaitable[Delta]]
) -> tuple[Callable[[R], Iterator[Delta]], Callable[[R], AsyncIterator[Delta]]]:
    """A backend's methods that answer in one piece, as if they streamed it."""

    def stream(request: R) -> Iterator[Delta]:
        yield ask(request)

    async def astream(request: R) -> AsyncIterator[Delta]:
        yield await aask(request)

    return stream, astream


@dataclass(slots=True, frozen=True)
class Asking(Generic[R]):
    """What a backend is asked for one choice, and its methods for that endpoint."""

    answering: Answering[R]
    ask: Callable[[R], Iterator[Delta]]
    aask: Callable[[R], AsyncIterator[Delta]]


class Choice(Generic[R]):
    """One choice; ``asking`` says how it is asked for where a route leads."""

    def __init__(self, index: int, asking: Callable[[Route], Asking[R]]) -> None:
        self._index = index
        self._asking = asking

    def items(self, route: Route) -> Iterator[Delta]:
        asking, index = self._asking(route), self._index
        feed = asking.answering.feed
        for request in asking.answering.attempts():
            deltas = asking.ask(request)
            with closed(deltas):
                for delta in deltas:
                    delta = feed(delta)
                    delta.index = index
                    yield delta

    async def aitems(self, route: Route) -> AsyncIterator[Delta]:
        asking, index = self._asking(route), self._index
        feed = asking.answering.feed
        for request in asking.answering.attempts():
            deltas = asking.aask(request)
            async with aclosed(deltas):
                async for delta in deltas:
                    delta = feed(delta)
                    delta.index = index
                    yield delta


class Completion(Work[Delta]):
    """A completion, streamed or in one piece."""

    def __init__(
        self,
        *,
        route: Route,
        request: EngineRequest,
        choices: Sequence[Choice[Any]],
        account: Account,
        writer: ChatCompletionWriter,
        is_stream: bool,
    ) -> None:
        super().__init__(route=route, request=request, sources=choices, account=account)
        self.is_stream = is_stream
        self._writer = writer

    def feed(self, item: Delta) -> bytes:
        self.account.feed(item)
        return self._writer.feed(item)

    def finish(self) -> bytes:
        self.account.finished()
        return self._writer.finish()

    def failure_frame(self, error: GatewayError) -> bytes:
        return self._writer.fail(error)
