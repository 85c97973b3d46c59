"""Describe endpoints as an OpenAPI 3.1 document, from what they declare.

Requests are described by the models that validate them, answers by their types, in the spelling of
the mount.

Source: the OpenAPI Specification, version 3.1.1. It has no words for a stream of events; they are
written as 3.2 has them, in the place where 3.1 has the body: the schema of one event, whose
``data`` is a text that holds JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from .._wire.case import Case, to_camel
from .._wire.response_models.chat import ChatCompletion
from .._wire.response_models.common import EXTRA_KEY, Error
from .._wire.response_models.responses import ResponseEvent
from ..exceptions import (
    AuthenticationFailed,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    PermissionDenied,
    RequestTooLarge,
    Unavailable,
    UnsupportedContentCoding,
)
from .operation import ENGINE_ERRORS, JSON, Operation
from .spelling import extra_key

__all__ = ["DescribedPath", "openapi_document"]

EVENTS: Final = "text/event-stream"

_TITLE: Final = "OpenAI-compatible gateway"
_DESCRIPTION: Final = """\
OpenAI's API, answered by the engines of this site.

Fields of requests are written in snake_case here; each is also read in camelCase (`maxTokens` for \
`max_tokens`). A field that is `null` counts as absent, unless it says otherwise. Below `/v1`, \
fields that are not named here are accepted, except within `options`.
"""

#: The header of an error response: its name, type and meaning.
_HEADERS: Final[dict[type[GatewayError], tuple[str, str, str]]] = {
    AuthenticationFailed: ("WWW-Authenticate", "string", "How to authenticate"),
    MethodNotAllowed: ("Allow", "string", "The methods that are answered"),
    Unavailable: ("Retry-After", "integer", "Seconds after which to try again"),
    UnsupportedContentCoding: ("Accept-Encoding", "string", "The supported content codings"),
}

#: The schemas of path arguments, by Django's converters; others match texts.
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "int": {"type": "integer", "minimum": 0},
    "uuid": {"type": "string", "format": "uuid"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedPath:
    """An endpoint of the document: its path below the mount with ``arguments`` and their
    converters, its operations by method, and descriptions of their ``tags``."""

    path: str
    arguments: Mapping[str, str]
    operations: Mapping[str, Operation]
    tags: Mapping[str, str]


def openapi_document(
    paths: Sequence[DescribedPath], case: Case, *, server: str, version: str, session_cookie: str
) -> dict[str, Any]:
    """Return the document of ``paths`` for a mount that answers in the spelling ``case``.

    ``server`` is the path of the mount, ``version`` that of the package, ``session_cookie`` the
    name of the cookie that logged in users have.
    """
    operations = [operation for path in paths for operation in path.operations.values()]
    errors = dict.fromkeys(error for operation in operations for error in _errors(operation))
    schemas = _Schemas(operations, case)
    tags = {name: about for path in paths for name, about in path.tags.items()}
    return {
        "openapi": "3.1.1",
        "info": {"title": _TITLE, "version": version, "description": _DESCRIPTION},
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": {
            path.path: {
                method.lower(): _operation(operation, path, schemas)
                for method, operation in path.operations.items()
            }
            for path in paths
        },
        "components": {
            "schemas": schemas.components,
            "responses": {error.__name__: _error_response(error) for error in errors},
            "parameters": {
                "x-request-id": {
                    "name": "x-request-id",
                    "in": "header",
                    "description": "An id for the request. An invalid one is replaced.",
                    "schema": {"type": "string"},
                }
            },
            "headers": {
                "x-request-id": {
                    "description": "The id of the request",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
                },
                "x-ignored-parameters": {
                    "description": "Parameters, hosted tools and input items that were left out",
                    "schema": {"type": "string"},
                },
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of this site",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": session_cookie,
                    "description": "A user who is logged in to this site. Unsafe methods also need "
                    "Django's CSRF token, and `application/json` as the type of their body.",
                },
            },
        },
    }


# Paths


def _operation(operation: Operation, path: DescribedPath, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "tags": list(operation.tags),
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    described["parameters"] = [
        *(_argument(operation, *argument) for argument in path.arguments.items()),
        *schemas.query(operation),
        _ref("parameters", "x-request-id"),
    ]
    if operation.body is not None:
        content = {JSON: {"schema": schemas.request(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(operation, schemas)
    described["security"] = []
    if operation.scope is not None or operation.optional_credentials:
        described["security"] = [{"key": []}, {"session": []}]
    if operation.optional_credentials:
        described["security"].insert(0, {})
    return described


def _argument(operation: Operation, name: str, converter: str) -> dict[str, Any]:
    described = {"name": name, "in": "path", "required": True}
    if name in operation.captured:
        described["description"] = operation.captured[name]
    return {**described, "schema": _ARGUMENTS.get(converter, {"type": "string", "minLength": 1})}


def _errors(operation: Operation) -> list[type[GatewayError]]:
    """Return the errors of ``operation``: those of its gates, and its own."""
    errors: list[type[GatewayError]] = [MethodNotAllowed, GatewayError, *operation.errors]
    if operation.uses_engine:
        errors += ENGINE_ERRORS
    if operation.scope is not None:
        errors += [AuthenticationFailed, PermissionDenied]
    if operation.query is not None or operation.body is not None:
        errors.append(InvalidRequest)
    if operation.body is not None:
        errors += [RequestTooLarge, UnsupportedContentCoding]
    return errors


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    headers = {"x-request-id": _ref("headers", "x-request-id")}
    if operation.event is not None or operation.body is not None:
        headers["x-ignored-parameters"] = _ref("headers", "x-ignored-parameters")
    content: dict[str, Any] = {operation.media_type: {"schema": schemas.answer(operation)}}
    if operation.event is not None:
        content[EVENTS] = {"schema": _event(operation, schemas)}
    answers = {operation.status: "The answer", **operation.further}
    return dict(
        sorted(
            {
                **{
                    str(error.status): _ref("responses", error.__name__)
                    for error in _errors(operation)
                },
                **{
                    str(status): {"description": about, "headers": headers, "content": content}
                    for status, about in answers.items()
                },
            }.items()
        )
    )


def _event(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    """Return the schema of one event of a stream."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": JSON}
    if operation.event is ResponseEvent:
        data["contentSchema"] = _ref("schemas", "ResponseEvent")
        return {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"type": "string", "description": "The type of the event"},
                "data": data,
            },
        }
    kinds = [operation.event, Error]
    if schemas.case == "camel" and operation.response is ChatCompletion:
        kinds.append(operation.response)
    data["contentSchema"] = {"anyOf": [schemas.of_answer(kind) for kind in kinds]}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}},
    }


def _error_response(error: type[GatewayError]) -> dict[str, Any]:
    headers: dict[str, Any] = {"x-request-id": _ref("headers", "x-request-id")}
    if error in _HEADERS:
        name, kind, about = _HEADERS[error]
        headers[name] = {"description": about, "required": True, "schema": {"type": kind}}
    # The base of all errors has no meaning for clients.
    about = HTTPStatus(500).phrase if error is GatewayError else _first_paragraph(error.__doc__)
    content = {JSON: {"schema": _ref("schemas", Error.__name__)}}
    return {"description": about, "headers": headers, "content": content}


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}


# Schemas


class _Schemas:
    """The schemas of the bodies, query parameters and answers of ``operations``: those of named
    types are ``components``."""

    def __init__(self, operations: Sequence[Operation], case: Case) -> None:
        self.case = case
        bodies = [each.body for each in operations if each.body is not None]
        queries = [each.query for each in operations if each.query is not None]
        answers = [kind for each in operations for kind in (each.response, each.event) if kind]
        self._requests, components = _schemas([*bodies, *queries], "validation")
        self._queries: dict[int, dict[str, Any]] = {}
        for query in {id(query): query for query in queries}.values():
            name = self._requests[id(query)]["$ref"].removeprefix(_REF)
            self._queries[id(query)] = components.pop(name)
        described, named = _schemas([*answers, Error], "serialization")
        if id(ResponseEvent) in described:
            named["ResponseEvent"] = described[id(ResponseEvent)]
            described[id(ResponseEvent)] = _ref("schemas", "ResponseEvent")
        named = {name: _spelled(schema, case) for name, schema in named.items()}
        # A type of requests and answers is read in both spellings and written in the mount's.
        renamed = {
            _REF + name: f"{_REF}{name}Answer"
            for name, schema in named.items()
            if components.get(name, schema) != schema
        }
        self._answers: dict[int, dict[str, Any]] = {
            key: _renamed(_spelled(schema, case), renamed) for key, schema in described.items()
        }
        for name, schema in named.items():
            key = renamed.get(_REF + name, name).removeprefix(_REF)
            components[key] = _renamed(schema, renamed)
        self.components = dict(sorted(components.items()))

    def request(self, body: Any) -> dict[str, Any]:
        """Return the schema of the request body ``body``."""
        return self._requests[id(body)]

    def query(self, operation: Operation) -> Iterator[dict[str, Any]]:
        """Yield the query parameters of ``operation``."""
        if operation.query is None:
            return
        schema = self._queries[id(operation.query)]
        for name, item in schema.get("properties", {}).items():
            described = {"name": name, "in": "query", "schema": dict(item)}
            if name in schema.get("required", ()):
                described["required"] = True
            if item.get("type") == "object":
                described |= {"style": "deepObject", "explode": True}
            if about := described["schema"].pop("description", None):
                described["description"] = about
            yield described

    def answer(self, operation: Operation) -> dict[str, Any]:
        """Return the schema of what ``operation`` answers."""
        if operation.response is not None:
            return self.of_answer(operation.response)
        return {} if operation.media_type == JSON else {"type": "string"}

    def of_answer(self, kind: Any) -> dict[str, Any]:
        """Return the schema of the answer or event ``kind``."""
        return self._answers[id(kind)]


def _schemas(
    types: Sequence[Any], mode: Literal["validation", "serialization"]
) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """Return the schemas of ``types`` by their identities, and all those that they refer to by
    their names."""
    generated, definitions = TypeAdapter.json_schemas(
        [(number, mode, TypeAdapter(one)) for number, one in enumerate(types)],
        ref_template=_REF + "{model}",
    )
    schemas: dict[str, Any] = definitions.get("$defs", {})
    own: dict[int, dict[str, Any]] = {
        id(one): _tidy(generated[number, mode], schemas) for number, one in enumerate(types)
    }
    return own, {_short(name): _tidy(schema, schemas) for name, schema in schemas.items()}


def _renamed(value: Any, renamed: Mapping[str, str]) -> Any:
    """Return the schema ``value`` with the references in ``renamed`` replaced."""
    if not renamed:
        return value
    if isinstance(value, dict):
        return {key: _renamed(item, renamed) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, renamed) for item in value]
    return renamed.get(value, value) if isinstance(value, str) else value


_REF: Final = "#/components/schemas/"

_SCHEMA_LISTS: Final = {"allOf", "anyOf", "oneOf"}
_SUBSCHEMAS: Final = {"additionalProperties", "items", "not", "propertyNames"}


def _each(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return ``schema`` with a ``change`` to each of the schemas in it."""
    changed = dict(schema)
    for keyword, value in schema.items():
        if keyword == "properties":
            changed[keyword] = {name: change(item) for name, item in value.items()}
        elif keyword in _SCHEMA_LISTS:
            changed[keyword] = [change(item) for item in value]
        elif keyword in _SUBSCHEMAS and isinstance(value, dict):
            changed[keyword] = change(value)
    return changed


def _tidy(schema: dict[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``schema`` in Markdown, with its discriminator, without titles and null defaults."""
    tidied = _each(schema, lambda item: _tidy(item, schemas))
    tidied.pop("title", None)
    tidied.pop("discriminator", None)
    if tidied.get("default", ...) is None:
        del tidied["default"]
    if "description" in schema:
        tidied["description"] = _first_paragraph(schema["description"])
    if "$ref" in schema:
        tidied["$ref"] = _short(schema["$ref"])
    if "oneOf" in schema and (discriminator := _discriminator(schema["oneOf"], schemas)):
        tidied["discriminator"] = discriminator
    return tidied


def _discriminator(members: list[Any], schemas: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the discriminator of ``members``, if each of them requires such a field."""
    if not all("$ref" in member for member in members):
        return None
    refs = [member["$ref"] for member in members]
    for field in ("type", "role"):
        mapping: dict[str, str] = {}
        for ref in refs:
            object_schema = schemas[ref.removeprefix(_REF)]
            tag = object_schema.get("properties", {}).get(field, {})
            values = [tag["const"]] if "const" in tag else tag.get("enum", ())
            if field not in object_schema.get("required", ()) or not values:
                break
            mapping |= dict.fromkeys(values, _short(ref))
        else:
            return {"propertyName": field, "mapping": mapping}
    return None


def _short(name: str) -> str:
    """Return ``ResponsesFunctionTool`` where pydantic has the whole path of the module."""
    path, separator, last = name.rpartition("__")
    if not separator:
        return name
    ref = _REF if name.startswith(_REF) else ""
    return f"{ref}{path.rpartition('__')[2].capitalize()}{last}"


def _first_paragraph(docstring: str | None) -> str:
    # What follows is for those who read the code.
    paragraph = (docstring or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`")


def _spelled(schema: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return the schema of an answer in the spelling ``case``."""
    spelled = _each(schema, lambda item: _spelled(item, case))
    spelled.pop(EXTRA_KEY, None)
    if "properties" not in schema:
        return spelled
    properties, required = spelled["properties"], list(schema.get("required", ()))
    if case == "both":
        for name, item in schema["properties"].items():
            also = extra_key(name, item)
            if also is not None:
                properties[also] = properties[name]
                required += [also] if name in required else []
    elif case == "camel":
        spelled["properties"] = {to_camel(name): item for name, item in properties.items()}
        required = [to_camel(name) for name in required]
    return {**spelled, "required": required} if required else spelled
