"""Every way to ask wrongly is a JSON error that names the field, and nothing else happens.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import include, path

from django_ollama_openai._views.http_requests import read_body
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.content_coding import decode
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.asgi import fast_lane
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.exceptions import InvalidRequest, ModelNotFound, RequestTooLarge
from tests.fast_lane import CLIENTS, IDS, sender

if TYPE_CHECKING:
    from pytest_django import Settings

Send: TypeAlias = Callable[..., Any]

CHAT = "/ai/v1/chat/completions"
HERE = __name__
HI = {"role": "user", "content": "Hi"}
GOOD: dict[str, Any] = {"model": "dummy", "messages": [HI]}
DEEP = 100_000
MESSAGES = '"messages": [{"role": "user", "content": "Hi"}]'


class Empty(DummyBackend):
    """Has no models."""

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        raise ModelNotFound(str(request.model))


class Crashes(DummyBackend):
    """Fails as no backend should: with the secrets of the server in the text."""

    def stream_chat(self, request: Any) -> Any:
        raise RuntimeError("secret detail of 10.0.0.7 in /srv/models")

    def list_models(self) -> Any:
        raise RuntimeError("secret detail of 10.0.0.7 in /srv/models")

    astream_chat = stream_chat


@pytest.fixture(params=CLIENTS, ids=IDS)
def send(request: pytest.FixtureRequest) -> Send:
    """A request by either client, to a site that lets everybody in."""
    return sender(request.param)


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Callable[..., None]:
    """Sets ``OLLAMA_OPENAI``, in front of a backend with canned replies."""

    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "BACKENDS": {
                "default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"},
                "crashes": {"BACKEND": f"{HERE}.Crashes"},
            },
            "ALLOW_ANONYMOUS": True,
            **options,
        }

    configure()
    return configure


@pytest.fixture
def crashes() -> Iterator[list[str]]:
    """The paths of the requests that Django would send mails about."""
    seen: list[str] = []

    def crashed(request: Any, **facts: Any) -> None:
        seen.append(request.path)

    got_request_exception.connect(crashed)
    yield seen
    got_request_exception.disconnect(crashed)


@pytest.fixture
def quiet(crashes: list[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error, and nothing counts as a crash."""
    yield
    assert crashes == []
    assert [entry.message for entry in caplog.records if entry.levelno >= logging.ERROR] == []


def error_of(response: Any) -> dict[str, Any]:
    """The error, in OpenAI's envelope."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error


def messages(*given: Any) -> dict[str, Any]:
    return {"messages": list(given)}


def content(*parts: Any) -> dict[str, Any]:
    return messages({"role": "user", "content": list(parts)})


def called(arguments: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return messages({"role": "assistant", "tool_calls": [{"id": "c", "function": function}]})


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


ARGUMENTS = "messages[0].tool_calls[0].function.arguments"
PART = "messages[0].content[0]"
FUNCTION = {"type": "function", "function": {"name": "f"}}

FIELDS: list[tuple[dict[str, Any], str]] = [
    # what is changed in a good request, and the field that is named
    ({"model": 5}, "model"),
    ({"model": ["dummy"]}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": HI}, "messages"),
    (messages(), "messages"),
    (messages("Hi"), "messages[0]"),
    (messages(None), "messages[0]"),
    (messages(HI, {}), "messages[1].role"),
    (messages({"role": "user"}), "messages[0].content"),
    (messages({"role": "tool", "content": "x"}), "messages[0].tool_call_id"),
    (messages({"role": "robot", "content": "x"}), "messages[0].role"),
    (messages({"role": "User", "content": "x"}), "messages[0].role"),
    (messages({"role": 5, "content": "x"}), "messages[0].role"),
    (messages({"role": "user", "content": 5}), "messages[0].content"),
    (messages({"role": "user", "content": None}), "messages[0].content"),
    (messages({"role": "user", "content": {"text": "x"}}), "messages[0].content"),
    (called({"a": 1}), ARGUMENTS),
    (called([]), ARGUMENTS),
    ({"functions": [FUNCTION["function"], {"name": ""}]}, "functions[1].name"),
    ({"max_output_tokens": 5}, "max_output_tokens"),
    (content("Hi"), PART),
    (content({"text": "Hi"}), f"{PART}.type"),
    (content({"type": "text"}), f"{PART}.text"),
    (content({"type": "text", "text": 5}), f"{PART}.text"),
    (content({"type": "video", "video": "x"}), f"{PART}.type"),
    (content({"type": "input_audio", "input_audio": {}}), f"{PART}.input_audio.data"),
    (content({"type": "image_url", "image_url": "x"}), f"{PART}.image_url"),
    (content(image("data:image/png;base64,=")), f"{PART}.image_url"),
    (content(image("data:text/html,x")), f"{PART}.image_url"),
    (content({"type": "text", "text": "Hi"}, {"type": "file"}), "messages[0].content[1].type"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"topP": 1.1}, "topP"),
    ({"top_p": []}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"maxTokens": 2**31}, "maxTokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop"),
    ({"stop": list("abcde")}, "stop"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 10**400}, "seed"),
    ({"seed": "7"}, "seed"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"tools": {}}, "tools"),
    ({"tools": [FUNCTION, {"type": "code"}]}, "tools[1].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"n": 0}, "n"),
    ({"n": "2"}, "n"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"50256": "x"}}, "logit_bias.50256"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
]


@pytest.mark.compat(
    "chat.request.messages[].content[].file", "errors.response.error.param", "errors.status.400"
)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("changes", "param"), FIELDS, ids=[str(n) for n in range(len(FIELDS))])
def test_a_bad_field_is_named(send: Send, changes: dict[str, Any], param: str) -> None:
    response = send("POST", CHAT, json.dumps({**GOOD, **changes}))
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert param in error["message"]


BODIES: list[tuple[bytes, str | None]] = [
    # a body that is no request at all, and the field that is named
    (b"", None),
    (b" \n", None),
    (b"{", None),
    (b"model=dummy&messages=Hi", None),
    (b"null", None),
    (b'"Hi"', None),
    (b"5", None),
    (b"[]", None),
    (b"[" + json.dumps(GOOD).encode() + b"]", None),
    (json.dumps(GOOD).encode() + b"x", None),
    (b"{}", "messages"),
    (json.dumps(GOOD).encode("utf-16"), None),
    (json.dumps(GOOD).encode("utf-32-le"), None),
    (b'{"model": "\xff", %b}' % MESSAGES.encode(), None),
    (b'{"model": "\xed\xa0\x80", %b}' % MESSAGES.encode(), None),
    (b'{"\xff": 1, %b}' % MESSAGES.encode(), None),
    (b'{"model": "\\ud800", %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "messages": [{"role": "user", "content": "\\udc00 x"}]}', None),
    (b'{"model": "m", "\\ud800": 1, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m\x00", %b}' % MESSAGES.encode(), None),
    (b"\x00" * 100, None),
    (b"[" * DEEP, None),
    (b'{"x":' * DEEP, None),
    (b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}", None),
    (b'{"messages": ' + b'[{"content":' * DEEP, None),
    (b'{"model": "m", "seed": ' + b"9" * 5000 + b', "messages": 5}', None),
    (b'{"model": "m", "x": ' + b"9" * 100_000 + b"}", None),
    (b'{"model": "m", "temperature": NaN, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "temperature": Infinity, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "top_p": -Infinity, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "temperature": 1e999, %b}' % MESSAGES.encode(), "temperature"),
    (b'{"model": "m", "max_tokens": NaN, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "logit_bias": {"1": NaN}, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", "x": NaN, %b}' % MESSAGES.encode(), None),
    (b'{"model": "m", %b, "messages": 5}' % MESSAGES.encode(), "messages"),
]


@pytest.mark.compat("errors.status.400")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("body", "param"), BODIES, ids=[str(n) for n in range(len(BODIES))])
def test_a_body_that_is_no_request(send: Send, body: bytes, param: str | None) -> None:
    response = send("POST", CHAT, body)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    # A long input is not sent back.
    assert len(error["message"]) < 300


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "body",
    [
        # Of a key that is given twice the last one counts, as with every other reader of JSON.
        '"model": "x", "messages": 5, "model": "dummy", MESSAGES',
        r'"model": "dummy", "messages": [{"role": "user", "content": "\u0000 \ud83d\ude00"}]',
        f'"model": "dummy", "x": {"[" * 100}{"]" * 100}, MESSAGES',
        f'"model": "dummy", "seed": {2**63 - 1}, "unknown": {{"a": [null]}}, MESSAGES',
        '"model": "dummy", "temperature": null, "tools": null, "stop": null, MESSAGES',
        '"model": "dummy", "messages": [{"role": "user", "content": ""}]',
    ],
)
def test_an_odd_body_that_is_a_request(send: Send, body: str) -> None:
    response = send("POST", CHAT, "{" + body.replace("MESSAGES", MESSAGES) + "}")
    assert response.status_code == 200
    assert response.json()["model"] == "dummy"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("scheme", ["", "file://", "http://127.0.0.1"])
def test_an_image_is_refused_and_nothing_is_read(send: Send, tmp_path: Path, scheme: str) -> None:
    picture = tmp_path / "secret.txt"
    picture.write_text("what stands in the file")
    response = send("POST", CHAT, json.dumps({**GOOD, **content(image(f"{scheme}{picture}"))}))
    assert response.status_code == 400
    assert error_of(response)["param"].startswith("messages[0].content[0].image_url")
    assert "what stands" not in response.text
    assert str(picture) not in response.text
    dummy = backends["default"]
    assert isinstance(dummy, DummyBackend)
    assert dummy.requests == []


@pytest.mark.compat("errors.status.404")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "name", ["gone", "no/such:model", "a\u0000b", "../../etc/passwd", "x" * 5000]
)
def test_a_model_that_the_site_does_not_offer(
    send: Send, configure: Callable[..., None], name: str
) -> None:
    configure(ALLOWED_MODELS=["dummy"])
    response = send("POST", CHAT, json.dumps({**GOOD, "model": name}))
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert repr(name) in error["message"]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("public", {"MODELS": {"public": {"MODEL": "absent"}}}, "'public'"),
        (None, {"DEFAULT_MODEL": "absent"}, "'absent'"),
        ("absent", {}, None),
    ],
    ids=["of MODELS", "the default", "a client's own idea"],
)
def test_a_model_of_the_settings_that_the_engine_lacks_is_logged(
    send: Send,
    configure: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    name: str | None,
    changes: dict[str, Any],
    told: str | None,
) -> None:
    configure(BACKENDS={"default": {"BACKEND": f"{HERE}.Empty"}}, **changes)
    response = send("POST", CHAT, json.dumps({**GOOD, "model": name}))
    assert error_of(response)["code"] == "model_not_found"
    ours = [record for record in caplog.records if record.name == "django_ollama_openai"]
    if told is None:
        assert ours == []
    else:
        (record,) = ours
        assert record.getMessage().endswith(
            f"the backend 'default' has no model 'absent', which OLLAMA_OPENAI names as {told}. "
            "Put it there."
        )


# The size of the body


@pytest.mark.compat("errors.status.413")
@pytest.mark.usefixtures("quiet")
def test_a_body_may_be_as_large_as_the_limit_and_not_larger(
    send: Send, configure: Callable[..., None]
) -> None:
    body = json.dumps(GOOD)
    configure(MAX_BODY_BYTES=len(body))
    assert send("POST", CHAT, body).status_code == 200
    response = send("POST", CHAT, body + " ")
    error = error_of(response)
    assert (response.status_code, error["code"]) == (413, "request_too_large")
    assert str(len(body)) in error["message"]


@pytest.mark.usefixtures("quiet")
def test_djangos_own_limit_is_not_ours(send: Send, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    long = messages({"role": "user", "content": "x" * 3_000_000})
    assert send("POST", CHAT, json.dumps({**GOOD, **long})).status_code == 200


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("length", ["", "-5", "abc", "1_0", "1" * 30, "\u0663"])
def test_a_wrong_content_length_under_wsgi(length: str) -> None:
    client = Client(raise_request_exception=False)
    response = client.generic(
        "POST", CHAT, json.dumps(GOOD), "application/json", CONTENT_LENGTH=length
    )
    assert response.status_code in (400, 413)
    error_of(response)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("pieces", "status"), [([b" " * 500] * 3, 413), ([json.dumps(GOOD).encode(), b" "], 200)]
)
@pytest.mark.parametrize("lane", [lambda site: site, fast_lane], ids=["normal", "fast"])
async def test_a_body_of_undeclared_length_under_asgi(
    configure: Callable[..., None],
    pieces: list[bytes],
    status: int,
    lane: Callable[[Any], Any],
) -> None:
    configure(MAX_BODY_BYTES=1000)
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "query_string": b"",
        "headers": [
            (b"host", b"testserver"),
            (b"authorization", b"Bearer of-anybody"),
            (b"content-type", b"application/json"),
        ],
    }
    communicator: Any = ApplicationCommunicator  # it has no types
    application = communicator(lane(get_asgi_application()), scope)
    for number, piece in enumerate(pieces, start=1):
        more = number < len(pieces)
        await application.send_input({"type": "http.request", "body": piece, "more_body": more})
    start = await application.receive_output(timeout=60)
    body = await application.receive_output(timeout=60)
    await asyncio.wait_for(application.wait(), 5)
    assert start["status"] == status
    error = json.loads(body["body"]).get("error", {})
    assert error.get("code") == ("request_too_large" if status == 413 else None)


# The coding of the body


def raw_deflate(data: bytes) -> bytes:
    """As many clients send it, against the standard: without zlib's header."""
    return zlib.compress(data, wbits=-15)


def in_two_members(data: bytes) -> bytes:
    return gzip.compress(data[:9]) + gzip.compress(data[9:])


Encode: TypeAlias = Callable[[bytes], bytes]

GZIP, DEFLATE = gzip.compress, zlib.compress

CODINGS: list[tuple[str, Encode]] = [
    ("gzip", GZIP),
    ("X-GZIP", GZIP),
    ("gzip", in_two_members),
    ("deflate", DEFLATE),
    ("deflate", raw_deflate),
    ("identity", bytes),
    (" identity ,, GZip,", GZIP),
    ("deflate, gzip", lambda data: GZIP(DEFLATE(data))),
    ("gzip, gzip, gzip, gzip", lambda data: GZIP(GZIP(GZIP(GZIP(data))))),
]


@pytest.mark.compat("http.header.Content-Encoding (of a request)")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("coding", "encode"), CODINGS, ids=[str(n) for n in range(len(CODINGS))])
def test_an_encoded_body_is_decoded(send: Send, coding: str, encode: Encode) -> None:
    headers = {"Content-Encoding": coding}
    body = encode(json.dumps({**GOOD, "model": "é" * 9}).encode())
    response = send("POST", CHAT, body, headers=headers)
    assert (response.status_code, response.json()["model"]) == (200, "é" * 9)


@pytest.mark.compat("errors.status.415")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("coding", "named"), [("br", "'br'"), ("gzip, zstd, BR", "'zstd', 'br'"), ("*", "'*'")]
)
def test_another_coding_is_refused_by_name(send: Send, coding: str, named: str) -> None:
    response = send("POST", CHAT, b"{}", headers={"Content-Encoding": coding})
    error = error_of(response)
    assert (response.status_code, error["code"]) == (415, "unsupported_content_coding")
    assert f"body: {named}. Use gzip or deflate" in error["message"]
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"{}"),
        ("gzip", GZIP(b"{}")[:-1]),
        ("gzip", GZIP(b"{}") + b"x"),
        ("gzip", GZIP(b"{}")[:-8] + b"\0" * 8),
        ("gzip", GZIP(b"") * 1001),
        ("deflate", DEFLATE(b"{}")[:-1]),
        ("deflate", DEFLATE(b"{}") + DEFLATE(b"")),
        ("deflate", raw_deflate(b"{}")[:-1]),
        ("deflate", GZIP(b"{}")),
        ("gzip, gzip", GZIP(b"{}")),
    ],
)
def test_a_body_that_is_not_encoded_as_it_says(send: Send, coding: str, body: bytes) -> None:
    response = send("POST", CHAT, body, headers={"Content-Encoding": coding})
    assert response.status_code == 400
    assert "Content-Encoding" in error_of(response)["message"]


@pytest.mark.usefixtures("quiet")
def test_too_many_codings_are_refused(send: Send) -> None:
    body = GZIP(GZIP(GZIP(GZIP(GZIP(json.dumps(GOOD).encode())))))
    response = send("POST", CHAT, body, headers={"Content-Encoding": ", ".join(["gzip"] * 5)})
    assert (response.status_code, error_of(response)["code"]) == (400, None)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("encode", [GZIP, DEFLATE, raw_deflate], ids=["gzip", "zlib", "raw"])
def test_a_body_counts_as_it_is_once_decoded(
    send: Send, configure: Callable[..., None], encode: Encode
) -> None:
    body = json.dumps(GOOD).encode().ljust(5000)
    headers = {"Content-Encoding": "gzip" if encode is GZIP else "deflate"}
    configure(MAX_BODY_BYTES=5000)
    assert send("POST", CHAT, encode(body), headers=headers).status_code == 200
    response = send("POST", CHAT, encode(body + b" "), headers=headers)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (413, "request_too_large")
    assert "5000" in error["message"]


@pytest.mark.parametrize("codings", [["gzip"], ["gzip", "gzip"]], ids=["one", "two"])
def test_a_bomb_is_refused_before_it_is_inflated(codings: list[str]) -> None:
    limit = 2**20
    bomb = GZIP(bytes(100 * 2**20))
    if len(codings) > 1:
        bomb = GZIP(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            decode(bomb, codings, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit


# Paths and methods

PATHS = [
    "",
    "v1",
    "v1/",
    "v1/chat/completions/",
    "v1/chat",
    "v1/models/",
    "v1/models/gone",
    "v1/models/gone/",
    "v1//models",
    "/v1/models",
    "//",
    "v1/images/generations",
    "v1%2Fnothing",
    "v1/models/a%2Fb%252F",
    "v1/models/%2e%2e/%2e%2e/x",
    "%00",
    "%ff%fe",
    "%F0%9F%98%80",
    "line%0Abreak",
    "v1/models/line%0Abreak",
    "%0D%0ASet-Cookie:x=1",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "health/",
    "index.html",
    "?next=/admin/",
    "x" * 50_000,
    "a/" * 10_000,
]


@pytest.mark.compat("errors.status.404 and 405 (paths)")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("rest", PATHS, ids=lambda rest: rest[:30] or "root")
def test_an_unknown_path_is_not_found_in_json(
    send: Send, settings: Settings, rest: str, debug: bool
) -> None:
    settings.DEBUG = debug
    settings.APPEND_SLASH = True
    response = send("GET", f"/ai/{rest}")
    assert response.status_code == 404
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.compat("errors.status.404 and 405 (paths)", "http.header.Allow")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
)
def test_a_wrong_method_is_refused_with_those_that_are_allowed(
    send: Send, settings: Settings, method: str, debug: bool
) -> None:
    settings.DEBUG = debug
    allowed = {
        "v1/chat/completions": ["POST"],
        "v1/models": ["GET", "HEAD"],
        "v1/models/dummy": ["GET", "HEAD"],
        "health": ["GET", "HEAD"],
        "nothing": [],
    }
    for rest, methods in allowed.items():
        if method in methods:
            continue
        response = send(method, f"/ai/{rest}")
        assert response.headers["Content-Type"] == "application/json"
        assert response.status_code == (405 if methods else 404)
        assert response.headers.get("Allow") == (", ".join(methods) or None)
        if method != "HEAD":
            code = error_of(response)["code"]
            assert code == ("method_not_allowed" if methods else "not_found")


@pytest.mark.usefixtures("quiet")
def test_head_is_answered_where_get_is(send: Send) -> None:
    for rest in ("v1/models", "v1/models/dummy", "health?probe=live"):
        response = send("HEAD", f"/ai/{rest}")
        assert (response.status_code, response.content) == (200, b"")
        # Django's client would have left a body out.
        length = int(response.headers["Content-Length"])
        assert length == len(send("GET", f"/ai/{rest}").content) > 0


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("rest", ["v1/models", "v1/chat/completions", "health", "nothing"])
def test_a_query_with_too_many_fields_is_no_crash(send: Send, rest: str) -> None:
    response = send("GET", f"/ai/{rest}?" + "&".join(["a=1"] * 1001))
    assert response.status_code < 500
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.usefixtures("quiet")
def test_a_mount_at_the_root_answers_for_all_that_comes_after_it(
    send: Send, settings: Settings
) -> None:
    settings.ROOT_URLCONF = (path("", include("django_ollama_openai.urls")),)
    for rest in ("/", "/favicon.ico", "/v1", "/v1//models"):
        assert error_of(send("GET", rest))["code"] == "not_found"
    assert "ends with '/v1'" in error_of(send("POST", "/chat/completions"))["message"]
    assert "ends with" not in error_of(send("POST", "/v1/chat"))["message"]
    assert send("GET", "/v1/models").status_code == 200


# The request's id


@pytest.mark.compat("http.header.x-request-id")
@pytest.mark.parametrize("given", ["req_1", "a", "A1._:/+=-", "x" * 128])
def test_a_sane_request_id_is_given_back(send: Send, given: str) -> None:
    for method, rest in (("GET", "v1/models"), ("GET", "nothing"), ("PUT", "health")):
        response = send(method, f"/ai/{rest}", headers={"x-request-id": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.compat("http.header.x-request-id")
@pytest.mark.parametrize(
    "given",
    [
        "",
        "x" * 129,
        "a b",
        "a\r\nSet-Cookie: x=1",
        "a\n",
        "a\x00",
        "a;b",
        "<script>",
        "\xfc",
        "\xb2",
        "%0d%0a",
    ],
)
def test_any_other_request_id_is_replaced(send: Send, given: str) -> None:
    seen = set()
    for rest in ("v1/models", "nothing"):
        response = send("GET", f"/ai/{rest}", headers={"x-request-id": given})
        request_id = response.headers["x-request-id"]
        assert request_id.startswith("req_")
        assert request_id[4:].isalnum()
        assert "Set-Cookie" not in response.headers
        seen.add(request_id)
    assert len(seen) == 2


# Crashes


@pytest.mark.compat("errors.status.500")
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_that_crashes_tells_nothing(
    send: Send,
    settings: Settings,
    configure: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    stream: bool,
    debug: bool,
) -> None:
    settings.DEBUG = debug
    configure(MODELS={"crash": {"BACKEND": "crashes"}})
    response = send("POST", CHAT, json.dumps({**GOOD, "model": "crash", "stream": stream}))
    error = error_of(response)
    assert response.status_code == 500
    assert (error["type"], error["code"], error["param"]) == ("server_error", None, None)
    for secret in ("secret", "10.0.0.7", "/srv", "RuntimeError", "Traceback"):
        assert secret not in response.text
    # Whoever runs the site learns of it.
    assert "secret detail" in caplog.text


def test_a_backend_that_crashes_while_it_lists_its_models(
    send: Send,
    configure: Callable[..., None],
    crashes: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure(MODELS={"crash": {"BACKEND": "crashes"}})
    response = send("GET", "/ai/v1/models/crash", headers={"x-request-id": "req-7"})
    assert (response.status_code, error_of(response)["type"]) == (500, "server_error")
    assert "secret" not in response.text
    assert crashes == ["/ai/v1/models/crash"]
    assert "req-7" in caplog.text


def test_a_setting_that_is_wrong_is_no_html_page(
    send: Send, configure: Callable[..., None], crashes: list[str]
) -> None:
    configure(HOTS="http://secret")
    for method, rest in (("POST", "v1/chat/completions"), ("GET", "v1/models")):
        response = send(method, f"/ai/{rest}", json.dumps(GOOD))
        assert (response.status_code, error_of(response)["type"]) == (500, "server_error")
        assert "secret" not in response.text
    assert len(crashes) == 2


def test_a_length_of_thousands_of_digits_is_too_large() -> None:
    request = RequestFactory().post(CHAT, b"{}", content_type="application/json")
    request.META["CONTENT_LENGTH"] = "9" * 5000
    with pytest.raises(RequestTooLarge):
        read_body(request, 20)


class BreaksOff(BytesIO):
    """As a server's stream that finds a chunk without its length: the error is the server's own."""

    def read(self, size: int | None = -1) -> bytes:
        if piece := super().read(size):
            return piece
        raise SyntaxError("no length")


def chunked(stream: BytesIO, *, terminated: bool) -> HttpRequest:
    """A request under WSGI, in a server whose stream ends with the body or does not."""
    environ: Any = {"wsgi.input": stream, "wsgi.input_terminated": terminated}
    headers = {"Transfer-Encoding": "Chunked"}
    return RequestFactory().generic("POST", CHAT, headers=headers, **environ)


def test_a_chunked_body_under_wsgi() -> None:
    assert read_body(chunked(BytesIO(b" " * 20), terminated=True), 20) == b" " * 20
    with pytest.raises(RequestTooLarge):
        read_body(chunked(BytesIO(b" " * 21), terminated=True), 20)
    with pytest.raises(InvalidRequest, match="incomplete"):
        read_body(chunked(BreaksOff(b"{"), terminated=True), 20)
    with pytest.raises(InvalidRequest, match="Content-Length"):
        read_body(chunked(BytesIO(b"{}"), terminated=False), 20)


def test_a_path_cannot_forge_a_line_of_the_log(
    send: Send, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(BACKENDS={"default": {"BACKEND": f"{HERE}.Crashes"}})
    send("GET", "/ai/v1/models/x%0aCRITICAL forged%1b[31m")
    (entry,) = [each for each in caplog.records if each.name == "django_ollama_openai"]
    assert "forged" in entry.getMessage()
    assert entry.getMessage().isprintable()
