"""One site over everything at once: a pool of scripted Ollamas, the embedded engine, and
llama.cpp's own server over HTTP. Engines are killed while OpenAI's client drives it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from tests.llama_server import ENGINE_KEY, LlamaServer, llama_server
from tests.servers import KEY, ROOT, SERVERS, Site, serve

pytestmark = [pytest.mark.llamacpp, pytest.mark.once]

BACKENDS = "django_ollama_openai.backends"
POOLED, EMBEDDED, SERVED = "pooled", "embedded", "served/smollm2"


@dataclass
class Ollama:
    """A scripted Ollama in a process of its own, at a port that it keeps when it comes back."""

    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ollama_server", str(self.port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Ollama:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


@dataclass
class Everything:
    """The site, and what it stands on."""

    site: Site
    ollamas: list[Ollama]
    llama: LlamaServer


@pytest.fixture(params=SERVERS)
def everything(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Everything]:
    with ExitStack() as stack:
        ollamas = [stack.enter_context(Ollama()) for _ in range(3)]
        llama = stack.enter_context(llama_server())
        members = {
            f"gpu-{number}": {"HOST": f"http://127.0.0.1:{ollama.port}", "MAX_CONCURRENCY": 4}
            for number, ollama in enumerate(ollamas, 1)
        }
        options = {
            "API_KEYS": [KEY],
            "BACKENDS": {
                **members,
                "default": {
                    "BACKEND": f"{BACKENDS}.PoolBackend",
                    "OPTIONS": {"members": list(members)},
                },
                "embedded": {
                    "BACKEND": f"{BACKENDS}.LlamaCppBackend",
                    "OPTIONS": {"name": "tiny", "threads": 1},
                },
                "cluster": {
                    "BACKEND": f"{BACKENDS}.OpenAIBackend",
                    "BASE_URL": llama.base_url,
                    "OPTIONS": {"api_key": ENGINE_KEY},
                },
            },
            "MODELS": {
                POOLED: {"MODEL": "smollm2:135m"},
                EMBEDDED: {"MODEL": "tiny", "BACKEND": "embedded"},
                "served/*": {"MODEL": llama.model, "BACKEND": "cluster", "FALLBACKS": [POOLED]},
            },
            "QUEUE_TIMEOUT": 14,
        }
        site = stack.enter_context(serve(request.param, tmp_path, options))
        yield Everything(site, ollamas, llama)


@dataclass
class Told:
    """What became of the requests for one model."""

    answered: int = 0
    broken_off: int = 0
    failed: list[str] = field(default_factory=list)
    """Those that had not begun."""


class Load:
    """Clients that ask one after another until they are told to stop."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.told: dict[str, Told] = {}

    @contextmanager
    def of(self, clients: Counter[tuple[str, bool]]) -> Iterator[None]:
        """Run as many clients as ``clients`` says for each model, streaming or not."""
        threads = [threading.Thread(target=self._ask, args=kind) for kind in clients.elements()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads)

    def count(self, model: str) -> int:
        with self._lock:
            return self.told.setdefault(model, Told()).answered

    def wait_for(self, model: str, more: int) -> None:
        """Until so many more have been answered."""
        wanted, deadline = self.count(model) + more, time.monotonic() + 30
        while self.count(model) < wanted:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)

    def _ask(self, model: str, stream: bool) -> None:
        with openai.OpenAI(
            base_url=self._site.base_url, api_key=KEY, max_retries=0, timeout=60
        ) as client:
            while not self._stop.is_set():
                begun, error = False, None
                try:
                    for _ in _pieces(client, model, stream):
                        begun = True
                except openai.APIError as raised:
                    error = raised
                with self._lock:
                    told = self.told.setdefault(model, Told())
                    told.answered += error is None
                    told.broken_off += begun and error is not None
                    if error is not None and not begun:
                        told.failed.append(repr(error))


def _pieces(client: openai.OpenAI, model: str, stream: bool) -> Iterator[str]:
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "user", "content": "Say hello."}
    ]
    if not stream:
        whole = client.chat.completions.create(model=model, messages=messages, max_tokens=8)
        yield whole.choices[0].message.content or ""
        return
    for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=8, stream=True
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def test_engines_are_killed_and_nothing_fails_that_had_not_begun(everything: Everything) -> None:
    site, (_, victim, _), llama = everything.site, everything.ollamas, everything.llama
    load = Load(site)
    clients = Counter(
        {
            (POOLED, True): 6,
            (POOLED, False): 6,
            (EMBEDDED, True): 1,
            (SERVED, True): 1,
            (SERVED, False): 1,
        }
    )
    with load.of(clients):
        for model in (POOLED, EMBEDDED, SERVED):
            load.wait_for(model, 5)
        victim.kill()
        load.wait_for(POOLED, 60)
        victim.start()
        load.wait_for(POOLED, 60)
        # A fallback for the engine that is reached over HTTP.
        llama.process.kill()
        load.wait_for(SERVED, 10)
        load.wait_for(EMBEDDED, 2)
    assert {model: told.failed for model, told in load.told.items()} == {
        POOLED: [],
        EMBEDDED: [],
        SERVED: [],
    }
    # What was under way there could not be saved, and no more than that.
    assert load.told[POOLED].broken_off <= 4
    assert load.told[EMBEDDED].broken_off == 0
    assert load.told[SERVED].broken_off <= 1
