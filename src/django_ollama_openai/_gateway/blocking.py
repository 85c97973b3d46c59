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
    """Call ``function``, which may block. Under ASGI it runs in the request's thread, whose
    connections to the database are then closed.
    """
    bound = partial(function, *args, **kwargs)

    async def in_thread() -> R:
        return await run_sync(run_and_close, bound)

    return (yield from call(bound, in_thread))
