"""Detect that the server stops.

Neither WSGI nor ASGI announces it. uvicorn and gunicorn do so in public attributes of an object
whose method handles SIGTERM, which leads to that object. granian, hypercorn and daphne keep it in
closures and in compiled code. Nothing is installed or changed.
"""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["stopping_server"]


def stopping_server() -> tuple[object, float] | None:
    """Return the server that is stopping and the seconds it lets requests go on.

    ``None`` if it is not stopping, sets no limit, or cannot be detected.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    grace = None if server is None else _grace(server)
    return (server, grace) if isinstance(grace, (int, float)) else None


def _grace(server: Any) -> object:
    if getattr(server, "should_exit", False) is True:  # uvicorn's Server
        return getattr(getattr(server, "config", None), "timeout_graceful_shutdown", None)
    if getattr(server, "alive", True) is False:  # gunicorn's Worker
        return getattr(getattr(server, "cfg", None), "graceful_timeout", None)
    return None
