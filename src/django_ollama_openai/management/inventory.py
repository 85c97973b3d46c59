"""The models that engines have: ``models``, ``ps``, ``show`` and ``rm`` of ``manage.py ollama``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, Final, TypeVar

import ollama
from django.core.management.base import CommandError

from .. import _conf
from .._translation.model_cards import ModelCard
from ..backends import BaseBackend, backends
from ..backends._ollama_client import OllamaClient
from ..exceptions import ModelNotFound
from .engines import (
    WITHIN_SECONDS,
    ask_ollama,
    ask_ollamas,
    chosen,
    failure,
    named_ollamas,
    reason,
    the_ollamas,
)
from .survey import Answer, survey
from .terminal import INDENT, Terminal, local_time, size

__all__ = ["list_loaded", "list_models", "no_model", "remove_models", "show_model"]

T = TypeVar("T")

MODEL_COLUMNS: Final = (
    "NAME",
    "SIZE",
    "PARAMETERS",
    "QUANTIZATION",
    "CONTEXT",
    "MODIFIED",
    "PUBLIC NAMES",
)
LOADED_COLUMNS: Final = ("NAME", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")


def list_models(terminal: Terminal, alias: str | None) -> None:
    """List what each backend has, and the names of ``MODELS`` that lead to it.

    Raises:
        CommandError: a backend does not say; the others are listed before.
    """

    def listed(alias: str, cards: list[ModelCard]) -> None:
        names, astray = _public_names(alias, cards)
        rows = [_model_row(card, names.get(card.id, ())) for card in cards]
        terminal.table(MODEL_COLUMNS, rows, INDENT)
        for name, model in astray:
            warning = f"{name!r} of MODELS is {model!r}, which is not there."
            terminal.line(INDENT, (warning, terminal.style.WARNING))

    answers = survey(lambda backend: backend.list_models(), chosen(alias), WITHIN_SECONDS)
    _list(terminal, answers, listed)


def list_loaded(terminal: Terminal, alias: str | None) -> None:
    """List the models that each Ollama has in memory.

    Raises:
        CommandError: an Ollama does not say; the others are listed before.
    """

    def listed(alias: str, loaded: Sequence[ollama.ProcessResponse.Model]) -> None:
        terminal.table(LOADED_COLUMNS, list(map(_loaded_row, loaded)), INDENT)

    answers = ask_ollamas(the_ollamas(alias), lambda client: client.ps().models)
    _list(terminal, answers, listed)


def show_model(terminal: Terminal, name: str, alias: str | None) -> None:
    """Say what there is to know about the model ``name``. The members of a pool are asked in turn,
    until one has it.

    Raises:
        CommandError: there is no such model or backend, or it does not say.
    """
    refusals = []
    for backend in named_ollamas(alias):
        answer = ask_ollama(backend, lambda client: client.show(name))
        if answer.error is None:
            _tell(terminal, name, answer.values[0])
            return
        refusals.append(_refusal(backend, name, answer.error))
    raise CommandError("\n".join(map(str, refusals)))


def _tell(terminal: Terminal, name: str, shown: ollama.ShowResponse) -> None:
    for title, lines in _sections(name, shown):
        terminal.line((title, terminal.style.MIGRATE_HEADING))
        for line in lines:
            terminal.line(INDENT, line)


def remove_models(terminal: Terminal, names: Sequence[str], alias: str | None) -> None:
    """Delete the models ``names``.

    Raises:
        CommandError: one is not there, or cannot be deleted; the others are deleted before.
    """
    refusals = []
    for backend, name in product(named_ollamas(alias), names):
        answer = ask_ollama(backend, partial(OllamaClient.delete, model=name))
        if answer.error is None:
            terminal.tell(f"Deleted {name!r} from the backend {backend.alias!r}.")
        else:
            refusals.append(_refusal(backend, name, answer.error))
    if refusals:
        raise CommandError("\n".join(map(str, refusals)))


def _refusal(backend: BaseBackend, name: str, error: BaseException) -> CommandError:
    is_missing = isinstance(error, ollama.ResponseError) and error.status_code == 404
    return no_model(backend.alias, name) if is_missing else failure(backend.alias, error)


def no_model(alias: str, name: str, advice: str = "") -> CommandError:
    """The error for a model that the backend ``alias`` does not have."""
    return CommandError(f"The backend {alias!r} has no model {name!r}.{advice}")


def _list(
    terminal: Terminal, answers: Mapping[str, Answer[T]], listed: Callable[[str, T], None]
) -> None:
    for alias, answer in answers.items():
        terminal.line(f"{alias}  {type(backends[alias]).__name__}")
        if answer.error is None:
            listed(alias, answer.values[0])
        else:
            terminal.line(INDENT, (reason(answer.error, alias), terminal.style.ERROR))
    failed = [alias for alias, answer in answers.items() if answer.error is not None]
    if failed:
        raise CommandError(f"Not listed: {', '.join(map(repr, failed))}.")


def _public_names(
    alias: str, cards: list[ModelCard]
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The names and patterns in ``MODELS`` that lead to each of ``cards``, where a mount has no
    backend of its own; and those that lead to nothing, each with the model that is missing."""
    settings, backend = _conf.get(), backends[alias]
    names: dict[str, list[str]] = {}
    astray = []
    for name, entry in settings.MODELS.items():
        if (entry.BACKEND or _conf.DEFAULT_BACKEND) != alias:
            continue
        if _conf.is_pattern(name) and entry.MODEL is None:
            for card in cards:
                if any(settings.model_key(own) == name for own in card.names):
                    names.setdefault(card.id, []).append(name)
        elif _conf.is_pattern(name) or settings.allows_model(name):
            model = entry.MODEL or name
            try:
                card = backend.find_model(model, cards)
            except ModelNotFound:
                astray.append((name, model))
            else:
                names.setdefault(card.id, []).append(name)
    return names, astray


def _model_row(card: ModelCard, names: Sequence[str]) -> list[str]:
    facts = card.metadata
    return [
        card.id,
        size(facts.get("size")),
        _text(facts.get("parameter_size")),
        _text(facts.get("quantization_level")),
        _text(facts.get("context_length")),
        local_time(_moment(card.created)),
        ", ".join(names),
    ]


def _moment(seconds: int) -> datetime | None:
    """The moment so many seconds after the epoch, if a calendar has it; an engine may say any."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (OverflowError, ValueError, OSError):
        return None


def _loaded_row(model: ollama.ProcessResponse.Model) -> list[str]:
    return [
        model.model or model.name or "",
        size(model.size),
        _processor(model.size or 0, model.size_vram or 0),
        _text(model.context_length),
        _until(model.expires_at),
    ]


def _processor(total: int, in_vram: int) -> str:
    """How much of a model is where, as ``ollama ps`` says it."""
    gpu = round(100 * max(0, min(in_vram, total)) / total) if total > 0 else 0
    if gpu in (0, 100):
        return "100% GPU" if gpu else "100% CPU"
    return f"{100 - gpu}% CPU, {gpu}% GPU"


def _until(moment: datetime | None) -> str:
    # A negative keep_alive is sent as a moment some centuries ahead.
    if moment is not None and moment.replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(days=3650):
        return "for ever"
    return local_time(moment)


def _sections(name: str, shown: ollama.ShowResponse) -> Iterator[tuple[str, list[str]]]:
    details, info = shown.details, shown.modelinfo or {}
    architecture = info.get("general.architecture")
    facts: dict[str, Any] = {
        "family": details and details.family,
        "parameters": details and details.parameter_size,
        "quantization": details and details.quantization_level,
        "context length": info.get(f"{architecture}.context_length"),
        "embedding length": info.get(f"{architecture}.embedding_length"),
        "capabilities": ", ".join(shown.capabilities or ()),
        "license": next(iter((shown.license or "").strip().splitlines()), ""),
    }
    yield name, [f"{label:18}{value}" for label, value in facts.items() if value]
    for title, text in (("Parameters", shown.parameters), ("Template", shown.template)):
        if text and text.strip():
            yield title, text.rstrip().splitlines()


def _text(value: Any) -> str:
    return "" if value is None else str(value)
