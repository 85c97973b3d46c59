"""References of JSON schemas, as llama.cpp follows them."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import pytest

from django_ollama_openai._translation.json_schema import Definitions, portable_schema
from django_ollama_openai.exceptions import InvalidRequest

NODE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"$ref": "#/$defs/a~1b"},
        "same": {"$ref": "#/properties/value", "description": "d"},
        "named": {"$ref": "#anchor"},
        "any": {"$ref": "#/x-own/0/%7Eany"},
        "const": {"const": {"$ref": "#"}},
        "$ref": {"type": "null"},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "x-own": [{"~any": {"$ref": "#/definitions/plain"}}],
    "definitions": {"plain": {"enum": [1, 2]}},
    "$defs": {
        "a/b": {"type": "integer"},
        "plain": {"$anchor": "anchor", "type": "string", "maxLength": 2},
    },
    "additionalProperties": False,
}
VALID = {"value": 1, "same": 2, "named": "ab", "any": 2, "$ref": None, "next": {"next": None}}
INVALID = [
    {"value": "x"},
    {"same": "x"},
    {"named": "abc"},
    {"any": 3},
    {"$ref": 1},
    {"next": {"next": {"value": "x"}}},
    {"const": {"$ref": "#/$defs/schema"}},
]


DATA = ("const", "x-own")


def refs(schema: Any) -> set[str]:
    """All references, but for those in data and keywords that nobody knows."""
    if isinstance(schema, list):
        return {ref for each in schema for ref in refs(each)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*(refs(each) for key, each in schema.items() if key not in DATA))


def test_references_mean_the_same_as_before() -> None:
    before = json.dumps(NODE)
    portable = portable_schema(NODE, "p")
    assert json.dumps(NODE) == before
    plain = {f"#/$defs/{name}" for name in portable["$defs"] if name.replace("-", "").isalnum()}
    assert refs(portable) <= plain
    assert set(portable) == {"$ref", "$defs"}
    for schema in (NODE, portable):
        jsonschema_rs.validate(schema, VALID)
        assert not any(jsonschema_rs.is_valid(schema, value) for value in INVALID)


def test_schemas_that_become_parts_of_another_keep_what_they_refer_to() -> None:
    definitions = Definitions()
    other = {"properties": {"a": {"$ref": "#/$defs/plain"}}, "$defs": {"plain": {"type": "null"}}}
    parts = [definitions.embed(schema, "p") for schema in (NODE, other, NODE)]
    for number, part in enumerate(parts):
        whole = {"$defs": definitions.schemas, "items": part}
        jsonschema_rs.validate(whole, [VALID if part is not parts[1] else {"a": None}])
        wrong = INVALID if number != 1 else [{"a": "ab"}]
        assert not any(jsonschema_rs.is_valid(whole, [value]) for value in wrong)


def test_a_schema_that_needs_nothing_stays_as_it_is() -> None:
    plain = {"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}}
    for schema in ({}, {"type": "object"}, plain):
        assert portable_schema(schema, "p") is schema


@pytest.mark.parametrize(
    ("schema", "param", "reason"),
    [
        (
            {"items": {"$ref": "#/$defs/a"}},
            "p.items.$ref",
            "'#/$defs/a' does not point to a schema",
        ),
        ({"anyOf": [{}, {"$ref": "#/anyOf/2"}]}, "p.anyOf[1].$ref", "does not point to a schema"),
        ({"anyOf": [{}, {"$ref": "#/anyOf/-1"}]}, "p.anyOf[1].$ref", "does not point to a schema"),
        ({"type": "object", "not": {"$ref": "#/type"}}, "p.not.$ref", "does not point to a schema"),
        ({"items": {"$ref": "#a"}}, "p.items.$ref", "does not point to a schema"),
        ({"$ref": "https://127.0.0.1/x"}, "p.$ref", "outside the schema"),
        ({"$ref": "file:///etc/passwd"}, "p.$ref", "outside the schema"),
        ({"$ref": "#"}, "p", "points to itself"),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            },
            "p",
            "points to itself",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(
    schema: dict[str, Any], param: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        portable_schema(schema, "p")
    assert raised.value.param == param
    assert reason in raised.value.message


def test_many_references_take_no_longer_than_they_are_long() -> None:
    count = 4_000
    text = "x" * 1_000_000
    chain = {f"a/{number}": {"$ref": f"#/$defs/a~1{number + 1}"} for number in range(count)}
    # Of a copy for each of them there would be gigabytes.
    schema = {
        "properties": {str(number): {"$ref": "#/$defs/a~10"} for number in range(count)},
        "items": {"$ref": "#"},
        "description": text,
        "$defs": {**chain, f"a/{count}": {"description": text}},
    }
    started = time.process_time()
    portable = portable_schema(schema, "p")
    assert time.process_time() - started < 2
    assert len(json.dumps(portable)) < 2 * len(json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"items": {"$ref": f"#{'/a' * 501}"}}, "p.items.$ref"),
        ({"$defs": {"a b": {}}, "anyOf": [{"$ref": "#/$defs/a b"}] * 10_001}, "p"),
        (
            {
                "$defs": {"a b": {}, "c" * 980: {}},
                "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ["a b"] + ["c" * 980] * 300],
            },
            "p",
        ),
    ],
)
def test_a_schema_that_is_too_large_to_be_rewritten_is_refused(
    schema: dict[str, Any], param: str
) -> None:
    schema = json.loads(json.dumps(schema))
    with pytest.raises(InvalidRequest, match="may have up to") as raised:
        portable_schema(schema, "p")
    assert raised.value.param == param
