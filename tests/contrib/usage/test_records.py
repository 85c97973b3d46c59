"""The record that each request leaves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.usage.models import (
    Price,
    Source,
    UsageBucket,
    UsageDay,
    UsageRecord,
)
from tests.contrib.access.conftest import World
from tests.ollama_server import Answer, OllamaServer, error

HELLO = [{"role": "user", "content": "Tell me a secret of 1,000 zebras"}]
MODEL = "smollm2:135m"


def record() -> UsageRecord:
    return UsageRecord.objects.get()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "endpoint"),
    [
        ("v1/chat/completions", {"messages": HELLO}, "chat.completions"),
        ("v1/completions", {"prompt": "Hello"}, "completions"),
        ("v1/responses", {"input": "Hello", "store": False}, "responses"),
        ("v1/responses", {"input": "Hello"}, "responses"),
    ],
)
def test_a_request_is_one_record(
    world: World,
    engine: OllamaServer,
    path: str,
    body: dict[str, Any],
    endpoint: str,
    *,
    stream: bool,
) -> None:
    ada = world.user("ada")
    workspace = world.workspace("Zoo", owner=ada)
    caller = world.key(ada, workspace)
    Price.objects.create(model="smollm2*", starts_at=now(), input=3, output="0.5", request="0.25")
    engine.reply(Answer(["a", "b", "c"], prompt_tokens=7))
    answer = caller("POST", path, {"model": MODEL, "stream": stream, **body})
    assert answer.status == 200, answer.body
    found = record()
    assert (found.workspace, found.user, found.username) == (workspace, ada, "ada")
    assert (found.workspace_name, found.key_name, found.static_key) == ("Zoo", "test", "")
    assert found.key == caller.row  # type: ignore[attr-defined]  # of the fixture
    assert (found.endpoint, found.model, found.answered_by) == (endpoint, MODEL, MODEL)
    assert (found.backend, found.status, found.error) == ("default", "ok", "")
    assert (found.prompt_tokens, found.completion_tokens) == (7, 3)
    assert found.source == Source.REPORTED
    assert found.request_id == answer.headers["x-request-id"]
    assert found.currency == "USD"
    assert found.cost == Decimal("0.2500225")
    assert found.duration >= (found.time_to_first_token or 0)
    bucket = UsageBucket.objects.get()
    assert (bucket.user, bucket.model, bucket.requests, bucket.cost) == (ada, MODEL, 1, found.cost)
    days = dict(UsageDay.objects.values_list("dimension", "name"))
    assert days == {"all": "", "workspace": "Zoo", "user": "ada", "key": "test", "model": MODEL}
    assert set(UsageDay.objects.values_list("prompt_tokens", "cost")) == {(7, found.cost)}


def test_embeddings(world: World, engine: OllamaServer) -> None:
    caller = world.key(world.user("ada"))
    answer = caller("POST", "v1/embeddings", {"model": "all-minilm:22m", "input": "Hello"})
    assert answer.status == 200, answer.body
    found = record()
    assert (found.endpoint, found.completion_tokens) == ("embeddings", 0)
    assert found.prompt_tokens == answer.body["usage"]["prompt_tokens"] > 0
    assert (found.cost, found.currency) == (None, "")


def test_a_post_to_a_session(world: World, engine: OllamaServer) -> None:
    caller = world.session(world.user("ada"))
    session = caller("POST", "api/chat/sessions/", {}).body["id"]
    path = f"api/chat/sessions/{session}/messages/"
    assert caller("POST", path, {"content": "Hello", "model": MODEL}).status == 200
    assert (record().username, record().key, record().model) == ("ada", None, MODEL)


def test_a_failure_costs_nothing(world: World, engine: OllamaServer) -> None:
    Price.objects.create(model="*", starts_at=now(), input=3, output=5, request=1)
    engine.reply(error(500, "boom"))
    answer = world.key(world.user("ada")).chat(MODEL)
    assert answer.status == 502
    found = record()
    assert (found.status, found.error) == ("error", answer.error["code"])
    assert (found.cost, found.prompt_tokens, found.completion_tokens) == (0, 0, 0)
    bucket = UsageBucket.objects.get()
    assert (bucket.requests, bucket.errors, bucket.unpriced_requests) == (1, 1, 0)


@pytest.mark.parametrize(
    "body",
    [{"model": "gone"}, {"model": MODEL, "temperature": "hot"}, {"model": MODEL, "n": 10_000}],
)
def test_a_request_that_reaches_no_engine_leaves_no_record(
    world: World, engine: OllamaServer, body: dict[str, Any]
) -> None:
    caller = world.key(world.user("ada"), models=["smollm2*"])
    answer = caller("POST", "v1/chat/completions", {"messages": HELLO, **body})
    assert answer.status in (400, 404)
    assert not UsageRecord.objects.exists()


def test_several_choices_are_one_record(world: World, engine: OllamaServer) -> None:
    answer = world.key(world.user("ada"))(
        "POST", "v1/chat/completions", {"model": MODEL, "messages": HELLO, "n": 3}
    )
    usage = answer.body["usage"]
    found = record()
    assert found.prompt_tokens == usage["prompt_tokens"]
    assert found.completion_tokens == usage["completion_tokens"] > 0


def test_a_fallback_is_one_record_with_the_model_that_answered(
    world: World, engine: OllamaServer, settings: Settings
) -> None:
    Price.objects.create(model="spare", starts_at=now(), request=2)
    Price.objects.create(model="first", starts_at=now(), request=1)
    backend = "django_ollama_openai.backends.OllamaBackend"
    settings.OLLAMA_OPENAI = {
        "HOST": engine.url,
        "BACKENDS": {"down": {"BACKEND": backend, "HOST": "http://127.0.0.1:9"}},
        "MODELS": {
            "first": {"MODEL": MODEL, "BACKEND": "down", "FALLBACKS": ["spare"]},
            "spare": {"MODEL": MODEL},
        },
    }
    answer = world.key(world.user("ada")).chat("first")
    assert answer.status == 200, answer.body
    found = record()
    assert (found.model, found.answered_by, found.backend) == ("first", "spare", "default")
    assert found.cost == 2


def test_a_static_key(settings: Settings, engine: OllamaServer, world: World) -> None:
    settings.OLLAMA_OPENAI |= {"API_KEYS": [{"KEY": "sk-wiki", "NAME": "wiki"}]}
    from tests.contrib.access.conftest import Caller

    assert Caller("sk-wiki").chat(MODEL).status == 200
    found = record()
    assert (found.key, found.static_key, found.key_name, found.user) == (None, "wiki", "wiki", None)


def test_tags(settings: Settings, engine: OllamaServer, world: World) -> None:
    settings.OLLAMA_OPENAI |= {"USAGE": {"TAGS": ["project", "absent"]}}
    body = {"model": MODEL, "messages": HELLO, "metadata": {"project": "x\0", "other": "y"}}
    assert world.key(world.user("ada"))("POST", "v1/chat/completions", body).status == 200
    # PostgreSQL stores no NUL.
    assert record().tags == {"project": "x\ufffd"}


def test_no_text_is_stored(world: World, engine: OllamaServer) -> None:
    engine.reply(Answer(["giraffes"]))
    world.key(world.user("ada"))(
        "POST", "v1/chat/completions", {"model": MODEL, "messages": HELLO, "user": "zebras"}
    )
    for model in (UsageRecord, UsageBucket, UsageDay):
        rows = str(list(model._default_manager.values()))
        assert "zebras" not in rows
        assert "giraffes" not in rows
