"""``Stages``: how stages nest, and what they see of deltas and errors."""

from __future__ import annotations

from typing import Any

import pytest

from django_ollama_openai._gateway.flow import Call, call
from django_ollama_openai._gateway.stages import BaseStage, Stages, Steps
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta


def request(model: str = "m") -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict(
        {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    )


async def unused() -> None:
    """The async twin of calls that are made here in their sync way."""


def named(name: str) -> type[BaseStage]:
    """A stage that makes two requests, with I/O between them, and adds its name to deltas."""

    class Stage(BaseStage):
        def steps(self) -> Steps[Delta]:
            yield request(f"{self.request.model}/{name}1")
            found = yield from call(lambda: f"found by {name}", unused)
            yield Delta(found or "")
            yield request(f"{self.request.model}/{name}2")

        def feed(self, delta: Delta) -> Delta:
            delta.content += f" {name}"
            return delta

    return Stage


def run(stages: Stages) -> list[str | None]:
    """What leaves the stages, where the engine answers each request with its model's name."""
    steps = stages.steps(request())
    seen: list[str | None] = []
    result: Any = None
    while True:
        try:
            step = steps.send(result)
        except StopIteration:
            return seen
        result = None
        if isinstance(step, Call):
            result = step.sync()
        elif isinstance(step, Delta):
            seen.append(step.content)
        else:
            seen.append(stages.feed(Delta(step.model or "")).content)


def test_without_stages_the_request_goes_to_the_engine() -> None:
    assert run(Stages([])) == ["m"]


def test_what_an_outer_stage_yields_is_run_by_the_next_inner_one() -> None:
    assert run(Stages([named("a"), named("b")])) == [
        "m/a1/b1 b a",
        "found by b a",
        "m/a1/b2 b a",
        "found by a",
        "m/a2/b1 b a",
        "found by b a",
        "m/a2/b2 b a",
    ]


@pytest.mark.parametrize("catches", [True, False])
def test_an_error_is_raised_where_the_stage_waits(catches: bool) -> None:
    closed: list[str] = []

    class Outer(BaseStage):
        def steps(self) -> Steps[Delta]:
            try:
                yield self.request
            except ValueError as error:
                yield Delta(f"instead: {error}")

    class Inner(BaseStage):
        def steps(self) -> Steps[Delta]:
            try:
                yield self.request
            finally:
                closed.append("inner")

    stages = Stages([Outer, Inner] if catches else [Inner])
    steps = stages.steps(request())
    assert isinstance(next(steps), ChatCompletionRequest)
    if catches:
        step = steps.throw(ValueError("no"))
        assert isinstance(step, Delta)
        assert step.content == "instead: no"
    else:
        with pytest.raises(ValueError, match="no"):
            steps.throw(ValueError("no"))
    assert closed == ["inner"]


def test_closing_the_steps_closes_all_stages() -> None:
    closed: list[BaseStage] = []

    class Stage(BaseStage):
        def steps(self) -> Steps[Delta]:
            try:
                yield self.request
            finally:
                closed.append(self)

    steps = Stages([Stage, Stage]).steps(request())
    next(steps)
    steps.close()
    assert len(closed) == 2
