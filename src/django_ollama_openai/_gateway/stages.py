"""Stages: the steps between a client's request and the requests that go to the engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeAlias, TypeVar

from .._wire.chat import ChatCompletionRequest
from .._wire.delta import Delta
from .._wire.engine import EngineRequest
from .flow import Call, StepLoop

__all__ = ["BaseStage", "StageFactory", "Stages", "Steps"]

T = TypeVar("T")

Steps: TypeAlias = Generator[EngineRequest | Call | T, Any, None]


class BaseStage:
    """Turns one request into any number of requests to the engine, with I/O between them.

    An object serves one request: the client's, for one choice, or one that another stage yields.
    Its methods must not block; :meth:`steps` yields the I/O instead.
    """

    def __init__(self, request: ChatCompletionRequest) -> None:
        self.request = request

    def steps(self) -> Steps[Delta]:
        """Yield the steps of an answer, one after another.

        - A request: it goes to the engine, or to the next stage, which may make several of it. The
          stage is resumed when the engine has answered it. An engine's slot is held meanwhile, but
          not after.
        - A :class:`Call`, as in ``result = yield from call(get, aget, key)``: its result is sent
          back.
        - A :class:`Delta`: it is sent to the client, after the stages around this one.

        An error of a request or of a call is raised where it was yielded. An exception that leaves
        this generator ends the answer; if it is no
        :class:`~django_ollama_openai.exceptions.GatewayError` it is logged, and a 500 for the
        client.
        """
        yield self.request

    def feed(self, delta: Delta) -> Delta:
        """Return ``delta``, which the engine has sent, as the client is to get it. Its usage is the
        sum of this request and those before. A finish reason that is left in it ends the choice."""
        return delta


StageFactory: TypeAlias = Callable[[ChatCompletionRequest], BaseStage]


class Stages:
    """The nested stages that ``factories`` make for one choice, the outermost first."""

    __slots__ = ("_active", "_factories")

    def __init__(self, factories: Sequence[StageFactory]) -> None:
        self._factories = factories
        self._active: list[BaseStage] = []

    def steps(self, request: Any, depth: int = 0) -> Steps[Delta]:
        """Yield the steps for ``request`` that no stage is left to take: requests to the engine,
        calls, and deltas for the client."""
        if depth == len(self._factories):
            yield request
            return
        stage = self._factories[depth](request)
        self._active.append(stage)
        try:
            with closing(StepLoop(stage.steps())) as steps:
                for step in steps:
                    with steps:
                        if isinstance(step, EngineRequest):
                            yield from self.steps(step, depth + 1)
                        elif isinstance(step, Delta):
                            yield self.feed(step, depth)
                        else:
                            steps.result = yield step
        finally:
            self._active.pop()

    def feed(self, delta: Delta, depth: int | None = None) -> Delta:
        """Return what the first ``depth`` stages make of ``delta``, the innermost first."""
        for stage in reversed(self._active[:depth]):
            delta = stage.feed(delta)
        return delta
