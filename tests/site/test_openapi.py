"""The OpenAPI document: it is valid, says all there is, and what it says of answers is true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import httpx
import jsonschema_rs
import pytest
from asgiref.sync import async_to_sync
from django.test import Client
from django.urls import include, path
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import ValidationError

from django_ollama_openai import urls
from django_ollama_openai._views.openapi import describe
from django_ollama_openai._wire.base import WireModel
from django_ollama_openai._wire.case import Case
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.responses import ResponsesRequest
from django_ollama_openai.exceptions import InvalidRequest
from docs import generated
from tests.fast_lane import CLIENTS, IDS
from tests.ollama_server import Answer, Close, OllamaServer, Reply, line, recorded
from tests.recordings import load
from tests.servers import KEY, Site

if TYPE_CHECKING:
    from pytest_django import Settings

urlpatterns = [path(mount, include("django_ollama_openai.urls")) for mount in ("süd/", "")]

CASES: tuple[Case, ...] = get_args(Case)
MOUNTS: dict[Case, str] = {"both": "ai", "snake": "snake", "camel": "camel"}
DOCUMENTS = {case: describe(urls.urlpatterns, case, server="/ai") for case in CASES}
BOTH = DOCUMENTS["both"]
HI = {"role": "user", "content": "Hi"}
TOOLS_MODEL, PLAIN_MODEL, EMBEDDING_MODEL = "smollm2-tools:135m", "smollm2:135m", "all-minilm:22m"
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"function": {"name": "f", "arguments": {"some_key": 1}}}


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in ``value``, which is JSON."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            yield from parts(item)


# The document


@pytest.mark.parametrize("case", CASES)
def test_the_document_is_valid(case: Case) -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(DOCUMENTS[case]))).validate()


@pytest.mark.parametrize("case", CASES)
def test_every_component_exists_and_is_used(case: Case) -> None:
    document = DOCUMENTS[case]
    used = {part["$ref"] for part in parts(document) if isinstance(part.get("$ref"), str)}
    components = {
        f"#/components/{kind}/{name}"
        for kind, named in document["components"].items()
        if kind != "securitySchemes"
        for name in named
    }
    assert used == components


def test_every_path_is_in_it() -> None:
    catch_all = {"ollama_openai_root", "ollama_openai_not_found"}
    mounted = {
        "/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        for pattern in urls.urlpatterns
        if getattr(pattern, "name", None) not in catch_all
    }
    assert set(BOTH["paths"]) == mounted


def test_requests_and_answers_do_not_share_a_schema() -> None:
    """Else one would be described by the other's."""
    schemas = BOTH["components"]["schemas"]
    of_requests, found = {model.__name__ for model in REQUESTS}, set[str]()
    while of_requests - found:
        name = (of_requests - found).pop()
        found.add(name)
        refs = (part.get("$ref") for part in parts(schemas[name]))
        of_requests |= {ref.rpartition("/")[2] for ref in refs if isinstance(ref, str)}
    # Only requests say what becomes of unknown keys.
    assert of_requests == {name for name in schemas if "additionalProperties" in schemas[name]}


REQUESTS: tuple[type[WireModel], ...] = (
    ChatCompletionRequest,
    ResponsesRequest,
    CompletionRequest,
    EmbeddingsRequest,
)


@pytest.mark.parametrize("model", REQUESTS)
def test_every_field_of_a_request_is_in_it(model: type[WireModel]) -> None:
    schema = BOTH["components"]["schemas"][model.__name__]
    names = {field.alias or name for name, field in model.model_fields.items()}
    assert set(schema["properties"]) == names


def test_its_descriptions_are_markdown_for_clients() -> None:
    descriptions = [
        part["description"] for part in parts(BOTH) if isinstance(part.get("description"), str)
    ]
    assert len(descriptions) > 50
    for description in descriptions:
        assert not re.search(r"``|:\w+:`|\.\. ", description)


def test_unions_name_the_field_that_tells_their_members_apart() -> None:
    messages = BOTH["components"]["schemas"]["ChatCompletionRequest"]["properties"]["messages"]
    discriminator = messages["items"]["discriminator"]
    assert discriminator["propertyName"] == "role"
    assert discriminator["mapping"]["developer"] == "#/components/schemas/DeveloperMessage"
    given, _ = BOTH["components"]["schemas"]["ResponsesRequest"]["properties"]["input"]["anyOf"]
    item = given["oneOf"][1]
    # The type of a message may be left out.
    assert "discriminator" not in item["items"]
    assert item["items"]["oneOf"][0]["discriminator"]["propertyName"] == "role"


@pytest.mark.parametrize(
    ("case", "has", "has_not"),
    [
        ("snake", {"finish_reason"}, {"finishReason"}),
        ("both", {"finish_reason", "finishReason"}, set()),
        ("camel", {"finishReason"}, {"finish_reason"}),
    ],
)
def test_answers_are_in_the_spelling_of_the_mount(
    case: Case, has: set[str], has_not: set[str]
) -> None:
    choice = DOCUMENTS[case]["components"]["schemas"]["ChatChoice"]
    assert has <= set(choice["properties"])
    assert has <= set(choice["required"])
    assert not has_not & set(choice["properties"])
    # Requests are the same everywhere.
    request = DOCUMENTS[case]["components"]["schemas"]["ChatCompletionRequest"]
    assert request == BOTH["components"]["schemas"]["ChatCompletionRequest"]


# What it says of requests


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [HI], **fields}


def part_of_user(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def image(url: str) -> dict[str, Any]:
    return part_of_user({"type": "image_url", "image_url": {"url": url}})


def sound(data: str) -> dict[str, Any]:
    return part_of_user({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})


def calling(arguments: Any) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call]}]}


def item(**fields: Any) -> dict[str, Any]:
    return {"input": [fields]}


ACCEPTED: list[tuple[type[WireModel], dict[str, Any]]] = [
    (ChatCompletionRequest, chat(stop="a")),
    (ChatCompletionRequest, chat(stop=["a", "b", "c", "d"])),
    (ChatCompletionRequest, chat(keep_alive=0)),
    (ChatCompletionRequest, chat(keep_alive="1h30m")),
    (ChatCompletionRequest, chat(think="max")),
    (ChatCompletionRequest, chat(logit_bias={str(number): 1 for number in range(1000)})),
    (ChatCompletionRequest, chat(tool_choice="none")),
    (ChatCompletionRequest, chat(something_new=[1])),
    (ChatCompletionRequest, chat(options={"num_ctx": 1})),
    (ChatCompletionRequest, image("data:image/png;base64,AAAA")),
    (ChatCompletionRequest, image("HTTPS://example.org/a.png")),
    (ChatCompletionRequest, sound("AAA-")),
    (ChatCompletionRequest, sound("AA")),
    (ChatCompletionRequest, calling(" ")),
    (ChatCompletionRequest, calling('{"a": {}}')),
    (ChatCompletionRequest, calling("[]")),
    (ChatCompletionRequest, calling(None)),
    (ChatCompletionRequest, chat(functions=[{"name": "f"}], function_call={"name": "f"})),
    (ResponsesRequest, {"input": "Hi"}),
    (ResponsesRequest, item(role="user", content="Hi")),
    (ResponsesRequest, item(type=None, role="developer", content="Hi")),
    (ResponsesRequest, item(type="message", role="assistant", content="Hi")),
    (ResponsesRequest, {"input": "Hi", "tools": [{"type": "web_search"}]}),
    (ResponsesRequest, {"input": "Hi", "metadata": {"k" * 64: "v" * 512}}),
    (ResponsesRequest, item(type="item_reference", id="x")),
    (ResponsesRequest, item(id="x")),
    (ResponsesRequest, item(type="compaction", encrypted_content="x")),
    (ResponsesRequest, {"conversation": "conv_1"}),
    (ResponsesRequest, {"conversation": {"id": "conv_1"}, "input": "Hi"}),
    (CompletionRequest, {"prompt": "a"}),
    (CompletionRequest, {"prompt": ["a", "b"]}),
    (CompletionRequest, {"prompt": [1, 2]}),
    (CompletionRequest, {"prompt": [[1], [2, 3]]}),
    (EmbeddingsRequest, {"input": ["a"], "encoding_format": "base64"}),
]
REFUSED: list[tuple[type[WireModel], dict[str, Any]]] = [
    (ChatCompletionRequest, {}),
    (ChatCompletionRequest, {"messages": []}),
    (ChatCompletionRequest, {"messages": [{"role": "nobody", "content": "Hi"}]}),
    (ChatCompletionRequest, chat(stop=["a", "b", "c", "d", "e"])),
    (ChatCompletionRequest, chat(keep_alive=-1)),
    (ChatCompletionRequest, chat(keep_alive=86401)),
    (ChatCompletionRequest, chat(keep_alive="5 minutes")),
    (ChatCompletionRequest, chat(keep_alive="٥m")),
    (ChatCompletionRequest, chat(think="some")),
    (ChatCompletionRequest, chat(logit_bias={str(number): 1 for number in range(1001)})),
    (ChatCompletionRequest, chat(tool_choice="all")),
    (ChatCompletionRequest, chat(tool_choice={"type": "custom"})),
    (ChatCompletionRequest, chat(options={"num_gpu": 1})),
    (ChatCompletionRequest, chat(temperature="0.5")),
    (ChatCompletionRequest, chat(n=129)),
    (ChatCompletionRequest, image("file:///etc/passwd")),
    (ChatCompletionRequest, image("data:text/plain,x")),
    (ChatCompletionRequest, sound("A")),
    (ChatCompletionRequest, sound("")),
    (ChatCompletionRequest, calling({})),
    (ChatCompletionRequest, chat(functions=[{}])),
    (ChatCompletionRequest, chat(verbosity="loud")),
    (ResponsesRequest, {"input": []}),
    (ResponsesRequest, item(type="item_reference")),
    (ResponsesRequest, {"conversation": {}}),
    (ResponsesRequest, {"input": None, "conversation": None}),
    (ResponsesRequest, item(role="user", content=[{"type": "input_file", "file_id": "x"}])),
    (ResponsesRequest, {"input": "Hi", "tools": [{"type": "function"}]}),
    (ResponsesRequest, {"input": "Hi", "metadata": {"k" * 65: ""}}),
    (ResponsesRequest, {"input": "Hi", "metadata": {str(n): "" for n in range(17)}}),
    (CompletionRequest, {"prompt": ""}),
    (CompletionRequest, {"prompt": []}),
    (CompletionRequest, {"prompt": ["a", ""]}),
    (CompletionRequest, {"prompt": ["a", 1]}),
    (CompletionRequest, {"prompt": [[]]}),
    (CompletionRequest, {"prompt": [-1]}),
    (EmbeddingsRequest, {"input": None}),
    (EmbeddingsRequest, {"input": ["a"] * 2049}),
    (EmbeddingsRequest, {"input": "a", "encoding_format": "int8"}),
]


def schema_of(name: str, document: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


@pytest.mark.parametrize(("model", "body"), ACCEPTED)
def test_what_it_calls_valid_is_accepted(model: type[WireModel], body: dict[str, Any]) -> None:
    jsonschema_rs.validate(schema_of(model.__name__, BOTH), body)
    model.from_dict(body)


@pytest.mark.parametrize(("model", "body"), REFUSED)
def test_what_it_calls_invalid_is_refused(model: type[WireModel], body: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(schema_of(model.__name__, BOTH), body)
    with pytest.raises((InvalidRequest, ValidationError)):
        model.from_dict(body)


# What it says of answers


@cache
def validator(name: str, case: Case) -> jsonschema_rs.Draft202012Validator:
    """Of answers that may have no other keys than the document says."""
    document = json.loads(json.dumps(DOCUMENTS[case]))
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return jsonschema_rs.Draft202012Validator(schema_of(name, document))


def check(answer: Any, name: str, case: Case) -> None:
    """Hold ``answer`` to the schema ``name``, to the letter."""
    validator(name, case).validate(answer)


def ask(site: Site, case: Case, endpoint: str, **body: Any) -> httpx.Response:
    url = f"{site.url}/{MOUNTS[case]}/{endpoint}"
    headers = {"Authorization": f"Bearer {KEY}"}
    response = (
        httpx.post(url, json=body, headers=headers, timeout=60)
        if body
        else httpx.get(url, headers=headers, timeout=60)
    )
    assert response.status_code == 200, response.text
    return response


def events(response: httpx.Response) -> list[str]:
    assert response.headers["content-type"].startswith("text/event-stream")
    return [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]


EVERYTHING = Answer(thinking=["Hm", "m"], content=["He", "llo"], tool_calls=[CALL, CALL])
OFFERED = [{"type": "function", "function": FUNCTION}]
CHATS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "all kinds of deltas": ([EVERYTHING], {"tools": OFFERED}),
    "several choices": ([Answer(), Answer()], {"n": 2}),
    "cut": ([Answer(done_reason="length")], {}),
}
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
IN_EVERY_CASE = pytest.mark.parametrize("case", CASES)


@IN_EVERY_CASE
@STREAMED
@pytest.mark.parametrize("kind", CHATS)
def test_chat_completions(
    site: Site, ollama: OllamaServer, kind: str, stream: bool, case: Case
) -> None:
    replies, fields = CHATS[kind]
    ollama.reply(*replies)
    body = {"model": TOOLS_MODEL, "messages": [HI], "stream": stream, **fields}
    check_chat(ask(site, case, "v1/chat/completions", **body), stream, case)


@IN_EVERY_CASE
@STREAMED
def test_chat_completions_with_log_probabilities(
    site: Site, ollama: OllamaServer, stream: bool, case: Case
) -> None:
    ollama.reply(recorded(load("chat_logprobs_stream" if stream else "chat_logprobs")))
    body: dict[str, Any] = {"model": PLAIN_MODEL, "messages": [HI], "logprobs": True}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    check_chat(ask(site, case, "v1/chat/completions", **body), stream, case)


def check_chat(response: httpx.Response, stream: bool, case: Case) -> None:
    if not stream:
        check(response.json(), "ChatCompletion", case)
        return
    *chunks, done = events(response)
    assert done == "[DONE]"
    if case == "camel":
        check(json.loads(chunks.pop()), "ChatCompletion", case)
    assert chunks
    for chunk in chunks:
        check(json.loads(chunk), "ChatCompletionChunk", case)


@IN_EVERY_CASE
@STREAMED
def test_text_completions(site: Site, ollama: OllamaServer, stream: bool, case: Case) -> None:
    ollama.reply(Answer(thinking=["Hm"]), Answer())
    body = {"model": PLAIN_MODEL, "prompt": ["Once", "Twice"], "echo": True, "stream": stream}
    response = ask(site, case, "v1/completions", **body)
    if not stream:
        check(response.json(), "TextCompletion", case)
        return
    *chunks, done = events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        check(json.loads(chunk), "TextCompletionChunk", case)


RESPONSES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "nothing asked for": ([Answer()], {}),
    "cut": ([Answer(done_reason="length")], {}),
    "everything": (
        [EVERYTHING],
        {
            "instructions": "Be brief.",
            "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "f"}],
            },
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "x",
                    "schema": {"some_key": True},
                    "strict": True,
                }
            },
            "temperature": 0.5,
            "top_p": 1,
            "max_output_tokens": 10,
            "metadata": {"some_key": "x"},
            "user": "ada",
            "truncation": "auto",
        },
    ),
    "a summary": ([EVERYTHING], {"reasoning": {"summary": "auto"}, "text": {}}),
    "log probabilities": ([recorded(load("chat_logprobs_stream"))], {"top_logprobs": 2}),
}


@IN_EVERY_CASE
@STREAMED
@pytest.mark.parametrize("kind", RESPONSES)
def test_responses(site: Site, ollama: OllamaServer, kind: str, stream: bool, case: Case) -> None:
    replies, fields = RESPONSES[kind]
    if kind == "log probabilities" and not stream:
        replies = [recorded(load("chat_logprobs"))]
    ollama.reply(*replies)
    body = {"model": TOOLS_MODEL, "input": "Hi", "stream": stream, **fields}
    response = ask(site, case, "v1/responses", **body)
    if not stream:
        check(response.json(), "Response", case)
        return
    for event in events(response):
        check(json.loads(event), "ResponseEvent", case)


@IN_EVERY_CASE
def test_a_response_that_fails(site: Site, ollama: OllamaServer, case: Case) -> None:
    ollama.reply(broken_off())
    body = {"model": TOOLS_MODEL, "input": "Hi", "stream": True}
    told = [json.loads(event) for event in events(ask(site, case, "v1/responses", **body))]
    assert told[-1]["type"] == "response.failed"
    for event in told:
        check(event, "ResponseEvent", case)


def broken_off() -> Reply:
    message = {"role": "assistant", "content": "He"}
    part = {"model": PLAIN_MODEL, "message": message, "response": "He", "done": False}
    return Reply([line(part), Close()])


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("v1/chat/completions", {"messages": [HI]}), ("v1/completions", {"prompt": "Once"})],
)
def test_a_stream_that_fails(
    site: Site, ollama: OllamaServer, endpoint: str, body: dict[str, Any]
) -> None:
    ollama.reply(broken_off())
    *_, error, done = events(ask(site, "both", endpoint, model=PLAIN_MODEL, stream=True, **body))
    assert done == "[DONE]"
    check(json.loads(error), "Error", "both")


@IN_EVERY_CASE
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings(site: Site, case: Case, encoding_format: str) -> None:
    body = {"model": EMBEDDING_MODEL, "input": ["a", "b"], "encoding_format": encoding_format}
    check(ask(site, case, "v1/embeddings", **body).json(), "EmbeddingList", case)


@IN_EVERY_CASE
def test_models(site: Site, case: Case) -> None:
    listing = ask(site, case, "v1/models").json()
    assert listing["data"]
    check(listing, "ModelList", case)
    check(ask(site, case, f"v1/models/{PLAIN_MODEL}").json(), "Model", case)


@IN_EVERY_CASE
def test_health(site: Site, case: Case) -> None:
    url = f"{site.url}/{MOUNTS[case]}/health"
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
        check(httpx.get(url, headers=headers, timeout=60).json(), "Health", case)
    check(httpx.get(url, params={"probe": "live"}).json(), "Health", case)


def test_errors(site: Site) -> None:
    response = httpx.post(f"{site.url}/ai/v1/chat/completions", json={})
    assert response.status_code == 401
    check(response.json(), "Error", "both")


def test_the_examples_of_the_documentation() -> None:
    pages = generated.pages()
    block = re.compile(r"\.\. code-block:: json\n\n((?:   .*\n|\n)+)")
    shown = {
        "ChatCompletion": "endpoints/chat-completions",
        "Model": "endpoints/models",
        "Health": "endpoints/health",
        "Error": "errors",
    }
    for name, page in shown.items():
        # What precedes an answer is a part of a request.
        *_, example = map(json.loads, block.findall(pages[page]))
        check(example, name, "both")


# Where it is served


@pytest.fixture(params=CLIENTS, ids=IDS)
def client(request: pytest.FixtureRequest) -> Any:
    """Either of Django's test clients; the asynchronous one made to look like the other."""
    client = request.param()
    if isinstance(client, Client):
        return client

    class Synchronous:
        get = staticmethod(async_to_sync(client.get))
        head = staticmethod(async_to_sync(client.head))
        post = staticmethod(async_to_sync(client.post))

    return Synchronous


@pytest.mark.parametrize(
    ("mount", "case"),
    [
        ("/ai", "both"),
        ("/snake", "snake"),
        ("/camel", "camel"),
        ("/any-name/by-path", "both"),
    ],
)
def test_each_mount_has_its_own(client: Any, mount: str, case: Case) -> None:
    response = client.get(f"{mount}/openapi.json")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert "x-request-id" in response.headers
    assert response.json() == describe(urls.urlpatterns, case, server=mount)


def test_it_answers_head_and_get_alone(client: Any) -> None:
    head = client.head("/ai/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    post = client.post("/ai/openapi.json")
    assert (post.status_code, post.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "server"), [("/openapi.json", "/"), ("/s%C3%BCd/openapi.json", "/s%C3%BCd")]
)
def test_the_path_of_the_mount_is_a_url(settings: Settings, path: str, server: str) -> None:
    settings.ROOT_URLCONF = __name__
    assert Client().get(path).json()["servers"] == [{"url": server}]
