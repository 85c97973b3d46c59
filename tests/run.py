"""Run tox, after installing what its environments need beyond Python packages.

Debian packages are installed as root or with ``sudo -n``, without a password prompt. An environment
whose programs are still missing is left out and named in the last lines. If ``CI`` is set, or if no
other environment was selected, that is an error.

    python tests/run.py -e lint             # one environment, with its output
    python tests/run.py -e lint,types       # several or all, three at a time
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

APPS = {
    # Of the database servers without their services. The driver for MariaDB has to be compiled.
    "pg_ctl": "postgresql",
    "mariadbd": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
    "mariadb_config": "libmariadb-dev",
    "gcc": "gcc libc6-dev",
    "pkg-config": "pkg-config",
    "xgettext": "gettext",
}
PROGRAMS = {
    "apps": {**APPS, "redis-server": "redis-server"},
    "chat": APPS,
    # Debian's Caddy is older than the one from PyPI. Both are supported.
    "proxies": {"nginx": "nginx-light caddy"},
}
"""The programs that each environment needs, and the Debian packages that contain them."""

# Debian leaves /usr/sbin out of the PATH of users, and PostgreSQL's server out of anybody's.
SEARCHED = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
    ]
)

# The tests start these programs themselves, so policy-rc.d keeps the services from starting.
INSTALL = r"""
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
timeout 300 apt-get update -o Acquire::Retries=1
timeout 600 apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
"""


def missing(environments: list[str]) -> dict[str, dict[str, str]]:
    """Return the programs that are not installed, by environment."""
    found = {
        environment: {
            program: packages
            for program, packages in PROGRAMS[environment].items()
            if shutil.which(program, path=SEARCHED) is None
        }
        for environment in environments
    }
    return {environment: programs for environment, programs in found.items() if programs}


def install(packages: str) -> str:
    """Install Debian packages if allowed. Return the reason of a failure, or an empty string."""
    if shutil.which("apt-get") is None:
        return "apt-get is not installed"
    as_root: list[str] = []
    if os.geteuid() != 0:
        as_root = ["sudo", "-n"]
        if shutil.which("sudo") is None or run_quietly([*as_root, "true"]).returncode:
            return "root or passwordless sudo is needed"
    print(f"Installing {packages} ...", file=sys.stderr, flush=True)
    command = [*as_root, "sh", "-c", INSTALL, "sh", *packages.split()]
    done = run_quietly(command)
    said = done.stdout.decode(errors="replace").strip().splitlines() or ["apt-get failed"]
    return said[-1] if done.returncode else ""


def run_quietly(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command without input, and capture its output."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def named_environments(options: list[str]) -> str:
    """Return the environments that ``options`` and ``TOXENV`` select; empty for all."""
    named = os.environ.get("TOXENV", "")
    for place, option in enumerate(options):
        if option == "--":
            break
        if option == "-e":
            named = ",".join(options[place + 1 : place + 2])
        elif option.startswith("-e"):
            named = option.removeprefix("-e")
    return "" if named == "ALL" else named


def main(options: list[str]) -> int:
    named = named_environments(options)
    is_one = re.fullmatch(r"[\w.-]+", named) is not None
    wanted = [name for name in PROGRAMS if not named or re.search(rf"\b{name}\b", named)]
    reason = ""
    if packages := " ".join(" ".join(programs.values()) for programs in missing(wanted).values()):
        reason = install(packages)
    left_out = missing(wanted)
    lines = [
        f"Left out: {name}, without {' and '.join(programs)} ({reason}); "
        f"run: apt-get install {' '.join(programs.values())}"
        for name, programs in left_out.items()
    ]
    is_ci = bool(os.environ.get("CI"))
    status = 1
    if not lines or not (is_one or is_ci):
        command = [sys.executable, "-m", "tox"]
        if is_one:
            command.append("run")
        else:
            command += ["run-parallel", "--parallel", "3", "--parallel-no-spinner"]
        if is_ci:
            command += ["--skip-missing-interpreters", "false"]
        skipped = "|".join(filter(None, [os.environ.get("TOX_SKIP_ENV"), *left_out]))
        status = run([*command, *options], {**os.environ, "TOX_SKIP_ENV": skipped})
    for line in lines:
        print(line, file=sys.stderr)
    return status


def run(command: list[str], environ: dict[str, str]) -> int:
    """Run a command to its end, and return its status."""
    with subprocess.Popen(command, env=environ) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # tox gets the signal too, and ends its environments.
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
