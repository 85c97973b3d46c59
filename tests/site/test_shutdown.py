"""Running answers end before a server that stops cuts them off."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from django_ollama_openai import shutdown
from django_ollama_openai.shutdown import POLL_SECONDS, deadline, ended_by_shutdown
from tests.conftest import site_options
from tests.ollama_server import Hold, OllamaServer, Received, Reply, Send, line
from tests.servers import SERVERS_AND_LANE, Server, Site, serve
from tests.site.test_streaming import DONE, body, frames, part

GRACE = 3


class Asked:
    """A request that the engine has got, and its answer."""

    def __init__(self, site: Site, ollama: OllamaServer, *replies: Reply, **changes: Any) -> None:
        ollama.reset()
        ollama.reply(*replies)
        self.id = f"shutdown-{time.monotonic_ns()}"
        self._connection = site.send(body(**changes), self.id)
        self.received: list[Received] = [
            ollama.wait_for_chat(number + 1) for number in range(len(replies))
        ]
        self.response = HTTPResponse(self._connection, method="POST")
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def begun(self) -> Asked:
        """The same, once its first token is there."""
        self.response.begin()
        while "one" not in self.text:
            self.text += self.response.readline().decode()
        return self

    def finish(self) -> None:
        """Read to the end, beside what the test does."""
        self._reader.start()

    def wait(self) -> None:
        self._reader.join(timeout=60)
        assert not self._reader.is_alive()
        self.close()

    def close(self) -> None:
        self.response.close()
        self._connection.close()

    def _read(self) -> None:
        if not self.text:
            self.response.begin()
        self.text += self.response.read().decode()


@dataclass
class Stopped:
    """A server that was told to stop while it had something to do."""

    site: Site
    asked: dict[str, Asked] = field(default_factory=dict)
    seconds: float = 0

    def stop(self, then: threading.Event | None = None) -> None:
        """Tell it to stop, set ``then``, and wait for its end and those of all answers."""
        for asked in self.asked.values():
            asked.finish()
        started = time.monotonic()
        self.site.process.send_signal(signal.SIGTERM)
        if then is not None:
            time.sleep(POLL_SECONDS)
            then.set()
        for asked in self.asked.values():
            asked.wait()
        self.site.process.wait(timeout=60)
        self.seconds = time.monotonic() - started


def options(ollama: OllamaServer) -> dict[str, Any]:
    # No keep-alive begins a stream here.
    return {**site_options(ollama), "STREAM_KEEPALIVE_SECONDS": 60}


@pytest.fixture(scope="module", params=SERVERS_AND_LANE)
def stopped(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stopped]:
    """A server that was told to stop amid answers of all kinds, one of which comes to its end."""
    server: Server = request.param
    directory = tmp_path_factory.mktemp(f"stopped-{server}")
    held, silent = Reply([part("one "), Hold()]), Reply([], before=[Hold()])
    gate = threading.Event()
    with serve(server, directory, options(ollama_server), grace=GRACE) as site:
        stopped = Stopped(site)
        ends = Reply([part("one "), Hold(gate), line(DONE)])
        half = Reply([Send(b'{"model":'), Hold()])
        # One after the other, so each gets its own reply.
        stopped.asked = {
            "ends in time": Asked(site, ollama_server, ends, stream=True).begun(),
            "stream": Asked(site, ollama_server, held, stream=True).begun(),
            "two choices": Asked(site, ollama_server, held, held, stream=True, n=2).begun(),
            "silent stream": Asked(site, ollama_server, silent, stream=True),
            "one piece": Asked(site, ollama_server, silent),
            "half of one piece": Asked(site, ollama_server, half),
        }
        stopped.stop(gate)
        yield stopped


def test_the_server_ends_within_its_grace(stopped: Stopped) -> None:
    # What hangs on would do so for a minute and longer.
    assert GRACE / 2 < stopped.seconds < 30
    assert stopped.site.process.returncode in (0, -signal.SIGTERM)
    log = stopped.site.log()
    assert "Traceback" not in log
    # What uvicorn says when it has to cut something off.
    assert "Cancel" not in log


def test_a_stream_may_end_by_itself(stopped: Stopped) -> None:
    asked = stopped.asked["ends in time"]
    *chunks, done = frames(asked.text)
    assert done == "data: [DONE]"
    assert json.loads(chunks[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
    _, finished = stopped.site.signals(asked.id, 2)
    assert (finished["event"], finished["finish_reason"]) == ("finished", "stop")


@pytest.mark.parametrize("name", ["stream", "two choices"])
def test_a_stream_that_does_not_ends_with_an_error(stopped: Stopped, name: str) -> None:
    asked = stopped.asked[name]
    *_, error, done = frames(asked.text)
    assert asked.response.status == 200
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert done == "data: [DONE]"


@pytest.mark.compat("errors.status.502, 503, 504")
@pytest.mark.parametrize("name", ["silent stream", "one piece", "half of one piece"])
def test_what_has_not_begun_is_a_503(stopped: Stopped, name: str) -> None:
    asked = stopped.asked[name]
    assert asked.response.status == 503
    assert asked.response.headers["Retry-After"] == "5"
    assert json.loads(asked.text)["error"] == {
        "message": "The server is shutting down; send the request again.",
        "type": "server_error",
        "param": None,
        "code": "shutting_down",
    }


@pytest.mark.parametrize(
    "name", ["stream", "two choices", "silent stream", "one piece", "half of one piece"]
)
def test_a_request_that_is_ended_frees_the_engine_and_is_signalled(
    stopped: Stopped, name: str
) -> None:
    asked = stopped.asked[name]
    for received in asked.received:
        assert received.hung_up.wait(60)
    _, failed = stopped.site.signals(asked.id, 2)
    assert (failed["event"], failed["code"]) == ("failed", "shutting_down")


@pytest.mark.parametrize("server", SERVERS_AND_LANE)
def test_a_server_ends_as_soon_as_the_last_stream_does(
    server: Server, ollama: OllamaServer, tmp_path: Path
) -> None:
    gate = threading.Event()
    with serve(server, tmp_path, options(ollama), grace=60) as site:
        stopped = Stopped(site)
        reply = Reply([part("one "), Hold(gate), line(DONE)])
        stopped.asked["stream"] = Asked(site, ollama, reply, stream=True).begun()
        stopped.stop(gate)
    assert frames(stopped.asked["stream"].text)[-1] == "data: [DONE]"
    assert stopped.seconds < 30


# When the end is


@pytest.fixture
def sigterm() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def told_to_stop(grace: int | None) -> None:
    """Have the handler of a real server installed, and called."""
    config = uvicorn.Config("nothing", timeout_graceful_shutdown=grace)
    signal.signal(signal.SIGTERM, uvicorn.Server(config).handle_exit)
    assert deadline() is None
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize(("grace", "left"), [(30, 28.75), (3, 2.0), (1, 0.5)])
def test_what_runs_ends_a_little_before_the_grace_does(grace: int, left: float) -> None:
    before = time.monotonic()
    told_to_stop(grace)
    end = deadline()
    assert end is not None
    assert before + left <= end <= time.monotonic() + left
    assert deadline() == end


@pytest.mark.usefixtures("sigterm")
def test_without_a_grace_there_is_no_end() -> None:
    told_to_stop(None)
    assert deadline() is None


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda *_: None, threading.Event().set])
def test_what_receives_sigterm_may_be_anything(handler: Any) -> None:
    signal.signal(signal.SIGTERM, handler)
    assert deadline() is None


@pytest.fixture
def not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "_begun", None)


@pytest.mark.usefixtures("not_begun")
@pytest.mark.parametrize(("grace", "left"), [(30, 29.0), (3, 2.25)])
def test_a_site_may_begin_the_shutdown_itself(grace: float, left: float) -> None:
    before = time.monotonic()
    shutdown.begin(grace)
    shutdown.begin(grace + 5)
    end = deadline()
    assert end is not None
    assert before + left <= end <= time.monotonic() + left


@pytest.mark.usefixtures("not_begun")
async def test_what_runs_ends_when_a_site_has_begun_the_shutdown() -> None:
    ended = asyncio.Event()
    with ended_by_shutdown(ended.set):
        await asyncio.sleep(2 * POLL_SECONDS)
        assert not ended.is_set()
        shutdown.begin(0.4)
        async with asyncio.timeout(60):
            await ended.wait()
