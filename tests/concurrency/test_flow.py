from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import pytest

from django_ollama_openai._gateway.flow import Call, Flow, arun, call, run

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


# Results


def test_a_flow_gets_the_results_of_its_calls(drive: Drive) -> None:
    def flow() -> Flow[list[int]]:
        first = yield from call(double, adouble, 1)
        second = yield from call(double, adouble, first, plus=3)
        return [first, second]

    assert drive(flow()) == [2, 7]


def test_a_flow_without_calls_is_just_its_value(drive: Drive) -> None:
    def flow(number: int) -> Flow[int]:
        return number if number < 5 else (yield from doubled(number))

    assert drive(flow(1)) == 1
    assert drive(flow(5)) == 10


def test_flows_are_made_of_flows(drive: Drive) -> None:
    def middle(number: int) -> Flow[int]:
        return (yield from doubled((yield from doubled(number))))

    def outer() -> Flow[list[int]]:
        return [(yield from middle(1)), (yield from middle(2)), (yield from doubled(3))]

    assert drive(outer()) == [4, 8, 6]


def test_each_driver_makes_its_own_call() -> None:
    async def told() -> str:
        return "asynchronous"

    def flow() -> Flow[str]:
        return (yield from call(lambda: "synchronous", told))

    assert run(flow()) == "synchronous"
    assert drive_async(flow()) == "asynchronous"


def test_nothing_is_called_before_the_flow_is_driven(drive: Drive) -> None:
    made: list[str] = []

    async def asynchronous() -> None:
        made.append("call")

    def flow() -> Flow[None]:
        made.append("flow")
        yield from call(lambda: made.append("call"), asynchronous)

    waiting = flow()
    assert made == []
    step = next(waiting)
    assert isinstance(step, Call)
    assert made == ["flow"]
    waiting.close()
    drive(flow())
    assert made == ["flow", "flow", "call"]


def test_the_calls_of_a_flow_are_made_in_the_drivers_own_thread_and_task() -> None:
    async def current() -> Any:
        return asyncio.current_task()

    def flow() -> Flow[Any]:
        return (yield from call(lambda: None, current))

    async def main() -> bool:
        return await arun(flow()) is asyncio.current_task()

    assert asyncio.run(main())


# Errors


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_of_a_call_is_raised_where_it_was_made(drive: Drive, error: BaseException) -> None:
    caught: list[BaseException] = []

    def flow() -> Flow[str]:
        try:
            yield from call(fail, afail, error)
        except BaseException as raised:
            caught.append(raised)
        return "went on"

    assert drive(flow()) == "went on"
    assert caught == [error]


def test_after_an_error_the_flow_may_make_more_calls(drive: Drive) -> None:
    def flow() -> Flow[int]:
        try:
            yield from call(fail, afail, ValueError("x"))
        except ValueError:
            yield from doubled(1)
        return (yield from doubled(4))

    assert drive(flow()) == 8


def test_an_error_that_nobody_catches_comes_out_as_it_is(drive: Drive) -> None:
    error = ValueError("x")
    cleaned: list[int] = []

    def inner() -> Flow[None]:
        try:
            yield from call(fail, afail, error)
        finally:
            cleaned.append((yield from doubled(1)))

    def outer() -> Flow[None]:
        try:
            yield from inner()
        finally:
            cleaned.append((yield from doubled(2)))

    with pytest.raises(ValueError, match="x") as caught:
        drive(outer())
    assert caught.value is error
    assert cleaned == [2, 4]


def test_an_error_may_be_raised_again_or_replaced(drive: Drive) -> None:
    def inner(again: bool) -> Flow[None]:
        try:
            yield from call(fail, afail, KeyError("inner"))
        except KeyError as error:
            if again:
                raise
            raise ValueError("outer") from error

    def outer(again: bool) -> Flow[str]:
        try:
            yield from inner(again)
        except (KeyError, ValueError) as error:
            return type(error).__name__
        return "nothing"

    assert drive(outer(True)) == "KeyError"
    assert drive(outer(False)) == "ValueError"


def test_an_error_of_the_flow_itself_comes_out(drive: Drive) -> None:
    def flow() -> Flow[None]:
        yield from doubled(1)
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        drive(flow())


def test_an_error_that_a_call_returns_is_not_raised(drive: Drive) -> None:
    error = ValueError("returned")

    async def returned() -> ValueError:
        return error

    def flow() -> Flow[ValueError]:
        return (yield from call(lambda: error, returned))

    assert drive(flow()) is error


def test_a_call_that_runs_out_does_not_end_the_flow() -> None:
    # A StopIteration that got through would look like the flow's own return value.
    empty: list[str] = []

    async def nothing() -> str:
        raise NotImplementedError

    def flow() -> Flow[str]:
        return (yield from call(iter(empty).__next__, nothing))

    with pytest.raises(RuntimeError):
        run(flow())

    def careful() -> Flow[str]:
        try:
            return (yield from flow())
        except RuntimeError:
            return "none"

    assert run(careful()) == "none"


# Cancellation


def test_a_cancelled_task_cancels_the_call_and_reaches_the_flow() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("call")
            raise

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
            # What has to be cleaned up may take calls of its own.
            seen.append(f"outer {(yield from doubled(1))}")

    async def main() -> bool:
        task = asyncio.create_task(arun(outer()))
        await asyncio.sleep(0)
        assert task.cancel()
        await asyncio.wait([task], timeout=60)
        return task.cancelled()

    assert asyncio.run(main())
    assert seen == ["call", "inner", "outer 2"]


def test_a_time_limit_around_a_flow_holds() -> None:
    ended: list[str] = []

    def flow() -> Flow[None]:
        try:
            yield from call(lambda: None, asyncio.Event().wait)
        finally:
            ended.append("flow")

    async def main() -> None:
        async with asyncio.timeout(0.01):
            await arun(flow())

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert ended == ["flow"]


def test_flows_run_beside_each_other() -> None:
    async def main() -> list[int]:
        turn = asyncio.Event()

        async def first() -> int:
            await turn.wait()
            return 1

        async def second() -> int:
            turn.set()
            return 2

        def flow(wait: Callable[[], Any]) -> Flow[int]:
            return (yield from call(lambda: 0, wait))

        async with asyncio.timeout(60):
            return list(await asyncio.gather(arun(flow(first)), arun(flow(second))))

    assert asyncio.run(main()) == [1, 2]
