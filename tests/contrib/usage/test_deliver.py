"""The outbox, against receivers that fail, hang and answer twice."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
import stripe
from django.core.management import call_command
from django.utils.timezone import now
from pytest_django import Settings
from standardwebhooks import Webhook

from django_ollama_openai._remote_images import network
from django_ollama_openai._remote_images.rules import FetchRules
from django_ollama_openai.contrib.usage import checks
from django_ollama_openai.contrib.usage._billing import outbox, receivers
from django_ollama_openai.contrib.usage._billing.deliver import deliver
from django_ollama_openai.contrib.usage._recording.record import User
from django_ollama_openai.contrib.usage.models import OutboxEvent, UsageRecord
from tests.contrib.access.conftest import World
from tests.contrib.usage.conftest import made, stored

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"object": "billing.meter_event"}'


class Receiver:
    """A server that keeps what it receives, and answers as it is told."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append((self.path, headers, body))
                (outer.answers.pop(0) if outer.answers else status(200))(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.received]


def status(code: int, body: bytes = BODY) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Type", "application/json")
        if code in (301, 302, 307):
            handler.send_header("Location", "http://127.0.0.1:9/")
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(5)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 20")
    handler.close_connection = True


def twice(handler: BaseHTTPRequestHandler) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    handler.wfile.write(answer * 2)
    handler.close_connection = True


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    made = Receiver()
    webhook = {"URL": f"{made.url}/hook?a=1", "SECRET": SECRET, "ALLOW_PRIVATE": True}
    settings.OLLAMA_OPENAI |= {"USAGE": {"WEBHOOK": webhook}}
    yield made
    made.server.shutdown()
    made.server.server_close()


def run() -> list[tuple[int, str]]:
    return list(deliver())


def make_due() -> None:
    OutboxEvent.objects.filter(due_at__isnull=False).update(due_at=now(), claimed_until=None)


def test_a_signed_event_for_each_record(world: World, receiver: Receiver) -> None:
    ada = world.user("ada")
    (record,) = stored(made(user=User(user=ada.pk, username="ada")))
    event = OutboxEvent.objects.get()
    assert run() == [(1, "")]
    ((path, headers, body),) = receiver.received
    assert path == "/hook?a=1"
    sent = Webhook(SECRET).verify(body, headers)
    assert headers["webhook-id"] == event.public_id
    assert sent["type"] == "usage.recorded"
    assert sent["data"]["id"] == record.public_id
    assert (sent["data"]["prompt_tokens"], sent["data"]["username"]) == (100, "ada")
    # Never again.
    make_due()
    assert run() == []
    event.refresh_from_db()
    assert event.delivered_at is not None


@pytest.mark.parametrize(
    "failure",
    [status(500), status(503), status(404), status(302), breaks_off, hang],
    ids=["500", "503", "404", "redirect", "breaks off", "hangs"],
)
def test_a_failure_is_repeated_with_the_same_key(
    receiver: Receiver, db: None, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    short = FetchRules(total_timeout=0.5, idle_timeout=0.5, is_allowed=lambda address: True)
    monkeypatch.setattr(receivers, "ANYWHERE", short)
    stored(made())
    receiver.answers = [failure, failure, twice]
    pauses = []
    for _ in range(2):
        before = now()
        ((count, error),) = run()
        assert (count, bool(error)) == (1, True)
        event = OutboxEvent.objects.get()
        assert event.due_at is not None
        pauses.append((event.due_at - before).total_seconds())
        assert run() == []
        make_due()
    assert pauses == [pytest.approx(5, abs=2), pytest.approx(10, abs=2)]
    assert run() == [(1, "")]
    assert len(receiver.received) == 3
    assert len(set(receiver.ids)) == 1
    make_due()
    assert run() == []


def test_pauses_grow_to_an_hour(db: None, receiver: Receiver) -> None:
    stored(made())
    for attempts, expected in ((0, 5), (3, 40), (9, 2560), (10, 3600), (30_000, 3600)):
        OutboxEvent.objects.update(attempts=attempts, due_at=now())
        outbox.note_failure(list(OutboxEvent.objects.all()), "x")
        event = OutboxEvent.objects.get()
        assert event.due_at is not None
        assert (event.due_at - now()).total_seconds() == pytest.approx(expected, abs=2)


def test_a_refused_event_is_given_up(db: None, receiver: Receiver) -> None:
    stored(made())
    receiver.answers = [status(410)]
    assert run() == [(1, "The status of the answer was 410.")]
    event = OutboxEvent.objects.get()
    assert (event.due_at, event.delivered_at, event.attempts) == (None, None, 1)
    assert event.error == "The status of the answer was 410."


def test_the_command(db: None, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    stored(made(), made())
    receiver.answers = [status(200), status(500)]
    call_command("ollama", "deliver")
    found = capsys.readouterr()
    assert "Delivered: 1. Failed: 1." in found.out
    assert "status of the answer was 500" in found.err
    assert SECRET not in found.out + found.err


def test_no_receiver_no_events(db: None) -> None:
    stored(made())
    assert not OutboxEvent.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://10.1.2.3/hook",
        "https://169.254.169.254/latest",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://intranet.local/hook",
        "https://user:password@example.com/",
        "ftp://example.com",
        "file:///etc/passwd",
    ],
)
def test_an_address_of_the_own_network(db: None, settings: Settings, url: str) -> None:
    settings.OLLAMA_OPENAI |= {"USAGE": {"WEBHOOK": {"URL": url, "SECRET": SECRET}}}
    (error,) = checks.check_usage()
    assert error.id == "ollama_openai.E014"
    assert "password" not in error.msg
    stored(made())
    ((_, message),) = run()
    assert message.startswith("The address cannot be used")


def test_a_name_that_leads_to_the_own_network(
    db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    port = receiver.server.server_port
    url = f"https://example.com:{port}/"
    settings.OLLAMA_OPENAI |= {"USAGE": {"WEBHOOK": {"URL": url, "SECRET": SECRET}}}
    address = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(network, "_resolve", lambda *arguments: [address])
    stored(made())
    ((_, message),) = run()
    assert message.startswith("No answer")
    assert receiver.received == []


def customer(record: UsageRecord) -> str | None:
    return "cus_1" if record.username != "free" else None


@pytest.fixture
def meter(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Receiver]:
    monkeypatch.setattr(stripe, "api_base", receiver.url)
    settings.OLLAMA_OPENAI |= {
        "USAGE": {
            "STRIPE": {
                "API_KEY": "sk_test_secret",
                "EVENT_NAME": "tokens",
                "CUSTOMER": f"{__name__}.customer",
            }
        }
    }
    yield receiver


def test_stripe(db: None, meter: Receiver) -> None:
    moment = now().replace(microsecond=0) - timedelta(hours=1)
    stored(made(started_at=moment), made(user=User(username="free")))
    event = OutboxEvent.objects.get()
    error = json.dumps({"error": {"message": "down", "type": "api_error"}}).encode()
    meter.answers = [status(500, error)]
    ((_, message),) = run()
    assert message == "APIError, status 500."
    make_due()
    assert run() == [(1, "")]
    assert len(meter.received) == 2
    path, headers, body = meter.received[1]
    assert path == "/v1/billing/meter_events"
    assert headers["authorization"] == "Bearer sk_test_secret"
    assert {name: value[0] for name, value in parse_qs(body.decode()).items()} == {
        "event_name": "tokens",
        "identifier": event.public_id,
        "timestamp": str(int(moment.timestamp())),
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "110",
    }
    assert meter.received[0][2] == body


def test_stripe_has_seen_it(db: None, meter: Receiver) -> None:
    stored(made(started_at=now()))
    error = {"code": "duplicate_meter_event", "message": "x", "type": "invalid_request_error"}
    meter.answers = [status(400, json.dumps({"error": error}).encode())]
    assert run() == [(1, "")]


def test_stripe_refuses(db: None, meter: Receiver) -> None:
    stored(made(started_at=now()), made(started_at=datetime(2026, 1, 1, tzinfo=UTC)))
    error = {"code": "no_meter", "message": "sk_test_secret", "type": "invalid_request_error"}
    meter.answers = [status(400, json.dumps({"error": error}).encode())]
    assert {message for _, message in run()} == {
        "Stripe refuses it: no_meter.",
        "Stripe takes no events older than 35 days.",
    }
    assert not OutboxEvent.objects.filter(due_at__isnull=False).exists()


def test_openmeter(db: None, receiver: Receiver, settings: Settings) -> None:
    settings.OLLAMA_OPENAI |= {"USAGE": {"OPENMETER": {"URL": receiver.url, "TOKEN": "om_secret"}}}
    stored(*(made() for _ in range(3)))
    receiver.answers = [status(204, b"")]
    assert run() == [(3, "")]
    ((path, headers, body),) = receiver.received
    assert path == "/api/v1/events"
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert headers["authorization"] == "Bearer om_secret"
    events = json.loads(body)
    ids = {event.public_id for event in OutboxEvent.objects.all()}
    assert {event["id"] for event in events} == ids
    assert {event["specversion"] for event in events} == {"1.0"}
    assert {event["type"] for event in events} == {"usage.recorded"}
    assert events[0]["data"]["prompt_tokens"] == 100
