"""The example site: what ``make demo`` runs."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DEAD_HOST
from tests.ollama_server import Answer, OllamaServer
from tests.servers import NO_TLS, ROOT, free_port
from tests.terminals import run

PROJECT = ROOT / "example_project"
LIMIT_SECONDS = 120
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example project, with a database of its own."""
    ignored = shutil.ignore_patterns(".demo", "__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=ignored))


@contextmanager
def started(ollama: OllamaServer, *command: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "OLLAMA_HOST": ollama.url, "PYTHONFAULTHANDLER": "1"}
    for name in ("ASK", "DJANGO_SETTINGS_MODULE"):
        environ.pop(name, None)
    with subprocess.Popen(
        [sys.executable, *command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                # Says where each of its threads is.
                process.send_signal(signal.SIGABRT)
                pytest.fail(process.communicate()[1])


@contextmanager
def demo(project: Path, ollama: OllamaServer) -> Iterator[tuple[dict[str, str], str]]:
    """The demo, and what it prints: by line, and whole."""
    with started(ollama, str(project / "demo.py")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("Ctrl-C"):
                break
        else:
            pytest.fail(process.stderr.read())
        yield dict(re.findall(r"^(\w[\w ]*?)  +(\S+)$", printed, re.MULTILINE)), printed


def log_in(client: httpx.Client, user: str, password: str) -> httpx.Response:
    token = csrf_token(client.get("/"))
    form = {"username": user, "password": password, "csrfmiddlewaretoken": token}
    return client.post("/", data=form, follow_redirects=True)


def csrf_token(page: httpx.Response) -> str:
    return str(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[-1])


def test_the_printed_user_chats_and_administers(project: Path, ollama: OllamaServer) -> None:
    ollama.reply(Answer(content=["Par", "is"]))
    with (
        demo(project, ollama) as (lines, _),
        httpx.Client(base_url=lines["Site"], verify=NO_TLS, timeout=LIMIT_SECONDS) as client,
    ):
        refused = log_in(client, lines["User"], "wrong")
        assert "enter a correct username and password" in refused.text
        assert 'id="chat"' not in refused.text
        page = log_in(client, lines["User"], lines["Password"])
        (url,) = re.findall(r'data-url="(.+?)"', page.text)
        (model,) = re.findall(r'data-model="(.+?)"', page.text)
        body = {**QUESTION, "model": model, "stream": True}
        assert client.post(url, json=body).json()["error"]["code"] == "csrf_failed"
        answer = client.post(url, json=body, headers={"X-CSRFToken": csrf_token(page)})
        assert '"content":"Par"' in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        assert "Users" in client.get("/admin/").text
        assert_assets(client, page)
        assert_assets(client, client.get("/admin/"))
        session = dict(client.cookies)
    # Another start is no reason to log in again.
    with demo(project, ollama) as (lines, _):
        page = httpx.get(lines["Site"], cookies=session, verify=NO_TLS, timeout=LIMIT_SECONDS)
        assert 'id="chat"' in page.text


def assert_assets(client: httpx.Client, page: httpx.Response) -> None:
    """All styles and scripts of ``page`` are served, by this site."""
    found = re.findall(r'<(?:link rel="stylesheet" href|script[^>]* src)="([^"]+)"', page.text)
    assert found
    for path in found:
        assert path.startswith("/static/")
        asset = client.get(path)
        assert asset.status_code == 200
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        assert asset.headers["content-type"].startswith(kind)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "gunicorn", "--chdir", "{project}", "--bind", "127.0.0.1:{port}", "example.wsgi"],
        ["-m", "uvicorn", "--app-dir", "{project}", "--port", "{port}", "example.asgi:application"],
        ["{project}/manage.py", "runserver", "--noreload", "{port}"],
    ],
    ids=["gunicorn", "uvicorn", "runserver"],
)
def test_styles_under_any_server(project: Path, ollama: OllamaServer, command: list[str]) -> None:
    port = free_port()
    with (
        started(ollama, *(part.format(port=port, project=project) for part in command)) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", verify=NO_TLS, timeout=LIMIT_SECONDS
        ) as client,
    ):
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                page = client.get("/admin/login/")
                break
            except httpx.ConnectError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    pytest.fail(process.communicate()[1])
                time.sleep(0.1)
        assert_assets(client, page)


def test_the_printed_curl_streams(project: Path, ollama: OllamaServer) -> None:
    ollama.reply(Answer(content=["Par", "is"]))
    with demo(project, ollama) as (_, printed):
        command = printed[printed.index("curl ") : printed.index("\n\nOr this")]
        assert command.startswith("curl -N ")
        (url,) = re.findall(r"http://\S+", command)
        headers = dict(re.findall(r'-H "(.+?): (.+?)"', command))
        (body,) = re.findall(r"-d '(.+)'", command)
        answer = httpx.post(
            url, headers=headers, content=body, verify=NO_TLS, timeout=LIMIT_SECONDS
        )
    assert '"content":"Par"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_question_is_answered_alone(project: Path, ollama: OllamaServer) -> None:
    ollama.reply(Answer(content=["Par", "is"]))
    status, printed, notes = run(
        options={}, program=[str(project / "demo.py")], ASK="?", OLLAMA_HOST=ollama.url
    )
    assert (status, printed) == (0, "Paris\n"), notes


def tag(name: str, capabilities: list[str]) -> dict[str, Any]:
    """Return an entry of ``/api/tags``, complete enough that ``/api/show`` has nothing to add."""
    return {
        "name": name,
        "model": name,
        "capabilities": capabilities,
        "details": {"family": "x", "context_length": 8192, "embedding_length": 64},
    }


def find_chat_model(ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROJECT)
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    return importlib.import_module("example.engine").find_chat_model


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        ([("minilm", ["embedding"]), ("chat", ["completion"])], "chat"),
        ([("both", ["completion", "embedding"]), ("chat", ["completion"])], "chat"),
        ([("thinks", ["completion", "thinking"]), ("chat", ["completion"])], "chat"),
        ([("a-cloud", ["completion"]), ("thinks", ["completion", "thinking"])], "thinks"),
        ([("minilm", ["embedding"])], None),
    ],
)
def test_a_model_that_can_chat_is_chosen(
    ollama: OllamaServer,
    monkeypatch: pytest.MonkeyPatch,
    tags: list[tuple[str, list[str]]],
    chosen: str | None,
) -> None:
    ollama.models = {one[0]: tag(*one) for one in tags}
    find = find_chat_model(ollama, monkeypatch)
    if chosen is None:
        with pytest.raises(Exception, match="no model that can chat"):
            find()
    else:
        assert find() == chosen


def test_an_embedding_model_whose_weights_ollama_converted_is_not_chosen(
    ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tag("all-minilm:22m", ["completion"])
    del listed["details"]["context_length"], listed["details"]["embedding_length"]
    ollama.models = {
        "all-minilm:22m": {**ollama.models["all-minilm:22m"], **listed},
        "smollm2:135m": ollama.models["smollm2:135m"],
    }
    assert find_chat_model(ollama, monkeypatch)() == "smollm2:135m"


@pytest.mark.once
@pytest.mark.parametrize(
    ("environ", "model"),
    [({"EXAMPLE_ENGINE": "ollama"}, "llama3.2"), ({"EXAMPLE_MODEL": "mine"}, "mine")],
    ids=["engine", "model"],
)
def test_commands_run_while_ollama_is_down(environ: dict[str, str], model: str) -> None:
    environ |= {"DJANGO_SETTINGS_MODULE": "example.settings", "OLLAMA_HOST": DEAD_HOST}
    print_problem = "from example.settings import ENGINE; print(ENGINE.problem)"
    checked, printed = (
        subprocess.run(
            [sys.executable, *args],
            cwd=PROJECT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
        )
        for args in (["manage.py", "check"], ["-c", print_problem])
    )
    assert checked.returncode == 0
    assert f"reached at {DEAD_HOST}: start it with `ollama serve`" in checked.stderr
    assert "Traceback" not in checked.stderr
    assert f"'ollama pull {model}'" in printed.stdout


# The installation


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        archive.writestr("tiny-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.parametrize("columns", [None, 60])
def test_the_installation_shows_its_progress(wheel: Path, columns: int | None) -> None:
    program = [
        str(PROJECT / "install.py"),
        "--no-index",
        "--no-deps",
        "--target",
        str(wheel.parent),
    ]
    status, out, err = run(str(wheel), options={}, program=program, columns=columns)
    assert status == 0, err
    if columns is None:
        assert out == ""
        assert "Installing collected packages: tiny\n" in err
    else:
        assert re.search(r"\r\x1b\[K +\d+ s  Installing collected packages: tiny ", out)
        assert out.endswith("\r\x1b[K")
        assert all(len(shown) < 60 for shown in out.split("\r\x1b[K"))
    status, out, err = run("absent", options={}, program=program, columns=columns)
    assert status == 1
    assert "No matching distribution found for absent" in out + err
