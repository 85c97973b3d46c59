"""What policies hold is settled exactly once, whatever becomes of the client and the server."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import site_fixture, site_options
from tests.ollama_server import Answer, OllamaServer, Reply, line
from tests.ollama_server import Hold as Wait
from tests.servers import SERVERS_AND_LANE, Server, Site, serve
from tests.site.test_streaming import body, part

POLICIES = ["tests.project.ledger.Ledger", "tests.project.ledger.AsyncLedger"]
SETTLED = len(POLICIES)


def options(ollama: OllamaServer) -> dict[str, Any]:
    return {**site_options(ollama), "POLICIES": POLICIES, "MAX_CONCURRENCY": 1}


running_site = site_fixture(SERVERS_AND_LANE, options)


@contextmanager
def requested(
    site: Site, *, headers: dict[str, str] | None = None, **changes: Any
) -> Iterator[tuple[str, socket.socket]]:
    """A request on a connection of its own, which is closed at the end of the block."""
    request_id = f"settlement-{time.monotonic_ns()}"
    with site.send(body(**changes), request_id, **(headers or {})) as connection:
        yield request_id, connection


def wait_for(site: Site, request_id: str, event: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the entries of ``event`` as soon as there are ``count`` of them."""
    total = 0
    while True:
        entries = site.signals(request_id, total)
        found = [entry for entry in entries if entry["event"] == event]
        if len(found) >= count:
            return found
        total = len(entries) + 1


def check_settled(site: Site, request_id: str, *, reason: str | None, code: str | None) -> None:
    """Check that both policies have settled once, and that nothing comes after it."""
    settled = wait_for(site, request_id, "settled", SETTLED)
    # A second settlement would be there by the next request.
    assert httpx.get(f"{site.url}/ai/health?probe=live", timeout=60).status_code == 200
    time.sleep(0.2)
    assert len(wait_for(site, request_id, "settling")) == SETTLED
    assert len(wait_for(site, request_id, "settled")) == SETTLED
    assert {(entry["reason"], entry["code"]) for entry in settled} == {(reason, code)}


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_client_gets_the_end(site: Site, *, stream: bool) -> None:
    with requested(site, headers={"x-settle": "0.3"}, stream=stream) as (request_id, connection):
        received = b""
        end = b"data: [DONE]" if stream else b'"usage"'
        while end not in received:
            received += connection.recv(65536)
        # Nobody waits here.
        events = [entry["event"] for entry in site.signals(request_id, 0)]
        assert events.count("settled") == SETTLED
    check_settled(site, request_id, reason="stop", code=None)


def test_a_disconnect_while_a_policy_admits(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([], before=[Wait()]))
    with requested(site, headers={"x-admit": "0.5"}) as (request_id, _):
        wait_for(site, request_id, "admitted")
    if site.server == "gunicorn":
        # It is noticed when the request has been admitted.
        check_settled(site, request_id, reason="cancelled", code=None)
    else:
        # The second policy is not reached.
        (settled,) = wait_for(site, request_id, "settled")
        assert settled["reason"] == "cancelled"
        assert len(wait_for(site, request_id, "admitted")) == 1


def test_a_disconnect_in_the_queue(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one"), Wait()]))
    with requested(site, stream=True) as (busy, _):
        wait_for(site, busy, "started")
        ollama.wait_for_chat()
        with requested(site, stream=True) as (queued, _):
            wait_for(site, queued, "started")
        check_settled(site, queued, reason="cancelled", code=None)
    check_settled(site, busy, reason="cancelled", code=None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_before_the_first_delta(
    site: Site, ollama: OllamaServer, *, stream: bool
) -> None:
    ollama.reply(Reply([], before=[Wait()]))
    with requested(site, stream=stream) as (request_id, _):
        ollama.wait_for_chat()
    check_settled(site, request_id, reason="cancelled", code=None)


def test_a_disconnect_in_the_middle_of_a_stream(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([part("one"), Wait()]))
    with requested(site, stream=True) as (request_id, connection):
        while b"one" not in connection.recv(65536):
            pass
    check_settled(site, request_id, reason="cancelled", code=None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_while_it_is_settled(site: Site, *, stream: bool) -> None:
    with requested(site, headers={"x-settle": "0.5"}, stream=stream) as (request_id, _):
        wait_for(site, request_id, "settling")
    check_settled(site, request_id, reason="stop", code=None)


def test_an_engine_that_fails(site: Site, ollama: OllamaServer) -> None:
    ollama.reply(Reply([line({"error": "it fell over"})], status=500))
    with requested(site) as (request_id, connection):
        connection.recv(65536)
    check_settled(site, request_id, reason=None, code="bad_upstream")


@pytest.mark.parametrize("server", SERVERS_AND_LANE)
def test_a_server_that_stops(server: Server, ollama: OllamaServer, tmp_path: Path) -> None:
    ollama.reply(Reply([part("one"), Wait()]), Answer(["two"]))
    with (
        serve(server, tmp_path, options(ollama), grace=3) as site,
        requested(site, stream=True) as (request_id, connection),
    ):
        while b"one" not in connection.recv(65536):
            pass
        site.process.send_signal(signal.SIGTERM)
        received = b""
        while data := connection.recv(65536):
            received += data
        assert b"shutting_down" in received
        site.process.wait(60)
        settled = wait_for(site, request_id, "settled", SETTLED)
        assert {entry["code"] for entry in settled} == {"shutting_down"}
        assert len(settled) == SETTLED
