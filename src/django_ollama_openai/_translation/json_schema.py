"""Rewrite JSON schemas for engines.

llama.cpp, on which Ollama is built, only follows references such as ``#/$defs/node``. ``#``, names
with escapes and anchors are errors.

Source: JSON Schema, draft 2020-12; llama.cpp's ``json-schema-to-grammar.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from ..exceptions import InvalidRequest

__all__ = ["Definitions", "map_schema", "object_schema", "portable_schema", "schema_error"]

Path: TypeAlias = tuple[str | int, ...]

# The keywords whose value is a schema, a list of schemas, or an object of schemas.
_ONE: Final = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LIST: Final = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_MAP: Final = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)

_PLAIN: Final = re.compile(r"#/(?:\$defs|definitions)/[\w$-]+", re.ASCII)

# OpenAI limits schemas to 5,000 properties and 120,000 characters of names.
MAX_REFERENCE: Final = 1_000
MAX_REWRITTEN_NODES: Final = 10_000
MAX_REWRITTEN_CHARACTERS: Final = 200_000
_PLAIN_NAME: Final = re.compile(r"[\w-]+", re.ASCII)


def object_schema(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Return the schema of a function's ``parameters``, with ``type`` and ``properties`` added if
    they are absent. Without them Ollama sends ``null`` to the model and fails, and OpenAI refuses
    an object without properties.
    """
    parameters = parameters or {}
    if parameters.get("properties") is not None and parameters.get("type") is not None:
        return parameters
    defaults = {"type": "object", "properties": {}}
    given = {name: value for name, value in parameters.items() if value is not None}
    return {**defaults, **given}


def schema_error(param: str, path: Path, reason: str) -> InvalidRequest:
    """Return the error for a schema in the field ``param`` that is invalid at ``path``, because of
    ``reason``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    param = param + "".join(steps)
    return InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param)


def subschemas(schema: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield each direct subschema of ``schema``, with its path."""
    for key, value in schema.items():
        if isinstance(value, dict):
            if key in _MAP:
                yield from (((key, name), each) for name, each in value.items())
            elif key in _ONE:
                yield (key,), value
        elif isinstance(value, list) and key in _LIST:
            yield from (((key, number), each) for number, each in enumerate(value))


def map_schema(
    schema: Any, change: Callable[[dict[str, Any], Path], dict[str, Any]], path: Path = ()
) -> Any:
    """Return a copy of ``schema`` with ``change`` applied to it, then to its subschemas. ``true``
    becomes an equivalent object, since llama.cpp requires objects."""
    if not isinstance(schema, dict):
        return {} if schema is True else schema
    changed: dict[Any, Any] = dict(change(schema, path))
    for (key, *rest), each in list(subschemas(changed)):
        new = map_schema(each, change, (*path, key, *rest))
        if rest:
            if changed[key] is schema.get(key):
                changed[key] = changed[key].copy()
            changed[key][rest[0]] = new
        else:
            changed[key] = new
    return changed


def portable_schema(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """Return ``schema`` with only references that llama.cpp follows.

    Raises:
        InvalidRequest: A reference has no target, or the schema is too large to be rewritten;
            ``param`` is the field with the schema.
    """
    references = _References(schema, param)
    if references.are_plain:
        return schema
    definitions = Definitions()
    embedded = definitions.embed(schema, param)
    return {**embedded, "$defs": definitions.schemas}


class Definitions:
    """The targets of the references in one or more schemas, for the ``$defs`` of the schema that
    contains them."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        # One counter for all names, so that an unused one is found at once.
        self._count = 1

    def embed(self, schema: dict[str, Any], param: str) -> dict[str, Any]:
        """Return ``schema`` as a part of a larger schema.

        Raises:
            InvalidRequest: As for :func:`portable_schema`.
        """
        references = _References(schema, param)
        if not references.targets:
            return schema
        names = {key: self._name(name) for key, (name, _) in references.targets.items()}

        def change(node: dict[str, Any], path: Path) -> dict[str, Any]:
            if path and id(node) in names:
                return {"$ref": f"#/$defs/{names[id(node)]}"}
            changed = {key: each for key, each in node.items() if key not in _DEFINITIONS}
            if isinstance(node.get("$ref"), str):
                changed["$ref"] = f"#/$defs/{names[id(references.resolve(node['$ref']))]}"
            return changed

        for key, (_, target) in references.targets.items():
            self.schemas[names[key]] = map_schema(target, change)
        if id(schema) in names:
            return {"$ref": f"#/$defs/{names[id(schema)]}"}
        embedded: dict[str, Any] = map_schema(schema, change)
        return embedded

    def _name(self, name: str) -> str:
        unique = name
        while unique in self.schemas:
            self._count += 1
            unique = f"{name}-{self._count}"
        self.schemas[unique] = {}
        return unique


_DEFINITIONS: Final = frozenset({"$defs", "definitions"})


class _References:
    """The references within a schema.

    ``targets`` has a plain name and the target schema of each, by the ``id()`` of the target.
    """

    def __init__(self, schema: dict[str, Any], param: str) -> None:
        self._schema = schema
        self.are_plain = True
        self.targets: dict[int, tuple[str, dict[str, Any]]] = {}
        seen: set[int] = set()
        characters = 0
        todo = list(_walk(schema, (), seen))
        self._anchors = {
            node["$anchor"]: node for _, node in todo if isinstance(node.get("$anchor"), str)
        }
        while todo:
            path, node = todo.pop()
            ref = node.get("$ref")
            if not isinstance(ref, str):
                continue
            if len(ref) > MAX_REFERENCE:
                reason = f"a reference may have up to {MAX_REFERENCE} characters"
                raise schema_error(param, (*path, "$ref"), reason)
            characters += len(ref)
            if self.are_plain and _PLAIN.fullmatch(ref) is None:
                self.are_plain = False
            if not self.are_plain:
                _check_size(param, len(seen), characters)
            target = self.resolve(ref)
            if not isinstance(target, dict):
                raise schema_error(param, (*path, "$ref"), _reason(ref))
            if id(target) not in self.targets:
                last = ref.rpartition("/")[2]
                name = last if _PLAIN_NAME.fullmatch(last) else "schema"
                self.targets[id(target)] = (name, target)
                # The target may be outside the known subschemas.
                todo += _walk(target, path, seen)
        self._refuse_cycles(param)
        if not self.are_plain:
            _check_size(param, len(seen), characters)

    def resolve(self, ref: str) -> Any:
        """Return the target of ``ref``, or ``None``."""
        if ref == "#":
            return self._schema
        if not ref.startswith("#/"):
            return self._anchors.get(ref[1:]) if ref.startswith("#") else None
        target: Any = self._schema
        for step in unquote(ref[2:]).split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(key)
            elif isinstance(target, list) and _INDEX.fullmatch(key) and int(key) < len(target):
                target = target[int(key)]
            else:
                return None
        return target

    def _refuse_cycles(self, param: str) -> None:
        """Raise an error for references that only refer to each other."""
        safe: set[int] = set()
        for _, target in self.targets.values():
            way: set[int] = set()
            while isinstance(ref := target.get("$ref"), str) and id(target) not in safe:
                if id(target) in way:
                    raise schema_error(param, (), f"the reference {ref[:64]!r} points to itself")
                way.add(id(target))
                target = self.resolve(ref)
            safe |= way


def _walk(
    schema: dict[str, Any], path: Path, seen: set[int]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield ``schema`` and all schemas in it that are not in ``seen``, and add them to ``seen``."""
    todo: list[tuple[Path, Any]] = [(path, schema)]
    while todo:
        path, node = todo.pop()
        if isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            yield path, node
            todo += [((*path, *step), each) for step, each in subschemas(node)]


def _check_size(param: str, nodes: int, characters: int) -> None:
    if nodes > MAX_REWRITTEN_NODES or characters > MAX_REWRITTEN_CHARACTERS:
        reason = (
            "a schema with references other than '#/$defs/name' may have up to "
            f"{MAX_REWRITTEN_NODES} schemas and {MAX_REWRITTEN_CHARACTERS} characters in references"
        )
        raise schema_error(param, (), reason)


_INDEX: Final = re.compile(r"\d{1,6}", re.ASCII)


def _reason(ref: str) -> str:
    if ref.startswith("#"):
        return f"the reference {ref[:64]!r} does not point to a schema"
    return f"the reference {ref[:64]!r} points outside the schema, which is not supported"
