"""The site under a mixed load with faults and hang-ups for minutes; what is left when it is over.

``python -m tests.endurance.soak --seconds 600 --seed 7`` prints a table, and fails if anything has
leaked or any client that behaved was answered wrongly. The load is the seed's; its timing is the
machine's.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import openai

from tests.endurance.test_faults import (
    FAULTS,
    MODEL,
    MODES,
    SCRIPTS,
    Mode,
    Script,
    Told,
    begun,
    check_told,
    post,
    site_options,
)
from tests.ollama_server import Answer, Hold, OllamaServer, Reply, Step, Wait
from tests.servers import KEY, NO_TLS, SERVERS_AND_LANE, Server, Site, serve

__all__ = ["Outcome", "soak"]

CLIENTS: Final = 16
"""How many requests there are at a time."""

WARM_UP: Final = 0.2
"""The part of the time after which the site has loaded and cached what it ever will."""

GROWTH: Final = 0.05
"""How much more memory the site may hold at the end than after that."""

KEEPALIVE_SECONDS: Final = 5
"""The site's own; one of the answers takes longer."""

QUIET_SECONDS: Final = 15
"""How long what has been hung up may take to end; idle connections are closed after 10."""

HANGING: Final[dict[str, Script]] = {
    "hangs before its head": Script(lambda mode: Reply([], before=[Hold()]), "impatient"),
    "hangs after its head, before the first token": Script(
        lambda mode: Reply([Hold()]), "impatient"
    ),
    "hangs in the middle of its answer": Script(
        lambda mode: Reply([begun(mode), Hold()]), "impatient"
    ),
}
FAULTY: Final = {**SCRIPTS, **HANGING}


class Engine(OllamaServer):
    """An Ollama that answers each prompt as whoever asks has said before."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: dict[str, Reply | Answer] = {}
        self.asked = 0

    def _next_reply(self, body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        reply = self.scripts.get(prompt, Answer())
        self.asked += 1
        if self.asked % 500 == 0:
            self.requests[:] = self.at_work()
        return reply.reply(body) if isinstance(reply, Answer) else reply


@dataclass
class Outcome:
    """What a run came to."""

    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    at_work: int = 0
    growth_bytes: float = 0

    @property
    def failures(self) -> list[str]:
        """What has leaked, and who was answered wrongly."""
        found = [f"wrong: {one}" for one in self.wrong]
        if self.after["tasks"] != self.before["tasks"]:
            found.append(f"tasks: {self.after['tasks']}")
        found += [
            f"{name}: {self.before[name]} before, {self.after[name]} after"
            for name in ("pumps", "descriptors")
            if self.after[name] > self.before[name]
        ]
        if self.after["engine"] != self.after["open"]:
            found.append(f"connections to the engine: {self.after}")
        if self.at_work:
            found.append(f"requests at the engine: {self.at_work}")
        if self.after["memory"] - self.before["memory"] > self.growth_bytes:
            found.append(f"memory: {self.before['memory']} before, {self.after['memory']} after")
        return found

    def table(self) -> str:
        """All of it, for people."""
        rows = [(what, "", str(count)) for what, count in sorted(self.asked.items())]
        rows.append(("answered wrongly", "", str(len(self.wrong))))
        rows.append(("", "after the warm-up", "at the end"))
        for title, name in (
            ("tasks", "tasks"),
            ("threads of backends", "pumps"),
            ("open files and sockets", "descriptors"),
            ("connections to the engine", "engine"),
            ("memory, MiB", "memory"),
        ):
            rows.append((title, _shown(self.before[name]), _shown(self.after[name])))
        rows.append(("requests at the engine", "0", str(self.at_work)))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{what:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}".rstrip()
            for what, before, after in rows
        )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return str(len(value))
    return f"{value / 2**20:.1f}" if value > 2**20 else str(value)


def soak(
    seconds: float, seed: int, *, server: Server = "uvicorn", growth_bytes: float | None = None
) -> Outcome:
    """Run the load for ``seconds``; memory may grow by ``growth_bytes``, or by a twentieth."""
    outcome = Outcome()
    with (
        tempfile.TemporaryDirectory() as directory,
        Engine() as engine,
        # Otherwise the C library keeps what each thread has ever needed, which is no leak.
        serve(
            server,
            Path(directory),
            site_options(engine, KEEPALIVE_SECONDS),
            MALLOC_ARENA_MAX="1",
        ) as site,
    ):
        _load(site, engine, outcome, seconds * WARM_UP, seed)
        outcome.before = _left_when_quiet(site, engine, None)
        outcome.growth_bytes = growth_bytes or outcome.before["memory"] * GROWTH
        _load(site, engine, outcome, seconds * (1 - WARM_UP), seed + CLIENTS)
        outcome.after = _left_when_quiet(site, engine, outcome.before)
        outcome.at_work = len(engine.at_work())
        if "Traceback" in site.log():
            outcome.wrong.append(f"a traceback:\n{site.log()[:5000]}")
    return outcome


def _left_when_quiet(site: Site, engine: Engine, before: dict[str, Any] | None) -> dict[str, Any]:
    """What the site holds when it has come to rest; or after a while, if it does not."""
    deadline = time.monotonic() + QUIET_SECONDS
    released = engine.wait_for_released(QUIET_SECONDS)
    readings: list[dict[str, Any]] = []
    while True:
        left = site.left(reset=True)
        left["open"] = engine.open_connections
        readings.append({**left, "memory": 0, "peak": 0, "threads": 0})
        at_rest = len(readings) > 20 and all(each == readings[-1] for each in readings[-20:])
        as_before = before is None or (
            left["tasks"] == before["tasks"] and left["descriptors"] <= before["descriptors"]
        )
        is_closed = left["engine"] == left["open"] and left["pumps"] == 0
        if (at_rest and as_before and is_closed and released) or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _load(site: Site, engine: Engine, outcome: Outcome, seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    clients = [_Client(site, engine, outcome, seed + number, end) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


class _Client(threading.Thread):
    """Makes one request after the other, as its seed has it."""

    def __init__(self, site: Site, engine: Engine, outcome: Outcome, seed: int, end: float) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._engine = engine
        self._outcome = outcome
        self._random = random.Random(seed)
        self._end = end
        self._seed = seed
        self._http = httpx.Client(timeout=60, verify=NO_TLS)
        self._openai = openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0)
        self._actions: dict[str, tuple[float, Callable[[], None]]] = {
            "chat, streamed": (20, self._stream),
            "chat, in one piece": (10, self._whole),
            "chat, two choices": (4, self._choices),
            "chat, silent for a while": (0.2, self._silent),
            "responses": (4, self._respond),
            "completions": (4, self._complete),
            "embeddings": (8, self._embed),
            "models": (4, self._models),
            "bad input": (10, self._bad),
            "faults of the engine": (20, self._fault),
            "hang-ups": (20, self._hang_up),
            "no HTTP": (2, self._garbage),
        }

    def run(self) -> None:
        names = list(self._actions)
        weights = [weight for weight, _ in self._actions.values()]
        with self._http, self._openai:
            while time.monotonic() < self._end:
                (name,) = self._random.choices(names, weights)
                try:
                    self._actions[name][1]()
                except Exception as failure:
                    self._outcome.wrong.append(f"{name}: {failure!r}")
                self._outcome.asked[name] += 1

    # Clients that behave

    @contextmanager
    def _prompt(self, reply: Reply | Answer) -> Iterator[str]:
        """A prompt of its own that the engine has this answer for."""
        prompt = f"{self._seed}-{self._random.getrandbits(64):x}"
        self._engine.scripts[prompt] = reply
        yield prompt
        del self._engine.scripts[prompt]

    @contextmanager
    def _answer(self, pause: float = 0) -> Iterator[tuple[list[Any], str]]:
        """Messages, and what the answer to them has to be."""
        tokens = [f"{self._random.getrandbits(32)} " for _ in range(self._random.randint(1, 40))]
        with self._prompt(Answer(tokens, pause=pause)) as prompt:
            yield [{"role": "user", "content": prompt}], "".join(tokens)

    def _stream(self) -> None:
        with self._answer(self._random.choice([0, 0, 0.01])) as (messages, answer):
            chunks = self._openai.chat.completions.create(
                model=MODEL, messages=messages, stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer

    def _whole(self) -> None:
        with self._answer() as (messages, answer):
            completion = self._openai.chat.completions.create(model=MODEL, messages=messages)
            assert completion.choices[0].message.content == answer

    def _choices(self) -> None:
        with self._answer() as (messages, answer):
            completion = self._openai.chat.completions.create(model=MODEL, messages=messages, n=2)
            assert [each.message.content for each in completion.choices] == [answer] * 2

    def _silent(self) -> None:
        pause = KEEPALIVE_SECONDS + 1
        with self._prompt(Answer(["a"], pause=pause)) as prompt:
            answer = self._http.post(
                f"{self._site.base_url}/chat/completions",
                headers={"Authorization": f"Bearer {KEY}"},
                json=_body(prompt, stream=True),
            )
        assert ": ping\n" in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")

    def _respond(self) -> None:
        with self._answer() as (messages, answer):
            events = self._openai.responses.create(model=MODEL, input=messages, stream=True)
            *_, last = events
            assert last.type == "response.completed"
            assert last.response.output_text == answer

    def _complete(self) -> None:
        with self._answer() as (messages, answer):
            completion = self._openai.completions.create(model=MODEL, prompt=messages[0]["content"])
            assert completion.choices[0].text == answer

    def _embed(self) -> None:
        texts = [f"text {self._random.random()}" for _ in range(self._random.randint(1, 5))]
        embeddings = self._openai.embeddings.create(model="all-minilm:22m", input=texts)
        assert len(embeddings.data) == len(texts)

    def _models(self) -> None:
        assert MODEL in [model.id for model in self._openai.models.list()]

    def _bad(self) -> None:
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        key = {"Authorization": f"Bearer {KEY}"}
        content, headers, status = self._random.choice(
            [
                (b"{", key, 400),
                (b"x" * 100_000, key, 400),
                (json.dumps({**body, "messages": "Hi"}).encode(), key, 400),
                (json.dumps({**body, "temperature": 9}).encode(), key, 400),
                (json.dumps({**body, "model": "nobody/has:it"}).encode(), key, 404),
                (json.dumps(body).encode(), {}, 401),
            ]
        )
        answer = self._http.post(
            f"{self._site.base_url}/chat/completions", content=content, headers=headers
        )
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["error"]

    # Faults

    def _fault(self) -> None:
        id = self._random.choice(sorted(FAULTY))
        fault, script = FAULTS[id], FAULTY[id]
        modes: Sequence[Mode] = MODES if fault.mode is None else (fault.mode,)
        mode = self._random.choice(modes)
        with self._prompt(script.reply(mode)) as prompt:
            answer = self._http.post(
                f"{self._site.base_url}/chat/completions",
                headers={"Authorization": f"Bearer {KEY}"},
                json=_body(prompt, stream=mode == "stream", model=script.model),
            )
        told = Told(answer.status_code, answer.headers["x-request-id"], answer.text)
        try:
            check_told(told, mode, fault, timely=False)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{id}, {mode}: {told}") from error

    def _hang_up(self) -> None:
        flowing: list[Step] = []
        for _ in range(1000):
            flowing += [begun("stream"), Wait(0.01)]
        reply = self._random.choice(
            [
                Reply(flowing),
                Reply([begun("stream"), Hold()]),
                Reply([Hold()]),
                Reply([], before=[Hold()]),
            ]
        )
        with self._prompt(reply) as prompt, self._site.connect() as connection:
            body = json.dumps(_body(prompt, stream=self._random.random() < 0.8)).encode()
            request = post(self._site, body, len(body))
            if self._random.random() < 0.3:
                request = request[: self._random.randrange(len(request))]
            connection.sendall(request)
            connection.settimeout(self._random.choice([0.01, 0.1, 0.5]))
            with suppress(TimeoutError):
                for _ in range(self._random.randint(0, 5)):
                    connection.recv(self._random.choice([10, 65536]))
            if self._random.random() < 0.3:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _garbage(self) -> None:
        with self._site.connect() as connection:
            connection.sendall(self._random.randbytes(200) + b"\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def _body(prompt: str, *, stream: bool, model: str = MODEL) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": stream,
    }


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--server", choices=SERVERS_AND_LANE, default="uvicorn")
    arguments = parser.parse_args()
    started = time.monotonic()
    outcome = soak(arguments.seconds, arguments.seed, server=arguments.server)
    print(
        f"{arguments.server}, {CLIENTS} clients, {time.monotonic() - started:.0f} seconds, "
        f"seed {arguments.seed}\n\n{outcome.table()}"
    )
    for failure in outcome.failures[:20]:
        print(f"\n{failure}", file=sys.stderr)
    return bool(outcome.failures)


if __name__ == "__main__":
    raise SystemExit(main())
