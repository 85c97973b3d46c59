"""``manage.py ollama`` in front of a scripted Ollama, in a terminal and without one."""

from __future__ import annotations

import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError

from django_ollama_openai._translation.model_cards import ModelCard
from django_ollama_openai.backends import BaseBackend, DummyBackend, OllamaBackend, backends
from django_ollama_openai.backends._pool.pool import ANSWER_SECONDS
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.management import engines, inventory, pull, status
from django_ollama_openai.management.survey import survey
from django_ollama_openai.management.terminal import printable, size
from tests.conftest import DEAD_HOST
from tests.ollama_server import (
    Answer,
    Close,
    Download,
    Hold,
    OllamaServer,
    Reply,
    Reset,
    Send,
    Step,
    error,
    line,
)
from tests.terminals import manage, run

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.once

HERE = __name__
OLLAMA = "django_ollama_openai.backends.OllamaBackend"
DUMMY = "django_ollama_openai.backends.DummyBackend"
POOL = "django_ollama_openai.backends.PoolBackend"
LARGE, SMALL = f"sha256:{'1a' * 32}", f"sha256:{'2b' * 32}"
LAYERS = {LARGE: 1_000_000, SMALL: 500}
ESCAPE = "\x1b]0;owned\x07\x9b31m"
BIDI = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Turn the direction of writing, or begin a line."""

GONE = (
    f"The engine cannot be reached at {DEAD_HOST}: start it with `ollama serve`, or set HOST. "
    "(ConnectError: Connection refused)"
)

Ollama: TypeAlias = Callable[..., str]
"""Runs a subcommand and gives what it has written to the standard output."""


def site_options(ollama: OllamaServer, **more: Any) -> dict[str, Any]:
    return {
        "HOST": ollama.url,
        "ALLOW_ANONYMOUS": True,
        "DEFAULT_MODEL": "smollm2:135m",
        "BACKENDS": {
            "default": {"MAX_CONCURRENCY": 3},
            "dead": {"BACKEND": OLLAMA, "HOST": DEAD_HOST},
            "canned": {"BACKEND": DUMMY},
        },
        "MODELS": {
            "gpt-4o-mini": {"MODEL": "smollm2:135m", "OPTIONS": {"num_ctx": 8192}},
            "small": {"MODEL": "smollm2:135m", "BACKEND": "default"},
            "elsewhere": {"MODEL": "dummy", "BACKEND": "canned"},
            "gone": {"MODEL": "nope"},
        },
        **more,
    }


@pytest.fixture
def complete(ollama: OllamaServer, settings: Settings) -> None:
    """All models that the settings name are there."""
    options = site_options(ollama)
    del options["MODELS"]["gone"]
    settings.OLLAMA_OPENAI = options


def test_status_of_models_that_are_missing(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = site_options(
        ollama,
        DEFAULT_MODEL="llama3.2",
        MODELS={"a": {"MODEL": "smollm2:135m", "FALLBACKS": ["mine"]}, "b": {"BACKEND": "canned"}},
    )
    assert refused(command, "status", backend="default").splitlines() == [
        f"{name!r} is not on the backend 'default'. Pull it: manage.py ollama pull {name} "
        "--backend default"
        for name in ("llama3.2", "mine")
    ]
    assert refused(command, "status", backend="canned") == ("'b' is not on the backend 'canned'.")


@pytest.fixture
def command(ollama: OllamaServer, settings: Settings) -> Iterator[Ollama]:
    settings.OLLAMA_OPENAI = site_options(ollama)

    def call(*args: str, **options: Any) -> str:
        output = StringIO()
        call_command("ollama", *args, stdout=output, no_color=True, **options)
        return output.getvalue()

    yield call
    backends.close()


def refused(command: Ollama, *args: str, **options: Any) -> str:
    """What the command says when it fails."""
    with pytest.raises(CommandError) as raised:
        command(*args, **options)
    assert raised.value.returncode == 1
    return str(raised.value)


class Silent(DummyBackend):
    """Does not answer within the time of a test, unless it is let go."""

    go = threading.Event()

    def ping(self) -> None:
        self.go.wait(120)

    def list_models(self) -> Any:
        self.go.wait(120)
        return super().list_models()


@pytest.fixture
def silent() -> Iterator[dict[str, Any]]:
    Silent.go.clear()
    yield {"BACKEND": f"{HERE}.Silent"}
    Silent.go.set()


# status


def test_status_says_of_every_backend_what_it_is(command: Ollama, ollama: OllamaServer) -> None:
    output = StringIO()
    with pytest.raises(
        CommandError,
        match=r"^Not ready: 'dead'\.\n'nope' is not on the backend 'default'\. "
        r"Pull it: manage\.py ollama pull nope --backend default$",
    ):
        call_command("ollama", "status", stdout=output, no_color=True)
    assert re.sub(r"\d+ ms", "1 ms", output.getvalue()) == (
        "default  OllamaBackend  ready, 1 ms\n"
        f"    {ollama.url}\n"
        "    Ollama 0.33.0-rc2, 5 models\n"
        "    up to 3 requests at once and 500 waiting, in each process\n"
        "dead  OllamaBackend  not ready, 1 ms\n"
        f"    {GONE}\n"
        "canned  DummyBackend  ready, 1 ms\n"
        "    1 model\n"
    )


def test_status_of_one_backend(command: Ollama) -> None:
    assert command("status", "--backend", "canned").startswith("canned  DummyBackend  ready, ")


def test_status_says_what_runs_and_waits_in_a_process_that_serves(command: Ollama) -> None:
    assert "running" not in command("status", backend="canned")
    with backends["canned"].slots.acquire(QueueTicket()):
        assert "    1 running and 0 queued in this process\n" in command("status", backend="canned")


def test_status_waits_for_no_backend_longer_than_health_does(
    command: Ollama,
    ollama: OllamaServer,
    settings: Settings,
    silent: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert status.WITHIN_SECONDS == 5
    monkeypatch.setattr(status, "WITHIN_SECONDS", 0.3)
    held = {"BACKEND": OLLAMA, "HOST": ollama.url}
    ollama.routes["/api/version"] = Reply([Hold()])
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": silent, "held": held}}
    output = StringIO()
    with pytest.raises(CommandError, match="Not ready: 'default', 'held'"):
        call_command("ollama", "status", stdout=output, no_color=True)
    assert output.getvalue() == (
        "default  Silent  not ready, 300 ms\n    There was no answer within 0.3 seconds.\n"
        "held  OllamaBackend  not ready, 300 ms\n    There was no answer within 0.3 seconds.\n"
    )
    # What was asked in vain is not left at work.
    assert ollama.wait_for_released()


def test_status_of_an_engine_that_does_not_say_what_it_has(
    command: Ollama, ollama: OllamaServer
) -> None:
    ollama.routes["/api/tags"] = error(500, "disk failure")
    assert "ready, " in command("status", backend="default")
    reason = (
        "The engine failed with status 500. (UpstreamStatusError: 500 to GET /api/tags) "
        "The engine's message: disk failure"
    )
    assert f"    but its models cannot be listed: {reason}\n" in command(
        "status", backend="default"
    )


def test_status_of_an_engine_that_is_silent_when_asked_what_it_has(
    command: Ollama, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second question may take longer than the first: a pool asks three times, for 4 s each.
    assert status.FACTS_SECONDS > 3 * ANSWER_SECONDS > status.WITHIN_SECONDS
    monkeypatch.setattr(status, "FACTS_SECONDS", 0.3)
    ollama.routes["/api/tags"] = Reply([Hold()])
    said = command("status", backend="default")
    assert "  ready, " in said
    reason = "There was no answer within 0.3 seconds."
    assert f"    but its models cannot be listed: {reason}\n" in said
    assert ollama.wait_for_released()


class Broken(DummyBackend):
    def list_models(self) -> Any:
        raise KeyError("of its own")


def test_status_names_the_exception_of_a_backend_that_crashes(
    command: Ollama, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": {"BACKEND": f"{HERE}.Broken"}}}
    output = StringIO()
    with pytest.raises(CommandError):
        call_command("ollama", "status", stdout=output, no_color=True)
    assert output.getvalue().endswith("    KeyError: 'of its own'\n")


def test_status_of_something_that_is_no_ollama(
    command: Ollama, ollama: OllamaServer, complete: None
) -> None:
    ollama.routes["/api/version"] = Reply([Send(b"[]")])
    said = command("status", backend="default")
    reason = "The engine sent an invalid response. (TypeError)"
    assert f"    5 models\n    but its version is unknown: {reason}\n" in said


# models


def test_models_lists_what_there_is_and_the_names_that_lead_to_it(
    command: Ollama, settings: Settings
) -> None:
    settings.TIME_ZONE = "UTC"
    rows = command("models", "--backend", "default").splitlines()
    assert rows[0] == "default  OllamaBackend"
    cells = [re.split(r"  +", row.strip()) for row in rows[1:]]
    assert cells[0] == list(inventory.MODEL_COLUMNS)
    assert ["gemma3:270m", "253 MB", "268.10M", "Q4_K_M", "32768", "2026-11-22 10:04"] in cells
    small = ["smollm2:135m", "98.4 MB", "134.52M", "Q4_1", "8192", "2026-11-22 10:04"]
    assert [*small, "gpt-4o-mini, small"] in cells
    assert rows[-1] == "    'gone' in MODELS is 'nope', which the backend does not have."
    assert len({row.index("2026") for row in rows if "2026" in row}) == 1


def test_models_of_a_backend_that_is_no_ollama(command: Ollama) -> None:
    _, _, row = command("models", "--backend", "canned").splitlines()
    assert row.split() == ["dummy", "elsewhere"]


class Boastful(DummyBackend):
    """Says of its models what cannot be."""

    def list_models(self) -> Any:
        return [
            ModelCard(name, created=created, metadata={"size": size})
            for name, created, size in (
                ("late", int(1e300), 10**400),
                ("later", 253402300800, -5),
                ("last", 253402300799, 10**30),
                ("first", 1, 1000),
            )
        ]


def test_models_with_times_and_sizes_that_cannot_be(command: Ollama, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": {"BACKEND": f"{HERE}.Boastful"}}}
    rows = [row.split() for row in command("models").splitlines()[2:]]
    assert rows == [
        ["late"],
        ["later"],
        ["last"],
        ["first", "1", "kB", "1970-01-01", "09:00"],
    ]


def test_models_shows_the_patterns_that_fit(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    models = {
        "d*": {"BACKEND": "canned"},
        "gpt-*": {"MODEL": "dummy", "BACKEND": "canned"},
        "x-*": {"MODEL": "nope", "BACKEND": "canned"},
        "y-*": {"BACKEND": "canned"},
    }
    settings.OLLAMA_OPENAI = site_options(ollama, MODELS=models)
    _, _, row, astray = command("models", "--backend", "canned").splitlines()
    assert row.split() == ["dummy", "d*,", "gpt-*"]
    assert astray.strip() == "'x-*' in MODELS is 'nope', which the backend does not have."


def test_models_lists_the_others_when_a_backend_fails(command: Ollama) -> None:
    output = StringIO()
    with pytest.raises(CommandError, match=r"^Not listed: 'dead'\.$"):
        call_command("ollama", "models", stdout=output, no_color=True)
    assert "gemma3:270m" in output.getvalue()
    assert "dead  OllamaBackend\n    The engine cannot be reached at http://" in output.getvalue()


def test_models_gives_a_silent_backend_up(
    command: Ollama, settings: Settings, silent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "WITHIN_SECONDS", 0.2)
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": silent}}
    assert refused(command, "models") == "Not listed: 'default'."


# pull


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not made."""
    pauses: list[float] = []
    monkeypatch.setattr(pull, "sleep", pauses.append)
    return pauses


def test_pull_tells_a_log_every_tenth(command: Ollama, ollama: OllamaServer) -> None:
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000)
    tenths = "".join(f"1a1a1a1a1a1a: {percent} % of 1 MB\n" for percent in range(0, 101, 10))
    assert command("pull", "llama3.2") == (
        f"pulling manifest\n{tenths}2b2b2b2b2b2b: 0 % of 500 B\n2b2b2b2b2b2b: 100 % of 500 B\n"
        "verifying sha256 digest\nwriting manifest\n"
        "The backend 'default' has 'llama3.2'.\n"
    )
    (asked,) = ollama.pulls()
    assert asked.body == {"model": "llama3.2", "insecure": False, "stream": True}


def test_pull_of_the_recorded_stream(command: Ollama) -> None:
    said = command("pull", "smollm2:135m").splitlines()
    # Ollama stopped short of the end.
    assert "941f309b54ca: 100 % of 98.4 MB" in said
    assert said[-3:] == [
        "verifying sha256 digest",
        "writing manifest",
        "The backend 'default' has 'smollm2:135m'.",
    ]


def test_a_quiet_pull_says_nothing(command: Ollama) -> None:
    assert command("pull", "smollm2:135m", verbosity=0) == ""


@pytest.mark.parametrize("end", [Close(), Reset(), None], ids=["closed", "reset", "ended"])
def test_a_pull_that_breaks_off_goes_on(
    command: Ollama, ollama: OllamaServer, no_pause: list[float], end: Step | None
) -> None:
    # After some attempts of no use one that is, and so on.
    breaks = [(200_000, end), (0, end), (0, end), (0, end), (0, end), (300_000, end), (0, end)]
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000, breaks=breaks)
    said = command("pull", "llama3.2")
    assert len(ollama.pulls()) == 8
    assert no_pause == [1, 1, 2, 4, 8, 1, 1]
    assert said.count(" Retrying in ") == 7
    shares = re.findall(r"1a1a1a1a1a1a: (\d+) %", said)
    assert shares == [str(10 * tenth) for tenth in range(11)]
    assert said.count("pulling manifest") == 1
    assert said.endswith("The backend 'default' has 'llama3.2'.\n")


def test_a_pull_that_gets_no_further_ends(
    command: Ollama, ollama: OllamaServer, no_pause: list[float]
) -> None:
    breaks = [(200_000, Close()), *[(0, Close())] * 9]
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000, breaks=breaks)
    assert refused(command, "pull", "llama3.2") == (
        "The backend 'default': The connection to the engine was lost. (RemoteProtocolError) "
        "There was no progress in 5 attempts. Run the command again to continue."
    )
    assert len(ollama.pulls()) == 6
    assert no_pause == [1, 1, 2, 4, 8]


def test_what_ollama_refuses_is_not_asked_for_again(
    command: Ollama, ollama: OllamaServer, no_pause: list[float]
) -> None:
    # As it was recorded: an error line of an answer with status 200.
    assert refused(command, "pull", "nope:1") == (
        "The backend 'default': pull model manifest: Get "
        '"http://127.0.0.1:5055/v2/library/nope/manifests/1": dial tcp 127.0.0.1:5055: connect: '
        "connection refused"
    )
    ollama.routes["/api/pull"] = error(400, "invalid model name")
    assert refused(command, "pull", "a b") == (
        "The backend 'default': invalid model name (status 400)"
    )
    assert len(ollama.pulls()) == 2
    assert no_pause == []


def test_a_refusal_in_the_middle_of_a_download(
    command: Ollama, ollama: OllamaServer, no_pause: list[float]
) -> None:
    begun = Download(LAYERS, step=50_000, breaks=[(200_000, line({"error": "no space left"}))])
    ollama.downloads["llama3.2"] = begun
    assert refused(command, "pull", "llama3.2") == "The backend 'default': no space left"
    assert len(ollama.pulls()) == 1


def test_an_ollama_that_was_never_there_is_not_waited_for(
    command: Ollama, no_pause: list[float]
) -> None:
    assert refused(command, "pull", "llama3.2", backend="dead") == (f"The backend 'dead': {GONE}")
    assert no_pause == []


@pytest.mark.parametrize("said", [b"<html>\n", b"[1]\n", b'{"completed": "much"}\n'])
def test_a_pull_that_gets_nonsense(command: Ollama, ollama: OllamaServer, said: bytes) -> None:
    ollama.routes["/api/pull"] = Reply([Send(said)])
    assert "an invalid response" in refused(command, "pull", "llama3.2")


def test_a_silent_verification_may_take_the_backends_own_time(
    command: Ollama, ollama: OllamaServer, settings: Settings, no_pause: list[float]
) -> None:
    default = backends["default"]
    assert isinstance(default, OllamaBackend)
    with engines.open_client(default) as client:
        assert client._client.timeout.read == 600
    options = site_options(ollama)
    options["BACKENDS"]["default"] = {"OPTIONS": {"timeout": 0.2}}
    settings.OLLAMA_OPENAI = options
    verifying: list[Step] = [line({"status": "verifying sha256 digest"}), Hold()]
    ollama.routes["/api/pull"] = Reply(verifying)
    assert "did not answer in time. (ReadTimeout)" in refused(command, "pull", "llama3.2")
    assert len(ollama.pulls()) == pull.ATTEMPTS


@pytest.mark.progress
def test_a_pull_that_resumes_shows_no_layer_twice_in_a_terminal(ollama: OllamaServer) -> None:
    breaks = [(400_000, Close())]
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000, pause=0.03, breaks=breaks)
    status, shown, _ = run("ollama", "pull", "llama3.2", options=site_options(ollama), columns=72)
    assert status == 0
    lines = [text.rpartition("\r")[2] for text in shown.replace("\r\n", "\n").split("\n")]
    bars = [text for text in lines if re.search(r"100%\|█+\|", text)]
    assert [bar[:12] for bar in bars] == ["1a1a1a1a1a1a", "2b2b2b2b2b2b"]
    assert "1.00M/1.00M" in bars[0]
    assert max(map(len, bars)) <= 72
    # It was redrawn in place, from where it was.
    drawn = [int(share) for share in re.findall(r"\r1a1a1a1a1a1a: +(\d+)%", shown)]
    assert drawn == sorted(drawn)
    assert any(0 < share < 100 for share in drawn)
    assert lines[0] == "pulling manifest"
    assert lines[-2].endswith("The backend 'default' has 'llama3.2'.\x1b[0m")


def test_a_pull_without_the_extra_shows_lines_in_a_terminal(
    ollama: OllamaServer, tmp_path: Path
) -> None:
    (tmp_path / "tqdm.py").write_text("raise ModuleNotFoundError(__name__)")
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = site_options(ollama)
    status, shown, _ = run(
        "ollama", "pull", "llama3.2", options=options, columns=72, PYTHONPATH=path
    )
    assert status == 0
    assert "1a1a1a1a1a1a: 50 % of 1 MB" in shown
    assert "|" not in shown


@pytest.mark.parametrize("columns", [None, 80], ids=["pipe", "terminal"])
def test_a_pull_that_is_interrupted_can_go_on(ollama: OllamaServer, columns: int | None) -> None:
    breaks = [(200_000, Hold())]
    ollama.downloads["llama3.2"] = Download(LAYERS, step=50_000, breaks=breaks)
    options = site_options(ollama)
    with manage("ollama", "pull", "llama3.2", options=options, columns=columns) as running:
        running.wait_for("1a1a1a1a1a1a: ")
        time.sleep(0.2)
        running.interrupt()
        assert running.end() == 130
    (asked,) = ollama.pulls()
    assert asked.hung_up.is_set()
    shown = running.stdout.decode()
    assert shown.rstrip().endswith("Interrupted. Run the same command again to continue.")
    assert "Traceback" not in shown + running.stderr.decode()
    status, shown, _ = run("ollama", "pull", "llama3.2", options=options)
    assert status == 0
    assert "1a1a1a1a1a1a: 20 %" in shown
    assert "1a1a1a1a1a1a: 10 %" not in shown


# show, rm, ps


def test_show(command: Ollama) -> None:
    assert command("show", "smollm2:135m") == (
        "smollm2:135m\n"
        "    family            llama\n"
        "    parameters        134.52M\n"
        "    quantization      Q4_1\n"
        "    context length    8192\n"
        "    embedding length  576\n"
        "    capabilities      completion\n"
        "    license           Apache-2.0\n"
        "Parameters\n"
        '    stop                           "<|im_start|>"\n'
        '    stop                           "<|im_end|>"\n'
        "Template\n"
        "    {{- range .Messages }}<|im_start|>{{ .Role }}\n"
        "    {{ .Content }}<|im_end|>\n"
        "    {{ end }}<|im_start|>assistant\n"
    )


def test_show_of_a_model_that_says_little(command: Ollama, ollama: OllamaServer) -> None:
    ollama.routes["/api/show"] = Reply([line({"model_info": None})])
    assert command("show", "smollm2:135m") == "smollm2:135m\n"


def test_show_of_a_license_shows_its_heading(command: Ollama, ollama: OllamaServer) -> None:
    shown = {"model_info": {}, "license": "\n  LLAMA LICENSE\nAll of it"}
    ollama.routes["/api/show"] = Reply([line(shown)])
    (row,) = command("show", "smollm2:135m").splitlines()[1:]
    assert row.split(None, 1) == ["license", "LLAMA LICENSE"]


def test_rm_deletes_what_there_is_and_says_what_is_not(
    command: Ollama, ollama: OllamaServer
) -> None:
    output = StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("ollama", "rm", "nope", "gemma3:270m", "no", stdout=output)
    assert output.getvalue() == "Deleted 'gemma3:270m' from the backend 'default'.\n"
    assert str(raised.value).splitlines() == [
        "The backend 'default' has no model 'nope'.",
        "The backend 'default' has no model 'no'.",
    ]
    asked = [(each.method, each.path, each.body["model"]) for each in ollama.requests]
    assert asked == [("DELETE", "/api/delete", name) for name in ("nope", "gemma3:270m", "no")]


def test_a_long_reason_is_cut(command: Ollama, ollama: OllamaServer) -> None:
    page = Reply([Send(b"<html>" * 9999)], status=502, headers={"Content-Type": "text/html"})
    ollama.routes["/api/delete"] = page
    assert len(refused(command, "rm", "gemma3:270m")) < engines.MAX_REASON + 100


def test_rm_says_why_a_model_cannot_be_deleted(command: Ollama, ollama: OllamaServer) -> None:
    ollama.routes["/api/delete"] = error(500, "remove manifest: permission denied")
    assert refused(command, "rm", "gemma3:270m") == (
        "The backend 'default': remove manifest: permission denied (status 500)"
    )


def test_ps(command: Ollama, ollama: OllamaServer, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    heading, head, row = command("ps", "--backend", "default").splitlines()
    assert heading == "default  OllamaBackend"
    assert head.split() == list(inventory.LOADED_COLUMNS)
    cells = ["smollm2:135m", "210 MB", "100% CPU", "4096", "2026-11-22 19:10"]
    assert re.split(r"  +", row.strip()) == cells


def test_ps_of_models_that_share_processors_and_stay(command: Ollama, ollama: OllamaServer) -> None:
    loaded = [
        {"name": "a", "size": 1000, "size_vram": 1000, "expires_at": "2318-01-01T00:00:00Z"},
        {"name": "b", "size": 1000, "size_vram": 250, "expires_at": "2026-11-22T10:10:49"},
        {"name": "c"},
    ]
    ollama.routes["/api/ps"] = Reply([line({"models": loaded})])
    rows = [re.split(r"  +", row.strip()) for row in command("ps", backend="default").splitlines()]
    assert rows[2] == ["a", "1 kB", "100% GPU", "forever"]
    assert rows[3][:3] == ["b", "1 kB", "75% CPU, 25% GPU"]
    assert rows[4][0] == "c"


def test_ps_asks_the_ollamas_only(command: Ollama) -> None:
    output = StringIO()
    with pytest.raises(CommandError, match=r"^Not listed: 'dead'\.$"):
        call_command("ollama", "ps", stdout=output)
    assert "canned" not in output.getvalue()


@pytest.mark.parametrize("args", [("pull", "x"), ("show", "x"), ("rm", "x"), ("ps",)])
def test_what_only_an_ollama_can_do(command: Ollama, settings: Settings, args: Any) -> None:
    assert refused(command, *args, "--backend", "canned") == (
        "The backend 'canned' is not an Ollama server but a DummyBackend, whose models cannot be "
        "managed. Use --backend with one of: 'default', 'dead'."
    )
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": {"BACKEND": DUMMY}}}
    assert refused(command, *args, "--backend", "default").endswith("There is no other.")
    assert "is an Ollama server" in refused(command, "ps")


@pytest.mark.parametrize(
    "args",
    [("status",), ("models",), ("pull", "x"), ("show", "x"), ("rm", "x"), ("ps",), ("ask", "x")],
)
def test_a_backend_that_there_is_not(command: Ollama, args: Any) -> None:
    assert refused(command, *args, "--backend", "other") == (
        "There is no backend 'other'. BACKENDS has 'default', 'dead', 'canned'."
    )


@pytest.mark.parametrize("args", [("show", "x"), ("rm", "x"), ("ask", "x", "--model", "x")])
def test_an_engine_that_is_not_there(command: Ollama, args: Any) -> None:
    assert refused(command, *args, "--backend", "dead") == (f"The backend 'dead': {GONE}")


@pytest.mark.parametrize("args", [("show", "x"), ("rm", "x")])
def test_an_ollama_that_does_not_answer_is_given_up(
    command: Ollama, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch, args: Any
) -> None:
    monkeypatch.setattr(engines, "WITHIN_SECONDS", 0.2)
    for path in ("/api/show", "/api/delete"):
        ollama.routes[path] = Reply([Hold()])
    assert (
        refused(command, *args) == "The backend 'default': There was no answer within 0.2 seconds."
    )
    assert ollama.wait_for_released()


# ask


def test_ask_goes_the_way_of_a_request(command: Ollama, ollama: OllamaServer) -> None:
    said = command("ask", "Why?", "--model", "gpt-4o-mini", "--system", "Be brief.")
    assert said == "Hello!\n"
    (asked,) = ollama.chats()
    assert asked.body["model"] == "smollm2:135m"
    assert asked.body["options"] == {"num_ctx": 8192}
    assert asked.body["stream"] is True
    assert asked.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]


def test_a_command_to_pull_can_be_pasted_into_a_shell(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = site_options(
        ollama, DEFAULT_MODEL="we ird\x1b[31m\n'; rm -rf /", MODELS={}
    )
    for words in (("status",), ("ask", "Why?")):
        advice = refused(command, *words).partition(" Pull it: ")[2]
        assert shlex.split(advice) == (
            ["manage.py", "ollama", "pull", "we ird[31m '; rm -rf /", "--backend", "default"]
        )
        assert advice.isprintable()


def test_ask_asks_the_default_model(command: Ollama, ollama: OllamaServer) -> None:
    assert command("ask", "Why?") == "Hello!\n"
    assert ollama.chats()[0].body["model"] == "smollm2:135m"


def test_ask_another_engine(command: Ollama) -> None:
    assert command("ask", "Why?", "--model", "elsewhere") == "This is a canned reply.\n"
    assert command("ask", "Why?", "--backend", "canned") == "This is a canned reply.\n"


def test_ask_does_without_a_route_that_is_none(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    assert refused(command, "ask", "Why?", "--model", "small", "--backend", "canned") == (
        "The model 'small' is on the backend 'default' by MODELS, not on 'canned'. Omit --backend, "
        "or name another model with --model."
    )
    assert refused(command, "ask", "Why?", "--model", "gone") == (
        "The backend 'default' has no model 'nope'. Pull it: manage.py ollama pull nope --backend "
        "default"
    )
    settings.OLLAMA_OPENAI = site_options(ollama, ALLOWED_MODELS=["small"], DEFAULT_MODEL=None)
    assert refused(command, "ask", "Why?") == (
        "There is no DEFAULT_MODEL. Name a model with --model."
    )
    assert refused(command, "ask", "Why?", "--model", "gemma3:270m") == (
        "ALLOWED_MODELS does not allow 'gemma3:270m'."
    )


def test_ask_shows_the_engines_message_about_the_request(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    assert "does not support chat" in refused(command, "ask", "x", "--model", "all-minilm:22m")
    settings.OLLAMA_OPENAI = site_options(ollama, MAX_PROMPT_CHARACTERS=10)
    assert "this site allows 10" in refused(command, "ask", "x" * 11)


@pytest.mark.parametrize(
    "reply",
    [
        error(500, "CUDA out of memory on /dev/nvidia0"),
        Reply([line({"error": "CUDA out of memory on /dev/nvidia0"})]),
    ],
    ids=["status", "stream"],
)
def test_ask_shows_why_the_engine_failed(
    command: Ollama, ollama: OllamaServer, reply: Reply
) -> None:
    ollama.reply(reply)
    assert "The engine's message: CUDA out of memory on /dev/nvidia0" in refused(
        command, "ask", "Why?"
    )


def test_ask_shows_what_there_is_of_an_answer_that_breaks_off(
    command: Ollama, ollama: OllamaServer
) -> None:
    begun = {"model": "x", "message": {"role": "assistant", "content": "Hel"}, "done": False}
    ollama.reply(Reply([line(begun), Close()]))
    output = StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("ollama", "ask", "Why?", stdout=output)
    assert output.getvalue() == "Hel\n"
    assert str(raised.value) == (
        "The backend 'default': The connection to the engine was lost. (RemoteProtocolError)"
    )


def test_what_a_model_thinks_goes_to_the_other_output(
    command: Ollama, ollama: OllamaServer
) -> None:
    thinker = Answer(["6", "."], thinking=["I ", "add."], done_reason="length")
    for verbosity, expected in (
        (1, "I add.\n\nThe answer is incomplete: it reached the token limit.\n"),
        (0, ""),
    ):
        ollama.reply(thinker)
        aside = StringIO()
        said = command("ask", "2 * 3?", stderr=aside, verbosity=verbosity)
        assert (said, aside.getvalue()) == ("6.\n", expected)


def test_ask_asks_what_a_model_falls_back_on(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    models = {
        "smart": {"MODEL": "smollm2:135m", "FALLBACKS": ["gone", "elsewhere"]},
        "gone": {"MODEL": "nope"},
        "elsewhere": {"MODEL": "dummy", "BACKEND": "canned"},
    }
    settings.OLLAMA_OPENAI = site_options(ollama, MODELS=models)
    ollama.reply(error(500, "out of memory"))
    aside = StringIO()
    said = command("ask", "Why?", "--model", "smart", stderr=aside)
    assert said == "This is a canned reply.\n"
    first, second = aside.getvalue().splitlines()
    assert "The backend 'default'" in first
    assert first.endswith("Falling back to 'gone'.")
    assert "'nope'" in second
    assert second.endswith("Falling back to 'elsewhere'.")
    # Not for what is wrong with the question.
    ollama.reply(error(400, "no such thing"))
    assert "no such thing" in refused(command, "ask", "Why?", "--model", "smart")


def test_ask_takes_its_turn(command: Ollama, ollama: OllamaServer, settings: Settings) -> None:
    options = site_options(ollama, QUEUE_TIMEOUT=0.1)
    options["BACKENDS"]["default"]["MAX_CONCURRENCY"] = 1
    settings.OLLAMA_OPENAI = options
    with backends["default"].slots.acquire(QueueTicket()):
        assert "is busy" in refused(command, "ask", "Why?")
    assert command("ask", "Why?") == "Hello!\n"
    assert backends["default"].slots.running == 0


def test_ask_reads_a_question(ollama: OllamaServer) -> None:
    options = site_options(ollama)
    question = "Wörter\nin zwei Zeilen\n"
    result = run("ollama", "ask", "-", options=options, stdin=question.encode())
    assert result == (0, "Hello!\n", "")
    assert ollama.chats()[0].body["messages"][0]["content"] == question
    assert run("ollama", "ask", "-", options=options) == (
        1,
        "",
        "CommandError: The question is empty.\n",
    )
    status, _, said = run("ollama", "ask", "-", options=options, stdin=b"\xff\xfe")
    assert (status, said.startswith("CommandError: The question is not text: ")) == (1, True)


def test_a_site_without_a_default_backend(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {"gpu": {"HOST": ollama.url}},
        "MODELS": {"small": {"MODEL": "smollm2:135m", "BACKEND": "gpu"}},
    }
    assert command("ask", "Why?", "--model", "small") == "Hello!\n"
    for args in (("ask", "Why?", "--model", "smollm2:135m"), ("pull", "smollm2:135m")):
        assert refused(command, *args) == "There is no backend 'default'. BACKENDS has 'gpu'."
        assert command(*args, backend="gpu")


def test_an_answer_comes_token_by_token_and_ctrl_c_ends_it(ollama: OllamaServer) -> None:
    said = [line({**part, "model": "x", "done": False}) for part in _parts("Once", " upon")]
    ollama.reply(Reply([*said, Hold()]))
    with manage("ollama", "ask", "Tell.", options=site_options(ollama)) as running:
        running.wait_for("Once upon")
        running.interrupt()
        assert ollama.wait_for_chat().hung_up.wait(60)
        assert running.end() == 130
    assert running.said == ("Once upon\n", "")


def _parts(*tokens: str) -> Iterator[dict[str, Any]]:
    for token in tokens:
        yield {"message": {"role": "assistant", "content": token}}


def test_ctrl_c_before_the_first_token(ollama: OllamaServer) -> None:
    ollama.reply(Reply([], before=[Hold()]))
    with manage("ollama", "ask", "Tell.", options=site_options(ollama)) as running:
        received = ollama.wait_for_chat(timeout=60)
        running.interrupt()
        assert received.hung_up.wait(60)
        assert running.end() == 130
    assert running.said == ("", "")


@pytest.mark.llamacpp
def test_ctrl_c_ends_an_engine_within_the_process() -> None:
    engine = {"BACKEND": "django_ollama_openai.backends.LlamaCppBackend"}
    options = {"BACKENDS": {"default": {**engine, "OPTIONS": {"name": "small", "threads": 1}}}}
    question = "Write a very long story about the sea."
    with manage("ollama", "ask", question, "--model", "small", options=options) as running:
        running.wait_for(" ")
        running.interrupt()
        assert running.end() == 130
    assert running.said[1] == ""


def test_a_reader_that_has_read_enough(ollama: OllamaServer) -> None:
    ollama.reply(Answer(["word "] * 100_000))
    with manage("ollama", "ask", "Tell.", options=site_options(ollama), enough=5) as running:
        assert running.end() == 1
    assert running.said == ("word ", "")
    assert ollama.wait_for_released()


@pytest.mark.parametrize("args", [("status",), ("models",), ("ps",), ("show", "x"), ("rm", "x")])
def test_ctrl_c_while_an_ollama_is_asked(ollama: OllamaServer, args: tuple[str, ...]) -> None:
    for path in ("version", "tags", "ps", "show", "delete"):
        ollama.routes[f"/api/{path}"] = Reply([Hold()])
    options = {"BACKENDS": {"default": {"HOST": ollama.url}}}
    with manage("ollama", *args, options=options) as running:
        deadline = time.monotonic() + 60
        while not ollama.requests and time.monotonic() < deadline:
            time.sleep(0.005)
        running.interrupt()
        assert running.end() == 130
    assert running.said == ("", "")
    assert ollama.wait_for_released()


# In its own process


def test_the_status_of_the_process_tells_whether_it_worked(ollama: OllamaServer) -> None:
    options = site_options(ollama)
    status, said, failed = run("ollama", "status", options=options)
    assert (status, failed.splitlines()[0]) == (1, "CommandError: Not ready: 'dead'.")
    assert said.count("ready, ") == 3
    status, said, failed = run("ollama", "models", "--backend", "default", options=options)
    assert (status, failed) == (0, "")
    assert run("ollama", "rm", "nope", options=options) == (
        1,
        "",
        "CommandError: The backend 'default' has no model 'nope'.\n",
    )
    assert run("ollama", options=options)[0] == 2


def test_a_broken_setting_is_the_error_of_its_check(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    status, _, said = run("ollama", "ps", options={"HOSTS": "x"})
    assert status == 1
    assert "(ollama_openai.E001) OLLAMA_OPENAI: HOSTS: This key is unknown" in said
    assert "Traceback" not in said
    settings.OLLAMA_OPENAI = {"BACKENDS": {"default": {"OPTIONS": {"no": 1}}}}
    with pytest.raises(SystemCheckError, match=r"ollama_openai\.E002"):
        command("ps", skip_checks=False)
    # Where nobody checks.
    assert "OLLAMA_OPENAI['BACKENDS']['default']: " in refused(command, "ps")


def test_models_can_be_pulled_despite_a_broken_mount(command: Ollama, settings: Settings) -> None:
    settings.ROOT_URLCONF = "no.such.module"
    assert "has 'smollm2:135m'" in command("pull", "smollm2:135m", skip_checks=False)


def test_djangos_own_options_stand_on_either_side(ollama: OllamaServer) -> None:
    options = site_options(ollama)
    shown = {
        args: run("ollama", *args, options=options, columns=80)[1]
        for args in (
            ("ps", "--backend", "default"),
            ("--no-color", "ps", "--backend", "default"),
            ("ps", "--backend", "default", "--no-color"),
        )
    }
    coloured, *plain = shown.values()
    assert "\x1b[" in coloured
    assert not any("\x1b" in each for each in plain)
    quiet = run("ollama", "-v", "0", "pull", "smollm2:135m", options=options)
    assert quiet == (0, "", "")


@pytest.mark.parametrize("name", ["status", "models", "pull", "show", "rm", "ps", "ask"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("ollama", name, "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--backend ALIAS" in said
    assert "--no-color" not in said


# What engines say must not steer the terminal


def test_control_characters_are_not_printable() -> None:
    assert printable(f"a\tb\nc{ESCAPE}\r\x00\x7fd é漢") == "a\tb\nc]0;owned31md é漢"
    # What joins letters and pictures stays.
    assert printable(f"a{BIDI}b\u200d\u200cעברית") == "ab\u200d\u200cעברית"


@pytest.mark.parametrize("columns", [80, None], ids=["terminal", "pipe"])
def test_an_answer_cannot_steer_the_terminal(ollama: OllamaServer, columns: int | None) -> None:
    ollama.reply(Answer(["a", ESCAPE + BIDI, "\tb"], thinking=[ESCAPE]))
    options = site_options(ollama)
    _, said, thought = run("ollama", "ask", "x", options=options, columns=columns)
    if columns is None:
        # It is whoever reads who decides what to do with it.
        assert (said, thought) == (f"a{ESCAPE}{BIDI}\tb\n", f"{ESCAPE}\n\n")
    else:
        assert said.replace("\r\n", "\n") == "]0;owned31m\n\na]0;owned31m\tb\n"


def test_names_and_errors_cannot_steer_the_terminal(ollama: OllamaServer) -> None:
    name = f"evil{ESCAPE}{BIDI}\nrow"
    tag = {"name": name, "capabilities": [], "details": {"context_length": 1}}
    ollama.routes["/api/tags"] = Reply([line({"models": [tag]})])
    ollama.routes["/api/ps"] = Reply([line({"models": [{"name": name}]})])
    ollama.routes["/api/show"] = error(500, f"bad{ESCAPE}")
    layer = {"status": name, "digest": f"sha256:{ESCAPE}x", "total": 9, "completed": 9}
    lines: list[Step] = [line({"status": name}), line(layer), line({"error": f"bad{ESCAPE}"})]
    ollama.routes["/api/pull"] = Reply(lines)
    options = site_options(ollama)
    for args in (("models",), ("ps",), ("show", "x"), ("pull", "x")):
        where = ("--backend", "default", "--no-color")
        _, said, _ = run("ollama", *args, *where, options=options, columns=80)
        assert "owned" in said
        assert not re.search(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{BIDI}]", said), args


def test_characters_that_the_terminal_does_not_know(ollama: OllamaServer) -> None:
    ollama.reply(Answer(["Größe ", "漢"]))
    options = site_options(ollama)
    assert run("ollama", "ask", "x", options=options, PYTHONIOENCODING="ascii") == (
        0,
        "Gr??e ?\n",
        "",
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (-1, ""),
        (10**400, ""),
        (0, "0 B"),
        (999, "999 B"),
        (98_362_823, "98.4 MB"),
        (2_019_000_000, "2.02 GB"),
    ],
)
def test_sizes_are_in_ollamas_units(count: int | None, text: str) -> None:
    assert size(count) == text


# Asking many


def test_a_survey_asks_all_at_once_and_keeps_their_order(
    command: Ollama, silent: dict[str, Any], settings: Settings
) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": {alias: {"BACKEND": DUMMY} for alias in "ab"}}
    both = threading.Barrier(2, timeout=60)

    def ask(backend: BaseBackend) -> str:
        both.wait()
        if backend.alias == "b":
            raise ValueError("no")
        return backend.alias

    answers = survey(ask, ["b", "a"], 60)
    assert [(alias, answer.values) for alias, answer in answers.items()] == [
        ("b", ()),
        ("a", ("a",)),
    ]
    assert repr(answers["b"].error) == "ValueError('no')"
    assert answers["a"].error is None


# A pool


@pytest.fixture
def second() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture
def pool(command: Ollama, ollama: OllamaServer, second: OllamaServer, settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {
            "a": {"HOST": ollama.url, "MAX_CONCURRENCY": 2},
            "b": {"HOST": second.url, "MAX_CONCURRENCY": 2},
            "default": {
                "BACKEND": POOL,
                "OPTIONS": {"members": ["a", "b"]},
            },
        },
        "ALLOW_ANONYMOUS": True,
    }


@pytest.mark.usefixtures("pool")
def test_pull_and_rm_go_to_every_member(
    command: Ollama, ollama: OllamaServer, second: OllamaServer
) -> None:
    for server in (ollama, second):
        server.downloads["llama3.2"] = Download(LAYERS, step=500_000)
    said = command("pull", "llama3.2")
    assert "The backend 'a' has 'llama3.2'." in said
    assert "The backend 'b' has 'llama3.2'." in said
    assert [len(server.pulls()) for server in (ollama, second)] == [1, 1]
    # One that fails keeps nobody else from it.
    ollama.downloads.clear()
    ollama.routes["/api/pull"] = error(500, "no space left")
    assert "'a': no space left" in refused(command, "pull", "llama3.2")
    assert [len(server.pulls()) for server in (ollama, second)] == [2, 2]
    command("rm", "gemma3:270m")
    deleted = [
        [request.path for request in server.requests if request.method == "DELETE"]
        for server in (ollama, second)
    ]
    assert deleted == [["/api/delete"]] * 2


@pytest.mark.usefixtures("pool")
def test_ps_lists_a_member_once(command: Ollama) -> None:
    assert [line for line in command("ps").splitlines() if "OllamaBackend" in line] == [
        "a  OllamaBackend",
        "b  OllamaBackend",
    ]


@pytest.mark.usefixtures("pool")
def test_the_status_of_a_pool(command: Ollama, second: OllamaServer) -> None:
    rows = command("status").splitlines()
    assert rows[-1].startswith("    a pool of a, b, ")
    assert "up to 2 requests" in command("status", "--backend", "a")
    other = second.models["gemma3:270m"]
    second.models["gemma3:270m"] = {**other, "digest": "f" * 64}
    output = StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("ollama", "status", stdout=output, no_color=True)
    assert str(raised.value) == "With models of different versions: 'default'."
    digests = f"a has {other['digest'][:12]}, b has {'f' * 12}"
    last = output.getvalue().splitlines()[-1]
    assert last == f"    gemma3:270m has different versions: {digests}"


def test_the_status_of_a_pool_without_one_of_its_members(
    command: Ollama, ollama: OllamaServer, settings: Settings
) -> None:
    reason = GONE
    members = {"a": {"HOST": ollama.url}, "b": {"HOST": DEAD_HOST}}
    pool = {"BACKEND": POOL, "OPTIONS": {"members": ["a", "b"]}}
    settings.OLLAMA_OPENAI = {"BACKENDS": {**members, "default": pool}, "ALLOW_ANONYMOUS": True}
    said = command("status", "--backend", "default")
    assert re.sub(r"\d+ ms", "1 ms", said) == (
        "default  PoolBackend  ready, without b, 1 ms\n"
        "    a pool of a, b, 5 models\n"
        f"    b: {reason}\n"
    )
    # Where all are asked for, a member is a backend as any other.
    assert refused(command, "status") == "Not ready: 'b'."


def test_the_status_of_a_pool_that_is_not_ready(command: Ollama, settings: Settings) -> None:
    members = {alias: {"HOST": DEAD_HOST} for alias in "ab"}
    pool = {"BACKEND": POOL, "OPTIONS": {"members": ["a", "b"]}}
    settings.OLLAMA_OPENAI = {"BACKENDS": {**members, "default": pool}}
    output = StringIO()
    with pytest.raises(CommandError, match=r"^Not ready: 'default'\.$"):
        call_command("ollama", "status", backend="default", stdout=output, no_color=True)
    head, *reasons = output.getvalue().splitlines()
    assert head.startswith("default  PoolBackend  not ready, ")
    assert [line.partition(": The engine cannot")[0] for line in reasons] == ["    a", "    b"]


@pytest.mark.usefixtures("pool")
def test_show_asks_the_members_in_turn(
    command: Ollama, ollama: OllamaServer, second: OllamaServer
) -> None:
    assert command("show", "smollm2:135m").startswith("smollm2:135m\n")
    assert [request.path for request in second.requests] == []
    ollama.routes["/api/show"] = error(404, "model not found")
    assert command("show", "smollm2:135m").startswith("smollm2:135m\n")
    second.routes["/api/show"] = error(500, "disk failure")
    assert refused(command, "show", "smollm2:135m") == (
        "The backend 'a' has no model 'smollm2:135m'.\nThe backend 'b': disk failure (status 500)"
    )
