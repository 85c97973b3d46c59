"""Endpoints of apps: what they declare holds under WSGI and ASGI, and is what the document says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema_rs
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path, resolve, reverse
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from django_ollama_openai import endpoints
from django_ollama_openai._views.openapi import describe
from django_ollama_openai.auth import BaseAuthenticator, Caller
from django_ollama_openai.endpoints import (
    Admission,
    Endpoint,
    Flow,
    QueryParameters,
    RequestBody,
    call,
    call_blocking,
    endpoint_of,
)
from django_ollama_openai.exceptions import NotFound
from django_ollama_openai.types import Case, CompletionUsage

if TYPE_CHECKING:
    from pytest_django import Settings

HERE = __name__


class Part(RequestBody):
    part_name: str = "x"


class NewThing(RequestBody):
    display_name: str = Field(max_length=10)
    parts: list[Part] = Field(default_factory=list)


class Filter(QueryParameters):
    page_size: int = Field(20, ge=1, le=100)
    is_open: bool | None = None
    group_by: list[str] | None = None
    my_labels: dict[str, str] = Field(default_factory=dict)


class PartAnswer(BaseModel):
    part_name: str


class Thing(BaseModel):
    """A thing."""

    display_name: str
    sub_parts: list[PartAnswer] = Field(default_factory=list)
    by_name: dict[str, PartAnswer] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    finish_reason: str | None = None
    usage: CompletionUsage | None = None
    prompt_tokens: int = 0


class Typed(TypedDict):
    """A thing as a dict."""

    display_name: str
    free_form: dict[str, Any]


USAGE: Any = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
THING = Thing(
    display_name="a",
    sub_parts=[PartAnswer(part_name="b")],
    by_name={"some_name": PartAnswer(part_name="c")},
    metadata={"some_key": {"other_key": 1}},
    finish_reason="stop",
    usage=USAGE,
)

things = Endpoint(tags={"Things": "All things"})


@things.get(scope="things", query=Filter, response=list[Thing])
def list_things(admission: Admission[None]) -> dict[str, Any]:
    """List the things."""
    query: Filter = admission.query
    return query.model_dump()


@things.post(scope="things", body=NewThing, status=201)
def create_thing(admission: Admission[NewThing]) -> dict[str, Any]:
    """Create a thing.

    It is new.
    """
    return {**admission.body.model_dump(), "endpoint": admission.endpoint}


thing = Endpoint()


@thing.get(scope="things", response=Thing)
def retrieve_thing(admission: Admission[None]) -> Thing:
    """Retrieve a thing."""
    admission.headers["x-thing"] = admission.captured["name"]
    if admission.captured["name"] == "missing":
        raise NotFound("There is no such thing.")
    return THING


@thing.delete(scope=None)
def delete_thing(admission: Admission[None]) -> bytes:
    """Delete a thing."""
    return b'{"some_key": true}'


@thing.patch(scope="things", owner=True, response=Typed)
def change_thing(admission: Admission[None]) -> Typed:
    """Change a thing."""
    return {"display_name": str(admission.caller.owner), "free_form": {"some_key": 1}}


where = Endpoint()


@where.get(scope=None)
def plain(admission: Admission[None]) -> HttpResponse:
    """Answer as a function, where no event loop waits for it."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return HttpResponse("Hi", content_type="text/plain")


@where.put(scope=None)
def returned(admission: Admission[None]) -> Flow[dict[str, Any]]:
    return flow(admission)


@where.post(scope=None)
def flow(admission: Admission[None]) -> Flow[dict[str, Any]]:
    """Answer as a flow."""
    with_loop = yield from call(_say, _asay)
    return {"said": with_loop, "blocking": (yield from call_blocking(_has_no_loop, 5))}


def _has_no_loop(number: int) -> int:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return number


def _say() -> str:
    return "sync"


async def _asay() -> str:
    return "async"


raising = Endpoint()
ERRORS: dict[str, tuple[Exception, int, str]] = {
    "denied": (PermissionDenied("secret plan"), 403, "secret plan"),
    "absent": (Http404("secret path"), 404, "Not found."),
    "crash": (RuntimeError("secret state"), 500, "error while processing"),
}


@raising.get(scope=None)
def fail(admission: Admission[None]) -> None:
    """Fail."""
    raise ERRORS[admission.request.GET["kind"]][0]


app_patterns = [
    endpoints.path("api/things/", things, name="things"),
    endpoints.path("api/things/<str:name>/", thing, name="thing"),
    endpoints.path("api/where", where),
    endpoints.path("api/raising/", raising),
]
urlpatterns = [
    path("ai/", include(app_patterns)),
    path("snake/", include(app_patterns), {"case": "snake"}),
    path("camel/", include(app_patterns), {"case": "camel"}),
]


class HeaderAuthenticator(BaseAuthenticator):
    """Takes a caller's word for its scope and its name."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        if "x-scope" not in request.headers:
            return None
        return Caller(
            key_id=request.headers.get("x-name"), scopes=frozenset({request.headers["x-scope"]})
        )


Ask: TypeAlias = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, settings: Settings) -> Ask:
    """A request by either of Django's test clients."""
    settings.ROOT_URLCONF = HERE
    settings.OLLAMA_OPENAI = {"AUTHENTICATION": [f"{HERE}.HeaderAuthenticator"]}
    client = request.param(raise_request_exception=False)

    def ask(method: str, url: str, body: Any = None, **headers: str) -> Any:
        send = getattr(client, method.lower())
        send = async_to_sync(send) if request.param is AsyncClient else send
        headers = {"x-scope": "things", "x-name": "ada", **headers}
        if method in ("GET", "HEAD"):
            return send(url, headers=headers)
        return send(url, body or {}, content_type="application/json", headers=headers)

    return ask


def error(response: Any) -> tuple[int, str, str | None]:
    told = response.json()["error"]
    return response.status_code, told["message"], told["param"]


def test_query_parameters(ask: Ask) -> None:
    expected: dict[str, Any] = {"page_size": 20, "is_open": None, "group_by": None}
    expected["my_labels"] = {}
    assert ask("GET", "/ai/api/things/").json() == expected
    given: dict[str, dict[str, Any]] = {
        "page_size=5": {"page_size": 5},
        "pageSize=5": {"page_size": 5},
        "page_size=5&page_size=7": {"page_size": 7},
        "isOpen=true": {"is_open": True},
        "group_by=a": {"group_by": ["a"]},
        "groupBy=a&groupBy=b": {"group_by": ["a", "b"]},
        "group_by[]=a&group_by[]=b": {"group_by": ["a", "b"]},
        "myLabels[a_b]=1&myLabels[a[]]=2": {"my_labels": {"a_b": "1", "a[]": "2"}},
        "my_labels[]=1&my_labels[a]=2&my_labels[a]=3": {"my_labels": {"": "1", "a": "3"}},
        "unknown=1": {},
    }
    for query, changes in given.items():
        assert ask("GET", f"/ai/api/things/?{query}").json() == {**expected, **changes}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("page_size=0", "page_size"),
        ("pageSize=101", "pageSize"),
        ("page_size=", "page_size"),
        ("page_size=1.5", "page_size"),
        ("my_labels=x", "my_labels"),
        ("is_open=perhaps", "is_open"),
    ],
)
def test_a_wrong_query_parameter_is_named(ask: Ask, query: str, param: str) -> None:
    status, message, named = error(ask("GET", f"/ai/api/things/?{query}"))
    assert (status, named) == (400, param)
    assert f"'{param}'" in message


def test_a_body(ask: Ask) -> None:
    for name in ("display_name", "displayName"):
        response = ask("POST", "/ai/api/things/", {name: "a", "parts": [{"partName": "b"}]})
        assert response.status_code == 201
        assert response.json() == {
            "display_name": "a",
            "parts": [{"part_name": "b"}],
            "endpoint": "create_thing",
        }


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "display_name", "Missing required parameter: 'display_name'."),
        ({"displayName": "a", "colour": 1}, "colour", "Unknown parameter: 'colour'."),
        (
            {"displayName": "a", "parts": [{"weight": 1}]},
            "parts[0].weight",
            "Unknown parameter: 'parts[0].weight'.",
        ),
        ({"displayName": 5}, "displayName", "Invalid value for 'displayName': "),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(
    ask: Ask, body: Any, param: str, message: str
) -> None:
    status, told, named = error(ask("POST", "/ai/api/things/", body))
    assert (status, named) == (400, param)
    assert told.startswith(message)


BOTH = {"finishReason", "promptTokens", "completionTokens", "totalTokens"}


@pytest.mark.parametrize("case", ["both", "snake", "camel"])
def test_answers_are_spelled_as_the_mount_says(ask: Ask, case: Case) -> None:
    mount = "ai" if case == "both" else case
    answer = ask("GET", f"/{mount}/api/things/x/").json()
    is_camel = case == "camel"
    assert answer["displayName" if is_camel else "display_name"] == "a"
    parts = answer["subParts" if is_camel else "sub_parts"]
    assert parts == [{"partName" if is_camel else "part_name": "b"}]
    by_name = answer["byName" if is_camel else "by_name"]
    assert by_name == {"some_name": {"partName" if is_camel else "part_name": "c"}}
    assert answer["metadata"] == {"some_key": {"other_key": 1}}
    names = set(answer) | set(answer["usage"])
    assert names & BOTH == (set() if case == "snake" else BOTH)
    assert ("finish_reason" in names) is not is_camel
    # Outside of usage it is a field like any other.
    assert ("promptTokens" in answer) is is_camel
    # The document says the same, to the letter.
    document = describe(app_patterns, case)
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    responses = document["paths"]["/api/things/{name}/"]["get"]["responses"]
    described = responses["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate({**described, "components": document["components"]}, answer)


def test_answers_of_other_kinds(ask: Ask) -> None:
    assert ask("DELETE", "/camel/api/things/x/").json() == {"some_key": True}
    changed = ask("PATCH", "/camel/api/things/x/").json()
    assert changed == {"displayName": "key:ada", "freeForm": {"some_key": 1}}
    # Without a type only OpenAI's field of the client's own keys is known.
    made = ask("POST", "/camel/api/things/", {"displayName": "a", "parts": [{}]}).json()
    assert made["parts"] == [{"partName": "x"}]


def test_a_function_runs_in_a_thread_and_a_flow_in_the_loop(
    ask: Ask, request: pytest.FixtureRequest
) -> None:
    is_asgi = "asgi" in request.node.callspec.id
    response = ask("GET", "/ai/api/where")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/plain")
    expected = {"said": "async" if is_asgi else "sync", "blocking": 5}
    assert ask("POST", "/ai/api/where").json() == expected


def test_the_gates(ask: Ask) -> None:
    status, message, _ = error(ask("GET", "/ai/api/things/", **{"x-scope": "other"}))
    assert (status, "'things'" in message) == (403, True)
    assert ask("DELETE", "/ai/api/things/x/", **{"x-scope": "other"}).status_code == 200
    client = Client()
    assert client.get("/ai/api/things/?page_size=0").status_code == 401
    assert client.delete("/ai/api/things/x/").status_code == 200


class NamelessAuthenticator(BaseAuthenticator):
    def authenticate(self, request: HttpRequest) -> Caller:
        return Caller()


def test_an_owner_is_needed_where_things_are_stored(ask: Ask, settings: Settings) -> None:
    assert ask("PATCH", "/ai/api/things/x/").status_code == 200
    settings.OLLAMA_OPENAI = {"AUTHENTICATION": [f"{HERE}.NamelessAuthenticator"]}
    assert ask("PATCH", "/ai/api/things/x/").status_code == 403
    assert ask("GET", "/ai/api/things/x/").status_code == 200


def test_methods(ask: Ask) -> None:
    response = ask("PUT", "/ai/api/things/")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    response = ask("HEAD", "/ai/api/things/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["Content-Length"]) > 10
    assert "x-request-id" in response.headers


def test_a_trailing_slash_may_be_left_out(ask: Ask) -> None:
    for url in ("/ai/api/things", "/ai/api/things/", "/ai/api/things/x", "/ai/api/things/x/"):
        assert ask("GET", url).status_code == 200
    assert ask("GET", "/ai/api/where/").status_code == 404
    assert ask("GET", "/ai/api/things//").status_code == 404
    assert reverse("thing", kwargs={"name": "a"}) in ("/ai/api/things/a/", "/camel/api/things/a/")


def test_headers_are_those_of_errors_too(ask: Ask) -> None:
    for name, status in (("x", 200), ("missing", 404)):
        response = ask("GET", f"/ai/api/things/{name}/")
        assert (response.status_code, response.headers["x-thing"]) == (status, name)


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_handlers(ask: Ask, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    _, status, message = ERRORS[kind]
    got, told, _ = error(ask("GET", f"/ai/api/raising/?kind={kind}"))
    assert got == status
    assert message in told
    assert kind == "denied" or "secret" not in told
    assert ("crashed" in caplog.text) is (kind == "crash")


def test_a_flow_that_is_returned_instead_of_driven(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask("PUT", "/ai/api/where").status_code == 500
    assert "yield from" in caplog.text


def test_the_endpoint_of_a_match(settings: Settings) -> None:
    settings.ROOT_URLCONF = HERE
    assert endpoint_of(resolve("/ai/api/things").func) is things

    async def in_a_loop() -> Any:
        return resolve("/ai/api/things/").func

    assert endpoint_of(async_to_sync(in_a_loop)()) is things
    assert endpoint_of(print) is None


def test_a_declaration_that_is_wrong() -> None:
    endpoint: Any = Endpoint()
    with pytest.raises(TypeError, match="scope"):
        endpoint.get()(list_things)
    with pytest.raises(TypeError, match="GET is declared"):
        things.get(scope="things")(list_things)


def test_the_document_of_an_app() -> None:
    document = describe(app_patterns, "both")
    operation = document["paths"]["/api/things/"]["post"]
    assert operation["operationId"] == "createThing"
    assert operation["summary"] == "Create a thing"
    assert operation["tags"] == ["Things"]
    assert set(operation["responses"]) == {
        *("201", "400", "401", "403", "405", "413", "415", "500")
    }
    assert document["paths"]["/api/things/{name}/"]["delete"]["security"] == []
    assert document["components"]["schemas"]["NewThing"]["additionalProperties"] is False


class Shared(RequestBody):
    """A type of requests and answers."""

    some_field: int


def test_a_type_may_be_that_of_requests_and_answers() -> None:
    endpoint = Endpoint()

    @endpoint.put(scope=None, body=Shared, response=Shared)
    def replace(admission: Admission[Shared]) -> Shared:
        return admission.body

    pattern = endpoints.path("api/shared", endpoint)
    schemas = describe([pattern], "camel")["components"]["schemas"]
    assert list(schemas["Shared"]["properties"]) == ["some_field"]
    assert list(schemas["SharedAnswer"]["properties"]) == ["someField"]
    assert set(describe([pattern], "snake")["components"]["schemas"]) >= {"Shared"}
