"""Requests of pages from other origins, through Django's test client and its asynchronous one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from django_ollama_openai._views.cors import EXPOSED_HEADERS
from tests.fast_lane import CLIENTS, IDS, sender

if TYPE_CHECKING:
    from pytest_django import Settings

Send: TypeAlias = Callable[..., Any]

CHAT = "v1/chat/completions"
APP, OTHER = "https://app.example", "https://other.example"
KEY = "sk-of-the-page"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ASKED = "authorization,content-type,x-stainless-os,x-stainless-retry-count"


@pytest.fixture(params=CLIENTS, ids=IDS)
def send(request: pytest.FixtureRequest) -> Send:
    send = sender(request.param)

    def send_named(method: str, path: str, body: Any = "", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return send(method, f"/ai/{path}", body, headers=named)

    return send_named


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Callable[..., None]:
    def configure(*origins: str, **more: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "BACKENDS": {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}},
            "API_KEYS": [KEY],
            "CORS_ORIGINS": origins,
            **more,
        }

    configure(APP)
    return configure


def preflight(send: Send, path: str, origin: str = APP, method: str = "POST") -> Any:
    asked = {
        "Access_Control_Request_Method": method,
        "Access_Control_Request_Headers": ASKED,
    }
    return send("OPTIONS", path, Origin=origin, **asked)


def allowed(response: Any) -> str | None:
    # A page that is not allowed with cookies is never given what a session may see.
    assert "Access-Control-Allow-Credentials" not in response.headers
    origin: str | None = response.headers.get("Access-Control-Allow-Origin")
    exposed = response.headers.get("Access-Control-Expose-Headers")
    assert exposed == (None if origin is None else ", ".join(EXPOSED_HEADERS))
    return origin


@pytest.mark.compat("http.header.Access-Control-*")
@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (CHAT, "POST"),
        ("v1/models", "GET, HEAD"),
        ("v1/models/a/b", "GET, HEAD"),
        ("openapi.json", "GET, HEAD"),
        ("nothing", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    ],
)
def test_a_preflight_needs_no_key(send: Send, path: str, methods: str) -> None:
    response = preflight(send, path)
    assert (response.status_code, response.content) == (200, b"")
    assert allowed(response) == APP
    assert response.headers["Access-Control-Allow-Methods"] == methods
    assert response.headers["Access-Control-Allow-Headers"] == ASKED
    assert response.headers["Access-Control-Max-Age"] == "7200"
    varies = {name.strip() for name in response.headers["Vary"].split(",")}
    assert varies >= {"Access-Control-Request-Method", "Access-Control-Request-Headers", "Origin"}


@pytest.mark.compat("http.header.Access-Control-*")
@pytest.mark.parametrize(
    ("method", "path", "body", "key", "status"),
    [
        ("POST", CHAT, BODY, KEY, 200),
        ("POST", CHAT, {**BODY, "stream": True}, KEY, 200),
        ("GET", "v1/models", None, KEY, 200),
        ("POST", CHAT, {}, KEY, 400),
        ("POST", CHAT, BODY, "sk-wrong", 401),
        ("GET", "v1/models/gone", None, KEY, 404),
        ("GET", "nothing", None, KEY, 404),
        ("PUT", CHAT, None, KEY, 405),
    ],
)
def test_answers_and_errors_may_be_read(
    send: Send, method: str, path: str, body: Any, key: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    response = send(method, path, body, Origin=APP, **headers)
    assert (response.status_code, allowed(response)) == (status, APP)
    for origin in (OTHER, "null", f"{APP}:8443", APP.upper()):
        response = send(method, path, body, Origin=origin, **headers)
        assert (response.status_code, allowed(response)) == (status, None)
        assert "Origin" in response.headers["Vary"]
    response = send(method, path, body, **headers)
    assert allowed(response) is None
    assert "Origin" in response.headers["Vary"]


def test_another_origin_gets_no_preflight(send: Send) -> None:
    for response in (
        preflight(send, CHAT, OTHER),
        send("OPTIONS", CHAT, Origin=OTHER),
        send("OPTIONS", CHAT, Access_Control_Request_Method="POST"),
    ):
        assert (response.status_code, allowed(response)) == (405, None)


def test_all_origins_may_be_allowed(send: Send, configure: Callable[..., None]) -> None:
    configure("*")
    for origin in (APP, OTHER, "null"):
        assert allowed(preflight(send, CHAT, origin)) == "*"
        assert allowed(send("GET", "nothing", Origin=origin)) == "*"


@pytest.mark.parametrize("more", [{}, {"HOTS": "x"}], ids=["none", "a setting that is wrong"])
def test_without_the_setting_there_are_no_such_headers(
    send: Send, configure: Callable[..., None], more: dict[str, Any]
) -> None:
    configure(**more)
    responses = preflight(send, CHAT), send("GET", "v1/models", Origin=APP)
    statuses = [500, 500] if more else [405, 401]
    assert [each.status_code for each in responses] == statuses
    for response in responses:
        assert allowed(response) is None
        assert "Origin" not in response.headers.get("Vary", "")


@pytest.mark.parametrize("asked", ["", "a\r\nSet-Cookie: x=1", "x: y", "ä"])
def test_odd_header_names_are_not_repeated(send: Send, asked: str) -> None:
    response = send(
        "OPTIONS",
        CHAT,
        Origin=APP,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=asked,
    )
    assert (response.status_code, allowed(response)) == (200, APP)
    assert "Access-Control-Allow-Headers" not in response.headers
