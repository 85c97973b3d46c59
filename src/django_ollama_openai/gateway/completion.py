"""A completion: the choices of its answer, each asked for on its own, all at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ..exceptions import GatewayError
from ..pump import aclosed, closed
from ..translation.chat_completion import ChatCompletionWriter
from ..translation.tool_choice import Answering
from ..wire.delta import Delta
from ..wire.engine import EngineRequest
from .accounting import Account
from .routing import Route
from .work import Work

__all__ = ["Choice", "Completion", "whole"]

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


class Choice(Generic[R]):
    """One choice; ``ask`` and ``aask`` are the backend's methods for its endpoint."""

    def __init__(
        self,
        index: int,
        answering: Answering[R],
        ask: Callable[[R], Iterator[Delta]],
        aask: Callable[[R], AsyncIterator[Delta]],
    ) -> None:
        self._index = index
        self._answering = answering
        self._ask = ask
        self._aask = aask

    def items(self) -> Iterator[Delta]:
        for attempt in self._answering.attempts():
            deltas = self._ask(attempt)
            with closed(deltas):
                for delta in deltas:
                    yield self._fed(delta)

    async def aitems(self) -> AsyncIterator[Delta]:
        for attempt in self._answering.attempts():
            deltas = self._aask(attempt)
            async with aclosed(deltas):
                async for delta in deltas:
                    yield self._fed(delta)

    def _fed(self, delta: Delta) -> Delta:
        delta = self._answering.feed(delta)
        delta.index = self._index
        return delta


class Completion(Work[Delta]):
    """A completion, streamed or in one piece."""

    def __init__(
        self,
        *,
        route: Route,
        choices: Sequence[Choice[Any]],
        account: Account,
        writer: ChatCompletionWriter,
        is_stream: bool,
    ) -> None:
        super().__init__(route=route, sources=choices, account=account)
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
