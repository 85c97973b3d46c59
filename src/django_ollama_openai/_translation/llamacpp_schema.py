"""Rewrite JSON schemas so that llama.cpp enforces them, or refuse them.

llama.cpp turns a schema into a grammar. It ignores unsupported keywords without an error, so a
pattern is accepted only where tests have shown that the grammar contains it.

Source: llama.cpp's ``json-schema-to-grammar.cpp``, and grammars that it generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .json_schema import Path, map_schema, portable_schema, schema_error, subschemas
from .patterns import enforceable_pattern

__all__ = ["Patterns", "enforceable_schema", "without_long_integers"]

MAX_PATTERNS: Final = 500
MAX_PATTERN_CHARACTERS: Final = 20_000
MAX_EXPANSIONS: Final = 5_000

#: Keywords beside which llama.cpp ignores all others.
_EXCLUSIVE: Final = frozenset({"$ref", "allOf", "anyOf", "const", "enum", "oneOf"})

_OBJECT: Final = frozenset({"additionalProperties", "properties"})
_ARRAY: Final = frozenset({"items", "prefixItems"})
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})


class Patterns:
    """The patterns of one or more schemas, each with an equivalent that llama.cpp can enforce."""

    def __init__(self) -> None:
        self.enforceable: dict[str, str] = {}
        self._characters = 0

    def add(self, pattern: str) -> None:
        """Add ``pattern``.

        Raises:
            ValueError: llama.cpp cannot enforce it, or there are too many patterns.
        """
        if pattern in self.enforceable:
            return
        self._characters += len(pattern)
        if len(self.enforceable) == MAX_PATTERNS or self._characters > MAX_PATTERN_CHARACTERS:
            raise ValueError(
                f"there may be up to {MAX_PATTERNS} patterns with {MAX_PATTERN_CHARACTERS} "
                "characters in all"
            )
        self.enforceable[pattern] = enforceable_pattern(pattern)


def enforceable_schema(
    schema: dict[str, Any], param: str, patterns: Patterns | None = None
) -> dict[str, Any]:
    """Return a form of ``schema`` that llama.cpp enforces. Its patterns are added to ``patterns``,
    whose limits are for all schemas of a request.

    Raises:
        InvalidRequest: llama.cpp cannot enforce it; ``param`` is the field with the schema.
    """
    if (path := _long_integer(schema)) is not None:
        raise schema_error(param, path, "this model supports integers of up to 64 bits")
    schema = portable_schema(schema, param)
    _check_expansions(schema, param)
    patterns = patterns or Patterns()
    _check_patterns(schema, param, patterns)

    def with_pattern(node: dict[str, Any], path: Path) -> dict[str, Any]:
        pattern = node.get("pattern")
        # A pattern in a definition that is not used was not added, and has no effect.
        if not isinstance(pattern, str):
            return node
        return {**node, "pattern": patterns.enforceable.get(pattern, pattern)}

    enforceable: dict[str, Any] = map_schema(schema, with_pattern)
    return enforceable


def without_long_integers(value: Any) -> Any:
    """Return the JSON ``value`` with integers beyond 64 bits, which llama.cpp rejects, as
    floats."""
    if isinstance(value, dict):
        return {key: without_long_integers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_long_integers(each) for each in value]
    return float(value) if _is_long(value) else value


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def _long_integer(value: Any) -> Path | None:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, each in items:
        if _is_long(each):
            return (key,)
        if isinstance(each, (dict, list)) and (path := _long_integer(each)) is not None:
            return (key, *path)
    return None


def _target(schema: dict[str, Any], node: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    if not isinstance(ref := node.get("$ref"), str):
        return None
    _, key, name = ref.split("/")
    return (key, name), schema[key][name]


def _check_patterns(schema: dict[str, Any], param: str, patterns: Patterns) -> None:
    seen: set[tuple[int, bool]] = set()
    todo: list[tuple[Path, Any, bool]] = [((), schema, True)]
    while todo:
        path, node, is_read = todo.pop()
        if not isinstance(node, dict) or (id(node), is_read) in seen:
            continue
        seen.add((id(node), is_read))
        pattern = node.get("pattern")
        if isinstance(pattern, str):
            try:
                if not is_read:
                    raise ValueError("patterns are not supported here")
                _check_neighbours(node)
                patterns.add(pattern)
            except ValueError as error:
                reason = f"this model cannot enforce the pattern {pattern[:64]!r}: {error}"
                raise schema_error(param, (*path, "pattern"), reason) from None
        if (target := _target(schema, node)) is not None:
            todo.append((*target, is_read))
        todo += (
            ((*path, *step), each, is_read and _reads_within(node, str(step[0])))
            for step, each in subschemas(node)
            if step[0] not in _DEFINITIONS
        )


def _check_neighbours(node: dict[str, Any]) -> None:
    if hidden := _EXCLUSIVE.intersection(node):
        raise ValueError(f"it cannot be combined with {', '.join(map(repr, sorted(hidden)))}")
    if not _reads(node):
        raise ValueError('it needs "type": "string" beside it')


def _reads(node: dict[str, Any]) -> bool:
    """Return whether llama.cpp enforces the pattern of ``node``."""
    if not _EXCLUSIVE.isdisjoint(node):
        return False
    if node.get("type") is None:
        return (_OBJECT | _ARRAY).isdisjoint(node)
    return _may_be(node, "string")


def _reads_within(node: dict[str, Any], key: str) -> bool:
    """Return whether llama.cpp reads the subschemas of ``node`` in ``key``."""
    if key in ("anyOf", "oneOf"):
        return "$ref" not in node and not ("oneOf" in node and key == "anyOf")
    if not _EXCLUSIVE.isdisjoint(node):
        return False
    is_untyped = node.get("type") is None
    if key in _OBJECT:
        return is_untyped or _may_be(node, "object")
    if key == "prefixItems" and "items" in node:
        return False
    if key in _ARRAY:
        return _may_be(node, "array") or (is_untyped and _OBJECT.isdisjoint(node))
    return False


def _may_be(node: dict[str, Any], kind: str) -> bool:
    types = node.get("type")
    return kind == types or (isinstance(types, list) and kind in types)


def _check_expansions(schema: dict[str, Any], param: str) -> None:
    """Raise an error for references that multiply, since llama.cpp expands each of them."""
    counts: dict[int, int] = {}
    todo: list[tuple[dict[str, Any], list[dict[str, Any]] | None]] = [(schema, None)]
    while todo:
        definition, targets = todo.pop()
        if targets is not None:
            total = sum(1 + counts[id(target)] for target in targets)
            if total > MAX_EXPANSIONS:
                reason = f"its references have to be followed more than {MAX_EXPANSIONS} times"
                raise schema_error(param, (), reason)
            counts[id(definition)] = total
        elif id(definition) not in counts:
            # Until its count is known, a reference back to it counts as one.
            counts[id(definition)] = 0
            targets = list(_targets(schema, definition))
            todo.append((definition, targets))
            todo += ((target, None) for target in targets)


def _targets(schema: dict[str, Any], definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    todo: list[Any] = [definition]
    while todo:
        node = todo.pop()
        if not isinstance(node, dict):
            continue
        if (target := _target(schema, node)) is not None:
            yield target[1]
        todo += (each for step, each in subschemas(node) if step[0] not in _DEFINITIONS)
