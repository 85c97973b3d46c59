"""A receiver of events that misbehaves as a script says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

__all__ = ["Received", "Receiver", "receiver"]

#: A status; ``hang``, ``drip``, ``twice``, ``cut`` within the head or the body, ``close`` without
#: an answer; or a function that returns one of them.
Step: TypeAlias = "int | str | Callable[[], int | str]"


@dataclass
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes
    started: float
    ended: float = 0.0


@dataclass
class Receiver:
    """Attributes:
    steps: What happens to the next requests; afterwards they are acknowledged.
    answer: The body of answers.
    """

    url: str
    steps: list[Step] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    answer: bytes = b"{}"
    stopped: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver at a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.path, headers, body, time.monotonic())
            found.received.append(request)
            step: Any = found.steps.pop(0) if found.steps else 200
            self.perform(step() if callable(step) else step)
            request.ended = time.monotonic()

        def perform(self, step: int | str) -> None:
            self.close_connection = True
            status = step if isinstance(step, int) else 200
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(found.answer)}\r\n"
            if 300 <= status < 400:
                head += f"Location: {found.url}/elsewhere\r\n"
            whole = head.encode() + b"Content-Type: application/json\r\n\r\n" + found.answer
            match step:
                case "hang":
                    found.stopped.wait(30)
                case "drip":
                    for byte in whole * 9:
                        if found.stopped.wait(0.1):
                            return
                        self.wfile.write(bytes([byte]))
                case "twice":
                    self.wfile.write(whole * 2)
                case "cut head":
                    self.wfile.write(whole[:10])
                case "cut body":
                    self.wfile.write(whole[:-1])
                case "close":
                    pass
                case _:
                    self.wfile.write(whole)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # killed clients
    found = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        found.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
