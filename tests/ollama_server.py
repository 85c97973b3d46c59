"""An Ollama server that does as it is told: the recorded wire format over a real socket.

By default it answers as the recorded server would: its models are those of the recorded
``/api/tags``, and it refuses what that one refused. ``reply()`` sets the next answers of
``/api/chat`` and ``/api/generate``, ``downloads`` what ``/api/pull`` gets. What came in, and
whether the client hung up, is in ``requests``.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.recordings import Recording, load

T = TypeVar("T")

DEFAULT_MODEL = "smollm2:135m"

# Those of the recorded all-minilm:22m.
EMBED_DIMENSIONS = 384
EMBED_CONTEXT = 512


@dataclass
class Received:
    """A request, and what became of its connection."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    answered: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Send:
    """Send these bytes of the body."""

    data: bytes


@dataclass(frozen=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Do nothing until the event is set; without one, until the client hangs up."""

    until: threading.Event | None = None


@dataclass(frozen=True)
class Close:
    """Close the connection in the middle of the body."""


@dataclass(frozen=True)
class Reset:
    """Reset it."""


@dataclass(frozen=True)
class Flood:
    """Send these bytes so many times, as fast as the client takes them."""

    data: bytes
    times: int


Step = Send | Wait | Hold | Close | Reset | Flood


@dataclass(frozen=True)
class Reply:
    """An answer: steps before its head, its head, steps of its body. Of a ``raw`` one the steps are
    all there is, also where they are no HTTP."""

    steps: Sequence[Step]
    status: int = 200
    headers: dict[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/x-ndjson"}
    )
    before: Sequence[Step] = ()
    raw: bool = False


def line(value: Any) -> Send:
    """One line of NDJSON, as Go encodes it."""
    return Send(_go_json(value) + b"\n")


def drip(data: bytes) -> list[Step]:
    """``data`` again and again, for longer than any test waits, and never silent for long."""
    return [Send(data), Wait(0.05)] * 2400


def error(status: int, message: str) -> Reply:
    """An error in Ollama's format."""
    body = _go_json({"error": message})
    return Reply([Send(body)], status, {"Content-Type": "application/json; charset=utf-8"})


def recorded(recording: Recording) -> Reply:
    """What the recorded server answered, byte for byte."""
    headers = {"Content-Type": recording.headers["Content-Type"]}
    return Reply([Send(recording.body)], recording.status, headers)


@dataclass(frozen=True)
class Answer:
    """An answer in tokens; streamed or in one piece, as the request says, and with a message or
    without, as the endpoint has it."""

    content: Sequence[str] = ("Hello", "!")
    thinking: Sequence[str] = ()
    tool_calls: Sequence[dict[str, Any]] = ()
    done_reason: str = "stop"
    prompt_tokens: int = 33
    pause: float = 0

    def reply(self, request: dict[str, Any]) -> Reply:
        model = request["model"]
        part = _part if "messages" in request else _generated
        # The tokens of the conversation, which there is none of without a template.
        context = {} if "messages" in request or request.get("raw") else {"context": [1, 9690, 198]}
        if request.get("stream", True):
            lines: list[Step] = []
            for message in self.messages():
                lines.append(line(part(model, message, done=False)))
                if self.pause:
                    lines.append(Wait(self.pause))
            lines.append(
                line({**part(model, {"content": ""}, done=True), **self.closing(**context)})
            )
            return Reply(lines)
        joined: dict[str, Any] = {"content": "".join(self.content)}
        if self.thinking:
            joined["thinking"] = "".join(self.thinking)
        if self.tool_calls:
            joined["tool_calls"] = list(self.tool_calls)
        whole = {**part(model, joined, done=True), **self.closing(**context)}
        pause: list[Step] = [Wait(self.pause)] if self.pause else []
        return Reply(
            [Send(_go_json(whole))],
            headers={"Content-Type": "application/json; charset=utf-8"},
            before=pause,
        )

    def messages(self) -> Iterable[dict[str, Any]]:
        for token in self.thinking:
            yield {"content": "", "thinking": token}
        for token in self.content:
            yield {"content": token}
        if self.tool_calls:
            yield {"content": "", "tool_calls": list(self.tool_calls)}

    def closing(self, **more: Any) -> dict[str, Any]:
        tokens = len(self.content) + len(self.thinking) + len(self.tool_calls)
        return {
            "done_reason": self.done_reason,
            **more,
            "total_duration": 282658005,
            "load_duration": 1240822,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": 108033000,
            "eval_count": tokens,
            "eval_duration": 168191000,
        }


@dataclass(frozen=True)
class Download:
    """A model that is pulled from a registry: the sizes of its ``layers`` by their digests, and a
    line for every ``step`` bytes, ``pause`` seconds after the one before. The first attempts get so
    many bytes further each as ``breaks`` says and end in that step, or just end; the next goes on
    from there."""

    layers: Mapping[str, int]
    step: int
    pause: float = 0
    breaks: Sequence[tuple[int, Step | None]] = ()

    def reply(self, attempt: int) -> Reply:
        """The answer to the ``attempt``-th request, counted from 0."""
        there = sum(count for count, _ in self.breaks[:attempt])
        until, end = sum(self.layers.values()), None
        is_broken = attempt < len(self.breaks)
        if is_broken:
            count, end = self.breaks[attempt]
            until = there + count
        steps: list[Step] = [line({"status": "pulling manifest"})]
        begin = 0
        for digest, total in self.layers.items():
            kept = min(max(there - begin, 0), total)
            stop = min(until - begin, total)
            if stop < 0:
                break
            # A layer that is there is told in one line; what begins has got nothing yet.
            for completed in [*range(kept, stop, self.step), stop]:
                status = f"pulling {digest.removeprefix('sha256:')[:12]}"
                part = {"status": status, "digest": digest, "total": total, "completed": completed}
                if not completed:
                    del part["completed"]
                steps.append(line(part))
                if self.pause and kept < total:
                    steps.append(Wait(self.pause))
            begin += total
        if not is_broken:
            for status in ("verifying sha256 digest", "writing manifest", "success"):
                steps.append(line({"status": status}))
        elif end is not None:
            steps.append(end)
        return Reply(steps)


class OllamaServer:
    """The server, in a thread with an event loop of its own; at ``path``, or at ``port``, there
    with ``tls`` as it says."""

    def __init__(
        self, path: Path | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._path = path
        self._tls = tls
        self.requests: list[Received] = []
        self.connections = 0
        self.pace = 0.0
        """Seconds between the tokens of an answer that has no script."""
        self._replies: deque[Reply | Answer] = deque()
        self.routes: dict[str, Reply] = {}
        self.downloads: dict[str, Download] = {}
        self.models = _recorded_models()
        """The entries of ``/api/tags``, by the names of the models."""
        self.loaded: list[str] | None = None
        """The models in memory, for ``/api/ps``; without it what was recorded."""
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = port

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._listen())
        if self._path is None:
            self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._stop_listening())
        self._run(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def reset(self) -> None:
        """Forget what came in, and what was to be answered."""
        self.requests.clear()
        self._replies.clear()
        self.routes.clear()
        self.downloads.clear()
        self.models = _recorded_models()
        self.loaded = None

    def reply(self, *replies: Reply | Answer) -> None:
        """Answer the next requests to ``/api/chat`` and ``/api/generate`` like this."""
        self._replies.extend(replies)

    def chats(self) -> list[Received]:
        return self._received("/api/chat")

    def generates(self) -> list[Received]:
        return self._received("/api/generate")

    def embeds(self) -> list[Received]:
        return self._received("/api/embed")

    def pulls(self) -> list[Received]:
        return self._received("/api/pull")

    def _received(self, path: str) -> list[Received]:
        return [request for request in self.requests if request.path == path]

    def wait_for_chat(self, number: int = 1, timeout: float = 60) -> Received:
        """The ``number``-th request to ``/api/chat``, as soon as it has come in."""
        deadline = time.monotonic() + timeout
        while len(self.chats()) < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"There were only {len(self.chats())} requests to /api/chat")
            time.sleep(0.005)
        return self.chats()[number - 1]

    def wait_for_closed(self, timeout: float = 60) -> bool:
        """Whether all connections get closed."""
        deadline = time.monotonic() + timeout
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._connections

    def at_work(self) -> list[Received]:
        """The requests that are neither answered nor given up by their client."""
        return [
            request
            for request in list(self.requests)
            if not (request.answered.is_set() or request.hung_up.is_set())
        ]

    def wait_for_released(self, timeout: float = 60) -> bool:
        """Whether no request is worked on any more: each is answered, or its client has gone."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.at_work():
                return True
            time.sleep(0.005)
        return False

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def close_connections(self, *, reset: bool = False) -> None:
        """Close all, as a server does that has had enough of waiting for the next request; or reset
        them, as the system does when it has died."""

        async def close() -> None:
            for connection in list(self._connections.values()):
                if reset:
                    connection.reset()
                else:
                    connection.close()

        self._run(close())

    def die(self) -> None:
        """Listen no more, and reset all connections."""
        self._run(self._stop_listening())
        self.close_connections(reset=True)

    def revive(self) -> None:
        """Listen again, at the same port."""
        self._server = self._run(self._listen())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> asyncio.Server:
        if self._path is not None:
            return await asyncio.start_unix_server(self._connected, self._path)
        return await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, backlog=1024, ssl=self._tls
        )

    async def _stop_listening(self) -> None:
        # A server that is closed refuses what asyncio has just accepted for it: the connection
        # would stay open, and its client wait, until the garbage is collected.
        for listening in self._server.sockets:
            self._loop.remove_reader(listening)
        await asyncio.sleep(0)
        self._server.close()

    async def _cancel(self) -> None:
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(reader, writer)
        self._connections[task] = connection
        self.connections += 1
        task.add_done_callback(lambda task: self._connections.pop(task, None))
        requests: list[Received] = []
        try:
            while (request := await connection.read_request()) is not None:
                requests.append(request)
                # Whoever waits for a request may set the next one's reply as soon as it is here.
                reply = self._answer_to(request)
                self.requests.append(request)
                if not await connection.answer(request, reply):
                    return
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort()
            for request in requests:
                request.closed.set()

    def _answer_to(self, request: Received) -> Reply:
        path = request.path
        if path in self.routes:
            return self.routes[path]
        if path == "/api/chat":
            return self._chat(request)
        if path == "/api/generate":
            return self._generate(request)
        if path == "/api/embed":
            return self._embed(request)
        if path == "/api/show":
            return self._show(request)
        if path == "/api/pull":
            return self._pull(request)
        if path == "/api/delete":
            return self._delete(request)
        if path == "/api/tags" and self.models != _recorded_models():
            return _json({"models": list(self.models.values())})
        if path == "/api/ps" and self.loaded is not None:
            return _json({"models": [self.models[name] for name in self.loaded]})
        recordings = {"/": "root", "/api/tags": "tags", "/api/version": "version", "/api/ps": "ps"}
        return recorded(load(recordings.get(path, "route_404")))

    def _chat(self, request: Received) -> Reply:
        if request.method != "POST":
            return recorded(load("method_405"))
        try:
            body = request.body
        except ValueError:
            return error(400, "unexpected EOF")
        name = body.get("model")
        if not name:
            return error(400, "model is required")
        capabilities = self._models().get(name)
        if capabilities is None:
            return error(404, f"model '{name}' not found")
        if "completion" not in capabilities:
            return error(400, f'"{name}" does not support chat')
        if body.get("tools") and "tools" not in capabilities:
            return error(400, f"registry.ollama.ai/library/{name} does not support tools")
        if body.get("think") and "thinking" not in capabilities:
            return error(400, f'"{name}" does not support thinking')
        return self._next_reply(body)

    def _generate(self, request: Received) -> Reply:
        body = request.body
        name = body["model"]
        capabilities = self._models().get(name)
        if capabilities is None:
            return error(404, f"model '{name}' not found")
        if body.get("think") and "thinking" not in capabilities:
            return error(400, f'"{name}" does not support thinking')
        if "completion" not in capabilities:
            return error(400, f'"{name}" does not support generate')
        if body.get("suffix") and "insert" not in capabilities:
            return error(400, f"registry.ollama.ai/library/{name} does not support insert")
        if not body["prompt"]:
            loaded = {**_generated(name, {"content": ""}, done=True), "done_reason": "load"}
            return Reply(
                [Send(_go_json(loaded))],
                headers={"Content-Type": "application/json; charset=utf-8"},
            )
        return self._next_reply(body)

    def _models(self) -> dict[str, list[str]]:
        return {name: tag["capabilities"] for name, tag in self.models.items()}

    def _next_reply(self, body: dict[str, Any]) -> Reply:
        reply = self._replies.popleft() if self._replies else Answer(pause=self.pace)
        return reply.reply(body) if isinstance(reply, Answer) else reply

    def _embed(self, request: Received) -> Reply:
        body = request.body
        name, given = body["model"], body["input"]
        capabilities = self._models().get(name)
        if capabilities is None:
            return error(404, f'model "{name}" not found, try pulling it first')
        texts = given if isinstance(given, list) else [given] if given else []
        if not all(isinstance(text, str) for text in texts):
            return error(400, "invalid input type")
        answer: dict[str, Any] = {"model": name, "embeddings": []}
        if texts and "embedding" not in capabilities:
            return recorded(load("embed_chatmodel"))
        # One token for each word, and one at either end.
        sizes = [len(text.split()) + 2 for text in texts]
        if body.get("truncate") is False and max(sizes, default=0) > EMBED_CONTEXT:
            return error(400, "the input length exceeds the context length")
        if texts:
            answer["embeddings"] = [_vector(text, body.get("dimensions")) for text in texts]
            answer["total_duration"] = 8916730
            answer["load_duration"] = 829375
            answer["prompt_eval_count"] = sum(min(size, EMBED_CONTEXT) for size in sizes)
        return Reply(
            [Send(_go_json(answer))], headers={"Content-Type": "application/json; charset=utf-8"}
        )

    def _show(self, request: Received) -> Reply:
        name = request.body["model"]
        if name not in self._models():
            return error(404, f"model '{name}' not found")
        return recorded(load("show_embed" if "minilm" in name else "show"))

    def _pull(self, request: Received) -> Reply:
        name = request.body["model"]
        if name in self.downloads:
            before = [pull for pull in self.pulls() if pull.body["model"] == name]
            return self.downloads[name].reply(len(before))
        is_there = name.rpartition("/")[2] in self.models
        return recorded(load("pull_stream" if is_there else "pull_nohost_missing"))

    def _delete(self, request: Received) -> Reply:
        name = request.body["model"]
        if name not in self.models:
            return error(404, f"model '{name}' not found")
        return Reply([], headers={})


class _Connection:
    """One connection. It is read all the time, so that a client that hangs up is noticed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._gone = asyncio.Event()
        self._arrived = asyncio.Event()
        self._buffer = b""
        self._reading = asyncio.create_task(self._read())

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                self._buffer += data
                self._arrived.set()
        except ConnectionError:
            pass
        finally:
            self._gone.set()
            self._arrived.set()

    async def _until(self, marker: bytes | int) -> bytes | None:
        while True:
            if isinstance(marker, int):
                end = marker if len(self._buffer) >= marker else -1
            else:
                found = self._buffer.find(marker)
                end = found + len(marker) if found >= 0 else -1
            if end >= 0:
                taken, self._buffer = self._buffer[:end], self._buffer[end:]
                return taken
            if self._gone.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()

    async def read_request(self) -> Received | None:
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *rest = head.decode("latin-1").splitlines()
        method, path, _ = first.split(" ", 2)
        headers = {
            name.lower(): value.strip()
            for name, _, value in (entry.partition(":") for entry in rest if entry)
        }
        content = await self._until(int(headers.get("content-length", 0)))
        if content is None:
            return None
        return Received(method, path, headers, content)

    def close(self) -> None:
        self._writer.close()

    async def answer(self, request: Received, reply: Reply) -> bool:
        """Whether the connection can be used again."""
        work = asyncio.create_task(self._send(reply))
        gone = asyncio.create_task(self._gone.wait())
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if self._gone.is_set():
            request.hung_up.set()
            # Its write may have failed just now; what is cancelled before it sees that is reported.
            await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return False
        request.answered.set()
        return work.result()

    async def _send(self, reply: Reply) -> bool:
        if not all([await self._step(step, chunked=False) for step in reply.before]):
            return False
        if reply.raw:
            for step in reply.steps:
                if not await self._step(step, chunked=False):
                    return False
            self._writer.close()
            return False
        head = [f"HTTP/1.1 {reply.status} Status"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head += ["Transfer-Encoding: chunked", "", ""]
        self._writer.write("\r\n".join(head).encode())
        await self._writer.drain()
        for step in reply.steps:
            if not await self._step(step, chunked=True):
                return False
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    async def _step(self, step: Step, *, chunked: bool) -> bool:
        match step:
            case Send(data):
                self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                await self._writer.drain()
            case Flood(data, times):
                for _ in range(times):
                    await self._step(Send(data), chunked=chunked)
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Hold(until):
                if until is None:
                    await self._gone.wait()
                else:
                    # Not for ever: a test that fails may never set it, and the process waits for
                    # its threads.
                    while not await asyncio.to_thread(until.wait, 0.5):
                        pass
            case Close():
                self._writer.close()
                return False
            case Reset():
                self.reset()
                return False
        return True


def _recorded_models() -> dict[str, dict[str, Any]]:
    return {tag["name"]: tag for tag in load("tags").json()["models"]}


def _json(value: Any) -> Reply:
    return Reply(
        [Send(_go_json(value))], headers={"Content-Type": "application/json; charset=utf-8"}
    )


def _part(model: str, message: dict[str, Any], *, done: bool) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
    return {
        "model": model,
        "created_at": now,
        "message": {"role": "assistant", **message},
        "done": done,
    }


def _generated(model: str, message: dict[str, Any], *, done: bool) -> dict[str, Any]:
    """A part of ``/api/generate``, which has what is in ``message`` in itself."""
    part = _part(model, {}, done=done)
    del part["message"], part["done"]
    part["response"] = message["content"]
    if "thinking" in message:
        part["thinking"] = message["thinking"]
    return {**part, "done": done}


def _vector(text: str, dimensions: int | None) -> list[float]:
    """A unit vector of the text's own, in the digits that Go writes a float32 with."""
    seed = zlib.crc32(text.encode())
    numbers = [math.sin(seed + place**2) for place in range(EMBED_DIMENSIONS)][:dimensions]
    length = math.hypot(*numbers)
    return [float(f"{number / length:.8g}") for number in numbers]


def _go_json(value: Any) -> bytes:
    """JSON as Go's encoder writes it: compact, UTF-8, with HTML and U+2028 escaped, not U+0085."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def main() -> None:
    """Run one that takes its time, in a process of its own, until whoever has started that goes."""
    with OllamaServer(port=int(sys.argv[1])) as server:
        server.pace = 0.02
        print(server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
