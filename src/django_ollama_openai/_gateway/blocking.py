"""Call code that blocks, such as Django's ORM, from a flow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from .._connections import run_and_close
from .._threads import run_sync
from .flow import Flow, call

__all__ = ["call_blocking"]

P = ParamSpec("P")
R = TypeVar("R")


def call_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
    """Call ``function`` where it may block: here under WSGI, in the request's thread under ASGI,
    whose connections to the database are closed afterwards."""

    bound = partial(function, *args, **kwargs)

    async def arun() -> R:
        return await run_sync(run_and_close, bound)

    return (yield from call(bound, arun))
