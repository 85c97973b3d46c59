"""What is mounted, as an OpenAPI 3.1 document.

The requests are described by the models that validate them, the answers by the types in
``wire.response_models``, in the spelling of the mount.

Source: the OpenAPI Specification, version 3.1.1. It has no words for a stream of events; they are
written as 3.2 has them, in the place where 3.1 has the body: the schema of one event, whose
``data`` is a text that holds JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from .._wire.case import Case, to_camel
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.embeddings import EmbeddingsRequest
from .._wire.response_models.chat import ChatCompletion, ChatCompletionChunk
from .._wire.response_models.common import EXTRA_KEY, Error
from .._wire.response_models.completions import TextCompletion, TextCompletionChunk
from .._wire.response_models.embeddings import EmbeddingList
from .._wire.response_models.health import Health
from .._wire.response_models.models import Model, ModelList
from .._wire.response_models.responses import Response, ResponseEvent
from .._wire.responses import ResponsesRequest
from ..exceptions import (
    AuthenticationFailed,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    PermissionDenied,
    RequestTooLarge,
    Unavailable,
    UnsupportedContentCoding,
    UpstreamError,
    UpstreamTimeout,
)

__all__ = ["openapi_document"]

JSON, EVENTS = "application/json", "text/event-stream"

_TITLE: Final = "OpenAI-compatible gateway"
_DESCRIPTION: Final = """\
OpenAI's API, answered by the engines of this site.

Fields of requests are written in snake_case here; each is also read in camelCase (`maxTokens` for \
`max_tokens`). A field that is `null` counts as absent, unless it says otherwise. Fields that are \
not named here are accepted, except within `options`.
"""
_TAGS: Final = {
    "Chat": "Chat completions",
    "Responses": "OpenAI's Responses API",
    "Completions": "OpenAI's older text completions",
    "Embeddings": "Vectors of texts",
    "Models": "What there is to choose from",
    "Site": "The gateway itself",
}

_STREAMED_ONLY: Final = "`stream_options` is only for a stream."
_UNSUPPORTED: Final = (
    "A parameter that the model, or its engine, does not support is refused, unless the site has "
    "such parameters ignored: the header `x-ignored-parameters` then names them."
)
_PICTURES: Final = (
    "The data of a data URI has to be what it says it is. Pictures at an address are fetched only "
    "if the site does so."
)
_CHOSEN: Final = "`tool_choice` can only name functions among the `tools`."
_LIMITS: Final = (
    "The site may set narrower limits for how many choices there are, and for `num_ctx`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """One method of one path. ``rules`` are those that its JSON schema cannot say."""

    path: str
    method: Literal["get", "post"] = "post"
    name: str
    tag: str
    summary: str
    rules: tuple[str, ...] = ()
    body: Any = None
    answer: Any = None
    event: Any = None
    parameters: tuple[dict[str, Any], ...] = ()


_OPERATIONS: Final = (
    _Operation(
        path="/v1/chat/completions",
        name="createChatCompletion",
        tag="Chat",
        summary="Answer a conversation",
        rules=(
            "`top_logprobs` is only for `logprobs`.",
            _STREAMED_ONLY,
            _CHOSEN,
            _PICTURES,
            _LIMITS,
            _UNSUPPORTED,
        ),
        body=ChatCompletionRequest,
        answer=ChatCompletion,
        event=ChatCompletionChunk,
    ),
    _Operation(
        path="/v1/responses",
        name="createResponse",
        tag="Responses",
        summary="Answer a conversation, as a response",
        rules=(
            "`input` needs more than reasoning that cannot be read here.",
            "`previous_response_id` is only for sites that keep responses.",
            _STREAMED_ONLY,
            _CHOSEN,
            _PICTURES,
            _LIMITS,
            _UNSUPPORTED,
        ),
        body=ResponsesRequest,
        answer=Response,
        event=ResponseEvent,
    ),
    _Operation(
        path="/v1/completions",
        name="createCompletion",
        tag="Completions",
        summary="Go on with a text",
        rules=(
            "`echo` is not for `logprobs`, nor for prompts in tokens.",
            "All prompts may have up to 100,000 tokens together.",
            "`best_of` is what `n` is.",
            _STREAMED_ONLY,
            _LIMITS,
            _UNSUPPORTED,
        ),
        body=CompletionRequest,
        answer=TextCompletion,
        event=TextCompletionChunk,
    ),
    _Operation(
        path="/v1/embeddings",
        name="createEmbedding",
        tag="Embeddings",
        summary="Turn texts into vectors",
        rules=(
            "The vectors cannot be longer than the model's own, and not all models can shorten "
            "them: `dimensions`.",
            _LIMITS,
            _UNSUPPORTED,
        ),
        body=EmbeddingsRequest,
        answer=EmbeddingList,
    ),
    _Operation(
        path="/v1/models",
        method="get",
        name="listModels",
        tag="Models",
        summary="List the models",
        answer=ModelList,
    ),
    _Operation(
        path="/v1/models/{model_id}",
        method="get",
        name="retrieveModel",
        tag="Models",
        summary="Describe a model",
        answer=Model,
        parameters=(
            {
                "name": "model_id",
                "in": "path",
                "required": True,
                "description": "Its public name. It may hold colons, and slashes as they are.",
                "schema": {"type": "string", "minLength": 1},
            },
        ),
    ),
    _Operation(
        path="/health",
        method="get",
        name="checkHealth",
        tag="Site",
        summary="Tell whether the site is alive and its backends are ready",
        answer=Health,
        parameters=(
            {
                "name": "probe",
                "in": "query",
                "description": "`live` asks no backend: the process is alive.",
                "schema": {"type": "string", "examples": ["live"]},
            },
        ),
    ),
    _Operation(
        path="/openapi.json",
        method="get",
        name="describeApi",
        tag="Site",
        summary="This document",
    ),
)

_DOCUMENT_SCHEMA: Final = {
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {"openapi": {"type": "string"}},
}

_PUBLIC: Final = {"/health", "/openapi.json"}
_ANYWHERE: Final = (MethodNotAllowed, GatewayError)
_FOR_CALLERS: Final = (
    InvalidRequest,
    AuthenticationFailed,
    PermissionDenied,
    ModelNotFound,
    UpstreamError,
    Unavailable,
    UpstreamTimeout,
)
_OF_BODIES: Final = (RequestTooLarge, UnsupportedContentCoding)
_HEADERS: Final[dict[type[GatewayError], tuple[str, str, str]]] = {
    AuthenticationFailed: ("WWW-Authenticate", "string", "How to authenticate"),
    MethodNotAllowed: ("Allow", "string", "The methods that are answered"),
    Unavailable: ("Retry-After", "integer", "In how many seconds to try again"),
    UnsupportedContentCoding: ("Accept-Encoding", "string", "The supported content codings"),
}
"""What an error comes with: the name of a header, its type and its meaning."""


def openapi_document(
    case: Case, *, server: str, version: str, session_cookie: str
) -> dict[str, Any]:
    """The document for a mount that answers in the spelling ``case``.

    ``server`` is the path of the mount, ``version`` that of the package, ``session_cookie`` the
    name of the cookie that logged in users have.
    """
    return {
        "openapi": "3.1.1",
        "info": {"title": _TITLE, "version": version, "description": _DESCRIPTION},
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": {
            operation.path: {operation.method: _operation(operation, case)}
            for operation in _OPERATIONS
        },
        "components": {
            "schemas": {**_request_schemas(), **_answer_schemas(case)},
            "responses": {
                error.__name__: _error_response(error)
                for error in (*_ANYWHERE, *_FOR_CALLERS, *_OF_BODIES)
            },
            "parameters": {
                "x-request-id": {
                    "name": "x-request-id",
                    "in": "header",
                    "description": "An id for the request; one that makes no sense is replaced.",
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
                    "description": "A user who is logged in to this site. POST also takes Django's "
                    "CSRF token, and `application/json` as its type.",
                },
            },
        },
    }


# Paths


def _operation(operation: _Operation, case: Case) -> dict[str, Any]:
    is_public = operation.path in _PUBLIC
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.rules:
        described["description"] = "\n".join(f"- {rule}" for rule in operation.rules)
    described["parameters"] = [*operation.parameters, _ref("parameters", "x-request-id")]
    if operation.body is not None:
        schema = _ref("schemas", operation.body.__name__)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    described["responses"] = _responses(operation, case)
    # Whoever is known is told more of the backends.
    credentials: list[dict[str, Any]] = [{"key": []}, {"session": []}]
    if is_public:
        credentials = [{}, *credentials] if operation.answer is Health else []
    described["security"] = credentials
    return described


def _responses(operation: _Operation, case: Case) -> dict[str, Any]:
    headers = {"x-request-id": _ref("headers", "x-request-id")}
    if operation.body is not None:
        headers["x-ignored-parameters"] = _ref("headers", "x-ignored-parameters")
    answer = operation.answer
    schema = _DOCUMENT_SCHEMA if answer is None else _ref("schemas", answer.__name__)
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if operation.event is not None:
        content[EVENTS] = {"schema": _event(operation, case)}
    responses = {"200": {"description": "The answer", "headers": headers, "content": content}}
    errors: Iterable[type[GatewayError]] = _ANYWHERE
    if operation.path not in _PUBLIC:
        errors = (*_FOR_CALLERS, *_ANYWHERE)
    if operation.body is not None:
        errors = (*errors, *_OF_BODIES)
    if answer is Health:
        responses["503"] = {**responses["200"], "description": "A backend is not ready"}
    for error in errors:
        responses[str(error.status)] = _ref("responses", error.__name__)
    return dict(sorted(responses.items()))


def _event(operation: _Operation, case: Case) -> dict[str, Any]:
    """One event of a stream."""
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
    if case == "camel" and operation.answer is ChatCompletion:
        kinds.append(operation.answer)
    data["contentSchema"] = {"anyOf": [_ref("schemas", kind.__name__) for kind in kinds]}
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
    # The base of all errors says nothing of its own.
    about = HTTPStatus(500).phrase if error is GatewayError else _first_paragraph(error.__doc__)
    content = {JSON: {"schema": _ref("schemas", Error.__name__)}}
    return {"description": about, "headers": headers, "content": content}


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}


# Schemas


def _request_schemas() -> dict[str, Any]:
    models = [operation.body for operation in _OPERATIONS if operation.body is not None]
    return _schemas(models)


def _answer_schemas(case: Case) -> dict[str, Any]:
    answers = [operation.answer for operation in _OPERATIONS if operation.answer is not None]
    chunks = [ChatCompletionChunk, TextCompletionChunk]
    schemas = _schemas([*answers, *chunks, Error], {"ResponseEvent": ResponseEvent})
    return {name: _spelled(schema, case) for name, schema in schemas.items()}


def _schemas(types: Iterable[Any], aliases: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schemas of ``types`` and of all that is in them, by their names; of ``aliases`` by those
    they are given here."""
    aliases = aliases or {}
    adapters = [*types, *aliases.values()]
    named, generated = TypeAdapter.json_schemas(
        [(number, "validation", TypeAdapter(one)) for number, one in enumerate(adapters)],
        ref_template=_REF + "{model}",
    )
    schemas: dict[str, Any] = generated["$defs"]
    first = len(adapters) - len(aliases)
    for number, name in enumerate(aliases, start=first):
        schemas[name] = named[number, "validation"]
    return {_short(name): _tidy(schema, schemas) for name, schema in sorted(schemas.items())}


_REF: Final = "#/components/schemas/"

_SCHEMA_LISTS: Final = {"allOf", "anyOf", "oneOf"}
_SUBSCHEMAS: Final = {"additionalProperties", "items", "not", "propertyNames"}


def _each(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """``schema`` with a ``change`` to each of the schemas in it."""
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
    """``schema`` without what says nothing, in Markdown, and with its discriminator."""
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
    """What tells ``members`` apart, if it is a field that each of them has to have."""
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
    """``ResponsesFunctionTool``, where pydantic has the whole path of the module."""
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
    """The schema of an answer in the spelling ``case``."""
    spelled = _each(schema, lambda item: _spelled(item, case))
    spelled.pop(EXTRA_KEY, None)
    if "properties" not in schema:
        return spelled
    properties, required = spelled["properties"], list(schema.get("required", ()))
    if case == "both":
        for name, item in schema["properties"].items():
            if EXTRA_KEY in item:
                properties[item[EXTRA_KEY]] = properties[name]
                required += [item[EXTRA_KEY]] if name in required else []
    elif case == "camel":
        spelled["properties"] = {to_camel(name): item for name, item in properties.items()}
        required = [to_camel(name) for name in required]
    return {**spelled, "required": required} if required else spelled
