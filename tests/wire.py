"""Readers and generators of what clients and engines send: JSON, events, and pieces of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

__all__ = [
    "BREAKS",
    "GENERATION",
    "any_json",
    "chunked",
    "cuts",
    "events",
    "json_like",
    "models_within",
    "notation",
    "paths",
    "replaced",
    "strictly",
    "texts",
    "values",
]

BREAKS = [*"\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "\r\n", "\n\n", "\n\ndata: [DONE]\n\n"]
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(BREAKS)).map(
    "".join
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=5,
)
cuts = st.lists(st.integers(min_value=0))


#: The fields that chat completions and completions share.
GENERATION = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 7,
    "stop": ["x", "y"],
    "seed": 42,
    "frequency_penalty": -1.5,
    "presence_penalty": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "logit_bias": {"50256": -100},
    "think": True,
    "keep_alive": "5m",
    "truncate": False,
    "shift": True,
}


def json_objects(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


any_json = json_objects(st.text())


def json_like(example: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any JSON, often with the keys of ``example``, and ``example`` with anything in one place."""
    keys = sorted({step for path in paths(example) for step in path if isinstance(step, str)})
    return json_objects(st.text() | st.sampled_from([*keys, "error"])) | st.builds(
        replaced, st.just(example), st.sampled_from(list(paths(example))), any_json
    )


def events(stream: bytes) -> list[str]:
    """The data of each event, as the HTML standard says a stream is read.

    Strict where the standard is lenient: a line that is no ``data:``, comment or blank is an
    error, and so is an event of more than one line, or of none, which ends the stream for some
    clients.
    """
    found: list[str] = []
    data: list[str] = []
    text = stream.decode().replace("\r\n", "\n").replace("\r", "\n")
    *lines, rest = text.split("\n")
    assert rest == ""
    for line in lines:
        if not line:
            assert data
            found.extend(data)
            data = []
        elif not line.startswith(":"):
            assert line.startswith("data: ")
            assert not data
            data.append(line.removeprefix("data: "))
    assert not data
    return found


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def strictly(text: str | bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique_object)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield (*path, key)
            yield from paths(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of ``value`` with ``new`` at ``path``."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return copy


def notation(path: tuple[Any, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def models_within(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for field in type(value).model_fields:
            yield from models_within(getattr(value, field))
    elif isinstance(value, list):
        for item in value:
            yield from models_within(item)
