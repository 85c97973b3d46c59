"""``docs/compatibility.toml`` has all that OpenAI's types have, and nothing else.

A field whose row has no rows of fields within it speaks for them too. The types change with every
version of ``openai``: it is the one that the table names, which the environment of these tests has.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import openai
import pytest
import typing_extensions
from openai.pagination import SyncPage
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    EmbeddingCreateParams,
    Model,
    completion_create_params,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat import completion_create_params as chat
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from openai.types.shared import ErrorObject
from pydantic import BaseModel

from docs import generated

TYPES: dict[tuple[str, str], Any] = {
    ("chat", "request"): chat.CompletionCreateParams,
    ("chat", "response"): ChatCompletion | ChatCompletionChunk,
    ("responses", "request"): response_create_params.ResponseCreateParams,
    ("responses", "response"): Response,
    ("responses", "event"): ResponseStreamEvent,
    ("completions", "request"): completion_create_params.CompletionCreateParams,
    ("completions", "response"): Completion,
    ("embeddings", "request"): EmbeddingCreateParams,
    ("embeddings", "response"): CreateEmbeddingResponse,
    ("models", "response"): SyncPage[Model],
    ("errors", "response"): ErrorObject,
}
PREFIXES = {("errors", "response"): "error."}
GOLDEN = Path(__file__).parent.parent / "golden" / "responses"


# OpenAI's types


def members(annotation: Any) -> Iterator[Any]:
    """What ``annotation`` may be, without what is only around it."""
    origin = get_origin(annotation)
    if isinstance(annotation, typing_extensions.TypeAliasType):
        yield from members(annotation.__value__)
    elif origin in (Annotated, NotRequired, Required):
        yield from members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from members(argument)
    else:
        yield annotation


def items_of(annotation: Any) -> Iterator[Any]:
    """What may stand in a list that ``annotation`` allows for."""
    for member in members(annotation):
        origin = get_origin(member)
        if isinstance(origin, type) and issubclass(origin, Iterable) and origin is not dict:
            yield get_args(member)[0]


def objects_of(annotation: Any) -> Iterator[type]:
    for member in members(annotation):
        if isinstance(member, type) and (
            issubclass(member, BaseModel) or typing_extensions.is_typeddict(member)
        ):
            yield member


def fields_of(kind: type) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    return typing_extensions.get_type_hints(kind, include_extras=True)


def tags_of(kind: type) -> set[str]:
    """What the ``type`` of such an object may be."""
    return {
        tag
        for member in members(fields_of(kind).get("type"))
        if get_origin(member) is Literal
        for tag in get_args(member)
    }


# The table against them


class Comparison:
    """Walks the types as far as there are rows, and keeps what is missing and what was met.

    ``taken`` has the types of those objects of which only some are absent, by where they stand.
    """

    def __init__(self, rows: list[generated.Row]) -> None:
        self._names = {row.path for row in rows}
        self._absent = {
            (name, tag)
            for row in rows
            if row.absent
            for name, tags in re.findall(r"^(.*)\[type=(.+)\]$", row.path)
            for tag in tags.split("|")
        }
        self.met: set[str] = set()
        self.met_tags: set[tuple[str, str]] = set()
        self.missing: set[str] = set()
        self.taken: dict[str, set[str]] = {}

    def unknown(self) -> set[str]:
        """Rows, and types in rows, that OpenAI does not know."""
        fields = {name for name in self._names if "[type=" not in name}
        return (fields - self.met) | {tag for _, tag in self._absent - self.met_tags}

    def objects(self, path: str, annotations: list[Any], tagged: str) -> None:
        """Compare the fields of all objects that may stand at ``path``."""
        fields: dict[str, list[Any]] = {}
        for annotation in annotations:
            for kind in objects_of(annotation):
                tags = {(tagged, tag) for tag in tags_of(kind)}
                self.met_tags |= tags
                if tags and tags <= self._absent:
                    continue
                if any(name == tagged for name, _ in self._absent):
                    self.taken.setdefault(tagged, set()).update(tag for _, tag in tags)
                for name, inner in fields_of(kind).items():
                    fields.setdefault(name, []).append(inner)
        for name, inner in fields.items():
            self.field(f"{path}.{name}" if path else name, inner)

    def field(self, path: str, annotations: list[Any]) -> None:
        within = [name for name in self._names if re.match(rf"{re.escape(path)}[.\[]", name)]
        if path in self._names:
            self.met.add(path)
        elif not within:
            self.missing.add(path)
        if any(name.startswith(f"{path}.") for name in within):
            self.objects(path, annotations, path)
        if any(name.startswith(f"{path}[") for name in within):
            items = [item for annotation in annotations for item in items_of(annotation)]
            self.list_items(f"{path}[]", items, path)

    def list_items(self, path: str, annotations: list[Any], tagged: str) -> None:
        if any(name.startswith(f"{path}.") for name in self._names):
            self.objects(path, annotations, tagged)


@pytest.mark.parametrize(("endpoint", "kind"), TYPES)
def test_the_table_is_as_complete_as_openais_types(endpoint: str, kind: str) -> None:
    prefix = PREFIXES.get((endpoint, kind), "")
    rows = [row for row in generated.rows() if (row.endpoint, row.kind) == (endpoint, kind)]
    comparison = Comparison([row for row in rows if not row.ours_only])
    comparison.objects(prefix.removesuffix("."), [TYPES[endpoint, kind]], "")
    assert comparison.missing == set()
    assert comparison.unknown() == set()
    # Whichever type is not said to be absent is said to be there.
    said = {row.field: set(re.findall(r"`(\w+)`", row.ours)) for row in rows}
    for name, tags in comparison.taken.items():
        assert not name or said[f"{name}[].type"] == tags
    # What is said to be ours alone is unknown to OpenAI.
    ours = Comparison([row for row in rows if row.ours_only])
    ours.objects(prefix.removesuffix("."), [TYPES[endpoint, kind]], "")
    assert ours.met == set()


def test_the_events_that_are_sent_are_those_of_which_the_table_does_not_say_never() -> None:
    sent = {
        name
        for path in GOLDEN.glob("*.snake.sse")
        for name in re.findall(r"^event: (\S+)$", path.read_text(), re.MULTILINE)
    }
    (never,) = (
        row.path
        for row in generated.rows()
        if (row.endpoint, row.kind, row.absent) == ("responses", "event", True)
    )
    known = {tag for kind in objects_of(ResponseStreamEvent) for tag in tags_of(kind)}
    assert sent == known - set(never.removeprefix("[type=").removesuffix("]").split("|"))


def test_the_version_is_the_one_that_the_table_names() -> None:
    table = tomllib.loads(generated.COMPATIBILITY.read_text())
    assert openai.__version__ == table["openai"]
