from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import pytest

from django_ollama_openai._gateway.flow import Flow, arun, call, run

R = TypeVar("R")

Drive: TypeAlias = Callable[[Flow[Any]], Any]


def drive_async(flow: Flow[R]) -> R:
    return asyncio.run(arun(flow))


@pytest.fixture(params=[run, drive_async], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Drive:
    driver: Drive = request.param
    return driver


def double(number: int, *, plus: int = 0) -> int:
    return 2 * number + plus


async def adouble(number: int, *, plus: int = 0) -> int:
    await asyncio.sleep(0)
    return 2 * number + plus


def fail(error: BaseException) -> int:
    raise error


async def afail(error: BaseException) -> int:
    await asyncio.sleep(0)
    raise error


def doubled(number: int) -> Flow[int]:
    return (yield from call(double, adouble, number))


def test_a_flow_gets_the_results_of_its_calls_and_of_other_flows(drive: Drive) -> None:
    error = ValueError("returned, not raised")

    async def returned() -> ValueError:
        return error

    def flow() -> Flow[list[Any]]:
        first = yield from call(double, adouble, 1)
        second = yield from call(double, adouble, first, plus=3)
        third = yield from doubled((yield from doubled(second)))
        return [first, second, third, (yield from call(lambda: error, returned))]

    assert drive(flow()) == [2, 7, 28, error]


def test_each_driver_makes_its_own_call_in_its_own_task() -> None:
    async def task() -> Any:
        return asyncio.current_task()

    def flow() -> Flow[Any]:
        return (yield from call(lambda: "synchronous", task))

    async def main() -> bool:
        return await arun(flow()) is asyncio.current_task()

    assert run(flow()) == "synchronous"
    assert asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_is_raised_where_the_call_was_made(drive: Drive, error: BaseException) -> None:
    steps: list[Any] = []

    def inner() -> Flow[None]:
        try:
            yield from call(fail, afail, error)
        finally:
            steps.append((yield from doubled(1)))

    def outer(catch: bool) -> Flow[int]:
        try:
            yield from inner()
        except BaseException as raised:
            steps.append(raised)
            if not catch:
                raise
        return (yield from doubled(4))

    assert drive(outer(catch=True)) == 8
    assert steps == [2, error]
    with pytest.raises(type(error)) as caught:
        drive(outer(catch=False))
    assert caught.value is error
    assert steps == [2, error] * 2


def test_a_stop_iteration_of_a_call_does_not_end_the_flow() -> None:
    # It would look like the flow's own return value.
    empty: list[str] = []

    async def nothing() -> str:
        raise NotImplementedError

    def flow() -> Flow[str]:
        return (yield from call(iter(empty).__next__, nothing))

    with pytest.raises(RuntimeError):
        run(flow())


def test_a_cancelled_task_cancels_the_call_and_reaches_the_flow() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("call")

    def inner() -> Flow[None]:
        try:
            yield from call(lambda: None, wait)
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    def outer() -> Flow[None]:
        try:
            yield from inner()
        finally:
            # Cleaning up may take calls of its own.
            seen.append(f"outer {(yield from doubled(1))}")

    async def main() -> None:
        async with asyncio.timeout(0.01):
            await arun(outer())

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert seen == ["call", "inner", "outer 2"]
