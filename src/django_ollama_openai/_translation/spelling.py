"""Spell answers as a mount does, by the schema that documents them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from .._wire.case import Case, camel_keys, to_camel
from .._wire.response_models.common import EXTRA_KEY

__all__ = ["Speller", "extra_key", "to_json_value"]

FINISH_REASON: Final = "finish_reason"
_REF: Final = "#/$defs/"
_UNIONS: Final = ("allOf", "anyOf", "oneOf")
# Of an answer without a schema nothing is known but OpenAI's own field of the client's data.
_OPAQUE: Final = frozenset({"metadata"})


def extra_key(name: str, schema: Mapping[str, Any]) -> str | None:
    """Return the second name of the field ``name`` in the spelling ``both``, if it has one."""
    if name == FINISH_REASON:
        return to_camel(name)
    also: str | None = schema.get(EXTRA_KEY)
    return also


def to_json_value(value: Any) -> Any:
    """Return ``value``, a pydantic model or JSON already, as JSON."""
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


class Speller:
    """Spells answers of one type, a pydantic model or a ``TypedDict``; ``None`` for any JSON.

    Only keys that the type declares are respelled. Keys of a plain ``dict`` belong to clients.
    """

    def __init__(self, kind: Any) -> None:
        self._schema: dict[str, Any] | None = None
        if kind is not None:
            self._schema = TypeAdapter(kind).json_schema(mode="serialization")

    def spell(self, value: Any, case: Case) -> Any:
        """Return ``value``, JSON with keys in snake_case, in the spelling ``case``."""
        if case == "snake":
            return value
        if self._schema is None:
            return camel_keys(value, _OPAQUE) if case == "camel" else value
        return self._spell(value, [self._schema], case)

    def _spell(self, value: Any, schemas: Sequence[Mapping[str, Any]], case: Case) -> Any:
        schemas = list(self._alternatives(schemas))
        if isinstance(value, list):
            items = [schema["items"] for schema in schemas if "items" in schema]
            return [self._spell(item, items, case) for item in value] if items else value
        if not isinstance(value, dict):
            return value
        spelled: dict[str, Any] = {}
        for key, item in value.items():
            declared = [
                schema["properties"][key]
                for schema in schemas
                if key in schema.get("properties", ())
            ]
            if not declared:
                values = [
                    extra
                    for schema in schemas
                    if isinstance(extra := schema.get("additionalProperties"), dict)
                ]
                spelled[key] = self._spell(item, values, case) if values else item
                continue
            item = self._spell(item, declared, case)
            spelled[to_camel(key) if case == "camel" else key] = item
            also = extra_key(key, declared[0])
            if case == "both" and also is not None:
                spelled[also] = item
        return spelled

    def _alternatives(self, schemas: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield what ``schemas`` refer to and consist of."""
        for schema in schemas:
            if "$ref" in schema and self._schema is not None:
                target = self._schema["$defs"][schema["$ref"].removeprefix(_REF)]
                yield from self._alternatives([target])
            for union in _UNIONS:
                yield from self._alternatives(schema.get(union, []))
            yield schema
