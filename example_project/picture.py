"""``make picture``: take the screenshots for the README from the running example site.

Starts the demo, logs in with the printed password, asks one question in the chat box, and takes a
screenshot of the page with the answer, light and dark. The environment variable ``CHROMIUM`` is the
path of Chromium, by default that of ``chromium`` or ``chrome``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "docs" / "_static"
QUESTION = "What is the capital of France?"
WIDTH = 800
LIMIT_SECONDS = 60
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Browser:
    """A page of a headless Chromium, controlled with the DevTools protocol over two pipes."""

    def __init__(self, commands: Any, answers: Any) -> None:
        self._commands, self._answers, self._session = commands, answers, {}
        self._number = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of one command, and skip the events before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            data = b""
            while not data.endswith(b"\0"):
                byte = self._answers.read(1)
                if not byte:
                    raise RuntimeError("Chromium has ended.")
                data += byte
            answer: dict[str, Any] = json.loads(data[:-1])
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def run(self, code: str) -> Any:
        """Return the value of ``code`` in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{code}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until ``condition`` holds in the page."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} in {self.run('document.body.innerText')!r}")
            time.sleep(0.05)

    def open(self, url: str, condition: str) -> None:
        """Open ``url``, and wait until ``condition`` holds there."""
        self.call("Page.navigate", url=url)
        self.wait_for(condition)

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Set the size of the page in CSS pixels, at twice the density, and its colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Write a screenshot of the page to ``path``."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a headless Chromium with a profile of its own."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
    if program is None:
        sys.exit("picture: Chromium is not installed; install it, or set CHROMIUM to its path.")
    commands, commands_end = os.pipe()
    answers_end, answers = os.pipe()
    with TemporaryDirectory() as profile:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        arguments += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "sh", program, *arguments],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        with open(commands_end, "wb") as writing, open(answers_end, "rb") as reading:
            try:
                yield Browser(writing, reading)
            finally:
                process.terminate()
                process.wait()


@contextmanager
def demo() -> Iterator[tuple[str, str, str]]:
    """Start the demo. Yield its address, and the name and the password of its user."""
    environment = {name: value for name, value in os.environ.items() if name != "ASK"}
    command = [sys.executable, str(HERE / "demo.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            printed = ""
            assert process.stdout is not None
            for line in process.stdout:
                printed += line
                if line.startswith("Ctrl-C"):
                    break
            lines = dict(re.findall(r"^(Site|User|Password) +(.+)$", printed, re.MULTILINE))
            if len(lines) < 3:
                sys.exit("picture: the demo has not started.")
            yield lines["Site"], lines["User"], lines["Password"]
        finally:
            process.terminate()


def log_in(page: Browser, site: str, user: str, password: str) -> None:
    page.open(site, "!!document.forms[0]?.username")
    page.run(f"""(() => {{
        const form = document.forms[0];
        form.username.value = {json.dumps(user)};
        form.password.value = {json.dumps(password)};
        form.submit();
    }})()""")
    page.wait_for("document.readyState === 'complete' && !!document.getElementById('chat')")


def ask(page: Browser, question: str) -> None:
    """Type ``question`` into the chat box and press Enter."""
    page.run("document.getElementById('question').focus()")
    page.call("Input.insertText", text=question)
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r")


def main() -> None:
    with demo() as (site, user, password), browser() as page:
        page.resize(WIDTH, 600, "light")
        log_in(page, site, user, password)
        ask(page, QUESTION)
        page.wait_for("document.querySelector('.assistant')?.ariaBusy === 'false'")
        # Down to the end of the site's description, without the examples.
        height = page.run("Math.ceil(document.querySelector('dl').getBoundingClientRect().bottom)")
        for scheme, name in (("light", "demo.png"), ("dark", "demo-dark.png")):
            page.resize(WIDTH, height + 24, scheme)
            page.run("document.activeElement.blur()")
            page.run(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            page.picture(PICTURES / name)
            print(PICTURES / name)


if __name__ == "__main__":
    main()
