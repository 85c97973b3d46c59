"""The proxies of ``docs/proxies``, as they stand there, in the real programs.

What a site has to change is changed: names, addresses and files.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import trustme

from tests.servers import free_port, running

__all__ = ["CONFIGURATIONS", "PROXIES", "Proxy", "ProxyName", "missing_proxies", "run_proxy"]

CONFIGURATIONS = Path(__file__).parent.parent / "docs" / "proxies"
HOST = "localhost"

ProxyName: TypeAlias = Literal["nginx", "caddy"]
PROXIES: tuple[ProxyName, ...] = ("nginx", "caddy")
PACKAGED = str(Path(sys.executable).parent)
PATHS = os.environ.get("PATH", os.defpath).split(os.pathsep)
# The system's Caddy comes before PyPI's: it is older. Debian keeps /usr/sbin from users' PATH.
SEARCHED = os.pathsep.join([*(path for path in PATHS if path != PACKAGED), "/usr/sbin", PACKAGED])

NGINX = """\
daemon off;
{user}
pid {directory}/nginx.pid;
error_log stderr;
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    # As eager as a site's may be: streams have to come through all the same.
    gzip on;
    gzip_proxied any;
    gzip_types *;
    gzip_min_length 1;
    include {snippet};
}}
"""

CADDY = """\
{{
	admin off
	auto_https disable_redirects
	storage file_system {directory}/storage
}}
"""


@dataclass
class Proxy:
    """A running proxy."""

    name: ProxyName
    port: int
    authority: trustme.CA
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given."""
        return f"{self.url}/ai/v1"

    @property
    def tls(self) -> ssl.SSLContext:
        """A new one each time: a client that speaks HTTP/2 says so in it."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(tls)
        return tls

    def connect(self) -> ssl.SSLSocket:
        """A connection that a test can do with as it likes."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return self.tls.wrap_socket(sock, server_hostname=HOST)


def missing_proxies() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROXIES if _executable(name) is None]


@contextmanager
def run_proxy(name: ProxyName, directory: Path, sites: Sequence[str]) -> Iterator[Proxy]:
    """Run it in front of the two ``sites``, which are URLs."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    certificate.cert_chain_pems[0].write_to_path(directory / "fullchain.pem")
    certificate.private_key_pem.write_to_path(directory / "privkey.pem")
    port = free_port()
    addresses = [urlsplit(site).netloc for site in sites]
    program = _executable(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    check, command = _COMMANDS[name](program, directory, port, addresses)
    environ = {**os.environ, "HOME": str(directory)}
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environ[variable] = str(directory / variable.lower())
    subprocess.run(check, env=environ, stdin=subprocess.DEVNULL, check=True, timeout=60)
    output = directory / "output.txt"
    with running(command, environ, output) as process:
        proxy = Proxy(name, port, authority, process, output)
        _wait_until_ready(proxy)
        yield proxy


Commands: TypeAlias = tuple[list[str], list[str]]


def _nginx(program: str, directory: Path, port: int, sites: Sequence[str]) -> Commands:
    snippet, configuration = directory / "site.conf", directory / "nginx.conf"
    changes = {
        "127.0.0.1:8001": sites[0],
        "127.0.0.1:8002": sites[1],
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "www.example.com;": f"{HOST};",
        "/etc/ssl/www.example.com/": f"{directory}/",
    }
    snippet.write_text(_changed("nginx.conf", changes))
    # Those of root would become nobody, who may not write to a directory of root's.
    user = "user root root;" if os.geteuid() == 0 else ""
    text = NGINX.format(directory=directory, snippet=snippet, user=user)
    configuration.write_text(text)
    command = [program, "-p", str(directory), "-e", "stderr", "-c", str(configuration)]
    return [*command, "-t", "-q"], command


def _caddy(program: str, directory: Path, port: int, sites: Sequence[str]) -> Commands:
    configuration = directory / "Caddyfile"
    changes = {
        "127.0.0.1:8001": sites[0],
        "127.0.0.1:8002": sites[1],
        "Host www.example.com": f"Host {HOST}",
        "www.example.com {": f"{HOST}:{port} {{\n\tbind 127.0.0.1\n"
        f"\ttls {directory}/fullchain.pem {directory}/privkey.pem",
    }
    text = _changed("Caddyfile", changes)
    configuration.write_text(CADDY.format(directory=directory) + text)
    options = ["--adapter", "caddyfile", "--config", str(configuration)]
    return [program, "validate", *options], [program, "run", *options]


_COMMANDS: dict[ProxyName, Callable[[str, Path, int, Sequence[str]], Commands]] = {
    "nginx": _nginx,
    "caddy": _caddy,
}


def _changed(name: str, changes: dict[str, str]) -> str:
    text = (CONFIGURATIONS / name).read_text()
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"There is no {old!r} in {name}")
        text = text.replace(old, new)
    return text


def _executable(name: str) -> str | None:
    return shutil.which(name, path=SEARCHED)


def _wait_until_ready(proxy: Proxy) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            proxy.connect().close()
            return
        except OSError:
            pass
        if proxy.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{proxy.name} did not start:\n{proxy.output.read_text()}")
        time.sleep(0.05)
