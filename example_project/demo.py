"""``make demo``: run the example site with uvicorn.

With a question in the environment variable ``ASK`` stream the answer to standard output and exit,
otherwise serve until Ctrl-C.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from example.engine import Engine

ADDRESS = "127.0.0.1"
PREFERRED_PORT = 8000
READY_WITHIN_SECONDS = 30
USER = "demo"
QUESTION = "What is the capital of France?"


class DemoError(Exception):
    """The demo failed; the message has the reason and the remedy."""


def main() -> int:
    question = os.environ.get("ASK", "").strip()
    # Processes in the background of a script ignore Ctrl-C by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with in_the_foreground():
        try:
            run(question)
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            # Ctrl-C is the normal end of a server, but not of a question.
            return 130 if question else 0
        return 0


def run(question: str) -> None:
    key = "sk-demo-" + secrets.token_urlsafe(24)
    os.environ["EXAMPLE_API_KEY"] = key
    engine = set_up_site()
    user, password = ("", "") if question else demo_user()
    with free_port() as listening, serving(listening) as server:
        site = f"http://{ADDRESS}:{listening.getsockname()[1]}"
        print(f"{engine.why}\n", file=sys.stderr)
        if question:
            ask(question, f"{site}/ai/v1", key, engine.model)
        else:
            print(instructions(site, key, engine.model, user, password), flush=True)
            # Wait briefly, since Python handles a signal just before a wait only after it.
            while server.is_alive():
                server.join(1)
            raise DemoError("uvicorn has ended; the reason stands above.")


def set_up_site() -> Engine:
    """Configure Django, check the configuration, and bring the database up to date."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    try:
        import django
        import openai  # noqa: F401
        import uvicorn  # noqa: F401
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import CommandError, call_command
    except ImportError as error:
        raise DemoError(f"{error.name} is not installed; start this with 'make demo'.") from error
    try:
        django.setup()
        engine: Engine = settings.ENGINE
        call_command("check", stdout=io.StringIO())
        call_command("migrate", verbosity=0)
    except (ImproperlyConfigured, CommandError) as error:
        raise DemoError(str(error)) from error
    if engine.problem:
        raise DemoError(engine.problem)
    return engine


def demo_user() -> tuple[str, str]:
    """Return the name and the password of the site's superuser, creating the user if needed."""
    from django.contrib.auth import get_user_model
    from django.utils.crypto import salted_hmac

    # The same at each start, so that sessions stay valid; different in each checkout.
    password = salted_hmac("demo_user", USER, algorithm="sha256").hexdigest()[:16]
    users = get_user_model().objects
    user = users.filter(username=USER).first() or users.create_superuser(USER)
    if not user.check_password(password):
        user.set_password(password)
        user.save()
    return USER, password


# The server


def free_port() -> socket.socket:
    """Return a socket that listens on the preferred port, or on another one if it is in use."""
    try:
        return socket.create_server((ADDRESS, PREFERRED_PORT))
    except OSError:
        return socket.create_server((ADDRESS, 0))


@contextmanager
def serving(listening: socket.socket) -> Iterator[threading.Thread]:
    """Serve the site with uvicorn in a thread, and yield the thread when the site is ready."""
    import uvicorn
    from example.asgi import application

    config = uvicorn.Config(
        application,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="uvicorn")
    thread.start()
    try:
        wait_until_ready(listening.getsockname()[1], thread)
        yield thread
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # No messages about answers that are aborted now.
        logging.disable()
        server.should_exit = True
        thread.join()


def wait_until_ready(port: int, server: threading.Thread) -> None:
    give_up = time.monotonic() + READY_WITHIN_SECONDS
    while not is_ready(port):
        if not server.is_alive():
            raise DemoError("uvicorn has ended; the reason stands above.")
        if time.monotonic() > give_up:
            raise DemoError(f"The site was not ready after {READY_WITHIN_SECONDS} seconds.")
        time.sleep(0.1)


def is_ready(port: int) -> bool:
    # Not urllib, which would use proxies from the environment.
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=READY_WITHIN_SECONDS)
    try:
        connection.request("GET", "/ai/health?probe=live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


# The client


def ask(question: str, base_url: str, key: str, model: str) -> None:
    """Stream one answer to standard output, and the model's reasoning to standard error."""
    import openai

    client = openai.OpenAI(
        base_url=base_url,
        api_key=key,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )
    thoughts = answer = ""
    try:
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], stream=True
        )
        for chunk in stream:
            delta = chunk.choices[0].delta
            if thought := getattr(delta, "reasoning_content", None):
                thoughts += thought
                print(thought, end="", file=sys.stderr, flush=True)
            if delta.content:
                if thoughts and not answer:
                    print("\n", file=sys.stderr)
                answer += delta.content
                print(delta.content, end="", flush=True)
    except openai.APIError as error:
        raise DemoError(f"The answer failed: {error}") from error
    finally:
        client.close()
    if not answer:
        raise DemoError("The model gave no answer; ask again, or in other words.")
    print()


def instructions(site: str, key: str, model: str, user: str, password: str) -> str:
    """Return the text to print once the site is ready: addresses, credentials, two programs."""
    base_url = f"{site}/ai/v1"
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": QUESTION}]})
    # Without apostrophes, since the shell command has it in single quotes.
    program = f"""\
from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="{key}")
stream = client.chat.completions.create(
    model={json.dumps(model)},
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
"""
    return f"""\
Site      {site}/
User      {user}
Password  {password}
Base URL  {base_url}
Key       {key}
Model     {model}

Log in to the site to chat there; the same user may open {site}/admin/.

Or paste this into another terminal:

curl -N {base_url}/chat/completions \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{body}'

Or this, which uses OpenAI's own Python client:

{shlex.quote(sys.executable)} -c '
{program}'

Ctrl-C ends the demo."""


# The terminal


@contextmanager
def in_the_foreground() -> Iterator[None]:
    """Let Ctrl-C reach this program alone.

    A terminal sends it to the whole process group in the foreground. That includes make, which
    would report the demo as interrupted even after a clean exit.
    """
    group = os.getpgrp()
    if group == os.getpid() or not sys.stdin.isatty() or os.tcgetpgrp(0) != group:
        yield
        return
    # If stopped, this group would keep the terminal forever.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgrp()
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, group)


if __name__ == "__main__":
    sys.exit(main())
