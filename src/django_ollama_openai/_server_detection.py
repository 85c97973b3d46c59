"""Detect that the server stops.

Neither WSGI nor ASGI announces it. uvicorn and gunicorn do so in public attributes of an object
whose method handles SIGTERM, which leads to that object. granian, hypercorn and daphne keep it in
closures and in compiled code. Nothing is installed, and nothing changed but uvicorn's set of tasks.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

__all__ = ["is_stopping", "keep_running_for", "stopping_server"]


def is_stopping() -> bool:
    """Return whether the server is stopping, with a time limit or without."""
    server = _server()
    return _is_stopping_uvicorn(server) or _is_stopping_gunicorn(server)


def stopping_server() -> tuple[object, float] | None:
    """Return the server that is stopping and the seconds it lets requests go on.

    ``None`` if it is not stopping, sets no limit, or cannot be detected.
    """
    server = _server()
    grace = None if server is None else _grace(server)
    return (server, grace) if isinstance(grace, (int, float)) else None


def keep_running_for(task: asyncio.Task[Any]) -> None:
    """Let uvicorn wait for ``task`` when it stops, within its time limit, as for the tasks of its
    requests. Otherwise it would be ended by the signal, without an exit handler."""
    tasks = getattr(getattr(_server(), "server_state", None), "tasks", None)
    if isinstance(tasks, set):
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _server() -> Any:
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def _grace(server: Any) -> object:
    if _is_stopping_uvicorn(server):
        return getattr(getattr(server, "config", None), "timeout_graceful_shutdown", None)
    if _is_stopping_gunicorn(server):
        return getattr(getattr(server, "cfg", None), "graceful_timeout", None)
    return None


def _is_stopping_uvicorn(server: Any) -> bool:
    return getattr(server, "should_exit", False) is True


def _is_stopping_gunicorn(server: Any) -> bool:
    return getattr(server, "alive", True) is False
