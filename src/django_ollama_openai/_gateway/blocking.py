"""Call code that blocks, such as Django's ORM, from a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .._connections import close_connections
from .._threads import run_sync
from .flow import Flow, call

__all__ = ["call_blocking"]

P = ParamSpec("P")
R = TypeVar("R")


def call_blocking(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
    """Call ``function`` where it may block: here under WSGI, in the request's thread under ASGI,
    whose connections to the database are closed afterwards."""

    def run() -> R:
        try:
            return function(*args, **kwargs)
        finally:
            close_connections()

    async def arun() -> Any:
        return await run_sync(run)

    return (yield from call(lambda: function(*args, **kwargs), arun))
