"""``GET left/``: what the server's process holds beside what it had to begin with."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from django_ollama_openai.endpoints import Admission, Endpoint, Flow, call

__all__ = ["left"]

PUMP = "ollama-openai-pump"


left = Endpoint()


@left.get(scope=None)
def count_leftovers(admission: Admission[None]) -> Flow[JsonResponse]:
    """Count it; ``?reset`` also frees what it can, and forgets how large the process has been."""
    # In the event loop under ASGI, whose tasks are counted.
    return (yield from call(_count, _acount, admission.request))


async def _acount(request: HttpRequest) -> JsonResponse:
    return _count(request)


def _count(request: HttpRequest) -> JsonResponse:
    if "reset" in request.GET:
        _free()
        Path("/proc/self/clear_refs").write_text("5")
    engine = urlsplit(settings.OLLAMA_OPENAI["HOST"]).port
    descriptors, to_engine = _descriptors(engine)
    threads = threading.enumerate()
    memory = _memory()
    return JsonResponse(
        {
            "pid": os.getpid(),
            "cpu": time.process_time(),
            "tasks": _tasks(),
            "pumps": sum(thread.name == PUMP for thread in threads),
            "threads": len(threads),
            "descriptors": descriptors,
            "engine": to_engine,
            "memory": memory["VmRSS"],
            "peak": memory["VmHWM"],
        }
    )


def _free() -> None:
    """Give back what is held for nothing, so that what remains is in use."""
    gc.collect()
    # Of the C library that is glibc; others keep little.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _tasks() -> list[str]:
    """What the tasks of the event loop run; the server's own and this request's among them."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return []
    return sorted(getattr(task.get_coro(), "__qualname__", "") for task in tasks)


def _descriptors(engine: int | None) -> tuple[int, int]:
    """How many files and sockets are open, and how many connections to the engine beside them."""
    total = to_engine = 0
    for name in os.listdir("/proc/self/fd"):
        # The one of the listing itself is closed by now, and what listens has no peer.
        with suppress(OSError):
            is_socket = os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
            total += 1
            if is_socket:
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    to_engine += sock.getpeername()[1:2] == (engine,)
    return total - to_engine, to_engine


def _memory() -> dict[str, int]:
    """In bytes: what is resident now, and the most that was."""
    status = Path("/proc/self/status").read_text()
    lines = [line.split() for line in status.splitlines() if line.startswith("Vm")]
    return {name.rstrip(":"): int(size) * 1024 for name, size, *_ in lines}
