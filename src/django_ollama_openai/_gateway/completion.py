"""Completions: each choice is a request to an engine, and all of them run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from .._translation.chat_completion import ChatCompletionWriter
from .._translation.tool_choice import ToolChoiceAdapter, tool_choice_adapter
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Usage
from .._wire.engine import EngineRequest
from ..backends import BaseBackend
from ..exceptions import GatewayError
from .accounting import Account
from .routing import Route
from .sources import Method, Source
from .stages import StageFactory, Stages, Steps
from .work import Work

__all__ = ["Completion", "chat_sources", "text_sources"]

R = TypeVar("R", bound=EngineRequest)

STREAM_CHAT: Final[Method[ChatCompletionRequest, Delta]] = Method(
    lambda backend, request: backend.stream_chat(request),
    lambda backend, request: backend.astream_chat(request),
)
CHAT: Final = Method[ChatCompletionRequest, Delta].once(
    lambda backend, request: backend.chat(request),
    lambda backend, request: backend.achat(request),
)
STREAM_COMPLETE: Final[Method[CompletionRequest, Delta]] = Method(
    lambda backend, request: backend.stream_complete(request),
    lambda backend, request: backend.astream_complete(request),
)
COMPLETE: Final = Method[CompletionRequest, Delta].once(
    lambda backend, request: backend.complete(request),
    lambda backend, request: backend.acomplete(request),
)


def chat_sources(
    body: ChatCompletionRequest, stages: Sequence[StageFactory] = ()
) -> list[Source[Any, Delta]]:
    """Return a source for each choice of ``body``; ``stages`` begin with the outermost.

    Tool choice is the innermost stage. It does no I/O, and all requests that it makes of one go to
    one engine, under one lease.
    """
    method = STREAM_CHAT if body.stream else CHAT
    return [
        _ChatChoice(
            index, body, method, partial(ChatCompletionRequest.for_choice, number=index), stages
        )
        for index in range(body.n or 1)
    ]


def text_sources(body: CompletionRequest) -> list[Source[Any, Delta]]:
    """Return ``n`` sources for each prompt, in OpenAI's order: all choices of a prompt together."""
    method = STREAM_COMPLETE if body.stream else COMPLETE
    pairs = [(prompt, number) for prompt in body.prompts() for number in range(body.n or 1)]
    return [
        _Choice(
            index,
            body,
            method,
            partial(CompletionRequest.for_prompt, prompt=prompt, number=number),
        )
        for index, (prompt, number) in enumerate(pairs)
    ]


class _Choice(Source[R, Delta]):
    """The choice ``index`` of a completion; ``prepare`` turns the routed request into its own."""

    def __init__(
        self, index: int, request: R, method: Method[R, Delta], prepare: Callable[[R], R]
    ) -> None:
        super().__init__(request, method)
        self._index = index
        self._prepare = prepare

    def prepare(self, routed: R) -> R:
        return self._prepare(routed)

    def feed(self, item: Delta) -> Delta:
        item.index = self._index
        return item

    own = feed


class _ChatChoice(_Choice[ChatCompletionRequest]):
    """A choice of a chat completion. Its usage is the sum of all requests to engines."""

    def __init__(
        self,
        index: int,
        request: ChatCompletionRequest,
        method: Method[ChatCompletionRequest, Delta],
        prepare: Callable[[ChatCompletionRequest], ChatCompletionRequest],
        stages: Sequence[StageFactory],
    ) -> None:
        super().__init__(index, request, method, prepare)
        self._stages = Stages(stages) if stages else None
        self._adapter: ToolChoiceAdapter | None = None
        # Of the current request, and of those before it.
        self._usage = self._spent = Usage()

    def steps(self) -> Steps[Delta]:
        return super().steps() if self._stages is None else self._stages.steps(self._request)

    def requests(
        self, request: ChatCompletionRequest, backend: BaseBackend
    ) -> Iterable[ChatCompletionRequest]:
        self._adapter = tool_choice_adapter(request, backend.supported_parameters)
        for each in (request,) if self._adapter is None else self._adapter.requests():
            self._spent, self._usage = self._spent + self._usage, Usage()
            yield each

    def feed(self, item: Delta) -> Delta:
        if self._adapter is not None:
            item = self._adapter.feed(item)
        if item.usage is not None:
            self._usage = item.usage
            item.usage = self._spent + item.usage
        if self._stages is not None:
            item = self._stages.feed(item)
        item.index = self._index
        return item


class Completion(Work[Delta]):
    """A completion, streamed or in one piece."""

    def __init__(
        self,
        *,
        route: Route,
        request: EngineRequest,
        sources: Sequence[Source[Any, Delta]],
        account: Account,
        writer: ChatCompletionWriter,
        is_stream: bool,
    ) -> None:
        super().__init__(route=route, request=request, sources=sources, account=account)
        self.is_stream = is_stream
        self._writer = writer

    def begin(self) -> bytes:
        return self._writer.begin()

    def feed(self, item: Delta) -> bytes:
        self.account.feed(item)
        return self._writer.feed(item)

    def finish(self) -> bytes:
        self.account.finished()
        return self._writer.finish()

    def failure_frame(self, error: GatewayError) -> bytes:
        return self._writer.fail(error)
