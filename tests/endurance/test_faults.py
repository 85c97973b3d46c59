"""Whatever goes wrong at the engine or at the client: what the client is told, what is logged, and
that nothing is left running.

What each fault of the engine comes to stands in ``docs/faults.toml``; here is what the engine does.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import httpx
import pytest

from docs.generated import EngineFault, engine_faults
from tests.conftest import DEAD_HOST
from tests.ollama_server import (
    Answer,
    Close,
    Flood,
    Hold,
    OllamaServer,
    Reply,
    Reset,
    Send,
    Step,
    Wait,
    error,
    line,
)
from tests.servers import KEY, NO_TLS, SERVERS_AND_LANE, Site, serve
from tests.site.test_streaming import frames

MODEL = "smollm2:135m"
PROMPT = "what nobody else may read"
CONTENT = "what only the client may read"
CREDENTIALS = "the engine's own credentials"
SECRETS = (PROMPT, CONTENT, KEY, CREDENTIALS)
"""What must not be logged."""

MEMORY = 112 * 2**20
"""How much the site may need for an answer that does not end, in bytes: up to 64 MiB are an answer,
and what holds them grows by an eighth at a time."""

OLLAMA_BACKEND = "django_ollama_openai.backends.OllamaBackend"

Mode: TypeAlias = Literal["stream", "whole"]
MODES: tuple[Mode, ...] = ("stream", "whole")


def site_options(engine: OllamaServer, keepalive: float = 20) -> dict[str, Any]:
    """The ``OLLAMA_OPENAI`` of the site. The first keep-alive is later than any fault on a busy
    machine: until then a fault is a status."""
    headers = {"Authorization": f"Bearer {CREDENTIALS}"}
    return {
        "HOST": engine.url,
        "API_KEYS": [{"KEY": KEY, "NAME": "tester"}],
        "BACKENDS": {
            "default": {
                "BACKEND": OLLAMA_BACKEND,
                "HOST": engine.url,
                "OPTIONS": {"headers": headers},
            },
            "impatient": {
                "BACKEND": OLLAMA_BACKEND,
                "HOST": engine.url,
                "OPTIONS": {"headers": headers, "timeout": 2},
            },
            "dead": {"BACKEND": OLLAMA_BACKEND, "HOST": DEAD_HOST},
        },
        "MODELS": {
            "impatient": {"MODEL": MODEL, "BACKEND": "impatient"},
            "dead": {"MODEL": MODEL, "BACKEND": "dead"},
        },
        "STREAM_KEEPALIVE_SECONDS": keepalive,
    }


@pytest.fixture(scope="module")
def engine() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def running(
    request: pytest.FixtureRequest,
    engine: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A site of its own: other tests' connections would count as left over."""
    options = site_options(engine)
    with serve(request.param, tmp_path_factory.mktemp(request.param), options) as site:
        # What is loaded and opened once.
        for mode in MODES:
            assert ask(site, mode).status == 200
        yield site


@pytest.fixture
def ollama(engine: OllamaServer) -> OllamaServer:
    engine.reset()
    return engine


@pytest.fixture
def site(running: Site, ollama: OllamaServer) -> Site:
    return running


# What is asked and answered


@dataclass(frozen=True)
class Told:
    """What a client has got."""

    status: int
    request_id: str
    text: str

    @property
    def frames(self) -> list[str]:
        return frames(self.text)

    @property
    def content(self) -> str:
        """The text of the answer; streamed or not."""
        if self.text.startswith("{"):
            whole: str = json.loads(self.text)["choices"][0]["message"]["content"]
            return whole
        chunks = [json.loads(frame.removeprefix("data: ")) for frame in self.frames[:-1]]
        return "".join(
            chunk["choices"][0]["delta"].get("content") or ""
            for chunk in chunks
            if chunk.get("choices")
        )


def request_body(mode: Mode, model: str = MODEL) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": model, "messages": messages, "stream": mode == "stream"}


def ask(site: Site, mode: Mode, model: str = MODEL) -> Told:
    answer = httpx.post(
        f"{site.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {KEY}"},
        json=request_body(mode, model),
        timeout=60,
        verify=NO_TLS,
    )
    return Told(answer.status_code, answer.headers["x-request-id"], answer.text)


def check_answered(told: Told, mode: Mode, content: str) -> None:
    assert (told.status, told.content) == (200, content)
    assert mode == "whole" or told.frames[-1] == "data: [DONE]"


# What is left, and what is logged


def settled(site: Site) -> dict[str, Any]:
    """What the site holds, when the connections of earlier requests are closed."""
    readings = [held(site)]
    while len(readings) < 3 or any(reading != readings[-1] for reading in readings[-3:]):
        assert len(readings) < 500, readings[-3:]
        readings.append(held(site))
    return readings[-1]


def held(site: Site) -> dict[str, Any]:
    left = site.left()
    return {name: left[name] for name in ("tasks", "pumps", "descriptors", "engine")}


@contextmanager
def nothing_left(site: Site, ollama: OllamaServer) -> Iterator[None]:
    """After the block the site runs nothing and holds nothing that it did not before."""
    before = settled(site)
    yield
    assert ollama.wait_for_released(), "the engine is still at work"
    deadline = time.monotonic() + 60
    while True:
        after = held(site)
        if (
            after["tasks"] == before["tasks"]
            and after["pumps"] == 0
            and after["descriptors"] <= before["descriptors"]
            and after["engine"] == ollama.open_connections
        ):
            return
        assert time.monotonic() < deadline, (before, after, ollama.open_connections)
        time.sleep(0.02)


@contextmanager
def logging(site: Site) -> Iterator[list[str]]:
    """What the app logs within the block, with no line of anybody else's but those that Django
    and the server have for a bad answer; and no secret in any."""
    lines: list[str] = []
    start = len(site.log())
    yield lines
    written = site.log()[start:]
    for secret in SECRETS:
        assert secret not in written
    for entry in written.splitlines():
        if entry.startswith("[django_ollama_openai] "):
            lines.append(entry)
        else:
            assert entry.startswith("[django.request] "), written


def check_logged(lines: list[str], told: Told, backend: str, fault: EngineFault) -> None:
    if fault.status is None or fault.status < 500:
        assert lines == []
        return
    (entry,) = lines
    assert entry.startswith(
        f"[django_ollama_openai] WARNING Request {told.request_id} to the backend '{backend}' "
        f"failed: {(fault.message or 'The engine').removesuffix('. Try again later.')}"
    )
    # Operators read where it was looked for.
    assert ("cannot be reached at http://" in entry) == ("cannot be reached" in entry)


# The engine


@dataclass(frozen=True)
class Script:
    """What the engine does, for a request in ``mode``."""

    reply: Callable[[Mode], Reply]
    model: str = MODEL


def begun(mode: Mode) -> Step:
    """The beginning of an answer."""
    if mode == "whole":
        return Send(b'{"model": "smollm2:135m", "message": {"role": "assistant", "content": "what')
    return line({"model": MODEL, "message": {"content": CONTENT}, "done": False})


def undone(mode: Mode) -> Step:
    """An answer that says that it goes on."""
    return line({"model": MODEL, "message": {"content": CONTENT}, "done": False})


def slow(mode: Mode) -> Reply:
    whole = Answer([CONTENT]).reply(request_body(mode))
    pieces = [step.data for step in whole.steps if isinstance(step, Send)]
    steps: list[Step] = []
    for byte in b"".join(pieces):
        steps += [Send(bytes([byte])), Wait(0.0005)]
    return Reply(steps, headers=whole.headers)


GIBIBYTE = 2**30
ENDLESS = Flood(b"x" * 2**16, GIBIBYTE // 2**16)
HTML = f"<html><body><h1>Something is wrong</h1><p>{PROMPT}</p></body></html>\r\n"
SAID = f'cannot answer "{PROMPT}"\r\n[django_ollama_openai] forged'
STATUSES = (400, 401, 403, 404, 429, 499, 500, 501, 503)


def steps(*taken: Step) -> Callable[[Mode], Reply]:
    return lambda mode: Reply(taken)


def after_begun(*taken: Step) -> Callable[[Mode], Reply]:
    return lambda mode: Reply([begun(mode), *taken])


def given_up(*taken: Step) -> Callable[[Mode], Reply]:
    """What ends a stream before the engine does; an answer in one piece is read to its end."""
    return lambda mode: Reply([*taken, Hold()] if mode == "stream" else taken)


def raw(*taken: bytes | Step) -> Callable[[Mode], Reply]:
    pieces = [Send(piece) if isinstance(piece, bytes) else piece for piece in taken]
    return lambda mode: Reply(pieces, raw=True)


def raw_after_begun(
    head: bytes, framed: Callable[[bytes], bytes], rest: bytes = b""
) -> Callable[[Mode], Reply]:
    """``rest`` comes apart: whoever reads it together with what is before may give up both."""

    def reply(mode: Mode) -> Reply:
        beginning = begun(mode)
        assert isinstance(beginning, Send)
        return Reply([Send(head + framed(beginning.data)), Wait(1), Send(rest)], raw=True)

    return reply


def refusal(status: int) -> Callable[[Mode], Reply]:
    return lambda mode: error(status, SAID)


def page(status: int) -> Callable[[Mode], Reply]:
    headers = {"Content-Type": "text/html"}
    return lambda mode: Reply([Send(HTML.encode())], status, headers)


@cache
def packed() -> bytes:
    """A quarter of a gibibyte, in a thousandth of that."""
    return gzip.compress(bytes(GIBIBYTE // 4), mtime=0)


def bomb(mode: Mode) -> Reply:
    reply = given_up(Send(packed() + b"\n"))(mode)
    return replace(reply, headers={"Content-Encoding": "gzip"})


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
GARBAGE = f"\x00\xff {CONTENT} \r\n".encode("latin-1") * 20

SCRIPTS: dict[str, Script] = {
    "refuses the connection": Script(steps(), model="dead"),
    "closes the connection before its head": Script(lambda mode: Reply([], before=[Close()])),
    "resets the connection before its head": Script(lambda mode: Reply([], before=[Reset()])),
    "sends a byte at a time": Script(slow),
    # What is reset may be lost on its way, so the part before is given time to arrive.
    "resets the connection in the middle of its answer": Script(after_begun(Wait(1), Reset())),
    "closes the connection in the middle of its answer": Script(after_begun(Wait(1), Close())),
    "closes the connection in the middle of the first line": Script(
        steps(Send(b'{"message": {"con'), Close())
    ),
    "ends its answer in the middle of a line": Script(after_begun(Send(b'{"message": {"con'))),
    "ends its answer without its last line": Script(lambda mode: Reply([undone(mode)])),
    "sends an empty answer": Script(steps()),
    "sends less than it said": Script(
        raw_after_begun(HEAD + b"Content-Length: 1000\r\n\r\n", lambda data: data)
    ),
    "sends garbage instead of HTTP": Script(raw(GARBAGE)),
    "sends garbage instead of a chunk": Script(
        raw_after_begun(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
            lambda data: b"%x\r\n%b\r\n" % (len(data), data),
            b"no length\r\n" + GARBAGE,
        )
    ),
    "sends garbage instead of JSON": Script(given_up(Send(GARBAGE))),
    "sends garbage after its first line": Script(after_begun(Send(GARBAGE), Hold())),
    "sends JSON that is no answer": Script(given_up(line({"message": CONTENT, "done": 1}))),
    "sends an error instead of an answer": Script(given_up(line({"error": SAID}))),
    "sends an error in the middle of its answer": Script(
        after_begun(line({"error": SAID}), Hold())
    ),
    "sends a head without end": Script(raw(HEAD + b"X-Filler: ", ENDLESS)),
    "sends a line without end": Script(after_begun(ENDLESS)),
    "sends an answer without end": Script(after_begun(ENDLESS)),
    "sends an error without end": Script(lambda mode: Reply([ENDLESS], 500)),
    "sends a small answer that unpacks to a large one": Script(bomb),
    "redirects": Script(lambda mode: Reply([], 302, {"Location": "/api/elsewhere"})),
    **{f"answers {status}": Script(refusal(status)) for status in STATUSES},
    **{f"answers {status} with HTML": Script(page(status)) for status in STATUSES},
}

FAULTS = {fault.id: fault for fault in engine_faults()}

CASES = [
    pytest.param(id, mode, id=f"{id}, {mode}")
    for id in SCRIPTS
    for mode in MODES
    if FAULTS[id].mode in (None, mode)
]


def check_told(told: Told, mode: Mode, fault: EngineFault, *, timely: bool = True) -> None:
    """What the client has got of ``fault``. On a machine that is not ``timely``, a stream may begin
    with a keep-alive before a fault, and a fault may overtake the token before it."""
    if fault.answered:
        check_answered(told, mode, CONTENT)
        return
    in_frame = mode == "stream" and (fault.in_stream if timely else told.status == 200)
    if in_frame:
        assert told.status == 200
        *chunks, frame, done = told.frames
        assert done == "data: [DONE]"
        if timely:
            assert CONTENT in "".join(chunks) or "what" in "".join(chunks)
        envelope = json.loads(frame.removeprefix("data: "))
    else:
        assert told.status == fault.status, told.text
        envelope = json.loads(told.text)
    assert list(envelope) == ["error"]
    assert envelope["error"]["code"] == fault.code
    if fault.message is not None:
        assert envelope["error"]["message"] == fault.message
    if fault.engine_says:
        assert envelope["error"]["message"] == SAID


def check_fault(
    site: Site, ollama: OllamaServer, fault: EngineFault, mode: Mode, script: Script
) -> None:
    """Let the engine do as ``script`` says, and hold what comes of it to ``fault``."""
    ollama.reply(script.reply(mode))
    backend = script.model if script.model in ("dead", "impatient") else "default"
    before = site.left(reset=True) if fault.bounded else None
    with nothing_left(site, ollama), logging(site) as lines:
        told = ask(site, mode, script.model)
        check_told(told, mode, fault)
    check_logged(lines, told, backend, fault)
    if before is not None:
        assert site.left()["peak"] - before["memory"] < MEMORY
    connections = ollama.connections
    connection = fault.connection
    if connection == "closed in a stream":
        connection = "closed" if mode == "stream" else "kept"
    if connection == "closed":
        (received,) = ollama.chats()
        assert received.closed.wait(60)
        # Before the engine had sent all that it was about to.
        assert received.hung_up.is_set() or not fault.bounded
    else:
        assert len(ollama.chats()) == (connection == "kept")
    # The next request is answered, over the same connection where that is still good.
    ollama.reset()
    check_answered(ask(site, mode), mode, "Hello!")
    if connection == "kept":
        assert ollama.connections == connections
    assert {request.path for request in ollama.requests} == {"/api/chat"}


@pytest.mark.parametrize(("id", "mode"), CASES)
def test_a_fault_of_the_engine(site: Site, ollama: OllamaServer, id: str, mode: Mode) -> None:
    check_fault(site, ollama, FAULTS[id], mode, SCRIPTS[id])


@pytest.mark.parametrize("mode", MODES)
def test_an_engine_that_hangs_before_its_head(site: Site, ollama: OllamaServer, mode: Mode) -> None:
    script = Script(lambda mode: Reply([], before=[Hold()]), "impatient")
    check_fault(site, ollama, FAULTS["hangs before its head"], mode, script)


@pytest.mark.parametrize("mode", MODES)
def test_an_engine_that_hangs_before_its_first_token(
    site: Site, ollama: OllamaServer, mode: Mode
) -> None:
    fault = FAULTS["hangs after its head, before the first token"]
    check_fault(site, ollama, fault, mode, Script(steps(Hold()), "impatient"))


@pytest.mark.parametrize("mode", MODES)
def test_an_engine_that_hangs_in_the_middle_of_its_answer(
    site: Site, ollama: OllamaServer, mode: Mode
) -> None:
    fault = FAULTS["hangs in the middle of its answer"]
    check_fault(site, ollama, fault, mode, Script(after_begun(Hold()), "impatient"))


@pytest.mark.parametrize("mode", MODES)
def test_an_idle_connection_that_the_engine_has_closed(
    site: Site, ollama: OllamaServer, mode: Mode
) -> None:
    check_answered(ask(site, mode), mode, "Hello!")
    connections = ollama.connections
    with nothing_left(site, ollama), logging(site) as lines:
        ollama.close_connections()
        assert ollama.wait_for_closed()
        check_answered(ask(site, mode), mode, "Hello!")
    assert lines == []
    assert ollama.connections == connections + 1
    # The request was made once: an engine does the work of each.
    assert len(ollama.chats()) == 2


# The client


def post(site: Site, content: bytes, length: int) -> bytes:
    """A request that says its body has ``length`` bytes."""
    return site.post(content, headers={"Connection": "close", "Content-Length": str(length)})


def read_all(connection: socket.socket) -> bytes:
    """What comes until the site closes the connection, also if it resets it then."""
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


def status_of(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d+) ", answer)
    assert match is not None, answer
    return int(match[1])


WHOLE = json.dumps(request_body("whole")).encode()


def test_a_client_that_sends_its_body_slowly(site: Site, ollama: OllamaServer) -> None:
    with nothing_left(site, ollama), logging(site) as lines, site.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(site, WHOLE, len(WHOLE)):
            connection.sendall(bytes([byte]))
            time.sleep(0.0005)
        answer = read_all(connection)
    assert status_of(answer) == 200
    assert b'"content":"Hello!"' in answer
    assert lines == []


def test_a_client_that_hangs_up_in_the_middle_of_its_body(site: Site, ollama: OllamaServer) -> None:
    with nothing_left(site, ollama), logging(site) as lines:
        with site.connect() as connection:
            connection.sendall(post(site, WHOLE[:-10], len(WHOLE)))
            check_answered(ask(site, "whole"), "whole", "Hello!")
        check_answered(ask(site, "stream"), "stream", "Hello!")
    assert lines == []
    assert len(ollama.chats()) == 2


def test_a_client_that_waits_in_the_middle_of_its_body(site: Site, ollama: OllamaServer) -> None:
    with nothing_left(site, ollama), logging(site) as lines, site.connect() as connection:
        connection.sendall(post(site, WHOLE[:-10], len(WHOLE)))
        for mode in MODES:
            check_answered(ask(site, mode), mode, "Hello!")
        assert len(ollama.chats()) == 2
        connection.sendall(WHOLE[-10:])
        assert status_of(read_all(connection)) == 200
    assert lines == []


def test_a_body_that_is_shorter_than_it_said(site: Site, ollama: OllamaServer) -> None:
    # What is there would do for a request: it must not be taken for one.
    with nothing_left(site, ollama), logging(site) as lines, site.connect() as connection:
        connection.sendall(post(site, WHOLE, len(WHOLE) + 10))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    if site.server == "gunicorn":
        assert status_of(answer) == 400
        assert b"The request body was incomplete." in answer
    else:
        assert answer == b""
    assert lines == []
    assert ollama.requests == []


def test_a_body_that_is_longer_than_it_said(site: Site, ollama: OllamaServer) -> None:
    with nothing_left(site, ollama), logging(site) as lines, site.connect() as connection:
        connection.sendall(post(site, WHOLE, len(WHOLE) - 10))
        answer = read_all(connection)
    assert status_of(answer) == 400
    assert b'"type":"invalid_request_error"' in answer
    assert lines == []
    assert ollama.requests == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff what is this?\r\n\r\n" * 20,
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost\r\n\r\n",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
        b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}{}{}{}",
        b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}",
    ],
    ids=["no request line", "no header", "two lengths", "a length below zero"],
)
def test_what_is_no_http(site: Site, ollama: OllamaServer, sent: bytes) -> None:
    start = len(site.log())
    with nothing_left(site, ollama), site.connect() as connection:
        connection.sendall(sent)
        assert status_of(read_all(connection)) == 400
    assert "[django_ollama_openai]" not in site.log()[start:]
    assert ollama.requests == []
