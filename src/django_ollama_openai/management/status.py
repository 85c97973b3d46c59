"""``manage.py ollama status``: report which backends are ready."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pydantic_core
from django.core.management.base import CommandError

from .. import _conf
from .._gateway.mount import Mount
from .._gateway.routing import resolve_model
from .._translation.model_cards import ModelCard
from ..backends import BaseBackend, OllamaBackend, PoolBackend, backends
from ..backends._fan_out import elapsed_ms
from ..exceptions import ModelNotFound
from .engines import backend_aliases, describe_error, invalid_response_errors, open_client, quoted
from .survey import Answer, survey
from .terminal import INDENT, Terminal, pull_advice

__all__ = ["report_status"]

#: The time limit of the first probe, that of ``GET health``, so that both have the same results.
WITHIN_SECONDS: Final = 5

#: The time limit of all other requests. A pool makes three to its members, of four seconds each.
FACTS_SECONDS: Final = 15


def report_status(terminal: Terminal, alias: str | None) -> None:
    """Report for each backend whether it is ready, its engine and its models.

    Raises:
        CommandError: A backend is not ready, a pool has different versions of a model, or a model
            in the settings is missing. All backends are reported first.
    """
    named = backend_aliases(alias)
    members = [engine for each in named for engine in backends[each].engines()]
    # Each once, though a pool may be listed beside its members.
    probed = dict.fromkeys([*named, *members])
    found = survey(lambda backend: backend.ping(), probed, WITHIN_SECONDS)
    answers = {each: found[each] for each in named}
    ready = [each for each, answer in answers.items() if answer.error is None]
    facts = survey(_facts, ready, FACTS_SECONDS)
    for each, answer in answers.items():
        missing = {
            engine: found[engine].error for engine in backends[each].engines() if engine != each
        }
        _report(terminal, each, answer, facts.get(each), missing)
        for line in _limits(each):
            terminal.line(INDENT, line)
    problems = []
    if down := [each for each in answers if each not in ready]:
        problems.append(f"Not ready: {quoted(down)}.")
    if conflicting := [
        each for each, answer in facts.items() if any(one.conflicts for one in answer.values)
    ]:
        problems.append(f"With models of different versions: {quoted(conflicting)}.")
    problems += _missing_models({each: one for each, a in facts.items() for one in a.values})
    if problems:
        raise CommandError("\n".join(problems))


def _missing_models(facts: Mapping[str, _Facts]) -> list[str]:
    """Return a message for each model in the settings that its backend does not have, with the
    command that pulls it. ``facts`` has the backends that are ready, by alias."""
    settings = _conf.get()
    mount = Mount(_conf.DEFAULT_BACKEND, settings.RESPONSE_CASE)
    named = [settings.DEFAULT_MODEL] if settings.DEFAULT_MODEL else []
    named += [name for name in settings.MODELS if not _conf.is_pattern(name)]
    routes = [resolve_model(name, mount, settings) for name in named if settings.allows_model(name)]
    routes += [fallback for route in routes for fallback in route.fallbacks]
    missing = {}
    for route in routes:
        if route.alias not in facts:
            continue
        backend = backends[route.alias]
        try:
            backend.find_model(route.model, facts[route.alias].cards)
        except ModelNotFound:
            text = f"{route.model!r} is not on the backend {route.alias!r}."
            members = [backends[each] for each in backend.engines()]
            if all(isinstance(member, OllamaBackend) for member in members):
                text += pull_advice(route.model, route.alias)
            missing[route.alias, route.model] = text
    return list(missing.values())


@dataclass(slots=True, frozen=True)
class _Facts:
    """Details of a backend that is ready, and the latency of a request on an open connection."""

    latency_ms: float
    lines: list[str]
    cards: list[ModelCard]
    conflicts: list[str] = field(default_factory=list)


def _facts(backend: BaseBackend) -> _Facts:
    started = time.perf_counter()
    backend.ping()
    latency_ms = elapsed_ms(started)
    cards = backend.list_models()
    count = len(cards)
    models = "1 model" if count == 1 else f"{count} models"
    if isinstance(backend, PoolBackend):
        members = f"a pool of {', '.join(backend.members)}, {models}"
        return _Facts(latency_ms, [members], cards, _conflicts(backend))
    if not isinstance(backend, OllamaBackend):
        return _Facts(latency_ms, [models], cards)
    try:
        with open_client(backend) as client, invalid_response_errors():
            version = pydantic_core.from_json(client.fetch("GET", "/api/version"))["version"]
    except Exception as error:
        unknown = f"but its version is unknown: {describe_error(error)}"
        return _Facts(latency_ms, [models, unknown], cards)
    return _Facts(latency_ms, [f"Ollama {version}, {models}"], cards)


def _conflicts(pool: PoolBackend) -> list[str]:
    return [
        f"{model} has different versions: "
        + ", ".join(f"{alias} has {digest[:12]}" for alias, digest in digests.items())
        for model, digests in pool.version_conflicts().items()
    ]


def _report(
    terminal: Terminal,
    alias: str,
    answer: Answer[None],
    facts: Answer[_Facts] | None,
    members: Mapping[str, Exception | None],
) -> None:
    style = terminal.style
    latency_ms = answer.latency_ms
    down = {member: error for member, error in members.items() if error is not None}
    warnings = [f"{member}: {describe_error(error, member)}" for member, error in down.items()]
    lines: list[str] = []
    if answer.error is None:
        state = [("ready", style.SUCCESS)]
        if down:
            state.append((f", without {', '.join(down)}", style.WARNING))
    else:
        state = [("not ready", style.ERROR)]
        # The errors of the members are more precise.
        lines = [] if down else [describe_error(answer.error, alias)]
    if facts is not None:
        if facts.error is not None:
            lines = [f"but its models cannot be listed: {describe_error(facts.error)}"]
        for details in facts.values:
            latency_ms, lines = details.latency_ms, details.lines
            warnings += details.conflicts
    kind = type(backends[alias]).__name__
    terminal.line(f"{alias}  {kind}  ", *state, f", {latency_ms:.0f} ms")
    if answer.error is None and backends[alias].address:
        terminal.line(INDENT, backends[alias].address)
    for line in lines:
        terminal.line(INDENT, line)
    for line in warnings:
        terminal.line(INDENT, (line, style.WARNING))


def _limits(alias: str) -> Iterator[str]:
    """Yield lines with the limits of the backend ``alias``, and its current load in this
    process."""
    limits, backend = _conf.get().limits(alias), backends[alias]
    slots = backend.slots
    # A pool has the limits of its members.
    if limits.max_concurrency is not None and not isinstance(backend, PoolBackend):
        yield (
            f"up to {limits.max_concurrency} requests at once and {limits.max_queue} waiting, in "
            "each process"
        )
    # Usually there is no load: slots belong to a process, and this one serves no requests.
    if slots.running or slots.queued:
        yield f"{slots.running} running and {slots.queued} queued in this process"
