"""``manage.py ollama ask``: ask a model a question, on the path of a client's request."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError

from .. import _conf
from .._closing import closed
from .._gateway.admission import check_prompt
from .._gateway.mount import Mount
from .._gateway.routing import Route, resolve_model
from .._gateway.work import allows_fallback
from .._wire.chat import ChatCompletionRequest
from .._wire.delta import Delta
from ..backends import OllamaBackend
from ..backends._leases import stream
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError, ModelNotFound
from .engines import backend_aliases, backend_error
from .inventory import missing_model_error
from .terminal import Terminal, pull_advice

__all__ = ["ask"]


def ask(
    terminal: Terminal, question: str, *, model: str | None, system: str | None, alias: str | None
) -> None:
    """Write the answer to ``question`` to standard output while it is generated, and the model's
    reasoning to standard error. ``"-"`` reads the question from standard input.

    Raises:
        CommandError: The model or the backend does not exist, or the engine failed.
    """
    route = _route(model, alias)
    question = _read() if question == "-" else question
    if not question.strip():
        raise CommandError("The question is empty.")
    texts = [("system", system), ("user", question)]
    messages = [{"role": role, "content": text} for role, text in texts if text is not None]
    try:
        body = ChatCompletionRequest.from_dict(
            {"model": route.name, "messages": messages, "stream": True}
        )
        check_prompt(body, _conf.get())
    except GatewayError as error:
        raise backend_error(route.alias, error) from error
    _try_routes(terminal, [route, *route.fallbacks], body)


def _route(model: str | None, alias: str | None) -> Route:
    """Return the route of a request to a mount whose backend is ``alias``."""
    settings = _conf.get()
    name = model or settings.DEFAULT_MODEL
    if not name:
        raise CommandError("There is no DEFAULT_MODEL. Name a model with --model.")
    if not settings.allows_model(name):
        raise CommandError(f"ALLOWED_MODELS does not allow {name!r}.")
    backend_aliases(alias)
    mount = Mount(alias or _conf.DEFAULT_BACKEND, settings.RESPONSE_CASE)
    route = resolve_model(name, mount, settings)
    backend_aliases(route.alias)
    if alias not in (None, route.alias):
        raise CommandError(
            f"The model {name!r}{'' if model else ' (DEFAULT_MODEL)'} is on the backend "
            f"{route.alias!r} by MODELS, not on {alias!r}. Omit --backend, or name another model "
            "with --model."
        )
    return route


def _try_routes(terminal: Terminal, routes: list[Route], body: ChatCompletionRequest) -> None:
    """Send ``body`` to the first of ``routes``, and to the next one if it fails before its first
    delta."""
    writer = _Writer(terminal)
    for number, route in enumerate(routes, 1):
        try:
            route.backend.check_support(body)
            return _answer(writer, route, body.routed_to(route.model, route.options))
        except GatewayError as error:
            final = _command_error(route, error)
            if writer.has_begun or number == len(routes) or not allows_fallback(error):
                raise final from error
            terminal.write_stderr(f"{final} Falling back to {routes[number].name!r}.\n")


def _command_error(route: Route, error: GatewayError) -> CommandError:
    if not isinstance(error, ModelNotFound):
        return backend_error(route.alias, error)
    is_ollama = isinstance(route.backend, OllamaBackend)
    advice = pull_advice(route.model, route.alias) if is_ollama else ""
    return missing_model_error(route.alias, route.model, advice)


def _read() -> str:
    # One character more than allowed is enough for the request to be refused.
    try:
        return sys.stdin.read(_conf.get().MAX_PROMPT_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise CommandError(f"The question is not text: {error}.") from error


def _answer(writer: _Writer, route: Route, request: ChatCompletionRequest) -> None:
    try:
        leases = route.backend.leases(request, QueueTicket())
        deltas = stream(leases, lambda lease: [lease.backend.stream_chat(request)])
        # Also on Ctrl-C: the engine goes on until the iterator is closed.
        with closed(deltas):
            for delta in deltas:
                writer.feed(delta)
    finally:
        writer.finish()


class _Writer:
    """Writes the reasoning and the answer, each with a line feed at its end."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._reasoning = self._answer = ""
        self._reason: str | None = None
        #: Whether the engine has sent a delta.
        self.has_begun = False

    def feed(self, delta: Delta) -> None:
        self.has_begun = True
        self._reason = delta.finish_reason or self._reason
        if delta.reasoning:
            self._reasoning = delta.reasoning
            self._terminal.write_stderr(delta.reasoning)
        if delta.content:
            if not self._answer:
                self._end_reasoning()
            self._answer = delta.content
            self._terminal.write(delta.content)

    def finish(self) -> None:
        if not self._answer:
            self._end_reasoning()
        elif not self._answer.endswith("\n"):
            self._terminal.write("\n")
        if self._reason == "length":
            self._terminal.write_stderr("The answer is incomplete: it reached the token limit.\n")

    def _end_reasoning(self) -> None:
        if self._reasoning:
            self._terminal.write_stderr("\n\n" if not self._reasoning.endswith("\n") else "\n")
