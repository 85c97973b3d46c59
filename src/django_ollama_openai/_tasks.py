"""Start tasks at once, without a round of the event loop before their first step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["start_task"]

T = TypeVar("T")

if sys.version_info >= (3, 12):

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that has run ``coroutine`` up to its first wait, or to its end."""
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)

else:

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task; before Python 3.12 it begins in the next round of the event loop."""
        return asyncio.create_task(coroutine)
