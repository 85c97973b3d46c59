"""The site behind the proxies of the documentation: nginx and Caddy, configured as it says."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import openai
import pytest

from django_ollama_openai._conf import Settings
from django_ollama_openai.backends._http_backend import HTTPBackend
from tests.conftest import site_options
from tests.ollama_server import Hold, OllamaServer, Received, Reply, Reset, Step, line
from tests.proxies import CONFIGURATIONS, PROXIES, Proxy, ProxyName, run_proxy
from tests.servers import KEY, SERVERS, SERVERS_AND_LANE, Server, Site, free_port, serve
from tests.site.test_streaming import DONE, HEADERS, MODEL, WITHIN, body, frames, part

pytestmark = pytest.mark.proxies

ASK: Any = [{"role": "user", "content": "Hi"}]
SILENT = Reply([], before=[Hold()])
ENVELOPE = {"message", "type", "param", "code"}
MIB = 2**20


@pytest.fixture(scope="session", params=SERVERS_AND_LANE)
def sites(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Site]]:
    with two_sites(request.param, ollama_server, tmp_path_factory.mktemp("sites")) as sites:
        yield sites


@contextmanager
def two_sites(
    server: Server, ollama: OllamaServer, directory: Path, keepalive: float = 600
) -> Iterator[list[Site]]:
    """Two processes that serve the same site. No keep-alive pushes what a buffer holds back."""
    with ExitStack() as stack:
        sites = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            options = {**site_options(ollama), "STREAM_KEEPALIVE_SECONDS": keepalive}
            sites.append(stack.enter_context(serve(server, directory / name, options)))
        yield sites


@pytest.fixture(scope="session", params=PROXIES)
def running_proxy(
    request: pytest.FixtureRequest, sites: list[Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp(request.param)
    with run_proxy(request.param, directory, [site.url for site in sites]) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy: Proxy, ollama: OllamaServer) -> Proxy:
    """A proxy in front of two processes of the site, in front of a scripted Ollama."""
    return running_proxy


@contextmanager
def openai_client(proxy: Proxy, *, http2: bool = False) -> Iterator[openai.OpenAI]:
    with (
        httpx2.Client(verify=proxy.tls, http2=http2, timeout=60) as transport,
        openai.OpenAI(
            base_url=proxy.base_url, api_key=KEY, max_retries=0, http_client=transport
        ) as client,
    ):
        yield client


@pytest.fixture
def client(proxy: Proxy) -> Iterator[openai.OpenAI]:
    with openai_client(proxy) as client:
        yield client


@pytest.fixture
def http(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=proxy.base_url, headers=HEADERS, verify=proxy.tls, timeout=20
    ) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> str | None:
    completion = client.chat.completions.create(model=MODEL, messages=ASK, **options)
    content: str | None = completion.choices[0].message.content
    return content


# Streams


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_every_token_arrives_when_it_leaves_the_engine(
    proxy: Proxy, ollama: OllamaServer, http2: bool
) -> None:
    gates = [threading.Event() for _ in range(5)]
    gates[0].set()
    steps: list[Step] = []
    for number, gate in enumerate(gates):
        steps += [Hold(gate), part(f"token {number}")]
    ollama.reply(Reply([*steps, line(DONE)]))
    with openai_client(proxy, http2=http2) as client:
        stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        assert stream.response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert stream.response.request.headers["accept-encoding"].startswith("gzip")
        assert stream.response.headers["content-encoding"] == "identity"
        contents = (chunk.choices[0].delta.content for chunk in stream)
        tokens = filter(None, contents)
        for number, gate in enumerate(gates):
            # The engine says no more until the last one has been read here.
            gate.set()
            assert next(tokens) == f"token {number}"
        assert list(tokens) == []


def test_a_silent_stream_is_kept_alive(own_proxy: Proxy, ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([part("a"), Hold(gate), line(DONE)]))
    text = ""
    with (
        httpx.Client(verify=own_proxy.tls, timeout=60) as client,
        client.stream(
            "POST",
            f"{own_proxy.base_url}/chat/completions",
            headers=HEADERS,
            json=body(stream=True),
        ) as response,
    ):
        for piece in response.iter_text():
            text += piece
            # They are here while the engine is silent.
            if text.partition('"a"')[2].count(": ping\n") == 2:
                gate.set()
    assert gate.is_set()
    assert frames(text)[-1] == "data: [DONE]"


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_client_that_hangs_up_in_a_stream_frees_the_engine(
    proxy: Proxy, ollama: OllamaServer, http2: bool
) -> None:
    ollama.reply(Reply([part("one "), Hold()]))
    with openai_client(proxy, http2=http2) as client:
        stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        contents = (chunk.choices[0].delta.content for chunk in stream)
        assert next(filter(None, contents)) == "one "
        (received,) = ollama.chats()
        assert not received.hung_up.wait(0.1)
    assert received.hung_up.wait(WITHIN), "the engine is still at work"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "one piece"])
def test_a_client_that_hangs_up_before_the_answer_frees_the_engine(
    proxy: Proxy, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(SILENT)
    content = json.dumps(body(stream=stream)).encode()
    head = f"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: localhost:{proxy.port}\r\n"
    head += f"Authorization: Bearer {KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
    with proxy.connect() as connection:
        connection.sendall(head.encode() + content)
        received = ollama.wait_for_chat()
        assert not received.hung_up.wait(0.1)
    assert received.hung_up.wait(WITHIN), "the engine is still at work"


def test_a_failure_in_a_stream_arrives(client: openai.OpenAI, ollama: OllamaServer) -> None:
    gate = threading.Event()
    ollama.reply(Reply([part("half"), Hold(gate), Reset()]))
    stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    contents = (chunk.choices[0].delta.content for chunk in stream)
    assert next(filter(None, contents)) == "half"
    gate.set()
    with pytest.raises(openai.APIError, match=r"The connection to the engine was lost\.") as raised:
        list(contents)
    assert raised.value.code == "bad_upstream"


# Errors and bodies


@pytest.mark.parametrize(
    ("changes", "headers", "status", "code"),
    [
        ({"model": "gone"}, {}, 404, "model_not_found"),
        ({"messages": []}, {}, 400, None),
        ({}, {"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ({"model": "dead"}, {}, 503, "upstream_unavailable"),
        ({"model": "impatient"}, {}, 504, "upstream_timeout"),
    ],
    ids=["404", "400", "401", "503", "504"],
)
def test_the_errors_of_the_site_pass_as_they_are(
    http: httpx.Client,
    ollama: OllamaServer,
    changes: dict[str, Any],
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    if status == 504:
        ollama.reply(SILENT)
    response = http.post("/chat/completions", json=body(**changes), headers=headers)
    assert response.status_code == status
    assert_is_for_clients(response)
    assert response.headers["cache-control"] == "private, no-store"
    assert response.json()["error"]["code"] == code
    assert ("retry-after" in response.headers) == (status == 503)
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_a_body_of_megabytes_goes_through(http: httpx.Client, ollama: OllamaServer) -> None:
    messages = [{"role": "user", "content": "x" * (3 * MIB)}]
    response = http.post("/chat/completions", json=body(messages=messages))
    assert response.status_code == 200
    assert ollama.chats()[0].body["messages"] == messages


def test_a_body_may_be_as_large_as_the_limit_and_not_larger(
    http: httpx.Client, ollama: OllamaServer
) -> None:
    limit = Settings().MAX_BODY_BYTES
    response = http.post("/chat/completions", content=b"x" * limit)
    # It is no JSON, as the site has found.
    assert response.status_code == 400
    assert_is_for_clients(response)
    response = http.post("/chat/completions", content=b"x" * (limit + 1))
    assert response.status_code == 413
    assert_is_for_clients(response)
    assert response.json()["error"] == {
        "message": "The request body is too large.",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_too_large",
    }


def test_a_body_that_does_not_say_how_large_it_is(
    http: httpx.Client, proxy: Proxy, sites: list[Site]
) -> None:
    limit = Settings().MAX_BODY_BYTES
    response = http.post("/chat/completions", content=(b"x" * MIB for _ in range(limit // MIB + 1)))
    assert_is_for_clients(response)
    if (proxy.name, sites[0].server) == ("caddy", "gunicorn"):
        # Caddy passes it on as it comes, and WSGI takes none. It may be refused while it is sent.
        assert response.status_code in (400, 413, 502)
    else:
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"


def assert_is_for_clients(response: httpx.Response) -> None:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()["error"]) == ENVELOPE


def test_the_limits_of_the_proxies_are_those_of_the_site() -> None:
    nginx = (CONFIGURATIONS / "nginx.conf").read_text()
    caddy = (CONFIGURATIONS / "Caddyfile").read_text()
    limit = Settings().MAX_BODY_BYTES
    assert f"client_max_body_size {limit // MIB}m;" in nginx
    assert f"max_size {limit // MIB}MiB\n" in caddy
    assert f" > {limit}`" in caddy
    timeout = inspect.signature(HTTPBackend).parameters["timeout"].default
    assert f"proxy_read_timeout {timeout + 60:.0f}s;" in nginx
    assert f"response_header_timeout {timeout + 60:.0f}s\n" in caddy


# What the site gets to see


@pytest.fixture(params=PROXIES)
def proxy_to_ear(
    request: pytest.FixtureRequest, ollama: OllamaServer, tmp_path: Path
) -> Iterator[Proxy]:
    """A proxy in front of a server that notes what comes in."""
    ollama.routes["/ai/health?probe=live"] = Reply([])
    with run_proxy(request.param, tmp_path, [ollama.url, ollama.url]) as proxy:
        yield proxy


def test_what_a_client_says_of_itself_is_not_passed_on(
    proxy_to_ear: Proxy, ollama: OllamaServer
) -> None:
    spoofed = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=192.0.2.1;host=evil.example;proto=http",
    }
    httpx.get(f"{proxy_to_ear.base_url}/models", headers=spoofed, verify=proxy_to_ear.tls)
    (received,) = heard(ollama)
    assert received.headers["x-forwarded-for"] == "127.0.0.1"
    assert received.headers["x-forwarded-host"].partition(":")[0] == "localhost"
    assert received.headers["x-forwarded-proto"] == "https"
    assert received.headers["host"].partition(":")[0] == "localhost"
    assert "forwarded" not in received.headers


def test_connections_to_the_site_are_kept(proxy_to_ear: Proxy, ollama: OllamaServer) -> None:
    before = ollama.connections
    with httpx.Client(verify=proxy_to_ear.tls) as client:
        for _ in range(20):
            client.get(f"{proxy_to_ear.base_url}/models")
    assert len(heard(ollama)) == 20
    # To each of its two names, and for Caddy's health checks.
    assert ollama.connections - before <= 6


def heard(ollama: OllamaServer) -> list[Received]:
    """What came in, but for health checks."""
    return [request for request in ollama.requests if request.path == "/ai/v1/models"]


@pytest.mark.parametrize("given", ["mine-1", None, "no such id!", "x" * 129])
def test_a_request_has_one_id(
    http: httpx.Client, sites: list[Site], ollama: OllamaServer, given: str | None
) -> None:
    headers = {} if given is None else {"x-request-id": given}
    response = http.post("/chat/completions", json=body(), headers=headers)
    request_id = response.headers["x-request-id"]
    if given == "mine-1":
        assert request_id == given
    else:
        # Not one of the site's own, which would begin with req_.
        assert re.fullmatch(r"[0-9a-f-]{32,36}", request_id)
    assert owner(sites, request_id) in sites


def owner(sites: list[Site], request_id: str) -> Site:
    """The process that has the request."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for site in sites:
            if site.signal_log.exists() and request_id in site.signal_log.read_text():
                return site
        time.sleep(0.01)
    raise TimeoutError(f"No process of the site knows of {request_id}")


# When the site is down


def refused(stack: ExitStack) -> str:
    return f"http://127.0.0.1:{free_port()}"


def silent(stack: ExitStack) -> str:
    """Where no connection is made: all places in its queue are taken."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    address = listener.getsockname()
    for _ in range(2):
        taken = stack.enter_context(socket.socket())
        taken.setblocking(False)
        taken.connect_ex(address)
    return f"http://127.0.0.1:{address[1]}"


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "one piece"])
@pytest.mark.parametrize(("down", "status"), [(refused, 502), (silent, 504)])
def test_a_site_that_is_down_is_an_error_that_clients_understand(
    name: ProxyName,
    stream: bool,
    down: Callable[[ExitStack], str],
    status: int,
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        addresses = [down(stack) for _ in range(2)]
        proxy = stack.enter_context(run_proxy(name, tmp_path, addresses))
        client = stack.enter_context(openai_client(proxy))
        # Sooner than the client gives up.
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(
                model=MODEL,
                messages=ASK,
                stream=stream,
                extra_headers={"x-request-id": "mine-2"},
            )
        error = raised.value
        told: Any = error.body
    # Caddy says 503 where its health checks were faster.
    assert error.status_code in ({status} if name == "nginx" else {502, 503, 504})
    assert error.response.headers["content-type"] == "application/json"
    assert error.request_id == "mine-2"
    if error.status_code == 504:
        expected = ("site_timeout", "The site took too long to answer.")
    else:
        expected = ("site_unreachable", "The site cannot be reached. Try again later.")
    assert (told["code"], told["message"]) == expected
    assert set(told) == ENVELOPE


@pytest.fixture(params=SERVERS)
def own_sites(
    request: pytest.FixtureRequest, ollama: OllamaServer, tmp_path: Path
) -> Iterator[list[Site]]:
    """Two processes that a test may kill. The system closes their connections: the fast lane has no
    part in that."""
    with two_sites(request.param, ollama, tmp_path, keepalive=0.5) as sites:
        yield sites


@pytest.fixture(params=PROXIES)
def own_proxy(
    request: pytest.FixtureRequest, own_sites: list[Site], tmp_path: Path
) -> Iterator[Proxy]:
    with run_proxy(request.param, tmp_path, [site.url for site in own_sites]) as proxy:
        yield proxy


def kill(site: Site) -> None:
    """Kill it, and wait until the system has closed all that was its."""
    os.killpg(site.process.pid, signal.SIGKILL)
    site.process.wait()
    url = urlsplit(site.url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection((url.hostname or "", url.port or 0)).close()
        except ConnectionRefusedError:
            break
        except ConnectionResetError:
            # It was about to be.
            pass
        time.sleep(0.01)
    time.sleep(0.1)


def test_one_process_serves_when_the_other_is_killed(
    own_proxy: Proxy, own_sites: list[Site], ollama: OllamaServer
) -> None:
    with openai_client(own_proxy) as client:
        assert {ask(client) for _ in range(10)} == {"Hello!"}
        kill(own_sites[0])
        if own_proxy.name == "caddy":
            # Up to 2.11.1 it loses the body when the first is not there: its checks have to notice.
            time.sleep(2)
        assert {ask(client, n=1) for _ in range(10)} == {"Hello!"}
        # Longer than the proxies leave one alone that is down: they try it again.
        time.sleep(2.1)
        large = "x" * (2 * MIB)
        assert {ask(client, user=large) for _ in range(4)} == {"Hello!"}
    assert len(ollama.chats()) == 24


def test_what_a_killed_process_had_begun_is_not_sent_to_the_other(
    own_proxy: Proxy, own_sites: list[Site], ollama: OllamaServer
) -> None:
    ollama.reply(SILENT)
    failures: list[openai.APIStatusError] = []

    def ask_once() -> None:
        with openai_client(own_proxy) as client:
            try:
                ask(client, extra_headers={"x-request-id": "killed"})
            except openai.APIStatusError as error:
                failures.append(error)

    asking = threading.Thread(target=ask_once)
    asking.start()
    received = ollama.wait_for_chat()
    kill(owner(own_sites, "killed"))
    asking.join(60)
    assert received.hung_up.wait(WITHIN)
    (failure,) = failures
    assert (failure.status_code, failure.code) == (502, "site_unreachable")
    # Neither at once nor a little later.
    time.sleep(0.5)
    assert len(ollama.chats()) == 1


def test_a_stream_of_a_killed_process_breaks_off(
    own_proxy: Proxy, own_sites: list[Site], ollama: OllamaServer
) -> None:
    ollama.reply(Reply([part("one "), Hold()]))
    headers = {**HEADERS, "x-request-id": "killed"}
    # Caddy 2.6 ends it as if it was whole.
    is_told = own_proxy.name == "nginx"
    broken = pytest.raises(httpx.RemoteProtocolError) if is_told else suppress(httpx.HTTPError)
    text = ""
    with (
        httpx.Client(verify=own_proxy.tls, timeout=60) as client,
        broken,
        client.stream(
            "POST",
            f"{own_proxy.base_url}/chat/completions",
            headers=headers,
            json=body(stream=True),
        ) as response,
    ):
        for piece in response.iter_text():
            text += piece
            if '"one "' in piece:
                kill(owner(own_sites, "killed"))
    assert '"one "' in text
    assert "[DONE]" not in text
    assert '"finish_reason":"' not in text
    assert len(ollama.chats()) == 1
