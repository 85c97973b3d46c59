"""What goes through the fast lane and what to the site, and what of Django's own handler holds."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import clear_url_caches, include, path, register_converter
from django.urls.converters import StringConverter, get_converters

from django_ollama_openai import endpoints
from django_ollama_openai._views.models import models
from django_ollama_openai.asgi import fast_lane
from django_ollama_openai.auth import BaseAuthenticator, Caller
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.signals import completion_started
from tests.fast_lane import CLIENTS, IDS, sender

if TYPE_CHECKING:
    from pytest_django import Settings

CHAT = "/ai/v1/chat/completions"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
BEARER = (b"authorization", b"Bearer of-anybody")
GATEWAY = "django_ollama_openai.urls"
HERE = __name__

mounted = path("ai/", include(GATEWAY))
urlpatterns: list[Any] = [mounted]


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Iterator[None]:
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {"default": {"BACKEND": f"{HERE}.Slow"}},
        "ALLOW_ANONYMOUS": True,
    }
    Slow.is_held = False
    yield
    urlpatterns[:] = [mounted]


class Slow(DummyBackend):
    """Waits for ever, if it is held."""

    is_held = False
    ended = 0

    async def achat(self, request: Any) -> Any:
        try:
            if self.is_held:
                await asyncio.Event().wait()
        finally:
            Slow.ended += 1
        return await super().achat(request)


class Server:
    """Sends one request to the fast lane, as a server does."""

    def __init__(self, *pieces: bytes, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "query_string": b"",
            "headers": [(b"host", b"testserver"), BEARER],
            **scope,
        }
        self.pieces = [*(pieces or [BODY])]
        self.received = 0
        self.sent: list[Any] = []
        self.gone = asyncio.Event()
        self.went_to_site: list[Any] = []

    async def site(self, scope: Any, receive: Any, send: Any) -> None:
        self.went_to_site.append((scope, self.received))

    async def receive(self) -> Any:
        self.received += 1
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self) -> Any:
        """Return the status, or ``None`` if the site got the request."""
        await asyncio.wait_for(fast_lane(self.site)(self.scope, self.receive, self.send), 60)
        return self.sent[0]["status"] if self.sent else None

    @property
    def body(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/elsewhere"},
        {"path": "/database-connections/"},
        {"path": "/ai"},
        {"headers": [(b"host", b"testserver")]},
        {"headers": [(b"authorization", b"Basic YTpi")]},
        {"headers": [(b"authorization", b"Bearer")]},
        {"headers": [(b"authorization", b"Bearer  ")]},
        {"headers": [(b"cookie", b"sessionid=x")]},
        {"type": "websocket"},
        {"query_string": b"\xff"},
    ],
    ids=str,
)
async def test_other_requests_reach_the_site_unread(changes: dict[str, Any]) -> None:
    server = Server(**changes)
    assert await server.run() is None
    assert server.went_to_site == [(server.scope, 0)]
    assert server.went_to_site[0][0] is server.scope


async def test_the_lifespan_is_the_sites() -> None:
    server = Server()
    server.scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    assert await server.run() is None
    assert server.went_to_site == [(server.scope, 0)]


@pytest.mark.parametrize("authorization", [b"Bearer k", b"bearer k", b"BEARER  k "])
async def test_a_bearer_token_is_what_authenticators_take_for_one(authorization: bytes) -> None:
    server = Server(headers=[(b"host", b"testserver"), (b"authorization", authorization)])
    assert await server.run() == 200


async def test_a_mount_that_is_added_later_is_found(settings: Settings) -> None:
    settings.ROOT_URLCONF = HERE
    added = "/added/v1/chat/completions"
    assert await Server(path=CHAT).run() == 200
    assert await Server(path=added).run() is None
    urlpatterns.append(path("added/", include(GATEWAY), {"case": "snake"}))
    assert await Server(path=added).run() == 200
    urlpatterns[:] = []
    clear_url_caches()
    assert await Server(path=CHAT).run() is None


async def test_another_urlconf_is_followed(settings: Settings) -> None:
    assert await Server(path="/snake/v1/models", method="GET").run() == 200
    settings.ROOT_URLCONF = HERE
    assert await Server(path="/snake/v1/models", method="GET").run() is None


def own_view(request: HttpRequest) -> HttpResponse:
    raise AssertionError("The fast lane calls no view of the site's.")


async def test_a_view_of_the_sites_in_front_of_a_mount_is_the_sites(settings: Settings) -> None:
    urlpatterns[:0] = [path("ai/v1/models", own_view)]
    settings.ROOT_URLCONF = HERE
    assert await Server(path="/ai/v1/models", method="GET").run() is None
    assert await Server(path=CHAT).run() == 200


def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def guard(request: HttpRequest, **captured: Any) -> HttpResponse:
        return HttpResponse("Log in.", status=403)

    return guard


async def test_a_guard_around_the_view_of_a_path_is_not_passed_by(settings: Settings) -> None:
    guard = endpoints.path("models", models)
    guard.callback = guarded(guard.callback)
    urlpatterns[:0] = [guard]
    settings.ROOT_URLCONF = HERE
    assert await Server(path="/models", method="GET").run() is None
    response = await AsyncClient().get("/models", headers={"Authorization": "Bearer k"})
    assert response.status_code == 403


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError("The fast lane calls no view of the site's.")


class NotWeaklyReferable:
    __slots__ = ()

    __call__ = Unhashable.__call__


@pytest.mark.parametrize("view", [Unhashable(), NotWeaklyReferable()], ids=["hash", "weakref"])
async def test_a_view_may_be_any_object(settings: Settings, view: Any) -> None:
    urlpatterns[:0] = [path("any/", view)]
    settings.ROOT_URLCONF = HERE
    assert await Server(path="/any/").run() is None


class Tenant(StringConverter):
    known: ClassVar[set[str]] = set()

    def to_python(self, value: str) -> str:
        if value not in self.known:
            raise ValueError(value)
        return value


async def test_arguments_are_looked_up_for_each_request(settings: Settings) -> None:
    if "tenant" not in get_converters():
        register_converter(Tenant, "tenant")
    urlpatterns[:0] = [path("<tenant:name>/ai/", include(GATEWAY))]
    settings.ROOT_URLCONF = HERE
    Tenant.known = {"acme"}
    assert await Server(path=f"/acme{CHAT}").run() == 200
    Tenant.known = set()
    assert await Server(path=f"/acme{CHAT}").run() is None


@pytest.mark.parametrize("pieces", [[BODY], [BODY[:9], BODY[9:]], [BODY, b"", b""]], ids=len)
async def test_a_body_may_come_in_pieces(pieces: list[bytes]) -> None:
    server = Server(*pieces)
    assert await server.run() == 200
    headers = dict(server.sent[0]["headers"])
    content = b"".join(message["body"] for message in server.sent[1:])
    assert headers[b"Content-Length"] == str(len(content)).encode()


async def test_a_client_that_hangs_up_in_its_body_gets_nothing() -> None:
    server = Server(BODY, b"")

    async def receive() -> Any:
        if len(server.pieces) == 1:
            return {"type": "http.disconnect"}
        return await Server.receive(server)

    await fast_lane(server.site)(server.scope, receive, server.send)
    assert (server.sent, server.went_to_site) == ([], [])


async def test_a_hang_up_ends_the_work_and_not_the_servers_task() -> None:
    Slow.is_held, before = True, Slow.ended
    server = Server()
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0.05)
    server.gone.set()
    assert await running is None
    assert (server.sent, Slow.ended) == ([], before + 1)


async def test_a_server_that_cancels_its_task_is_obeyed() -> None:
    Slow.is_held, before = True, Slow.ended
    server = Server()
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(0.05)
    assert (server.sent, Slow.ended) == ([], before + 1)


async def test_a_hang_up_at_the_moment_of_the_end_is_none() -> None:
    """Receivers of the site's are called all the same, though they wait for a thread."""
    heard: list[str] = []

    def finished(sender: Any, **facts: Any) -> None:
        heard.append("finished")

    server = Server()

    async def send(message: Any) -> None:
        await Server.send(server, message)
        if message["type"] == "http.response.body":
            server.gone.set()
            # The listener ends, and what it has set going comes when the block has ended.
            await asyncio.sleep(0)

    request_finished.connect(finished)
    try:
        await fast_lane(server.site)(server.scope, server.receive, send)
    finally:
        request_finished.disconnect(finished)
    assert heard == ["finished"]


# What the site's settings say of hosts and paths


@pytest.fixture(params=CLIENTS, ids=IDS)
def post(request: pytest.FixtureRequest, settings: Settings) -> Callable[..., Any]:
    """A request by each client, to a site without middleware."""
    settings.MIDDLEWARE = []
    send = sender(request.param)

    def post(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return send("POST", CHAT, BODY, headers=named)

    return post


def test_hosts_that_are_not_allowed_are_refused(
    post: Callable[..., Any], settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["api.example"]
    settings.USE_X_FORWARDED_HOST = True
    assert post(X_Forwarded_Host="api.example").status_code == 200
    refused = post(X_Forwarded_Host="evil.example")
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert "example" not in refused.text
    settings.USE_X_FORWARDED_HOST = False
    assert post(X_Forwarded_Host="api.example").status_code == 400


@pytest.fixture
def seen() -> Iterator[list[Any]]:
    """The requests that the signals tell of."""
    requests: list[Any] = []

    def receiver(request: Any, **facts: Any) -> None:
        requests.append(request)

    completion_started.connect(receiver)
    yield requests
    completion_started.disconnect(receiver)


def test_a_proxy_that_ends_tls_is_believed_where_the_site_says_so(
    post: Callable[..., Any], settings: Settings, seen: list[Any]
) -> None:
    post(X_Forwarded_Proto="https")
    assert not seen.pop().is_secure()
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    post(X_Forwarded_Proto="https")
    assert seen.pop().is_secure()


@pytest.mark.parametrize(
    ("force", "scope", "found"),
    [
        (None, {"root_path": "/sub", "path": f"/sub{CHAT}"}, True),
        (None, {"root_path": "/sub", "path": CHAT}, True),
        (None, {"root_path": "/su", "path": f"/sub{CHAT}"}, False),
        ("/forced", {"path": f"/forced{CHAT}"}, True),
        ("/forced", {"root_path": "/sub", "path": f"/sub{CHAT}"}, False),
    ],
)
async def test_a_site_below_a_path(
    settings: Settings, seen: list[Any], force: str | None, scope: dict[str, Any], found: bool
) -> None:
    settings.FORCE_SCRIPT_NAME = force
    assert await Server(**scope).run() == (200 if found else None)
    assert [request.path_info for request in seen] == [CHAT] * found
    document = Server(
        **{**scope, "path": scope["path"].replace("v1/chat/completions", "openapi.json")}
    )
    document.scope["method"] = "GET"
    if found and scope["path"] != CHAT:
        await document.run()
        prefix = force or scope["root_path"]
        assert document.body["servers"] == [{"url": f"{prefix}/ai"}]


async def test_signals_get_a_request_with_its_match(seen: list[Any]) -> None:
    await Server(path="/any-name/by-path/v1/chat/completions").run()
    (request,) = seen
    assert request.resolver_match.kwargs == {"backend": "any-name"}
    assert request.META["HTTP_AUTHORIZATION"] == "Bearer of-anybody"
    assert not hasattr(request, "user")


# What Django's own handler does around each request


@pytest.mark.parametrize(
    ("changes", "status"),
    [({}, 200), ({"path": "/ai/nothing"}, 404), ({"method": "PUT"}, 405)],
    ids=["answer", "not found", "refused"],
)
async def test_receivers_of_the_sites_know_of_each_request(
    changes: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def started(sender: Any, scope: Any, **facts: Any) -> None:
        heard.append(f"started {scope['path']}")

    def finished(sender: Any, **facts: Any) -> None:
        heard.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    server = Server(**changes)
    try:
        assert await server.run() == status
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)
    assert heard == [f"started {server.scope['path']}", "finished"]
    logged = [entry.levelno for entry in caplog.records if entry.name == "django.request"]
    assert logged == ([logging.WARNING] if status >= 400 else [])


async def test_receivers_of_the_sites_know_of_a_hang_up() -> None:
    heard: list[str] = []

    def finished(sender: Any, **facts: Any) -> None:
        heard.append("finished")

    request_finished.connect(finished)
    Slow.is_held = True
    server = Server()
    try:
        running = asyncio.create_task(server.run())
        await asyncio.sleep(0.05)
        server.gone.set()
        await running
    finally:
        request_finished.disconnect(finished)
    assert heard == ["finished"]


class Meets(BaseAuthenticator):
    """Waits in the thread of its request for that of another."""

    barrier = threading.Barrier(2, timeout=30)

    def authenticate(self, request: HttpRequest) -> Caller:
        self.barrier.wait()
        return Caller(key_id="met")


async def test_each_request_has_a_thread_of_its_own(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {**settings.OLLAMA_OPENAI, "AUTHENTICATION": [f"{HERE}.Meets"]}
    assert [*await asyncio.gather(Server().run(), Server().run())] == [200, 200]
