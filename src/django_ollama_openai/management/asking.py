"""``manage.py ollama ask``: a question to a model, as a client's would go through the site."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError

from .. import _conf
from .._gateway.exchange import check_prompt
from .._gateway.mount import Mount
from .._gateway.routing import Route, resolve_model
from .._gateway.work import is_backend_failure
from .._pump import closed
from .._wire.chat import ChatCompletionRequest
from .._wire.delta import Delta
from ..backends import OllamaBackend
from ..backends._leases import stream
from ..backends._slots import QueueTicket
from ..exceptions import GatewayError, ModelNotFound
from .engines import chosen, failure
from .inventory import no_model
from .terminal import Terminal, pull_advice

__all__ = ["ask"]


def ask(
    terminal: Terminal, question: str, *, model: str | None, system: str | None, alias: str | None
) -> None:
    """Write the answer to ``question`` as it comes, and what the model thinks before to the
    standard error. With ``"-"`` the question is read from the standard input.

    Raises:
        CommandError: there is no such model or backend, or no answer.
    """
    route = _route(model, alias)
    question = _read() if question == "-" else question
    if not question.strip():
        raise CommandError("The question is empty.")
    said = [("system", system), ("user", question)]
    messages = [{"role": role, "content": text} for role, text in said if text is not None]
    try:
        body = ChatCompletionRequest.checked(
            {"model": route.name, "messages": messages, "stream": True}
        )
        check_prompt(body)
    except GatewayError as error:
        raise failure(route.alias, error) from error
    _ask_in_turn(terminal, [route, *route.fallbacks], body)


def _route(model: str | None, alias: str | None) -> Route:
    """Where the question goes: as a request to a mount whose backend is ``alias``."""
    settings = _conf.get()
    name = model or settings.DEFAULT_MODEL
    if not name:
        raise CommandError("There is no DEFAULT_MODEL. Name a model with --model.")
    if not settings.allows_model(name):
        raise CommandError(f"ALLOWED_MODELS does not allow {name!r}.")
    chosen(alias)
    route = resolve_model(name, Mount(alias or _conf.DEFAULT_BACKEND, settings.RESPONSE_CASE))
    chosen(route.alias)
    if alias not in (None, route.alias):
        raise CommandError(
            f"The model {name!r}{'' if model else ' (DEFAULT_MODEL)'} is on the backend "
            f"{route.alias!r} by MODELS, not on {alias!r}. Leave --backend out, or name another "
            "model with --model."
        )
    return route


def _ask_in_turn(terminal: Terminal, routes: list[Route], body: ChatCompletionRequest) -> None:
    """Ask the first of ``routes``, and each of the others if the one before has failed without a
    word."""
    writer = _Writer(terminal)
    for number, route in enumerate(routes, 1):
        try:
            route.backend.check_support(body)
            return _answer(writer, route, body.routed_to(route.model, route.options))
        except GatewayError as error:
            told = _told(route, error)
            if writer.has_begun or number == len(routes) or not is_backend_failure(error):
                raise told from error
            terminal.aside(f"{told} Asking {routes[number].name!r} instead.\n")


def _told(route: Route, error: GatewayError) -> CommandError:
    if not isinstance(error, ModelNotFound):
        return failure(route.alias, error)
    is_ollama = isinstance(route.backend, OllamaBackend)
    advice = pull_advice(route.model, route.alias) if is_ollama else ""
    return no_model(route.alias, route.model, advice)


def _read() -> str:
    # One more than is allowed: the request is refused then, whatever else there is.
    try:
        return sys.stdin.read(_conf.get().MAX_PROMPT_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise CommandError(f"The question is no text: {error}.") from error


def _answer(writer: _Writer, route: Route, request: ChatCompletionRequest) -> None:
    try:
        leases = route.backend.leases(request, QueueTicket())
        deltas = stream(leases, lambda lease: [lease.backend.stream_chat(request)])
        # Also when the operator has heard enough: the engine works until it is closed.
        with closed(deltas):
            for delta in deltas:
                writer.feed(delta)
    finally:
        writer.finish()


class _Writer:
    """Writes an answer, with a line feed at its end and after what comes before it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._thought = self._answer = ""
        self._reason: str | None = None
        self.has_begun = False
        """Whether the engine has said anything."""

    def feed(self, delta: Delta) -> None:
        self.has_begun = True
        self._reason = delta.finish_reason or self._reason
        if delta.reasoning:
            self._thought = delta.reasoning
            self._terminal.aside(delta.reasoning)
        if delta.content:
            if not self._answer:
                self._end_of_thought()
            self._answer = delta.content
            self._terminal.piece(delta.content)

    def finish(self) -> None:
        if not self._answer:
            self._end_of_thought()
        elif not self._answer.endswith("\n"):
            self._terminal.piece("\n")
        if self._reason == "length":
            self._terminal.aside("The answer is cut off: the model's limit is reached.\n")

    def _end_of_thought(self) -> None:
        if self._thought:
            self._terminal.aside("\n\n" if not self._thought.endswith("\n") else "\n")
