"""``models``, ``ps``, ``show`` and ``rm`` of ``manage.py ollama``."""

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
    backend_aliases,
    backend_error,
    describe_error,
    query_ollama,
    query_ollamas,
    select_ollamas,
)
from .survey import Answer, survey
from .terminal import INDENT, Terminal, local_time, size

__all__ = ["list_loaded", "list_models", "missing_model_error", "remove_models", "show_model"]

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
    """List the models of each backend, with their names in ``MODELS``.

    Raises:
        CommandError: The models of a backend cannot be listed. The others are listed first.
    """

    def print_models(alias: str, cards: list[ModelCard]) -> None:
        names, missing = _public_names(alias, cards)
        rows = [_model_row(card, names.get(card.id, ())) for card in cards]
        terminal.table(MODEL_COLUMNS, rows, INDENT)
        for name, model in missing:
            warning = f"{name!r} in MODELS is {model!r}, which the backend does not have."
            terminal.line(INDENT, (warning, terminal.style.WARNING))

    answers = survey(lambda backend: backend.list_models(), backend_aliases(alias), WITHIN_SECONDS)
    _list(terminal, answers, print_models)


def list_loaded(terminal: Terminal, alias: str | None) -> None:
    """List the models that each Ollama has in memory.

    Raises:
        CommandError: The models of an Ollama cannot be listed. The others are listed first.
    """

    def print_loaded(alias: str, loaded: Sequence[ollama.ProcessResponse.Model]) -> None:
        terminal.table(LOADED_COLUMNS, list(map(_loaded_row, loaded)), INDENT)

    answers = query_ollamas(select_ollamas(alias), lambda client: client.ps().models)
    _list(terminal, answers, print_loaded)


def show_model(terminal: Terminal, name: str, alias: str | None) -> None:
    """Print details of the model ``name``. For a pool, of the first member that has it.

    Raises:
        CommandError: The model or the backend does not exist, or the engine failed.
    """
    errors = []
    for backend in select_ollamas(alias or _conf.DEFAULT_BACKEND):
        answer = query_ollama(backend, lambda client: client.show(name))
        if answer.error is None:
            _print_model(terminal, name, answer.values[0])
            return
        errors.append(_model_error(backend, name, answer.error))
    raise CommandError("\n".join(map(str, errors)))


def _print_model(terminal: Terminal, name: str, shown: ollama.ShowResponse) -> None:
    for title, lines in _sections(name, shown):
        terminal.line((title, terminal.style.MIGRATE_HEADING))
        for line in lines:
            terminal.line(INDENT, line)


def remove_models(terminal: Terminal, names: Sequence[str], alias: str | None) -> None:
    """Delete the models ``names``.

    Raises:
        CommandError: A model does not exist or cannot be deleted. The others are deleted first.
    """
    errors = []
    for backend, name in product(select_ollamas(alias or _conf.DEFAULT_BACKEND), names):
        answer = query_ollama(backend, partial(OllamaClient.delete, model=name))
        if answer.error is None:
            terminal.info(f"Deleted {name!r} from the backend {backend.alias!r}.")
        else:
            errors.append(_model_error(backend, name, answer.error))
    if errors:
        raise CommandError("\n".join(map(str, errors)))


def _model_error(backend: BaseBackend, name: str, error: BaseException) -> CommandError:
    is_missing = isinstance(error, ollama.ResponseError) and error.status_code == 404
    return (
        missing_model_error(backend.alias, name)
        if is_missing
        else backend_error(backend.alias, error)
    )


def missing_model_error(alias: str, name: str, advice: str = "") -> CommandError:
    """Return the error for a model that the backend ``alias`` does not have."""
    return CommandError(f"The backend {alias!r} has no model {name!r}.{advice}")


def _list(
    terminal: Terminal, answers: Mapping[str, Answer[T]], print_one: Callable[[str, T], None]
) -> None:
    for alias, answer in answers.items():
        terminal.line(f"{alias}  {type(backends[alias]).__name__}")
        if answer.error is None:
            print_one(alias, answer.values[0])
        else:
            terminal.line(INDENT, (describe_error(answer.error, alias), terminal.style.ERROR))
    failed = [alias for alias, answer in answers.items() if answer.error is not None]
    if failed:
        raise CommandError(f"Not listed: {', '.join(map(repr, failed))}.")


def _public_names(
    alias: str, cards: list[ModelCard]
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return the names and patterns in ``MODELS`` for each of ``cards``, by the card's id, for a
    mount without a backend of its own; and pairs of a name and its model for missing models."""
    settings, backend = _conf.get(), backends[alias]
    names: dict[str, list[str]] = {}
    missing = []
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
                missing.append((name, model))
            else:
                names.setdefault(card.id, []).append(name)
    return names, missing


def _model_row(card: ModelCard, names: Sequence[str]) -> list[str]:
    facts = card.metadata
    return [
        card.id,
        size(facts.get("size")),
        _text(facts.get("parameter_size")),
        _text(facts.get("quantization_level")),
        _text(facts.get("context_length")),
        local_time(_datetime(card.created)),
        ", ".join(names),
    ]


def _datetime(seconds: int) -> datetime | None:
    """Return the time for ``seconds`` since the epoch, or ``None`` if it is 0 or out of range."""
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
    """Return where a model is in memory, as ``ollama ps`` shows it."""
    gpu = round(100 * max(0, min(in_vram, total)) / total) if total > 0 else 0
    if gpu in (0, 100):
        return "100% GPU" if gpu else "100% CPU"
    return f"{100 - gpu}% CPU, {gpu}% GPU"


def _until(moment: datetime | None) -> str:
    # For a negative keep_alive Ollama sends a time some centuries ahead.
    if moment is not None and moment.replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(days=3650):
        return "forever"
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
